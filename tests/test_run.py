"""A whole run on a tiny image folder: what it leaves, how it resumes, what it refuses."""

import json
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import tomllib

import jax
import numpy as np
import pytest
import small
from commands import last_of_each
from PIL import Image

from cifar_jax.main import main
from cifar_jax.runner import resume
from cifar_jax.runner.checkpoint_files import newest_intact
from cifar_jax.runner.console import Display

CLASSES = ["left", "right", "top"]
pytestmark = pytest.mark.usefixtures("cache", "small_cnn")

FLAGS = ("--bn", "--val-examples", "20", "--batch-size", "16", "--decay-every", "2", "--seed", "3")


def run(folder, workdir, *flags: str) -> int:
    argv = ["--dataset", str(folder), "--workdir", str(workdir), *FLAGS, *flags]
    return main(last_of_each(argv))


def results_of(workdir):
    return json.loads((workdir / "results.json").read_text())


def curves(results) -> list[dict[str, float]]:
    """The history without wall-clock times."""
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in clock} for row in results["history"]]


def logits_of(workdir) -> np.ndarray:
    with np.load(workdir / "predictions.npz") as predictions:
        return predictions["logits"]


@pytest.fixture(scope="module")
def whole(folder, cache, tmp_path_factory):
    """Directory of a run of four epochs that was never stopped."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert run(folder, workdir, "--epochs", "4", "--figures") == 0
    return workdir


def test_results_say_what_was_run_and_what_came_out(whole, folder):
    results = results_of(whole)
    assert results["dataset"]["name"] == "folder-halves"
    assert len(results["dataset"]["fingerprint"]) == 64
    sizes = [results["dataset"][n] for n in ("n_train", "n_val", "n_test")]
    assert sizes == [55, 20, 15]
    assert (results["model"], results["norm"], results["seed"]) == ("cnn", "batch", 3)
    # Convolution, norm, dense layer, norm, dense layer: kernels and biases.
    assert results["num_params"] == 8 * 28 + 16 + 16 * (16 * 16 * 8 + 1) + 32 + 3 * 17
    assert [row["epoch"] for row in results["history"]] == [1, 2, 3, 4]
    rates = [row["learning_rate"] for row in results["history"]]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])
    for row in results["history"]:
        assert row["seconds"] > 0
        assert 0 <= row["train_accuracy"] <= 1
        assert 0 <= row["val_accuracy"] <= 1
    assert results["config"]["data"]["dataset"] == str(folder)
    assert results["train_seconds"] == pytest.approx(
        sum(row["seconds"] for row in results["history"])
    )
    compiled, trained = results["compile_seconds"], results["train_seconds"]
    assert compiled > 0
    assert results["compile_share"] == pytest.approx(compiled / (compiled + trained))
    assert 2**26 < results["peak_memory_bytes"] < 2**40
    assert results["device"].split(":")[0] in ("cpu", "gpu", "mps", "METAL", "tpu")
    assert {"python", "jax", "flax", "optax", "numpy"} <= set(results["versions"])
    assert "git_revision" in results


def test_results_agree_with_the_predictions(whole):
    results = results_of(whole)
    with np.load(whole / results["predictions"]) as predictions:
        logits, predicted, label = (predictions[k] for k in ("logits", "predicted", "label"))
    assert logits.shape == (15, 3)
    assert np.array_equal(predicted, logits.argmax(axis=1))
    assert results["test_accuracy"] == np.mean(predicted == label)
    confusion = np.array(results["confusion_matrix"])
    assert confusion.sum() == 15
    assert confusion[1, 2] == np.sum((label == 1) & (predicted == 2))
    per_class = np.array(list(results["per_class_accuracy"].values()))
    assert list(results["per_class_accuracy"]) == CLASSES
    assert per_class == pytest.approx(confusion.diagonal() / 5)


def test_figures_and_metrics_are_left(whole):
    for name in ("training_curves.png", "confusion_matrix.png"):
        with Image.open(whole / name) as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 50
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert rows == results_of(whole)["history"]
    leftovers = [p.name for p in whole.iterdir() if p.name.startswith(".")]
    assert leftovers == []


def test_tensorboard_has_the_columns_by_their_names(whole):
    from tensorboardX.proto.event_pb2 import Event

    (path,) = (whole / "tensorboard").glob("events.out.tfevents.*")
    content, at, tags = path.read_bytes(), 0, {}
    while at < len(content):  # TFRecord: length, its checksum, the event, its checksum
        (length,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            tags.setdefault(value.tag, []).append(event.step)
    names = {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    assert set(tags) == names | {"learning_rate", "images_per_second", "seconds"}
    assert all(steps == [1, 2, 3, 4] for steps in tags.values())


def test_the_written_config_repeats_the_run_bitwise(whole, tmp_path):
    config = whole / "config.toml"
    assert tomllib.loads(config.read_text())["model"]["num_classes"] == 3
    assert main(["--config", str(config), "--workdir", str(tmp_path / "again")]) == 0
    assert curves(results_of(tmp_path / "again")) == curves(results_of(whole))
    assert np.array_equal(logits_of(tmp_path / "again"), logits_of(whole))


def test_another_seed_is_another_run(whole, folder, tmp_path):
    assert run(folder, tmp_path / "other", "--epochs", "4", "--seed", "4") == 0
    assert curves(results_of(tmp_path / "other")) != curves(results_of(whole))
    assert not np.array_equal(logits_of(tmp_path / "other"), logits_of(whole))


def test_resumed_run_is_bitwise_the_run_never_stopped(whole, folder, tmp_path):
    workdir = tmp_path / "resumed"
    assert run(folder, workdir, "--epochs", "2") == 0
    # As after a crash between checkpoint and metrics: a row too many, half written.
    with open(workdir / "metrics.jsonl", "a") as metrics:
        metrics.write('{"epoch": 3, "train_lo')
    # Its config.toml has the rest; more epochs are asked for.
    assert main(["--resume", "--workdir", str(workdir), "--epochs", "4"]) == 0
    assert curves(results_of(workdir)) == curves(results_of(whole))
    assert np.array_equal(logits_of(workdir), logits_of(whole))
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]


def test_where_time_went_is_recorded_across_a_resumption(folder, tmp_path):
    workdir, seconds = tmp_path / "w", []
    for epochs in ("1", "3"):
        begun = time.monotonic()
        assert run(folder, workdir, "--epochs", epochs, "--resume") == 0
        seconds.append(time.monotonic() - begun)
    results = results_of(workdir)
    spent = results["spent"]
    assert set(spent) == {"data", "compiling", "training", "writing", "evaluation"}
    assert all(value > 0 for value in spent.values())
    assert spent["training"] == pytest.approx(results["train_seconds"])
    assert spent["compiling"] > results["compile_seconds"] / 2
    assert sum(spent.values()) < sum(seconds)
    assert main(["report", "--workdir", str(workdir)]) == 0
    assert "Where time went" in (workdir / "report.html").read_text()


def test_stream_pipeline_is_the_same_training(whole, folder, tmp_path):
    assert run(folder, tmp_path / "stream", "--epochs", "4", "--pipeline", "stream") == 0
    streamed, resident = (curves(results_of(w)) for w in (tmp_path / "stream", whole))
    # Another program, so another rounding; another batch or draw would show at once.
    for a, b in zip(streamed, resident, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-3)
        assert a["learning_rate"] == b["learning_rate"]


BEYOND = (
    *("--val-examples", "27", "--epochs", "2", "--optimizer", "muon", "--lr-scaling", "linear"),
    *("--lr", "0.04", "--schedule", "cosine", "--final-fraction", "0.5", "--warmup-epochs", "1"),
    *("--label-smoothing", "0.1", "--cutout", "8", "--random-erasing", "0.5", "--mixup", "1"),
)


def test_everything_beyond_the_protocol_at_once(folder, tmp_path, capsys):
    """Trained, restored; and not resumed at another length, which its rate depends on."""
    workdir = tmp_path / "w"
    assert run(folder, workdir, *BEYOND) == 0
    # 48 images in batches of 16: three steps of warm-up to 0.04 * 16 / 128, then the cosine.
    rates = [row["learning_rate"] for row in results_of(workdir)["history"]]
    assert rates == pytest.approx([0.005 / 3, 0.005], rel=1e-5)
    assert main(["evaluate", "--checkpoint", str(workdir)]) == 0
    accuracy = 100 * results_of(workdir)["test_accuracy"]
    assert f"test accuracy {accuracy:.2f} %" in capsys.readouterr().out
    assert run(folder, workdir, *BEYOND, "--epochs", "3", "--resume") == 2
    error = capsys.readouterr().err
    assert "begun with --schedule cosine over 2 epochs, and its learning rate" in error
    assert error.count("\n") == 1


def test_settings_that_do_not_go_together_leave_nothing(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "w", "--milestones", "1,2") == 2
    error = capsys.readouterr().err
    assert "--milestones 1,2: needs --schedule multistep" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("inner", [".", "checkpoints"])
def test_evaluate_reproduces_the_test_accuracy(whole, inner, capsys):
    results = results_of(whole)
    assert main(["evaluate", "--checkpoint", str(whole / inner)]) == 0
    out = capsys.readouterr().out
    correct = round(15 * results["test_accuracy"])
    assert f"test loss {results['test_loss']:.4f}" in out
    assert f"({correct} of 15) on folder-halves" in out


def test_evaluate_refuses_other_images(whole, folder, tmp_path, capsys):
    other = tmp_path / "halves"
    shutil.copytree(folder, other)
    Image.new("RGB", (32, 32)).save(other / "test" / "top" / "00.png")
    argv = ["evaluate", "--checkpoint", str(whole), "--dataset", str(other)]
    assert main(argv) == 2
    assert "was trained on folder-halves" in capsys.readouterr().err


def test_an_existing_run_is_refused_and_left_alone(whole, folder, capsys):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    assert run(folder, whole, "--epochs", "4") == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--resume", "--lr", "0.5"], "training.learning_rate: 0.01 -> 0.5"),
        (["--resume", "--norm", "none"], "--bn and --norm: are the same setting"),
        (["--resume", "--precision", "bfloat16"], "training.precision: float32 -> bfloat16"),
        (["--resume", "--epochs", "3"], "--epochs 3: "),
    ],
)
def test_resume_refuses_another_experiment(whole, folder, flags, said, capsys):
    assert run(folder, whole, "--epochs", "4", *flags) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lr", "0.5"], "training.learning_rate: 0.01 -> 0.5"),
        (["--norm", "none"], "model.norm: batch -> none"),
        (["--epochs", "3"], "--epochs 3: "),
    ],
)
def test_flags_beside_the_directory_are_checked_too(whole, flags, said, capsys):
    assert main(["--resume", "--workdir", str(whole), *flags]) == 2
    assert said in capsys.readouterr().err


def test_what_a_directory_was_begun_with(whole, tmp_path):
    found = resume.saved_config(whole)
    assert found.training.decay_every == 2
    copied = shutil.copytree(whole, tmp_path / "w")
    (copied / "config.toml").write_bytes(b"\xff")
    assert resume.saved_config(copied) == found
    (copied / "results.json").unlink()
    assert resume.saved_config(copied) == found
    shutil.rmtree(copied / "checkpoints")
    assert resume.saved_config(copied) is None


def test_results_of_another_run_are_not_overwritten(whole, folder, tmp_path, capsys):
    """Even where no checkpoint tells that it is another."""
    copied = shutil.copytree(whole, tmp_path / "w")
    shutil.rmtree(copied / "checkpoints")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert run(folder, copied, "--epochs", "4", "--lr", "0.5", "--resume") == 2
    assert "begun with another config: training.learning_rate" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num-classes", "7"], "--num-classes 7: folder-halves has 3 classes"),
        (["--batch-size", "56"], "--batch-size 56: must be at most the 55 training images"),
        (["--batch-size", "54"], "would be a single one"),
        (["--val-examples", "75"], "--val-examples 75: must be below the 75 images"),
        (["--train-examples", "56"], "--train-examples 56: folder-halves has 55"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line_and_leave_nothing(
    folder, tmp_path, flags, said, capsys
):
    assert run(folder, tmp_path / "w", *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_a_workdir_that_cannot_be_made_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(folder, tmp_path / "file") == 2
    assert run(folder, tmp_path / "file" / "below") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("--workdir" in line for line in lines)


def test_divergence_is_said_and_not_reported_as_a_result(folder, tmp_path, capsys):
    workdir = tmp_path / "w"
    assert run(folder, workdir, "--norm", "none", "--lr", "1e5", "--epochs", "4") == 2
    flags = [f for f in FLAGS if f != "--bn"]
    argv = ["--dataset", str(folder), "--workdir", str(workdir), *flags, "--lr", "1e5"]
    assert main([*argv, "--epochs", "4"]) == 1
    assert "training diverged in epoch" in capsys.readouterr().err
    assert results_of(workdir)["status"] == "diverged"


def test_a_damaged_checkpoint_is_named(folder, tmp_path, capsys):
    workdir = tmp_path / "w"
    assert run(folder, workdir, "--epochs", "1") == 0
    for path in (workdir / "checkpoints" / "1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", str(workdir)]) == 2
    error = capsys.readouterr().err
    assert "all checkpoints are damaged" in error
    assert error.count("\n") == 1


def test_ctrl_c_twice_keeps_a_checkpoint_and_says_how_to_resume(folder, tmp_path):
    """Once: see tests/faults/test_signals.py."""
    workdir = tmp_path / "w"
    command = [sys.executable, small.__file__, "--dataset", str(folder)]
    command += ["--workdir", str(workdir), *FLAGS, "--epochs", "100000"]
    command += ["--checkpoint-every", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    timer = threading.Timer(120, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        awaited = ["images/s", "Interrupted"]
        for line in process.stdout:
            if awaited and awaited[0] in line:
                process.send_signal(signal.SIGINT)
                del awaited[0]
        error = process.communicate()[1]
    finally:
        timer.cancel()
    assert process.returncode == 130
    assert "--resume" in error
    assert "Traceback" not in error
    kept = newest_intact(workdir / "checkpoints")
    assert kept is not None
    assert not (workdir / "results.json").exists()
    assert run(folder, workdir, "--epochs", str(kept.epoch + 1), "--resume") == 0
    assert len(results_of(workdir)["history"]) == kept.epoch + 1


def test_the_default_directory_names_data_model_norm_and_seed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text('name = "tiny"\n')
    argv = ["--config", "c.toml", "--dataset", str(folder), *FLAGS, "--epochs", "1"]
    assert main(argv) == 0
    assert (tmp_path / "runs" / "tiny-folder-halves-cnn-batch-seed3" / "results.json").is_file()


def test_the_bar_moves_within_an_epoch_and_plain_output_has_a_line_for_each(
    folder, tmp_path, monkeypatch, capsys
):
    shown = []

    def progress(self, description, done, total, *, plain=True):
        if description == "epochs":
            shown.append((done, total))

    monkeypatch.setattr(Display, "progress", progress)
    assert run(folder, tmp_path / "w", "--epochs", "2") == 0
    steps = [(done * 4, total) for done, total in shown]  # 55 images: three steps and a partial
    assert sorted(set(steps)) == [(n, 2) for n in (0, 1, 3, 4, 7, 8)]
    assert steps == sorted(steps)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    for wanted in ("train loss", "val loss", "acc", "lr 0.01", "images/s", "ETA"):
        assert wanted in lines[0]
    assert not Display().console.is_terminal


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a loop is slow only on a CPU")
def test_layers_that_are_slow_in_a_loop_train_a_step_a_call(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "w", "--kernels", "plain", "--epochs", "1") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "call of its own" in line]
    assert "conv_general_dilated in conv1" in line
    assert len(results_of(tmp_path / "w")["history"]) == 1
