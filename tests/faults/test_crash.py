"""After a kill at any moment the files are sound, and the final result is the undisturbed run's."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import test_sources_published as small
from faulty import FLAGS, assert_whole, killed_after, killed_at_write, outcome

from cifar_jax.data.sources import folder as folders
from cifar_jax.data.sources import prepared, published
from cifar_jax.data.sources.contents import silent
from cifar_jax.main import main

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")

EPOCHS = "4"
OFTEN = ("--checkpoint-every", "0")  # A checkpoint at each boundary at which none is being written.


@pytest.fixture(scope="module")
def undisturbed(folder: Path, cache: None, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Outcome of an undisturbed run, which also caches the compiled program."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "w"
    assert main([*_train(folder, workdir), "--epochs", EPOCHS]) == 0
    return outcome(workdir)


def _train(folder: Path, workdir: Path) -> list[str]:
    return ["--dataset", str(folder), "--workdir", str(workdir), *FLAGS, *OFTEN]


def _random_crash(
    rng: np.random.Generator, writes: int, seconds: float, said: str, root: Path, *command: str
) -> bool:
    """Killed before a random write, or at a random time after a line of output."""
    if rng.integers(2):
        return killed_at_write(int(rng.integers(1, writes)), root, *command)
    return killed_after(float(rng.uniform(0, seconds)), said, root, *command)


def _training(folder: Path, workdir: Path, undisturbed: dict, seed: int, kills: int) -> None:
    rng, crashes = np.random.default_rng(seed), 0
    command = [*_train(folder, workdir), "--epochs", EPOCHS, "--resume"]
    for _ in range(kills):  # Undisturbed, it has 76 writes and takes a second.
        killed = _random_crash(rng, 75, 0.8, "run directory", workdir.parent, "main", *command)
        assert_whole(workdir.parent)
        crashes += killed
        if crashes and not killed:
            break
        if not crashes:  # It ended before its crash.
            shutil.rmtree(workdir)
    assert crashes, "every crash came too late"
    assert main(command) == 0
    assert outcome(workdir) == undisturbed


def test_training_quick(folder: Path, tmp_path: Path, undisturbed: dict) -> None:
    _training(folder, tmp_path / "w", undisturbed, seed=1, kills=2)


@pytest.mark.faults_long
@pytest.mark.parametrize("seed", range(8))
def test_training_long(folder: Path, tmp_path: Path, undisturbed: dict, seed: int) -> None:
    _training(folder, tmp_path / "w", undisturbed, seed=100 + seed, kills=4)


STUDY = ("--seeds", "2", "--epochs", "2", "--arms", "batch")


@pytest.fixture(scope="module")
def undisturbed_study(
    folder: Path, cache: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict]:
    """Outcomes of two runs of a study, by their directories."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "s"
    assert main(_study(folder, workdir)) == 0
    return _outcomes(workdir)


def _study(folder: Path, workdir: Path) -> list[str]:
    flags = [flag for flag in FLAGS if flag != "--bn"]
    return ["study", "--dataset", str(folder), "--workdir", str(workdir), *flags, *STUDY, *OFTEN]


def _outcomes(workdir: Path) -> dict[str, dict]:
    return {str(p.relative_to(workdir)): outcome(p) for p in sorted(workdir.glob("*/seed*"))}


def _a_study(
    folder: Path, workdir: Path, undisturbed: dict[str, dict], seed: int, kills: int
) -> None:
    """Crash a study like a run. It does not repeat finished runs."""
    rng = np.random.default_rng(seed)
    finished: dict[Path, int] = {}
    for _ in range(kills):
        command = ["main", *_study(folder, workdir)]
        killed = _random_crash(rng, 130, 6.0, "study of", workdir.parent, *command)
        assert_whole(workdir.parent)
        for path in workdir.glob("*/seed*/results.json"):
            time = path.stat().st_mtime_ns
            assert finished.setdefault(path, time) == time
        if not killed:
            break
    assert main(_study(folder, workdir)) == 0
    assert _outcomes(workdir) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert (workdir / "report.html").is_file()


def test_study_quick(folder: Path, tmp_path: Path, undisturbed_study: dict[str, dict]) -> None:
    _a_study(folder, tmp_path / "s", undisturbed_study, seed=1, kills=1)


@pytest.mark.faults_long
@pytest.mark.parametrize("seed", range(5))
def test_study_long(
    folder: Path, tmp_path: Path, undisturbed_study: dict[str, dict], seed: int
) -> None:
    _a_study(folder, tmp_path / "s", undisturbed_study, seed=100 + seed, kills=3)


def _cache(images: Path, root: Path, seed: int, kills: int) -> None:
    """Building the cache of an image folder."""
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        assert killed_at_write(int(rng.integers(1, 13)), root, "folder", str(images), str(root))
        assert_whole(root)
        for entry in root.glob("folder-*"):  # So that the next one builds it again.
            entry.rename(root / f"old-{rng.integers(1 << 30)}")
    found = folders.load(images, root)
    assert found.fingerprint == folders.load(images, root.parent / "another").fingerprint
    assert [p.name for p in root.glob(".writing-*")] == []


def test_cache_quick(folder: Path, tmp_path: Path) -> None:
    _cache(folder, tmp_path / "cache", seed=2, kills=2)


@pytest.mark.faults_long
def test_cache_long(folder: Path, tmp_path: Path) -> None:
    _cache(folder, tmp_path / "cache", seed=100, kills=12)


def _preparation(home: Path, seed: int, kills: int) -> None:
    """Preparing CIFAR-10 with tensorflow-datasets, and decoding it."""
    rng = np.random.default_rng(seed)
    spec = small.write_archive(home / "data" / small.FILE_NAME, small.members())
    arguments = [
        str(home / "data"),
        str(home / "cache"),
        json.dumps([[asdict(f) for f in spec.files], spec.counts]),
    ]
    for _ in range(kills):
        if not killed_at_write(int(rng.integers(1, 60)), home, "cifar10", *arguments):
            break
        assert_whole(home)
        made = prepared.find_prepared(home / "data", [spec.own])
        if made is not None:
            small.check(prepared.read_prepared(made, spec, silent))
    small.check(published.load(spec, home / "cache", data_dir=home / "data"))
    (made,) = (home / "data" / "cifar10_binary").iterdir()
    small.check(prepared.read_prepared(made, spec, silent))


def test_preparation_quick(tmp_path: Path) -> None:
    _preparation(tmp_path, seed=1, kills=1)


@pytest.mark.faults_long
@pytest.mark.parametrize("seed", range(3))
def test_preparation_long(tmp_path: Path, seed: int) -> None:
    _preparation(tmp_path, seed=100 + seed, kills=4)
