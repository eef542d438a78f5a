"""A small study from end to end: paired, resumable, each run once."""

import dataclasses
import itertools
import json
import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from commands import last_of_each

from cifar_jax.commands import study as study_command
from cifar_jax.commands.train import open_data
from cifar_jax.config.settings import Config, DataConfig, TrainingConfig
from cifar_jax.data.dataset import Dataset
from cifar_jax.data.sources import published
from cifar_jax.errors import UserError
from cifar_jax.main import main
from cifar_jax.runner import memory, programs, training
from cifar_jax.runner import session as sessions
from cifar_jax.runner.console import Display
from cifar_jax.runner.prepare import open_dataset
from cifar_jax.storage import seal
from cifar_jax.study.definition import make_run
from cifar_jax.study.schedule import plan_groups

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")

# 48 images, three batches: the program has no partial batch, and compiles in half the time.
FLAGS = ("--val-examples", "27", "--batch-size", "16", "--epochs", "2", "--seed", "3")


def study(folder, workdir, *flags: str) -> int:
    swept = flags[flags.index("--sweep") + 1] if "--sweep" in flags else ""
    pairs = zip(FLAGS[::2], FLAGS[1::2], strict=True)
    # What is swept may not be given as a flag too.
    common = [
        w for pair in pairs if pair[0].strip("-").replace("-", "_") not in swept for w in pair
    ]
    argv = ["study", "--dataset", str(folder), "--workdir", str(workdir), "--seeds", "2"]
    return main(last_of_each([*argv, *common, *flags]))


def results_of(workdir, arm: str, seed: int):
    return json.loads((workdir / arm / f"seed{seed}" / "results.json").read_text())


def logits_of(workdir, arm: str, seed: int) -> np.ndarray:
    with np.load(workdir / arm / f"seed{seed}" / "predictions.npz") as predictions:
        return predictions["logits"]


@pytest.fixture(scope="module")
def finished(folder, cache, tmp_path_factory):
    """Directory of a study of two arms and two seeds."""
    workdir = tmp_path_factory.mktemp("studies") / "whole"
    assert study(folder, workdir) == 0
    return workdir


def test_every_run_leaves_what_a_single_run_leaves(finished, folder, tmp_path):
    argv = ["--dataset", str(folder), "--workdir", str(tmp_path / "one"), "--bn", *FLAGS]
    assert main(last_of_each([*argv, "--seed", "4"])) == 0
    assert np.array_equal(
        logits_of(finished, "batch", 4), np.load(tmp_path / "one" / "predictions.npz")["logits"]
    )
    left = {p.name for p in (finished / "batch" / "seed4").iterdir()}
    assert {p.name for p in (tmp_path / "one").iterdir()} == left
    assert (tmp_path / "one" / "config.toml").read_text() == (
        finished / "batch" / "seed4" / "config.toml"
    ).read_text()


