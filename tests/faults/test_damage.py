"""Bit flips and truncations of every kind of file that is read back: noticed, never believed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import test_sources_published as small
from fake_study import write_study
from faulty import FLAGS, damage, files, flip, outcome, truncate

from cifar_jax.config import tables
from cifar_jax.config.settings import Config
from cifar_jax.core.model import CNN
from cifar_jax.core.train import Experiment, TrainState, init_state
from cifar_jax.data.sources import archives, published
from cifar_jax.data.sources import cache as image_cache
from cifar_jax.data.sources.contents import Contents, silent
from cifar_jax.data.sources.prepared import find_prepared, prepare, read_prepared
from cifar_jax.data.sources.spec import damage as archive_damage
from cifar_jax.errors import UserError
from cifar_jax.main import main
from cifar_jax.runner import checkpoint_files
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.checkpoint_files import Position
from cifar_jax.runner.programs import stack_runs
from cifar_jax.storage import seal, sha256
from cifar_jax.study import collect

pytestmark = pytest.mark.usefixtures("blank_figures", "small_cnn")

Check = Callable[[], None]


def both(quick: int, long: int) -> Callable[[Callable[..., Check]], Any]:
    """Parameters of a test that is run with a few faults every day and with many for long."""
    marks = [pytest.param(quick, id="quick")]
    marks.append(pytest.param(long, id="long", marks=pytest.mark.faults_long))
    return pytest.mark.parametrize("faults", marks)


def each_fault(paths: list[Path], faults: int, check: Check) -> None:
    """Damage one file after the other, at random places; check, and mend it."""
    rng = np.random.default_rng(0)
    for number in range(faults):
        path = paths[number % len(paths)]
        before = path.read_bytes()
        damage(path, rng)
        try:
            check()
        finally:
            path.write_bytes(before)


# --- checkpoints ---------------------------------------------------------------------------------


def _state(seed: int) -> TrainState:
    experiment = Experiment(CNN(norm="batch", widths=(4,), hidden=16))
    make = jax.jit(lambda key: init_state(experiment, key, (8, 8, 3)))
    return make(jax.random.key(seed))


def _same(a: TrainState, b: TrainState) -> bool:
    pairs = zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoints]:
    """Two checkpoints, at epochs 1 and 2."""
    opened = Checkpoints(tmp_path_factory.mktemp("damage") / "checkpoints")
    for epoch in (1, 2):
        record = {"epoch": epoch, "runs": [{}]}
        opened.save(Position(epoch), stack_runs([_state(epoch)]), record)
    yield opened
    opened.close()


@both(30, 500)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    checkpoints: Checkpoints, faults: int
) -> None:
    def check() -> None:
        assert checkpoints.latest() == (1, 0)
        (said,) = checkpoints.damaged()
        assert f"{checkpoints.directory}/2 is damaged" in said
        assert checkpoints.read_record()["epoch"] == 1

    assert checkpoints.latest() == (2, 0)
    each_fault(files(checkpoints.directory / "2"), faults, check)
    flip(files(checkpoints.directory / "2/state")[0], np.random.default_rng(1))
    assert _same(checkpoints.read_state(_state(0)), _state(1))


def test_files_that_come_go_or_change_places_are_damage(checkpoints: Checkpoints) -> None:
    path = checkpoints.directory / "1"
    assert checkpoint_files.damage(path) is None
    (path / ".DS_Store").write_text("")  # a desktop's
    assert checkpoint_files.damage(path) is None
    (path / "state" / "more").write_text("")
    assert checkpoint_files.damage(path) is not None
    (path / "state" / "more").unlink()
    moved = (path / "record" / "metadata").rename(path / "metadata")
    assert checkpoint_files.damage(path) is not None
    moved.rename(path / "record" / "metadata")
    assert checkpoint_files.damage(path) is None
    sums = (path / checkpoint_files.SEAL).read_text().splitlines()
    assert all(line == f"{sha256(path / line[66:])}  {line[66:]}" for line in sums)


@pytest.fixture(scope="module")
def undisturbed(undisturbed_run: Path, cache: None) -> Path:
    """Directory of a run of four epochs."""
    return undisturbed_run


def _train(folder: Path, workdir: Path, epochs: str) -> int:
    argv = ["--dataset", str(folder), "--workdir", str(workdir), *FLAGS, "--epochs", epochs]
    return main([*argv, "--resume"])


def test_a_run_goes_back_to_the_checkpoint_before_and_ends_the_same(
    folder: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "w"
    for epochs in ("2", "3"):  # A checkpoint of each end.
        assert _train(folder, workdir, epochs) == 0
    rng = np.random.default_rng(0)
    flip(max(files(workdir / "checkpoints/3"), key=lambda path: path.stat().st_size), rng)
    truncate(workdir / "metrics.jsonl", rng)
    truncate(workdir / "config.toml", rng)
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", str(workdir)]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "damaged" in line]
    assert len(said) == 1
    assert f"{workdir}/checkpoints/3 is damaged (state/" in said[0]
    assert said[0].endswith("is not what was written); evaluating the one before")
    assert _train(folder, workdir, "4") == 0
    out = capsys.readouterr().out
    assert said[0].replace("evaluating", "resuming from") in out
    assert f"resuming {workdir} after epoch 2" in out
    assert outcome(workdir) == outcome(undisturbed)
    assert (workdir / "config.toml").read_text() == (undisturbed / "config.toml").read_text()
    kept = sorted(p.name for p in (workdir / "checkpoints").iterdir())
    assert kept == ["2", "4", "damaged-3"]
    # The results are as they would be, too, when the very last checkpoint is lost.
    truncate(files(workdir / "checkpoints/4")[0], rng)
    assert _train(folder, workdir, "4") == 0
    assert outcome(workdir) == outcome(undisturbed)


def test_when_all_checkpoints_are_damaged_it_is_said_and_nothing_is_done(
    folder: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed, workdir)
    truncate(workdir / "checkpoints" / "4" / checkpoint_files.SEAL, np.random.default_rng(0))
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert _train(folder, workdir, "6") == 2
    assert main(["evaluate", "--checkpoint", str(workdir)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert f"{workdir}/checkpoints: all checkpoints are damaged" in line
        assert "remove the run's directory and train again" in line
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()} == before


# --- results -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study as a real one leaves it, sealed."""
    workdir = tmp_path_factory.mktemp("damage") / "study"
    write_study(workdir, name="folder-x", classes=("a", "b"), n_train=40, n_test=20, epochs=2)
    for path in (*workdir.glob("*/*/results.json"), workdir / "study.json"):
        record = json.loads(path.read_text())
        if path.name == "results.json":
            record["predictions_sha256"] = sha256(path.parent / "predictions.npz")
        path.write_text(json.dumps(seal(record), indent=2) + "\n")
    return workdir


