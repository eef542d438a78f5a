"""A run that the fault tests compare with."""

import sys
from pathlib import Path

import faulty
import pytest
from small import shrink

from cifar_jax.main import main
from cifar_jax.runner.group import Group
from cifar_jax.runner.hooks import Saves

# For the archives of the tests of CIFAR-10's source, and for made-up studies.
for name in ("data", "report"):
    sys.path.append(str(Path(__file__).parents[1] / name))


@pytest.fixture
def each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs save a checkpoint after each epoch, and wait for it."""

    def save(self: Saves, group: Group) -> None:
        if group.at.metrics is not None:
            self.save(group)

    monkeypatch.setattr(Saves, "__call__", save)


@pytest.fixture(scope="session")
def undisturbed_run(
    folder: Path, cache_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Directory of an undisturbed run of four epochs."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "w"
    argv = ["--dataset", str(folder), "--workdir", str(workdir), *faulty.FLAGS, "--epochs", "4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_JAX_CACHE", str(cache_directory))
        shrink(patch.setattr)
        assert main(argv) == 0
    return workdir
