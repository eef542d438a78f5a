"""What the fuzz tests share: a place to run in."""

import sys
from collections.abc import Iterator
from pathlib import Path

import fuzzing
import pytest

# Imported before anything in them is replaced: what they import by name must be the real thing.
from cifar_jax.commands import study as run_study
from cifar_jax.commands import train as run
from cifar_jax.runner import moved

sys.path.append(str(Path(__file__).parents[1] / "report"))  # for fake_study


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty working directory; opening the data stands for all work."""
    root = tmp_path_factory.mktemp("fuzz")

    def accept(*_: object, **__: object) -> None:
        raise fuzzing.Accepted

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("CIFAR_JAX_CACHE", str(root / "cache"))
        for name in ("cifar_jax.dispatch", "cifar_jax.configure"):
            patch.setattr(f"{name}.prepare_jax", lambda device: None)
        for module in (run, run_study):
            patch.setattr(module, "open_data", accept)
        for module in (run, moved):
            patch.setattr(module, "open_dataset", accept)
        yield root
