"""One tiny study of an experiment file, trained and analysed once for all tests."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cifar_jax.main import main

SOURCE = '''"""Does width help?"""
import cifar_jax as cj
def small(hidden):
    return cj.Experiment(cj.CNN(3, "batch", widths=(), hidden=hidden), batch_size=16, epochs=2)
arms = {"narrow": small(4), "wide": small(8)}
'''


@dataclass(frozen=True)
class Trained:
    """A study of two arms and two seeds, its experiment file, and its images."""

    directory: Path
    file: Path
    images: Path

    def copy(self, to: Path) -> "Trained":
        """Return a copy that a test may change."""
        shutil.copytree(self.directory, to)
        return Trained(to, self.file, self.images)

    def analyse(self, *flags: str) -> int:
        """Run the command `analyse`, with the experiment file."""
        return main(["analyse", str(self.directory), str(self.file), *flags])


@pytest.fixture(scope="session")
def trained(folder, cache_directory, blank_savefig, tmp_path_factory):
    """The study, not analysed."""
    root = tmp_path_factory.mktemp("analysis")
    file, workdir = root / "width.py", root / "study"
    file.write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_JAX_CACHE", str(cache_directory))
        patch.setattr(Figure, "savefig", blank_savefig)
        argv = ["study", str(file), "--dataset", str(folder), "--val-examples", "27"]
        assert main([*argv, "--seeds", "2", "--seed", "3", "--workdir", str(workdir)]) == 0
    return Trained(workdir, file, folder)


@pytest.fixture(scope="session")
def analysed(trained, cache_directory, blank_savefig, tmp_path_factory):
    """The study after `analyse`, with all parts. Its figures are blank."""
    copy = trained.copy(tmp_path_factory.mktemp("analysed") / "study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_JAX_CACHE", str(cache_directory))
        patch.setattr(Figure, "savefig", blank_savefig)
        assert copy.analyse() == 0
    return copy