def test_the_report_is_written(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["arms"] == ["none", "batch"]
    assert summary["seeds"] == [3, 4]
    assert summary["missing"] == []
    differences = [
        results_of(finished, "batch", s)["test_accuracy"]
        - results_of(finished, "none", s)["test_accuracy"]
        for s in (3, 4)
    ]
    assert summary["paired"]["test_accuracy"]["differences"] == pytest.approx(differences)
    for name in ("report.html", "report.md"):
        assert "halves" in (finished / name).read_text()


def test_a_finished_study_trains_nothing_again(finished, folder, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.glob("*/seed*/**/*")}
    assert study(folder, finished) == 0
    assert "4 runs, 4 finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.glob("*/seed*/**/*")} == before


def test_a_finished_study_can_be_told_that_its_folder_is_cifar10(
    finished, folder, tmp_path, capsys, monkeypatch
):
    """It is the same experiment: nothing is trained, and published numbers stand beside it."""
    workdir = shutil.copytree(finished, tmp_path / "w")
    assert "ublished" not in (workdir / "report.md").read_text()
    assert study(folder, workdir, "--folder-is-cifar10") == 2
    assert "the classes of" in capsys.readouterr().err
    names = ("left", "right", "top")
    like = dataclasses.replace(published.CIFAR10, classes=names)
    monkeypatch.setattr(published, "CIFAR10", like)
    assert study(folder, workdir, "--folder-is-cifar10") == 0
    assert "4 runs, 4 finished" in capsys.readouterr().out
    assert "78.15 %" in (workdir / "report.md").read_text()
    argv = ["--dataset", str(folder), "--workdir", str(workdir / "none" / "seed3"), *FLAGS]
    assert main([*argv, "--resume", "--folder-is-cifar10"]) == 0
    assert study(folder, workdir, "--no-folder-is-cifar10") == 0
    assert "ublished" not in (workdir / "report.md").read_text()


@pytest.mark.parametrize("source", ["synthetic", "auto"])
def test_only_a_folder_can_be_said_to_be_cifar10(source):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    labels = np.arange(2)
    loaded = Dataset("synthetic", images, labels, images, labels, ("a", "b"), "f" * 64)
    config = Config(data=DataConfig(dataset=source, folder_is_cifar10=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifar_jax.runner.early.load", lambda *_, **__: loaded)
        with pytest.raises(UserError, match="is not an image folder"):
            open_dataset(config)


def test_a_study_that_was_stopped_goes_on(finished, folder, tmp_path):
    workdir = tmp_path / "w"
    assert study(folder, workdir, "--arms", "batch", "--seeds", "1") == 0
    # As if it had been killed before it wrote its results.
    (workdir / "batch" / "seed3" / "results.json").unlink()
    assert study(folder, workdir, "--arms", "none,batch", "--seeds", "1") == 0
    for arm in ("none", "batch"):
        assert np.array_equal(logits_of(workdir, arm, 3), logits_of(finished, arm, 3))


def test_runs_that_do_not_fit_are_refused(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(memory, "memory_limit", lambda device: 1 << 20)
    argv = ("--arms", "none", "--epochs", "1")
    assert study(folder, tmp_path / "w", *argv, "--seed-parallelism", "2") == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "2 runs need" in last
    assert "not even one run fits" in last
    assert not list((tmp_path / "w").glob("none/*/results.json"))

    need = 1 << 40  # What two runs need, as the error says.
    monkeypatch.setattr(memory, "_bytes", lambda program: need)
    monkeypatch.setattr(memory, "memory_limit", lambda device: need - 1)
    assert study(folder, tmp_path / "w", *argv, "--seed-parallelism", "2") == 2
    assert capfd.readouterr().err.splitlines()[-1].endswith("; 1 fit")


def test_auto_trains_as_many_runs_together_as_fit(folder, tmp_path, monkeypatch, capfd):
    def one_fits(compiled, runs, *_):
        if runs > 1:
            raise memory.TooManyRuns("--seed-parallelism 2: 2 runs need more; 1 fit", 1)

    monkeypatch.setattr(programs, "check_memory", one_fits)
    monkeypatch.setattr(study_command, "seed_parallelism", lambda *_: 2)  # As on a GPU.
    assert study(folder, tmp_path / "w", "--arms", "none", "--epochs", "1") == 0
    assert "1 fit, so 1 train together" in capfd.readouterr().out
    assert [results_of(tmp_path / "w", "none", seed)["seed_parallelism"] for seed in (3, 4)] == [
        1,
        1,
    ]


def test_seeds_trained_together_give_the_same_results(finished, folder, tmp_path):
    """With BatchNorm: see the grid below."""
    assert study(folder, tmp_path / "w", "--arms", "none", "--seed-parallelism", "2") == 0
    for seed in (3, 4):
        together, alone = (results_of(w, "none", seed) for w in (tmp_path / "w", finished))
        assert together["seed_parallelism"] == 2
        # Another program rounds otherwise, and inputs near a switch of ReLU or pool amplify
        # that from step to step; another batch or draw would be off by far more.
        first, second = zip(together["history"], alone["history"], strict=True)
        assert first[0]["train_loss"] == pytest.approx(first[1]["train_loss"], rel=1e-4)
        assert second[0]["train_loss"] == pytest.approx(second[1]["train_loss"], rel=1e-2)
        assert together["test_loss"] == pytest.approx(alone["test_loss"], rel=2e-2)


def test_a_failed_run_is_reported_and_the_others_go_on(folder, tmp_path, capsys):
    argv = ("--lr", "1e5", "--arms", "none,batch", "--seeds", "1")
    workdir = tmp_path / "w"
    status = study(folder, workdir, *argv)
    assert status == 1
    assert "diverged" in capsys.readouterr().err
    assert results_of(workdir, "none", 3)["status"] == "diverged"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--arms", "none,layers"], "--arms: 'layers' is not known; allowed: none, batch"),
        (["--arms", "none,none"], "an arm is named twice"),
        (["--seeds", "0"], "--seeds: 0 is out of range"),
        (["--seed-parallelism", "many"], "--seed-parallelism: 'many' is neither auto nor"),
        (["--seed", "4294967295"], "the last is above 2**32"),
    ],
)
def test_bad_study_is_one_line_and_leaves_nothing(folder, tmp_path, flags, said, capsys):
    assert study(folder, tmp_path / "w", *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_another_study_in_the_directory_is_refused(finished, folder, capsys):
    assert study(folder, finished, "--lr", "0.5") == 2
    assert "holds another study: training.learning_rate: 0.01 -> 0.5" in capsys.readouterr().err


def contents(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_a_run_of_another_experiment_is_refused_by_name(finished, folder, tmp_path, capsys):
    """Also one that the command does not ask for; nothing is trained or written."""
    workdir = shutil.copytree(finished, tmp_path / "w")
    path = workdir / "batch" / "seed4" / "results.json"
    results = json.loads(path.read_text())
    results["config"]["training"] |= {"learning_rate": 0.3, "weight_decay": 0.1}
    results["config"]["data"]["augment"] = False
    path.write_text(json.dumps(seal(results)))
    before = contents(workdir)
    said = (
        f"{path.parent}: is not a run of this study: data.augment is False, must be True; "
        "training.learning_rate is 0.3, must be 0.01; training.weight_decay is 0.1, must be 0.0005"
    )
    commands = (
        lambda: study(folder, workdir),
        lambda: study(folder, workdir, "--seeds", "1", "--arms", "none"),
        lambda: main(["report", "--workdir", str(workdir)]),
    )
    for command in commands:
        assert command() == 2
        error = capsys.readouterr().err
        assert error == f"cifar_jax: error: {said}\n"
        assert contents(workdir) == before


def test_an_unfinished_run_of_another_experiment_is_refused(finished, folder, tmp_path, capsys):
    """By its checkpoint: it would be trained to its end, or spoil the hours of the others."""
    workdir = shutil.copytree(finished, tmp_path / "w")
    (workdir / "none").rename(workdir / "n")
    (workdir / "batch").rename(workdir / "none")
    (workdir / "n").rename(workdir / "batch")
    for path in workdir.glob("*/*/results.json"):
        path.unlink()
    before = contents(workdir)
    assert study(folder, workdir) == 2
    assert "none/seed3: is not a run of this study: model.norm is batch, must be none" in (
        capsys.readouterr().err
    )
    assert contents(workdir) == before


@pytest.mark.parametrize("content", [None, b""], ids=["lost", "empty"])
def test_a_lost_record_is_made_again_from_the_runs(finished, folder, tmp_path, content, capsys):
    workdir = shutil.copytree(finished, tmp_path / "w")
    path = workdir / "study.json"
    whole = json.loads(path.read_text())

    def lose():
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    lose()
    # One of the runs is an older program's.
    older = workdir / "none" / "seed3" / "results.json"
    older.write_text(json.dumps(seal({**json.loads(older.read_text()), "git_revision": "0ld"})))
    assert main(["report", "--workdir", str(workdir)]) == 0
    said = f"{path}: .*; rebuilt from its runs: none, batch; seeds 3, 4\n"
    out = capsys.readouterr().out
    assert re.search(said, out)
    assert "warning: the runs were made with different code: revision 0ld" in out
    found = json.loads(path.read_text())
    for key in ("arms", "seeds", "dataset"):
        assert found[key] == whole[key]
    assert found["config"]["training"] == whole["config"]["training"]
    lose()
    assert study(folder, workdir) == 0
    out = capsys.readouterr().out
    assert re.search(said, out)
    assert "4 runs, 4 finished" in out
    assert json.loads(path.read_text()) == whole


def test_a_study_goes_on_with_nothing_but_its_directory(finished, tmp_path, capsys):
    workdir = shutil.copytree(finished, tmp_path / "w")
    (workdir / "batch" / "seed4" / "results.json").unlink()
    assert main(["study", "--workdir", str(workdir)]) == 0
    assert "4 runs, 3 finished" in capsys.readouterr().out
    assert np.array_equal(logits_of(workdir, "batch", 4), logits_of(finished, "batch", 4))
    assert main(["study", "--workdir", str(workdir), "--lr", "0.5"]) == 2
    assert "holds another study: training.learning_rate: 0.01 -> 0.5" in capsys.readouterr().err


def test_a_directory_of_something_else_is_refused(folder, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("")
    assert study(folder, tmp_path) == 2
    assert "is not empty and holds no study" in capsys.readouterr().err


def groups(arms, seeds, together, finished, program=str):
    """`plan`, with letters for arms, as the runs of each group."""
    return [group.runs for group in plan_groups(arms, seeds, together, finished, program)]


def test_plan_pairs_seeds_and_groups_what_stands_alike():
    finished = {("n", 1): 0, ("b", 1): 0, ("n", 2): 3, ("b", 2): 0, ("b", 3): 0}
    one_by_one = [("n", 1), ("b", 1), ("n", 2), ("b", 2), ("b", 3)]
    assert groups("nb", (1, 2, 3), 1, finished) == [(run,) for run in one_by_one]
    assert groups("nb", (1, 2, 3), 3, finished) == [
        (("n", 1),),
        (("n", 2),),
        (("b", 1), ("b", 2), ("b", 3)),
    ]
    assert groups("n", (1,), 1, {}) == []


def test_plan_puts_arms_with_the_same_program_together():
    finished = dict.fromkeys(itertools.product("nNbB", (1, 2)), 0)
    assert groups("nNbB", (1, 2), 4, finished, str.lower) == [
        (("n", 1), ("N", 1), ("n", 2), ("N", 2)),
        (("b", 1), ("B", 1), ("b", 2), ("B", 2)),
    ]
    # One by one, a seed is done with before the next begins.
    seeds = [seed for ((_, seed),) in groups("nNbB", (1, 2), 1, finished, str.lower)]
    assert seeds == [1] * 4 + [2] * 4


SWEEP = ("--sweep", "learning_rate=0.01,0.05", "--seed-parallelism", "1")


@pytest.fixture(scope="module")
def swept(folder, cache, tmp_path_factory):
    """A study of two arms, two rates and two seeds, one run after the other; and compilations."""
    workdir = tmp_path_factory.mktemp("studies") / "swept"
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        compile_epoch = sessions.compile_device_epoch
        patch.setattr(
            sessions, "compile_device_epoch", lambda *a: compiled.append(a) or compile_epoch(*a)
        )
        assert study(folder, workdir, *SWEEP) == 0
    return workdir, len(compiled)


def test_a_sweep_trains_every_value_and_compiles_once_an_arm(swept):
    workdir, compiled = swept
    assert compiled == 2
    for norm, rate, seed in itertools.product(("none", "batch"), (0.01, 0.05), (3, 4)):
        results = results_of(workdir, f"{norm}-learning_rate-{rate}", seed)
        assert results["config"]["training"]["learning_rate"] == rate
        assert results["norm"] == norm
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["sweep"]["values"] == [0.01, 0.05]
    assert [row["n"] for row in summary["gain"]] == [2, 2]


def test_a_value_of_a_sweep_is_the_run_with_that_value(swept, finished, folder, tmp_path):
    workdir, _ = swept
    for arm in ("none", "batch"):
        one = logits_of(workdir, f"{arm}-learning_rate-0.01", 3)
        assert np.array_equal(one, logits_of(finished, arm, 3))


def test_another_value_needs_no_compilation_at_all(folder, tmp_path):
    """Not of the epoch, nor of anything around it."""
    config = Config(
        data=DataConfig(dataset=str(folder), val_examples=27),
        training=TrainingConfig(epochs=1, batch_size=16),
    )
    display = Display()
    session = sessions.Session(open_data(config, display), display)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )

    def train(learning_rate: float, momentum: float, weight_decay: float) -> int:
        config = session.prepared.config
        settings = dataclasses.replace(
            config.training,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
        )
        one = dataclasses.replace(config, training=settings)
        before = len(compiled)
        workdir = tmp_path / str(learning_rate)
        training.train_group(session, [make_run(one, None, workdir)])
        return len(compiled) - before

    assert train(0.01, 0.9, 5e-4) > 0
    assert train(0.02, 0.8, 0.0) == 0


@pytest.mark.parametrize("runs", [1, 2])
def test_a_program_compiled_ahead_is_used(folder, tmp_path, monkeypatch, runs):
    data = DataConfig(dataset=str(folder), val_examples=27)
    config = Config(data=data, training=TrainingConfig(epochs=1, batch_size=16))
    session = sessions.Session(open_data(config, Display()), Display())
    group = [
        make_run(
            dataclasses.replace(session.prepared.config, training=one), None, tmp_path / f"{n}"
        )
        for n, one in enumerate(
            dataclasses.replace(config.training, seed=seed) for seed in range(runs)
        )
    ]
    training.compile_ahead(session, group)
    assert not session.programs  # A CPU has no cores to spare.
    with monkeypatch.context() as gpu:
        gpu.setattr(sessions.Session, "device", property(lambda _: SimpleNamespace(platform="gpu")))
        training.compile_ahead(session, group)
    (ahead,) = session.programs.values()
    results = training.train_group(session, group)
    assert [*session.programs.values()] == [ahead]
    assert len(results) == runs


def test_a_grid_trained_together_gives_the_same_results(swept, folder, tmp_path):
    workdir = tmp_path / "w"
    argv = ("--arms", "batch", *SWEEP[:2], "--seed-parallelism", "4")
    assert study(folder, workdir, *argv) == 0
    for rate, seed in itertools.product((0.01, 0.05), (3, 4)):
        arm = f"batch-learning_rate-{rate}"
        together, alone = (results_of(w, arm, seed) for w in (workdir, swept[0]))
        assert together["seed_parallelism"] == 4
        first, second = zip(together["history"], alone["history"], strict=True)
        # Rounding alone flips the maximum of a pooling window now and then, which changes a
        # gradient by a quarter of a percent; the higher rate amplifies it.
        assert first[0]["train_loss"] == pytest.approx(first[1]["train_loss"], rel=5e-3)
        assert second[0]["train_loss"] == pytest.approx(second[1]["train_loss"], rel=3e-2)
        assert first[0]["learning_rate"] == first[1]["learning_rate"] == rate


def test_a_sweep_is_extended_and_guarded(swept, folder, capsys):
    workdir, _ = swept
    argv = ("--sweep", "training.learning_rate=0.05", "--seeds", "1")
    assert study(folder, workdir, *argv) == 0
    assert "2 runs, 2 finished" in capsys.readouterr().out
    assert json.loads((workdir / "study.json").read_text())["sweep"]["values"] == [0.01, 0.05]
    # The directory says what is swept.
    assert study(folder, workdir) == 0
    assert "8 runs, 8 finished" in capsys.readouterr().out
    assert study(folder, workdir, "--lr", "0.3") == 2
    assert "--lr: --sweep varies it" in capsys.readouterr().err
    assert study(folder, workdir, "--sweep", "momentum=0.5") == 2
    assert "not training.momentum" in capsys.readouterr().err
    (workdir / "report.html").unlink()
    assert main(["report", "--workdir", str(workdir)]) == 0
    assert "learning rate" in (workdir / "report.html").read_text()


def test_settings_of_the_data_are_swept_and_divergence_is_a_result(folder, tmp_path):
    argv = ("--arms", "none", "--seeds", "1", "--epochs", "1", "--sweep", "train_examples=32,48")
    assert study(folder, tmp_path / "data", *argv) == 0
    for images in (32, 48):
        found = results_of(tmp_path / "data", f"none-train_examples-{images}", 3)
        assert found["dataset"]["n_train"] == images
    argv = ("--arms", "none", "--seeds", "1", "--epochs", "2", "--sweep", "learning_rate=0.01,1e5")
    assert study(folder, tmp_path / "rate", *argv) == 0
    summary = json.loads((tmp_path / "rate" / "summary.json").read_text())
    assert summary["diverged"] == [["none", 1e5, 3]]


ONE = ("--arms", "none", "--seeds", "1", "--epochs", "1", "--seed-parallelism", "1")


def test_optimisers_are_swept_with_their_own_learning_rates(folder, tmp_path, capsys):
    workdir = tmp_path / "w"
    sweep = "optimizer+learning_rate=adamw:0.001,sgd:0.02"
    assert study(folder, workdir, *ONE, "--sweep", sweep) == 0
    for name, rate in (("adamw", 0.001), ("sgd", 0.02)):
        results = results_of(workdir, f"none-optimizer-learning_rate-{name}_{rate}", 3)
        assert results["config"]["training"]["optimizer"] == name
        assert results["history"][0]["learning_rate"] == rate
    report = (workdir / "report.md").read_text()
    assert "Test accuracy by optimizer and learning rate" in report
    assert (
        "AdamW"
        in (workdir / "none-optimizer-learning_rate-adamw_0.001" / "model_card.md").read_text()
    )
    # The same study, said in another way, goes on and is drawn again.
    other = "training.optimizer+training.learning_rate=adamw:1e-3"
    assert study(folder, workdir, *ONE, "--sweep", other) == 0
    assert "1 run, 1 finished" in capsys.readouterr().out
    assert main(["report", "--workdir", str(workdir)]) == 0


@pytest.mark.parametrize(
    ("sweep", "more", "rates"),
    [
        (
            "schedule=multistep,onecycle",
            ("--milestones", "0.5", "--epochs", "2"),
            [0.01, 0.01 / 25],
        ),
        ("batch_size=8,16", ("--lr-scaling", "linear"), [0.01 / 16, 0.01 / 8]),
    ],
)
def test_other_settings_of_training_are_swept(folder, tmp_path, sweep, more, rates):
    assert study(folder, tmp_path / "w", *ONE, "--sweep", sweep, *more) == 0
    name, _, values = sweep.partition("=")
    found = [results_of(tmp_path / "w", f"none-{name}-{value}", 3) for value in values.split(",")]
    assert [r["history"][0]["learning_rate"] for r in found] == pytest.approx(rates)
    assert len({r["test_loss"] for r in found}) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sweep", "schedule=step,multistep"], "--schedule multistep: needs --milestones"),
        (
            ["--sweep", "schedule=step,cosine", "--milestones", "3"],
            "needs --schedule multistep",
        ),
        (["--sweep", "epochs=1,3", "--warmup-epochs", "2"], "must be below --epochs 1"),
        (["--sweep", "lr"], "--sweep lr: must be like learning_rate=0.01,0.05"),
        (["--sweep", "learning=1"], "unknown key 'learning'; did you mean 'learning_rate'?"),
        (["--sweep", "seed=1,2"], "'seed' is the same in all runs of a study"),
        (["--sweep", "norm=none"], "norms are compared by --arms"),
        (["--sweep", "learning_rate=0.1,x"], "--sweep learning_rate: 'x' is not a number"),
        (["--sweep", "learning_rate=0.1,0"], "--sweep learning_rate: 0.0 is out of range"),
        (["--sweep", "momentum=0.9,0.90"], "a value is named twice"),
        (["--sweep", "train_examples=20,500"], "--train-examples 500"),
        (["--sweep", "batch_size=8,500"], "--batch-size 500: must be at most"),
    ],
)
def test_bad_sweep_is_one_line_and_leaves_nothing(folder, tmp_path, flags, said, capsys):
    assert study(folder, tmp_path / "w", *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_report_is_drawn_again_without_training(finished, capsys):
    (finished / "report.html").unlink()
    assert main(["report", "--workdir", str(finished)]) == 0
    assert (finished / "report.html").is_file()
    assert main(["report", "--workdir", str(finished / "batch")]) == 2
    assert "holds neither a study nor a run" in capsys.readouterr().err
