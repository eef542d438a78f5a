"""One tiny study of an experiment file, trained and analysed once for all tests."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from small import draw_blank

from cifar_jax.analysis import unknown_sets
from cifar_jax.main import main

unknown_sets.SYNTHETIC = 100  # images that are drawn in place of 2,000

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
def fast(cache_directory):
    """Return a context in which figures are blank and programs are cached."""

    @contextlib.contextmanager
    def fast():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CIFAR_JAX_CACHE", str(cache_directory))
            draw_blank(patch.setattr)
            yield

    return fast


@pytest.fixture(scope="session")
def trained(folder, fast, make_once, tmp_path_factory):
    """The study, not analysed."""

    def make(root):
        root.mkdir()
        (root / "width.py").write_text(SOURCE)
        argv = ["study", str(root / "width.py"), "--dataset", str(folder), "--val-examples", "27"]
        with fast():
            assert main([*argv, "--seeds", "2", "--seed", "3", "--workdir", f"{root}/study"]) == 0

    root = make_once("trained", make)
    found = Trained(root / "study", root / "width.py", folder)
    return found.copy(tmp_path_factory.mktemp("trained") / "study")


@pytest.fixture(scope="session")
def analysed(trained, fast, make_once, tmp_path_factory):
    """The study after `analyse`, with all parts. Its figures are blank."""

    def make(directory):
        with fast():
            assert trained.copy(directory).analyse() == 0

    found = Trained(make_once("analysed", make), trained.file, trained.images)
    return found.copy(tmp_path_factory.mktemp("analysed") / "study")
