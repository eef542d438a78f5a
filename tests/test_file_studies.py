"""Studies of a Python file from end to end: kept, continued, refused, paired."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from commands import last_of_each
from scipy import stats

from cifar_jax.main import main
from cifar_jax.runner import training

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")

HEAD = '''"""Does {} help?"""
import cifar_jax as cj, flax.linen as nn, numpy as np
class Net(nn.Module):
    width: int = 4
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(self.width, name="first")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="last")(x)
class Own(cj.Hyper):
    gamma: float = 1.0
def loss(logits, targets, hyper): return hyper.gamma * cj.cross_entropy(logits, targets)
def small(**fields):
    return cj.Experiment(**{{"model": Net(), "batch_size": 16, "epochs": 2, **fields}})
'''
SOURCE = (
    HEAD.format("b")
    + """arms = {"a": cj.Arm(small(loss=loss), Own()),
        "b": cj.Arm(small(loss=loss), Own(learning_rate=0.02, gamma=0.5)),
        "wide": small(model=Net(8))}
labels = {"a": "A <i>"}
control = "b"
claims = [cj.better("a", "b", by=0.5), cj.equivalent("wide", "b", within=1)]
"""
)
IMAGES = ("--val-examples", "27")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def study(folder):
    """Run the command `study`, by default with two seeds on the small images."""

    def run(path: Path, workdir: Path, *flags: str) -> int:
        argv = ["study", str(path), "--dataset", str(folder), *IMAGES, "--workdir", str(workdir)]
        return main(last_of_each([*argv, "--seeds", "2", "--seed", "3", *flags]))

    return run


@pytest.fixture(scope="module")
def finished(study, file, cache, tmp_path_factory):
    """Directory of a study of three arms and two seeds, each trained alone."""
    workdir = tmp_path_factory.mktemp("studies") / "whole"
    assert study(file, workdir) == 0
    return workdir


def results_of(workdir: Path, arm: str, seed: int):
    return json.loads((workdir / arm / f"seed{seed}" / "results.json").read_text())


def logits_of(workdir: Path, arm: str, seed: int) -> np.ndarray:
    with np.load(workdir / arm / f"seed{seed}" / "predictions.npz") as predictions:
        return predictions["logits"]


def same_runs(first: Path, second: Path, seeds=(3, 4)) -> None:
    for arm in ("a", "b", "wide"):
        for seed in seeds:
            assert np.array_equal(logits_of(first, arm, seed), logits_of(second, arm, seed))


def plan_of(workdir: Path):
    return json.loads((workdir / "study.json").read_text())


def summary_of(workdir: Path):
    return json.loads((workdir / "summary.json").read_text())


def contents(workdir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def refused(capsys, status: int, said: str) -> None:
    error = capsys.readouterr().err
    assert status == 2
    assert said in error
    assert error.startswith("cifar_jax: error: ")
    assert error.count("\n") == 1


def test_the_report_says_what_the_file_says(finished, file):
    plan = plan_of(finished)
    assert (plan["title"], plan["control"]) == ("Does b help?", "b")
    assert {arm["name"]: arm["label"] for arm in plan["arms"]} == {
        "a": "A <i>",
        "b": "b",
        "wide": "wide",
    }
    assert list(plan["unshared"]) == ["wide"]
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["arms"] == ["a", "b", "wide"]
    assert [row["claim"] for row in summary["claims"]]
    html = (finished / "report.html").read_text()
    assert "Does b help?" in html
    assert "A &lt;i&gt;" in html
    assert "<i>" not in html
    assert (finished / "experiment.py").read_bytes() == file.read_bytes()


def test_a_run_of_an_arm_is_the_run_of_the_study(finished, file, folder, tmp_path):
    run = tmp_path / "run"
    argv = ["train", str(file), "--arm", "b", "--dataset", str(folder), *IMAGES, "--seed", "4"]
    assert main([*argv, "--workdir", str(run)]) == 0
    with np.load(run / "predictions.npz") as predictions:
        assert np.array_equal(predictions["logits"], logits_of(finished, "b", 4))
    assert (run / "experiment.py").read_bytes() == file.read_bytes()
    trained = results_of(finished, "b", 4)
    assert trained["history"][0]["learning_rate"] == 0.02
    assert trained["config"]["experiment"]["arm"] == "b"


def test_arms_and_seeds_train_in_one_program_with_the_same_results(
    study, finished, file, tmp_path, monkeypatch
):
    """`a` and `b` differ in numbers alone; `wide` is another program."""
    compiled = []
    compile_epoch = training.compiled_epoch

    def counted(session, experiment, hyper, state):
        compiled.append(len(state.step))
        return compile_epoch(session, experiment, hyper, state)

    monkeypatch.setattr(training, "compiled_epoch", counted)
    assert study(file, tmp_path / "w", "--seed-parallelism", "2") == 0
    assert compiled == [2, 2, 2]
    for arm in ("a", "b", "wide"):
        for seed in (3, 4):
            together, alone = (results_of(w, arm, seed) for w in (tmp_path / "w", finished))
            assert together["seed_parallelism"] == 2
            # Another program rounds otherwise.
            assert together["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-4)


def test_an_interrupted_study_goes_on_bitwise_equal(
    study, finished, file, tmp_path, monkeypatch, capsys
):
    """By the same command, and by file and directory alone."""

    class Stopping(training.Rows):
        """Ctrl-C after the first epoch of the second run, then of the fourth."""

        seen = 0

        def __call__(self, group):
            super().__call__(group)
            Stopping.seen += 1
            if Stopping.seen in (3, 6):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training, "Rows", Stopping)
    workdir = tmp_path / "w"
    assert study(file, workdir) == 130
    assert "Resume with the same command." in capsys.readouterr().err
    assert study(file, workdir) == 130
    capsys.readouterr()
    assert main(["study", str(file), "--workdir", str(workdir)]) == 0
    same_runs(workdir, finished)
    for key in ("arms", "seeds", "dataset", "claims", "unshared"):
        assert plan_of(workdir)[key] == plan_of(finished)[key]


def test_more_seeds_and_arms_extend_a_study(study, finished, file, tmp_path):
    """What the file says of the arms stays, whichever arms the command asks for."""
    workdir = tmp_path / "w"
    assert study(file, workdir, "--seeds", "1", "--arms", "wide,a") == 0
    plan = plan_of(workdir)
    assert [arm["name"] for arm in plan["arms"]] == ["a", "wide"]
    assert (plan["control"], plan.get("claims")) == ("a", None)
    assert study(file, workdir, "--seeds", "1", "--arms", "a,b,wide") == 0
    assert study(file, workdir, "--arms", "a") == 0
    plan, whole = plan_of(workdir), plan_of(finished)
    for key in ("title", "control", "claims", "unshared", "seeds", "arms"):
        assert plan[key] == whole[key]
    assert np.array_equal(logits_of(workdir, "a", 4), logits_of(finished, "a", 4))


def test_settings_that_replaced_those_of_the_file_are_kept(study, file, tmp_path, capsys):
    workdir = tmp_path / "w"
    assert study(file, workdir, "--seeds", "1", "--epochs", "1", "--arms", "a") == 0
    again = ["study", str(file), "--workdir", str(workdir)]
    assert main([*again, "--arms", "b"]) == 0
    assert results_of(workdir, "b", 3)["config"]["training"]["epochs"] == 1
    assert results_of(workdir, "b", 3)["config"]["training"]["learning_rate"] == 0.02
    # Also after the record is lost.
    (workdir / "study.json").unlink()
    assert main(again) == 0
    assert "2 runs, 2 finished" in capsys.readouterr().out
    refused(capsys, main([*again, "--epochs", "2"]), "arm a: training.epochs: 1 -> 2")


BOMB = "raise SystemError\n"


def test_a_lost_record_comes_back_and_the_report_runs_no_code(finished, file, tmp_path, capsys):
    workdir = shutil.copytree(finished, tmp_path / "w")
    whole = plan_of(workdir)
    (workdir / "study.json").unlink()
    bomb = f"open({str(tmp_path / 'exploded')!r}, 'w')\n{BOMB}"
    for path in (workdir / "experiment.py", workdir / "sitecustomize.py"):
        path.write_text(bomb)
    assert main(["report", "--workdir", str(workdir)]) == 0
    assert "rebuilt from its runs: " in capsys.readouterr().out
    assert not (tmp_path / "exploded").exists()
    assert "title" not in plan_of(workdir)  # Only the file has it.
    assert main(["study", str(file), "--workdir", str(workdir)]) == 0
    assert "6 runs, 6 finished" in capsys.readouterr().out
    for key in ("arms", "title", "control", "claims", "unshared", "seeds"):
        assert plan_of(workdir)[key] == whole[key]
    assert (workdir / "experiment.py").read_text() == SOURCE


@pytest.mark.parametrize("same_command", [True, False])
def test_a_changed_file_is_refused(study, finished, tmp_path, same_command, capsys):
    """Even if its arms have other names now; nothing is written."""
    changed = tmp_path / "own.py"
    changed.write_text(SOURCE.replace('"wide"', '"broad"'))
    line = 1 + SOURCE[: SOURCE.index('"wide"')].count("\n")
    before = contents(finished)
    argv = ["study", str(changed), "--workdir", str(finished)]
    status = study(changed, finished) if same_command else main(argv)
    refused(capsys, status, f"is not the file with which {finished} began; line {line}: ")
    assert contents(finished) == before


def test_a_study_belongs_to_its_file(finished, study, file, folder, tmp_path, capsys):
    refused(
        capsys,
        main(["study", "--workdir", str(finished)]),
        f"{finished}: needs the experiment file own.py; give it after the command",
    )
    config = tmp_path / "study.toml"
    config.write_text("[training]\nbatch_size = 16\n")
    argv = ["study", "--config", str(config), "--dataset", str(folder), *IMAGES]
    refused(
        capsys,
        main([*argv, "--workdir", str(finished)]),
        "; experiment.file: own.py -> None; ",
    )
    norms = tmp_path / "norms"
    argv = ["study", "--arms", "none", "--seeds", "1", "--epochs", "1", *argv[3:]]
    assert main([*argv, "--batch-size", "16", "--workdir", str(norms)]) == 0
    capsys.readouterr()
    said = f"--workdir {norms}: began without an experiment file; leave out FILE"
    refused(capsys, main(["study", str(file), "--workdir", str(norms)]), said)
    refused(
        capsys,
        main(["evaluate", str(file), "--checkpoint", str(norms / "none" / "seed42")]),
        "is of no experiment file; leave out FILE",
    )


def test_a_run_is_evaluated_and_resumed_with_its_own_file(finished, file, tmp_path, capsys):
    run = finished / "b" / "seed4"
    assert main(["evaluate", str(file), "--checkpoint", str(run)]) == 0
    accuracy = 100 * results_of(finished, "b", 4)["test_accuracy"]
    assert f"test accuracy {accuracy:.2f} %" in capsys.readouterr().out
    evaluate = ["evaluate", "--checkpoint", str(run)]
    refused(capsys, main(evaluate), "needs the experiment file own.py; give it after the command")
    changed = tmp_path / "own.py"
    changed.write_text(SOURCE + "# more\n")
    said = "own.py: is not the file with which"
    refused(capsys, main([*evaluate, str(changed)]), said)
    refused(capsys, main(["train", str(changed), "--resume", "--workdir", str(run)]), said)
    argv = ["train", str(file), "--arm", "a", "--resume", "--workdir", str(run)]
    refused(capsys, main(argv), "was begun with another config: experiment.arm: b -> a")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--no-augment"], "--augment: FILE defines it; change it there"),
        (["--precision", "bfloat16"], "--precision: FILE defines it; change it there"),
        (["--optimizer", "adamw"], "--optimizer: FILE defines it; change it there"),
        (["--norm", "batch"], "--norm: FILE defines it; change it there"),
        (["--sweep", "dropout=0.1"], "--sweep: own.py defines 'dropout'; change it there"),
        (["--sweep", "hyper.beta=1"], "arm a of FILE has no such hyper-parameter; allowed: "),
        (["--sweep", "batch_size=8,500"], "--batch-size 500: must be at most the 48 training"),
        (["--arms", "a,c"], "--arms: 'c' is not known; allowed: a, b, wide"),
        (["--batch-size", "49"], "--batch-size 49: must be at most the 48 training images"),
        (["--config", "configs/quick.toml"], "--config: model.norm: FILE defines it; remove it"),
    ],
)
def test_a_contradiction_is_one_line_and_leaves_nothing(
    study, file, tmp_path, flags, said, capsys, monkeypatch
):
    monkeypatch.chdir(Path(__file__).parents[1])
    status = study(file, tmp_path / "w", *flags)
    refused(capsys, status, said.replace("FILE", str(file)))
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["FILE"], "--arm: PATH has several; allowed: a, b, wide"),
        (["FILE", "--arm", "c"], "--arm c: is not in PATH; allowed: a, b, wide"),
        (["--arm", "a"], "--arm: names an arm of FILE, and there is no FILE"),
        (["FILE", "--arm", "a", "--bn"], "--norm: PATH defines it; change it there"),
    ],
)
def test_a_run_needs_an_arm_of_its_file(file, tmp_path, argv, said, capsys):
    argv = [word.replace("FILE", str(file)) for word in argv]
    status = main(["train", *argv, "--workdir", str(tmp_path / "w")])
    refused(capsys, status, said.replace("PATH", str(file)))
    assert not (tmp_path / "w").exists()


def test_the_rest_of_a_mistake_is_shown_on_request(study, tmp_path, capsys):
    path = tmp_path / "own.py"
    path.write_text(SOURCE.replace("hyper.gamma *", "hyper.gama *"))
    status = study(path, tmp_path / "w")
    refused(capsys, status, f"{path}:11: arm a: loss(logits, targets): AttributeError: 'Own'")
    assert study(path, tmp_path / "w", "--traceback") == 2
    error = capsys.readouterr().err
    assert "def loss(logits, targets, hyper): return hyper.gama" in error
    assert error.splitlines()[-1].startswith(f"cifar_jax: error: {path}:11: ")
    assert not (tmp_path / "w").exists()


def test_settings_of_a_toml_file_replace_those_of_the_file(study, file, tmp_path):
    config = tmp_path / "short.toml"
    config.write_text('name = "short"\n[training]\nepochs = 1\n[study]\narms = "b"\n')
    workdir = tmp_path / "w"
    assert study(file, workdir, "--config", str(config), "--seeds", "1") == 0
    found = results_of(workdir, "b", 3)["config"]["training"]
    assert (found["epochs"], found["batch_size"], found["learning_rate"]) == (1, 16, 0.02)
    assert not (workdir / "a").exists()


def test_a_hyper_parameter_of_the_file_sweeps_in_one_program(study, file, tmp_path, monkeypatch):
    compiled = []
    compile_epoch = training.compiled_epoch

    def counted(session, *args):
        before = len(session.programs)
        found = compile_epoch(session, *args)
        compiled.append(len(session.programs) - before)
        return found

    monkeypatch.setattr(training, "compiled_epoch", counted)
    workdir, argv = tmp_path / "w", ("--arms", "a,b", "--seeds", "1")
    assert study(file, workdir, *argv, "--sweep", "hyper.gamma=0,1") == 0
    assert sum(compiled) == 1
    losses = {g: results_of(workdir, f"a-gamma-{g}", 3)["history"] for g in ("0.0", "1.0")}
    assert losses["0.0"][0]["train_loss"] == 0
    assert losses["1.0"][0]["train_loss"] > 0.5
    # The directory says what is swept, also without its record.
    for lose in (False, True):
        if lose:
            (workdir / "study.json").unlink()
        assert main(["study", str(file), "--workdir", str(workdir)]) == 0
        assert plan_of(workdir)["sweep"] == {"field": "hyper.gamma", "values": [0.0, 1.0]}
    assert len(compiled) == 4


DATA = (
    HEAD.format("data")
    + """def data():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (70, 8, 8, 3), np.uint8), np.arange(70) % 3
    return cj.from_arrays((images[:60], labels[:60]), (images[60:], labels[60:]), val=12)
