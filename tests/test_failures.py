"""What the machine lacks, in one line."""

import errno
import io
import os
import resource
from pathlib import Path

import pytest
from rich.console import Console

from cifar_jax import failures
from cifar_jax.data.sources import cache
from cifar_jax.lock import locked
from cifar_jax.runner import checkpoint_files
from cifar_jax.runner.console import Display
from cifar_jax.runner.tensorboard import Events
from cifar_jax.storage import write_text
from cifar_jax.study import collect

MAPPING = "libjpeg.so.62: failed to map segment from shared object"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError(MAPPING),
    ],
)
def test_memory_is_memory_whoever_asked_for_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = failures.line(error)
    assert said is not None
    assert said.startswith("out of memory on the host; lower --batch-size")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1500 << 20, -1))
    said = failures.line(error)
    assert said is not None
    assert "(this shell allows 1,500 MiB, ulimit -v)" in said


def test_threads_can_run_out_too() -> None:
    said = failures.line(RuntimeError("can't start new thread"))
    assert said is not None
    assert "ulimit -u" in said
    for other in (RuntimeError("a bug"), ImportError("no module"), OSError(errno.EINVAL, "odd")):
        assert failures.line(other) is None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_what_cannot_be_opened_now_is_not_taken_for_damaged(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be made again, and what was whole thrown away."""

    def refuse(path: object, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    for read in (
        lambda: cache.read(tmp_path, "name"),
        lambda: collect.read_ended(tmp_path),
        lambda: checkpoint_files.damage(tmp_path),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            with pytest.raises(OSError, match=os.strerror(number)):
                read()


class Full(io.RawIOBase):
    """A stream on a full disk."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_though_the_disk_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def said(write: object) -> str:
        with pytest.raises(OSError, match="No space left") as refused:
            write()  # type: ignore[operator]
        line = failures.line(refused.value)
        assert line is not None
        return line

    display = Display(Console(file=io.TextIOWrapper(Full(), write_through=True)))
    assert said(lambda: display.say("x")) == "standard output: No space left on device"
    events = Events(tmp_path / "tensorboard", 1)
    with monkeypatch.context() as patch:
        patch.setattr(events._writer, "write_event", refuse)
        assert said(lambda: events.add([(1, {"a": 1.0})])).startswith(f"{tmp_path}/tensorboard: ")
    events.close()
    monkeypatch.setattr(os, "fsync", refuse)
    page = tmp_path / "report.html"
    assert said(lambda: write_text(page, "x")) == f"{page}: No space left on device"
    monkeypatch.setattr(os, "write", refuse)
    assert said(locked(tmp_path).__enter__) == f"{tmp_path}/lock: No space left on device"
