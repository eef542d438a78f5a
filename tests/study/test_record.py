"""`study.json` read, and made again from the runs."""

import json

import pytest

from cifar_jax.errors import UserError
from cifar_jax.main import main
from cifar_jax.study.rebuild import find_plan, saved_study
from cifar_jax.study.record import LostPlan, read_plan, run_path

STUDY = "study.json"


def edit_config(path, **sections):
    """Change the config in a file of JSON."""
    data = json.loads(path.read_text())
    for name, values in sections.items():
        data["config"][name] = {**data["config"].get(name, {}), **values}
    path.write_text(json.dumps(data))


def sweep_of(make_study, values, section, config):
    """Runs of `none` and `batch` at some values of a sweep; `config` gives a value's fields."""
    norms = ("none", "batch")
    workdir = make_study(
        arms=[f"{norm}-{value}" for value in values for norm in norms], seeds=(1, 2), n=50
    )
    for norm in norms:
        for value in values:
            for seed in (1, 2):
                path = run_path(workdir, f"{norm}-{value}", seed) / "results.json"
                edit_config(path, model={"norm": norm}, **{section: config(value)})
    (workdir / STUDY).unlink()
    return workdir


def test_a_whole_record_is_read(make_study):
    workdir = make_study(seeds=(1, 2), n=50)
    plan, warning = find_plan(workdir)
    assert (plan, warning) == (read_plan(workdir), "")
    assert (plan.names, plan.seeds, plan.sweep) == (("none", "batch"), (1, 2), None)


@pytest.mark.parametrize("content", [None, "", "{}", '{"arms": ["none"], "seeds": [1'])
def test_a_lost_one_is_made_again(make_study, content):
    workdir = make_study(seeds=(1, 2, 4), n=50)
    whole = read_plan(workdir)
    (workdir / STUDY).unlink()
    if content is not None:
        (workdir / STUDY).write_text(content)
    plan, warning = find_plan(workdir)
    assert (plan.arms, plan.seeds, plan.sweep) == (whole.arms, whole.seeds, None)
    assert plan.config["training"] == whole.config["training"]
    assert plan.dataset.fingerprint == whole.dataset.fingerprint
    assert warning.startswith(str(workdir / STUDY))
    assert warning.endswith("rebuilt from its runs: none, batch; seeds 1, 2, 4")
    saved = saved_study(workdir)
    study = saved.config.study
    assert (study.arms, study.seeds, study.sweep) == ("none,batch", 3, None)
    assert saved.seeds == (1, 2, 4)


@pytest.mark.parametrize(
    ("flags", "seeds", "first"),
    [([], (1, 3), 1), (["--seeds", "4"], None, 1), (["--seed", "5"], None, 5)],
)
def test_a_study_with_gaps_in_its_seeds_is_continued(make_study, monkeypatch, flags, seeds, first):
    """The command without flags trains the study's own seeds, not those between them."""
    workdir, asked = make_study(seeds=(1, 3), n=50), []

    def study_run(config, *, seeds, **_):
        asked.append((config.training.seed, seeds))
        return []

    monkeypatch.setattr("cifar_jax.commands.study.study_run", study_run)
    assert main(["study", "--workdir", str(workdir), *flags]) == 0
    assert asked == [(first, seeds)]


def test_a_sweep_is_made_again(make_study):
    values = ("learning_rate-0.05", "learning_rate-0.01")
    workdir = sweep_of(
        make_study, values, "training", lambda v: {"learning_rate": float(v.split("-")[1])}
    )
    plan, warning = find_plan(workdir)
    assert plan.names == ("none", "batch")
    assert (plan.sweep.field, plan.sweep.values) == ("training.learning_rate", (0.01, 0.05))
    assert "none, batch, learning rate; seeds 1, 2" in warning
    assert saved_study(workdir).config.study.sweep == "training.learning_rate=0.01,0.05"


def test_a_sweep_of_several_settings_is_made_again(make_study):
    values = {"optimizer-learning_rate-sgd_0.01": ("sgd", 0.01)}
    values["optimizer-learning_rate-adamw_0.001"] = ("adamw", 0.001)

    def config(value):
        return dict(zip(("optimizer", "learning_rate"), values[value], strict=True))

    plan, _ = find_plan(sweep_of(make_study, tuple(values), "training", config))
    assert plan.sweep.field == "training.optimizer+training.learning_rate"
    assert set(plan.sweep.values) == {"sgd:0.01", "adamw:0.001"}


def test_runs_that_cannot_be_one_study_are_named(make_study):
    workdir = make_study(seeds=(1, 2), n=50)
    (workdir / STUDY).unlink()
    path = run_path(workdir, "batch", 2) / "results.json"
    edit_config(path, training={"momentum": 0.5})
    with pytest.raises(UserError, match=r"batch/seed2.*training.momentum is 0.5, must be 0.9"):
        find_plan(workdir)
    edit_config(path, training={"momentum": 0.9}, model={"norm": "none"})
    with pytest.raises(UserError, match="batch/seed2: its run is of arm none and seed 2"):
        find_plan(workdir)


def test_without_runs_nothing_is_made(tmp_path):
    with pytest.raises(LostPlan, match="no runs to rebuild it from"):
        find_plan(tmp_path)
    assert saved_study(tmp_path) is None