arms = {"a": small()}
"""
)


def test_a_file_with_its_own_images(tmp_path, capsys):
    path, workdir = tmp_path / "own.py", tmp_path / "w"
    path.write_text(DATA)
    argv = ["study", str(path), "--seeds", "1", "--epochs", "1", "--workdir", str(workdir)]
    refused(
        capsys, main([*argv, "--dataset", "synthetic"]), f"--dataset: {path} has its own images"
    )
    assert not workdir.exists()
    # A smaller split than the file's, which a resume must keep.
    assert main([*argv, "--val-examples", "10"]) == 0
    found = results_of(workdir, "a", 42)["dataset"]
    assert (found["n_train"], found["n_val"], found["n_test"]) == (50, 10, 10)
    assert main(["study", str(path), "--workdir", str(workdir)]) == 0
    assert "1 run, 1 finished" in capsys.readouterr().out
    assert main(["report", "--workdir", str(workdir)]) == 0
    assert main(["evaluate", str(path), "--checkpoint", str(workdir / "a" / "seed42")]) == 0


def test_the_split_of_loaded_images_is_the_files(folder, tmp_path):
    path, workdir = tmp_path / "own.py", tmp_path / "w"
    loaded = f"data = cj.load({str(folder)!r}, train_examples=32, val_examples=20)\n"
    path.write_text(HEAD.format("it") + loaded + 'arms = {"a": small(epochs=1)}\n')
    argv = ["train", str(path), "--arm", "a", "--workdir", str(workdir)]
    assert main(argv) == 0
    found = json.loads((workdir / "results.json").read_text())["dataset"]
    assert (found["n_train"], found["n_val"]) == (32, 20)


def test_seeds_are_added_by_two_stages(study, file, tmp_path, capsys):
    workdir = tmp_path / "w"
    assert study(file, workdir, "--arms", "b,wide") == 0
    first = np.array(summary_of(workdir)["paired"]["test_accuracy"]["differences"])
    t_s = stats.t.ppf(0.975, 1) * 100 * first.std(ddof=1)
    assert t_s > 0
    width = f"{1.001 * t_s / 3**0.5:.4f}"  # Three seeds are the fewest for it.
    argv = ("--arms", "b,wide", "--half-width", width)
    assert study(file, workdir, *argv) == 0
    assert "first stage of 2 seeds" in capsys.readouterr().out
    assert plan_of(workdir)["seeds"] == [3, 4, 5]
    found = summary_of(workdir)
    gains = 100 * np.array(found["paired"]["test_accuracy"]["differences"])
    assert gains[:2] == pytest.approx(100 * first)
    ends = gains.mean() + np.array([-1, 1]) * t_s / 3**0.5
    assert found["two_stages"]["interval"] == pytest.approx(ends / 100)
    assert "(Stein 1945)" in (workdir / "report.md").read_text()
    # The same command finds nothing to train. The first stage cannot change.
    assert main(["study", str(file), "--workdir", str(workdir)]) == 0
    assert "0 finished" not in capsys.readouterr().out
    refused(capsys, study(file, workdir, *argv, "--seeds", "3"), "the first stage of the study")


def test_a_plan_trains_nothing(finished, capsys):
    before = contents(finished)
    assert main(["study", "--plan", "--workdir", str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "with 2 paired seeds" in line]
    assert contents(finished) == before
    refused(capsys, main(["study", "--plan"]), "--plan: needs --workdir")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seeds", "1"], "--half-width needs at least 2 seeds"),
        (["--sweep", "learning_rate=0.1,0.2"], "cannot be combined with --sweep"),
    ],
)
def test_two_stages_need_two_seeds_and_no_sweep(study, file, tmp_path, capsys, flags, said):
    refused(capsys, study(file, tmp_path / "w", "--half-width", "1", *flags), said)
    assert not (tmp_path / "w").exists()
