"""The typed records: what the version before wrote is read, and what is wrong is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cifar_jax import storage
from cifar_jax.errors import UserError
from cifar_jax.runner.results import (
    Damaged,
    Diverged,
    Finished,
    GroupRecord,
    read_results,
    validate,
    write_results,
)
from cifar_jax.study.collect import divergence_line, read_ended, read_intact
from cifar_jax.study.grid import norm_arm
from cifar_jax.study.record import read_plan, write_plan

STORED = Path(__file__).parent / "records"  # real files, from before there were types
LATER = {"model": {"norm_parts": 8}, "training": {"kernels": "auto"}}  # settings added since


def plain(path: Path) -> dict:
    """A stored file, with the settings that were added since."""
    record = storage.read_sealed(path)
    for group, added in LATER.items():
        record["config"][group] |= added
    return {key: value for key, value in record.items() if key != "sha256"}


def change(path: Path, *where: str, **entries: object) -> None:
    """Change fields of a file, or of a table in it, and seal it; `...` removes one."""
    record = json.loads(path.read_text())
    table = record
    for key in where:
        table = table[key]
    table |= entries
    for key in [key for key, value in entries.items() if value is ...]:
        del table[key]
    storage.write_sealed(path, record)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A copy of the stored run that finished."""
    return shutil.copytree(STORED / "finished", tmp_path / "run")


@pytest.mark.parametrize(("name", "kind"), [("finished", Finished), ("diverged", Diverged)])
def test_stored_results_are_read_and_written_as_they_were(tmp_path, name, kind):
    results = read_results(STORED / name)
    assert isinstance(results, kind)
    write_results(tmp_path, results)
    assert plain(tmp_path / "results.json") == plain(STORED / name / "results.json")
    assert read_results(tmp_path) == results


def test_a_stored_plan_is_read(tmp_path):
    """It is of a version that wrote the names of norms as arms."""
    plan = read_plan(STORED / "study")
    assert plan.sweep.values == (0.01, 0.02)
    assert plan.grid_arms == (norm_arm("none"),)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    written, stored = plain(tmp_path / "study.json"), plain(STORED / "study" / "study.json")
    assert {**written, "arms": ["none"]} == stored


def test_stored_runs_are_whole():
    run = read_ended(STORED / "finished")
    assert run.correct.mean() == run.tested.test_accuracy == 0.55
    assert run.results.init_from.source.startswith("runs/before/checkpoints after epoch 1")
    found = read_ended(STORED / "diverged")
    assert len(found.label) == 0
    line = divergence_line(found.results.diverged, Path("run"))
    assert line.startswith("run: training diverged in epoch 1, step 3: the loss is not finite; ")
    assert read_intact(STORED / "finished") == run.results


def test_unknown_fields_are_of_a_newer_version_and_ignored(finished):
    before = read_results(finished)
    for where in ((), ("dataset",), ("init_from",)):
        change(finished / "results.json", *where, temperature=1.5)
    assert read_results(finished) == before


@pytest.mark.parametrize(
    ("where", "entries", "said"),
    [
        ((), {"history": ...}, "missing required field `history`"),
        ((), {"computed_on": ...}, "missing required field `computed_on`"),
        ((), {"status": "paused"}, "status: Invalid value 'paused'"),
        ((), {"seed": "1"}, "seed: Expected `int`, got `str`"),
        ((), {"seed": True}, "seed: Expected `int`, got `bool`"),
        ((), {"test_accuracy": 1.5}, "test_accuracy: Expected `float` <= 1.0"),
        ((), {"test_loss": None}, "test_loss: Expected `float`, got `null`"),
        ((), {"history": []}, "history: Expected `array` of length >= 1"),
        ((), {"norm": "a\nb"}, "norm: Expected `str` of one printable line"),
        ((), {"confusion_matrix": [[1, 2]]}, "confusion_matrix is not 2 x 2"),
        ((), {"per_class_accuracy": {"cat": 1}}, "name different classes"),
        ((), {"predictions_sha256": ...}, "one of its two digests is missing"),
        (("dataset",), {"n_test": -1}, "dataset.n_test: Expected `int` >= 0"),
        (("dataset",), {"classes": ["cat", "cat"]}, "dataset: two classes have the same name"),
        (("versions",), {"jax": 1}, "versions[...]: Expected `str`, got `int`"),
        (("config", "training"), {"epochs": 0}, "config: training.epochs: 0 is out of range"),
        (("config",), {"extra": {}}, "config: unknown key 'extra'"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(finished, where, entries, said):
    path = finished / "results.json"
    change(path, *where, **entries)
    with pytest.raises(Damaged) as caught:
        read_results(finished)
    assert str(caught.value).startswith(f"{path}: cannot be used: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_intact(finished) is None


@pytest.mark.parametrize(
    ("content", "said"), [("{", "Expecting property name"), ("[]", "Expected `object`, got")]
)
def test_what_is_no_record_is_said(finished, content, said):
    (finished / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json: cannot be used: ") as caught:
        read_results(finished)
    assert said in str(caught.value) or "damaged" in str(caught.value)


def test_other_predictions_are_named(finished):
    path = finished / "predictions.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged) as caught:
        read_ended(finished)
    assert str(caught.value) == f"{path}: cannot be used: results.json has another digest of it"
    assert read_intact(finished) is None
    path.unlink()
    with pytest.raises(Damaged, match=f"{path}: cannot be used: "):
        read_ended(finished)
    assert read_intact(finished) is None


RECORD = {"name": "study/batch"} | {
    key: value
    for key, value in plain(STORED / "finished" / "results.json").items()
    if key in ("config", "dataset", "compile_seconds", "computed_on", "history")
}


def test_the_record_of_a_checkpoint_is_checked():
    path = Path("checkpoints")
    group = {"runs": [RECORD, RECORD]}
    record = validate(group, GroupRecord, path)
    assert record.unfinished is None
    assert msgspec.to_builtins(record, builtin_types=()).keys() == group.keys()
    unfinished = {"steps": 2, "seconds": 0.5}
    assert validate({**group, "unfinished": unfinished}, GroupRecord, path).unfinished
    for wrong in ({"steps": -3}, {"steps": [2]}, {"seconds": "long"}):
        with pytest.raises(UserError, match=r"checkpoints: cannot be used: unfinished\.s.*: Exp"):
            validate({**group, "unfinished": {**unfinished, **wrong}}, GroupRecord, path)
    for wrong in ("cpu", [2], None, [""]):
        with pytest.raises(UserError, match=r"cannot be used: runs\[0\]\.computed_on"):
            validate({"runs": [{**RECORD, "computed_on": wrong}]}, GroupRecord, path)
    with pytest.raises(UserError, match="cannot be used: runs: "):
        validate({"runs": []}, GroupRecord, path)


def test_the_records_need_neither_jax_nor_the_report():
    code = (
        "import sys, cifar_jax.runner.results\n"
        "slow = ('jax', 'numpy', 'matplotlib', 'cifar_jax.report', 'cifar_jax.study')\n"
        "assert not set(slow) & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