@both(60, 1000)
def test_damaged_results_and_predictions_are_not_used(study: Path, faults: int) -> None:
    run = study / "batch/seed43"
    whole = collect.read_intact(run)
    assert whole is not None

    def check() -> None:
        found = collect.read_intact(run)
        # A bit of `1e-05` may turn it into `1E-05`, which is the same.
        assert found in (None, whole)

    each_fault([run / "results.json", run / "predictions.npz"], faults, check)
    assert collect.read_intact(run) == whole


@both(40, 500)
def test_a_damaged_plan_is_refused(study: Path, faults: int) -> None:
    path = study / "study.json"
    whole = collect.read_plan(study)

    def check() -> None:
        try:
            assert collect.read_plan(study) == whole
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017

    each_fault([path], faults, check)


def test_an_older_record_without_a_digest_is_read(study: Path) -> None:
    run = study / "none/seed42"
    before = (run / "results.json").read_text()
    record = json.loads(before)
    del record["sha256"]
    (run / "results.json").write_text(json.dumps(record))
    assert collect.read_intact(run) is None  # The predictions' digest says that there was one
    del record["predictions_sha256"]
    (run / "results.json").write_text(json.dumps(record))
    assert collect.read_intact(run) is not None
    (run / "results.json").write_text(before)


def test_a_study_makes_damaged_results_again(
    folder: Path, cache: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = tmp_path / "s"
    flags = [flag for flag in FLAGS if flag != "--bn"]
    argv = ["study", "--dataset", str(folder), "--workdir", str(workdir), *flags]
    argv += ["--arms", "batch", "--seeds", "2", "--epochs", "2"]
    assert main(argv) == 0
    before = {path: outcome(path) for path in workdir.glob("*/seed*")}
    path = workdir / "batch/seed3/results.json"
    path.write_text(path.read_text().replace('"test_loss": ', '"test_loss": 1'))
    capsys.readouterr()
    assert main(["report", "--workdir", str(workdir)]) == 0
    assert f"{path}: cannot be used: damaged" in capsys.readouterr().out
    assert json.loads((workdir / "summary.json").read_text())["missing"] == [["batch", 3]]
    assert main(argv) == 0
    assert "2 runs, 1 finished" in capsys.readouterr().out
    assert {path: outcome(path) for path in workdir.glob("*/seed*")} == before


# --- data ----------------------------------------------------------------------------------------


def _images() -> Contents:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
    labels = np.arange(8, dtype=np.int32) % 2
    return Contents(images[:6], labels[:6], images[6:], labels[6:], ("a", "b"))


@both(40, 500)
def test_a_damaged_cache_is_built_again(tmp_path: Path, faults: int) -> None:
    whole = image_cache.open_or_build(tmp_path, "x", "name", _images).fingerprint
    built = []

    def build() -> Contents:
        built.append(True)
        return _images()

    def check() -> None:
        assert image_cache.open_or_build(tmp_path, "x", "name", build).fingerprint == whole

    for _ in range(faults // 10):
        each_fault(files(tmp_path / "x"), 10, check)
    # What a flip in the spaces of the record or of a header changes is nothing.
    assert len(built) > faults / 2


@both(15, 200)
def test_a_damaged_prepared_dataset_is_refused_or_made_again(tmp_path: Path, faults: int) -> None:
    home, away = tmp_path / "data", tmp_path / "away"
    spec = small.write_archive(home / small.FILE_NAME, small.members())
    prepared = prepare(home, [home / small.FILE_NAME], spec, silent)
    (home / small.FILE_NAME).rename(away)

    def check() -> None:
        try:
            small.check(published.contents(home, spec, silent))
        except UserError as error:
            assert str(home) in str(error)  # noqa: PT017

    each_fault(files(prepared), faults, check)
    away.rename(home / small.FILE_NAME)
    rng = np.random.default_rng(2)
    for number in range(max(3, faults // 20)):
        paths = files(prepared)
        damage(paths[number % len(paths)], rng)
        small.check(published.contents(home, spec, silent))


@pytest.mark.parametrize("content", ["", '{"name": "cifar10_bin', '{"fileFormat": "tfrecord"}'])
def test_a_prepared_dataset_with_a_damaged_description_is_made_again(
    tmp_path: Path, content: str
) -> None:
    """It is not found then, but tensorflow-datasets would read it rather than prepare."""
    spec = small.write_archive(tmp_path / small.FILE_NAME, small.members())
    file = tmp_path / small.FILE_NAME
    prepared = prepare(tmp_path, [file], spec, silent)
    description = (prepared / "dataset_info.json").read_bytes()
    (prepared / "dataset_info.json").write_text(content)
    for path in prepared.glob("*train.array_record*"):
        path.write_bytes(b"")
    assert find_prepared(tmp_path, [spec.own]) is None
    small.check(published.contents(tmp_path, spec, silent))
    assert (prepared / "dataset_info.json").read_bytes() == description
    small.check(read_prepared(prepared, spec, silent))


@both(30, 500)
def test_a_damaged_archive_is_refused(tmp_path: Path, faults: int) -> None:
    path = tmp_path / small.FILE_NAME
    spec = small.write_archive(path, small.members())

    def check() -> None:
        with pytest.raises(UserError, match=f"{path}: not CIFAR-10's archive, or damaged"):
            archives.find_file(tmp_path, spec, spec.files[0])

    each_fault([path], faults, check)
    assert archives.find_file(tmp_path, spec, spec.files[0]) == path


def test_a_damaged_download_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small.write_archive(tmp_path / "whole", small.members())
    path = tmp_path / "data/downloads/manual" / small.FILE_NAME
    path.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "whole", path)
    flip(path, np.random.default_rng(0))

    def fetch(*_: object) -> Path:
        return shutil.copy(tmp_path / "whole", path)

    monkeypatch.setattr(archives, "_download", fetch)
    monkeypatch.setattr(archives, "unreachable", lambda _: "no connection")
    with pytest.raises(UserError, match="damaged"):
        published.contents(tmp_path / "data", spec, silent)
    monkeypatch.setattr(archives, "unreachable", lambda _: None)
    small.check(published.contents(tmp_path / "data", spec, silent))
    assert archive_damage(path, spec.files[0]) is None


@both(60, 1000)
def test_a_damaged_config_is_read_or_refused_in_a_line(tmp_path: Path, faults: int) -> None:
    """Anybody may edit it, so it has no digest; that of `results.json` covers its own copy."""
    path = tmp_path / "config.toml"
    path.write_text(tables.to_toml(Config()))

    def check() -> None:
        try:
            assert isinstance(tables.load(path), Config)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017

    each_fault([path], faults, check)


# --- compiled programs ---------------------------------------------------------------------------

COMPILE = """
import sys
from pathlib import Path
import jax
from cifar_jax.device import use_compilation_cache
use_compilation_cache(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: 2 * x + 1)(3.0))
"""


def test_a_damaged_compiled_program_is_replaced(tmp_path: Path) -> None:
    def compiled() -> dict[Path, int]:
        argv = [sys.executable, "-c", COMPILE, str(tmp_path)]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert (ended.stdout, ended.stderr) == ("7.0\n", "")
        return {path: path.stat().st_size for path in files(tmp_path)}

    whole = compiled()
    assert whole
    for path in whole:
        truncate(path, np.random.default_rng(0))
    cut = {path: path.stat().st_size for path in whole}
    again = compiled()
    assert again.keys() == whole.keys()
    assert all(again[path] > cut[path] for path in cut)
