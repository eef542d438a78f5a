"""Ctrl-C during an epoch: once to stop after its checkpoint, twice to stop now."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupts:
    """Context in which the first Ctrl-C (or SIGTERM) is noted and the second one raises.

    A compiled epoch cannot be interrupted, and Python handles no signal while the main thread
    waits inside it; so the epoch runs in another thread, and the main thread stays responsive.

    Args:
        on_first: called at the first interrupt.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._previous: dict[int, Any] = {}
        self.requested = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._on_first()

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` in another thread and wait; its exception is raised here."""
        result: list[T] = []
        failure: list[BaseException] = []

        def target() -> None:
            try:
                result.append(work())
            except BaseException as error:
                failure.append(error)

        # A daemon: after a second Ctrl-C the process ends without waiting for the epoch.
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
        if failure:
            raise failure[0]
        return result[0]
