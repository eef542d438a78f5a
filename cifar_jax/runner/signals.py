"""Ctrl-C and SIGTERM: stop at the next boundary between steps, or now.

Ctrl-C once finishes the steps under way and saves a checkpoint, twice stops at once. SIGTERM, which
is how a machine that is about to go asks for its end, waits for the steps too, but not longer than
a grace period: then they are given up, and what was before them is saved. Either way the process
ends in time, and what it leaves is whole.
"""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds; Kubernetes and Slurm kill 30 s after SIGTERM, and the checkpoint takes its time as well.
GRACE = 25.0


class Terminated(KeyboardInterrupt):
    """SIGTERM, where Ctrl-C would raise `KeyboardInterrupt`."""


def exit_status(stop: BaseException) -> int:
    """What shells report of a process that a signal ended: 128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def raise_on_sigterm() -> None:
    """Let SIGTERM raise `Terminated` from now on, so that it cleans up, and ends a container.

    Without a handler the first process of a container ignores it.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, handle)


def apart(work: Callable[[], T], check: Callable[[], None] = lambda: None) -> T:
    """Call `work` in another thread and wait; its exception is raised here.

    What is compiled cannot be interrupted, and Python handles no signal while the main thread is
    inside; so the main thread only waits.

    Args:
        check: called ten times a second meanwhile; what it raises ends the wait.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)

    # A daemon: the process can end without waiting for it.
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        check()
    if failure:
        raise failure[0]
    return result[0]


class Interrupts:
    """Context in which Ctrl-C and SIGTERM are noted, and only a second Ctrl-C raises.

    Args:
        on_first: called by `run` with what was noted first.
        grace: seconds that `run` goes on after SIGTERM.
    """

    def __init__(self, on_first: Callable[[KeyboardInterrupt], None], grace: float = GRACE) -> None:
        self._on_first = on_first
        self._grace = grace
        self._deadline: float | None = None
        self._previous: dict[int, Any] = {}
        self._told = False
        self.requested: KeyboardInterrupt | None = None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        # Only noted: who writes here may be in the middle of writing to the same stream.
        if signum == signal.SIGTERM:
            # Sent twice, to the process and to its group, it says nothing new.
            if self._deadline is None:
                self._deadline = time.monotonic() + self._grace
            self.requested = Terminated()
        elif self.requested is None:
            self.requested = KeyboardInterrupt()
        else:
            raise KeyboardInterrupt

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _check(self) -> None:
        if self.requested is not None and not self._told:
            self._told = True
            self._on_first(self.requested)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise Terminated

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` in another thread and wait; its exception is raised here.

        Raises:
            KeyboardInterrupt: at a second Ctrl-C; `Terminated` after the grace period.
        """
        return apart(work, self._check)
