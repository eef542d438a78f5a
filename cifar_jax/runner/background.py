"""Work in other threads, while the main thread waits for signals or does something else."""

import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Work that begins at once in a thread of its own, with the caller's context variables.

    The process can end without waiting for it.

    Args:
        work: to call in the thread.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._result: list[T] = []
        self._failure: list[BaseException] = []

        def target() -> None:
            try:
                self._result.append(work())
            except BaseException as error:
                self._failure.append(error)

        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(target,), daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the work has ended."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the work, and leave its exception alone."""
        self._thread.join()

    def result(self, check: Callable[[], None] = lambda: None) -> T:
        """Wait for the work. Return its result, or raise its exception.

        Args:
            check: called ten times a second meanwhile. An exception of it ends the wait.
        """
        while not self.done:
            self._thread.join(0.1)
            check()
        if self._failure:
            raise self._failure[0]
        return self._result[0]
