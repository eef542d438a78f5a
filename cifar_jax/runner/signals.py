"""Ctrl-C and SIGTERM: stop at the next boundary between steps, or now.

The first Ctrl-C finishes the running steps and saves a checkpoint. The second stops at once.
SIGTERM, sent before a machine shuts down, also finishes them, within a grace period. Then it drops
them and saves the state before them. No file is left half written.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar, cast

from cifar_jax.runner.background import Background

T = TypeVar("T")

# Seconds. Kubernetes and Slurm kill 30 s after SIGTERM, and saving the checkpoint takes time.
GRACE = 25.0


class Terminated(KeyboardInterrupt):
    """Raised for SIGTERM, as `KeyboardInterrupt` is for Ctrl-C."""


def exit_status(stop: BaseException) -> int:
    """Return the exit status after a signal, by the convention of shells: 128 plus its number."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def raise_on_sigterm() -> None:
    """Make SIGTERM raise `Terminated`, so that the process cleans up and ends.

    Without a handler, the first process of a container ignores SIGTERM.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, handle)


def in_thread(work: Callable[[], T], check: Callable[[], None] = lambda: None) -> T:
    """Call `work` in another thread, wait, and return its result or raise its exception.

    Compiled programs cannot be interrupted, and Python handles no signal while the main thread
    runs one. So the main thread only waits.

    Args:
        work: to call in the thread.
        check: called ten times a second meanwhile. An exception of it ends the wait.
    """
    return Background(work).result(check)


class Interrupts:
    """Context that stores Ctrl-C and SIGTERM in `requested`. A second Ctrl-C raises at once.

    Args:
        on_first: called by `run` with the first signal.
        grace: seconds that `run` may take after SIGTERM.
    """

    def __init__(self, on_first: Callable[[KeyboardInterrupt], None], grace: float = GRACE) -> None:
        self._on_first = on_first
        self._grace = grace
        self._deadline: float | None = None
        self._previous: dict[int, Any] = {}
        self._told = False
        self.requested: KeyboardInterrupt | None = None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        # Only store the signal: the main thread may be printing a line.
        if signum == signal.SIGTERM:
            # SIGTERM often comes twice, for the process and for its group.
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

    def each(self, items: Iterator[T]) -> Iterator[T]:
        """Yield the items of an iterator, each computed by `run`."""
        end = object()
        while (item := self.run(lambda: next(items, end))) is not end:
            yield cast(T, item)

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` as `in_thread` does.

        Raises:
            KeyboardInterrupt: a second Ctrl-C.
            Terminated: the grace period after SIGTERM is over.
        """
        return in_thread(work, self._check)
