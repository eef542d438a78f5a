"""Write files in a thread, so that training goes on meanwhile."""

import threading
from collections.abc import Callable
from types import TracebackType

# Seconds between two checkpoints.
CHECKPOINT_EVERY = 30.0


class Writer:
    """Context that calls functions in a thread, one at a time. Its end waits for the last call."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether a call has not ended yet."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, write: Callable[[], object]) -> None:
        """Call `write` in the thread, after `wait`."""
        self.wait()

        def target() -> None:
            try:
                write()
            except BaseException as error:
                self._error = error

        # A daemon thread: a further Ctrl-C ends the process even if a disk does not answer.
        self._thread = threading.Thread(target=target, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a call that has ended, once."""
        if not self.busy and self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait for the call. Raise its error."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | object) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()
