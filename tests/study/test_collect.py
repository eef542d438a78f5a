"""Reading a study's directory: what counts as missing, and what is refused."""

import json

import numpy as np
import pytest

from cifar_jax.errors import UserError
from cifar_jax.study.collect import read_study, run_path


def edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


def test_reads_all_runs_by_seed(make_study):
    workdir = make_study(seeds=(3, 1))
    study = read_study(workdir)
    assert study.arms == ("none", "batch")
    assert study.seeds == (1, 3)
    assert study.missing == ()
    assert study.dataset.name == "made-up"
    assert study.config["name"] == "made-up"
    assert study.config["training"]["epochs"] == 30  # the defaults are spelt out
    for arm in study.arms:
        assert [(run.arm, run.seed) for run in study.runs[arm]] == [(arm, 1), (arm, 3)]
    run = study.runs["batch"][0]
    assert run.directory == workdir / "batch" / "seed1"
    assert run.correct.mean() == run.results.test_accuracy
    assert len(run.curve("val_loss")) == 30
    assert [(a.seed, b.seed) for a, b in study.pairs("none", "batch")] == [(1, 1), (3, 3)]


def accuracies(path, **changed):
    return {**json.loads(path.read_text())["per_class_accuracy"], **changed}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("results.json", lambda path: path.unlink()),
        ("results.json", truncate),
        ("results.json", lambda path: path.write_text("[]")),
        ("results.json", lambda path: edit(path, history=[])),
        ("results.json", lambda path: edit(path, history=[1])),
        ("results.json", lambda path: edit(path, test_loss=None)),
        # It has test images.
        ("results.json", lambda path: edit(path, per_class_accuracy=accuracies(path, cat=None))),
        ("predictions.npz", lambda path: path.unlink()),
        ("predictions.npz", truncate),
        ("predictions.npz", lambda path: path.write_bytes(b"")),
        ("predictions.npz", lambda path: np.savez(path, label=np.zeros(3))),
    ],
)
def test_an_unfinished_or_damaged_run_is_missing(make_study, name, damage):
    workdir = make_study(seeds=(1, 2), n=50)
    damage(run_path(workdir, "batch", 2) / name)
    study = read_study(workdir)
    assert study.missing == (("batch", 2),)
    assert [len(study.runs[arm]) for arm in study.arms] == [2, 1]
    assert [a.seed for a, _ in study.pairs("none", "batch")] == [1]


def test_no_finished_run(make_study):
    workdir = make_study(arms=("none",), seeds=(1,), n=50)
    (run_path(workdir, "none", 1) / "results.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        read_study(workdir)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be used"),
        ("", "cannot be used"),
        ("[]", "cannot be used"),
        ('{"arms": ["none"]}', "missing required field `seeds`"),
        ('{"arms": "none", "seeds": [1], "config": {}}', "arms: Expected `array`, got `str`"),
        ('{"arms": ["none"], "seeds": ["1"], "config": {}}', r"seeds\[0\]: Expected `int`"),
    ],
)
def test_a_directory_without_a_study(tmp_path, text, message):
    if text is not None:
        (tmp_path / "study.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_study(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_runs_that_cannot_be_compared(make_study):
    workdir = make_study(seeds=(1, 2), n=50)
    path = run_path(workdir, "none", 2) / "results.json"
    before = path.read_text()
    edit(path, seed=1)
    with pytest.raises(UserError, match="none/seed2: is not a run of this study: seed is 1, must"):
        read_study(workdir)
    data = json.loads(before)["dataset"]
    for change in ({"fingerprint": "0" * 64}, {"classes": data["classes"][::-1]}):
        path.write_text(before)
        edit(path, dataset={**data, **change})
        with pytest.raises(UserError, match=r"none/seed2.*dataset.*must be"):
            read_study(workdir)


def test_runs_of_different_length(make_study):
    workdir = make_study(seeds=(1, 2), n=50)
    path = run_path(workdir, "none", 2) / "results.json"
    edit(path, history=json.loads(path.read_text())["history"][:7])
    with pytest.raises(UserError, match="history is 7 epochs, must be 30"):
        read_study(workdir)


def test_folders_that_were_swapped(make_study):
    workdir = make_study(seeds=(1, 2), n=50)
    (workdir / "none").rename(workdir / "n")
    (workdir / "batch").rename(workdir / "none")
    (workdir / "n").rename(workdir / "batch")
    with pytest.raises(UserError, match=r"none/seed1: .*: model.norm is batch, must be none"):
        read_study(workdir)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("training", {"learning_rate": 0.3}),
        ("data", {"augment": False, "split_seed": 7}),
        ("model", {"dropout": 0.1}),
        ("transfer", {"init_from": "runs/a"}),
    ],
)
def test_a_run_with_another_config(make_study, section, changes):
    workdir = make_study(seeds=(1, 2), n=50)
    path = run_path(workdir, "batch", 2) / "results.json"
    config = json.loads(path.read_text())["config"]
    edit(path, config={**config, section: {**config.get(section, {}), **changes}})
    with pytest.raises(UserError, match="batch/seed2: is not a run of this study: ") as caught:
        read_study(workdir)
    for name, value in changes.items():
        assert f"{section}.{name} is {value}, must be " in str(caught.value)


def test_the_same_images_at_another_path_are_the_same_data(make_study):
    workdir = make_study(seeds=(1, 2), n=50)
    path = run_path(workdir, "batch", 2) / "results.json"
    config = json.loads(path.read_text())["config"]
    elsewhere = {"dataset": "/moved", "data_dir": "/d", "pipeline": "stream"}
    edit(path, config={**config, "data": elsewhere, "name": "other"})
    assert read_study(workdir).missing == ()


def test_predictions_of_another_run_are_not_used(make_study):
    workdir = make_study(seeds=(1, 2), n=50)
    other = run_path(workdir, "batch", 1) / "predictions.npz"
    (run_path(workdir, "batch", 2) / "predictions.npz").write_bytes(other.read_bytes())
    assert read_study(workdir).missing == (("batch", 2),)


def origin(digest):
    taken = {"tensors_taken": 1, "parameters_taken": 1, "left": []}
    return {"source": "runs/a", "digest": digest * 64, **taken}


def test_runs_that_began_from_other_versions_of_a_source(make_study):
    workdir = make_study(arms=("batch",), seeds=(1, 2), n=50)
    files = [run_path(workdir, "batch", seed) / "results.json" for seed in (1, 2)]
    transfer = {"init_from": "runs/a"}
    for path, digest in zip((*files, workdir / "study.json"), "aab", strict=True):
        config = {**json.loads(path.read_text())["config"], "transfer": transfer}
        edit(path, config=config, init_from=origin(digest))
    assert read_study(workdir).missing == ()
    edit(files[1], init_from=origin("b"))
    with pytest.raises(UserError, match=r"seed2: has other initial values than .*seed1"):
        read_study(workdir)
