"""Write files in a thread, so that training goes on meanwhile."""

from collections.abc import Callable
from types import TracebackType

from cifar_jax.runner.background import Background

# Seconds between two checkpoints.
CHECKPOINT_EVERY = 30.0


class Writer:
    """Context that calls functions in a thread, one at a time. Its end waits for the last call."""

    def __init__(self) -> None:
        self._call: Background[object] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call has not ended yet."""
        return self._call is not None and not self._call.done

    def start(self, write: Callable[[], object]) -> None:
        """Call `write` in the thread, after `wait`."""
        self.wait()
        self._call = Background(write)

    def check(self) -> None:
        """Raise the error of a call that has ended, once."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Wait for the call. Raise its error, once."""
        if self._call is not None:
            self._call.wait()
            ended, self._call = self._call, None
            ended.result()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | object) -> None:
        if kind is None:
            self.wait()
        elif self._call is not None:
            self._call.wait()
