"""Losses that are not finite: where, what is kept, and who is not touched."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from groups import group_of, trained
from runs import FLAGS, kept, results_of

from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import init_state
from cifar_jax.main import main
from cifar_jax.runner import training
from cifar_jax.runner.programs import compile_device_epoch, stack_runs, unstack_run

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")


def run(folder, workdir, *flags: str) -> int:
    return main(["--dataset", str(folder), "--workdir", str(workdir), *FLAGS, *flags])


@pytest.fixture(scope="module")
def diverged(folder, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("numbers") / "w"
    assert run(folder, workdir, "--lr", "1e6", "--epochs", "3", "--debug-nans") == 1
    return workdir


def test_a_diverged_run_says_epoch_step_and_operation(diverged):
    results = results_of(diverged)
    assert results["status"] == "diverged"
    found = results["diverged"]
    assert found["epoch"] == 1
    assert 2 <= found["step"] <= 4
    assert "the first " in found["operation"]
    assert ".py:" in found["operation"]
    assert any(f" pass of {layer}" in found["operation"] for layer in ("conv", "dense"))
    assert results["history"] == []
    assert not any(key.startswith("test_") for key in results)
    assert not (diverged / "predictions.npz").exists()
    assert {"deterministic", "determinism_note"} <= set(results)


def test_to_resume_it_is_refused_in_one_line(diverged, folder, capsys):
    before = (diverged / "results.json").read_bytes()
    assert run(folder, diverged, "--lr", "1e6", "--epochs", "3", "--resume") == 2
    error = capsys.readouterr().err
    assert "training diverged in epoch 1, step " in error
    assert "--debug-nans" in error
    assert error.count("\n") == 1
    assert (diverged / "results.json").read_bytes() == before


def test_the_last_good_checkpoint_is_kept(folder, tmp_path, monkeypatch):
    """The second epoch begins with a parameter that is not finite."""
    begin = training.boundaries

    def spoiled(program, *given):
        def advance(hyper, state, *bounds):
            if int(state.step[0]) == program.steps:
                state = state.replace(params=jax.tree.map(lambda p: p * jnp.nan, state.params))
            return program.advance(hyper, state, *bounds)

        return begin(dataclasses.replace(program, advance=advance), *given)

    monkeypatch.setattr(training, "boundaries", spoiled)
    assert run(folder, tmp_path / "w", "--epochs", "3") == 1
    results = results_of(tmp_path / "w")
    assert results["diverged"] == {"epoch": 2, "step": 1}
    assert [row["epoch"] for row in results["history"]] == [1]
    assert kept(tmp_path / "w") == [1]


def test_a_study_records_it_goes_on_and_never_repeats_it(folder, tmp_path, capsys):
    workdir = tmp_path / "s"
    argv = ["study", "--dataset", str(folder), "--workdir", str(workdir), *FLAGS]
    argv += ["--seeds", "1", "--epochs", "1", "--arms", "none"]
    argv += ["--sweep", "learning_rate=0.01,1e6"]
    assert main(argv) == 0
    ended = {p.parent.parent.name: json.loads(p.read_text()) for p in workdir.rglob("results.json")}
    assert ended["none-learning_rate-0.01"]["status"] == "finished"
    assert ended["none-learning_rate-1000000.0"]["status"] == "diverged"
    assert json.loads((workdir / "summary.json").read_text())["diverged"] == [["none", 1e6, 3]]
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("results.json")}
    capsys.readouterr()
    assert main(argv) == 0
    assert "2 runs, 2 finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob("results.json")} == before


def test_a_diverging_seed_does_not_touch_its_neighbours(tiny_experiment, tiny_data):
    """Bitwise: the same program with and without a member whose rate is far too high."""
    keys = [jax.random.key(seed) for seed in range(3)]

    def start():
        return stack_runs([init_state(tiny_experiment, key, (8, 8, 3)) for key in keys])

    def hyper(rate):
        rates = (0.01, rate, 0.02)
        return stack_runs([Hyper(*map(np.float32, (r, 0.9, 5e-4))) for r in rates])

    compiled = compile_device_epoch(tiny_experiment, hyper(0.01), start(), tiny_data)
    workdirs = [Path("a") / str(i) for i in range(3)]

    def outcome(rate):
        group = trained(group_of(compiled, hyper(rate), start(), 3, workdirs))
        states = [unstack_run(group.at.state, i) for i in range(3)]
        leaves = [
            [np.asarray(x).tobytes() for x in jax.tree.leaves((s.params, s.batch_stats))]
            for s in states
        ]
        return group, leaves

    healthy, sick = outcome(0.01), outcome(1e30)
    assert healthy[0].alive == [0, 1, 2]
    assert sick[0].alive == [0, 2]
    for i in (0, 2):
        assert sick[1][i] == healthy[1][i]
        for a, b in zip(sick[0].rows(i), healthy[0].rows(i), strict=True):
            assert (a.train_loss, a.val_loss) == (b.train_loss, b.val_loss)
    assert sick[1][1] != healthy[1][1]
