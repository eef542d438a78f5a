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
    assert study.dataset["name"] == "made-up"
    assert study.config["name"] == "made-up"
    assert study.config["training"]["epochs"] == 30  # the defaults are spelt out
    for arm in study.arms:
        assert [(run.arm, run.seed) for run in study.runs[arm]] == [(arm, 1), (arm, 3)]
    run = study.runs["batch"][0]
    assert run.directory == workdir / "batch" / "seed1"
    assert run.correct.mean() == run.results["test_accuracy"]
    assert len(run.curve("val_loss")) == 30
    assert [(a.seed, b.seed) for a, b in study.pairs("none", "batch")] == [(1, 1), (3, 3)]


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
        ("{", "not the record of a study"),
        ("[]", "not the record of a study"),
        ('{"arms": ["none"]}', "not the record of a study"),
        ('{"arms": "none", "seeds": [1], "config": {}}', "list of arms"),
        ('{"arms": ["none"], "seeds": ["1"], "config": {}}', "whole-number seeds"),
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
    with pytest.raises(UserError, match="is a run with seed 1"):
        read_study(workdir)
    data = json.loads(before)["dataset"]
    for change in ({"fingerprint": "0" * 64}, {"classes": data["classes"][::-1]}):
        path.write_text(before)
        edit(path, dataset={**data, **change})
        with pytest.raises(UserError, match="other data"):
            read_study(workdir)


def test_runs_of_different_length(make_study):
    workdir = make_study(seeds=(1, 2), n=50)
    path = run_path(workdir, "none", 2) / "results.json"
    edit(path, history=json.loads(path.read_text())["history"][:7])
    with pytest.raises(UserError, match="has 7 epochs"):
        read_study(workdir)
