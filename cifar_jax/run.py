"""One run: data in, training epoch by epoch, and everything that it leaves in its directory."""

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cifar_jax import config as configuration
from cifar_jax.config import Config
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import UserError
from cifar_jax.experiment import (
    dataset_record,
    hyperparams,
    open_dataset,
    run_directory,
    split_rows,
    train_spec,
)
from cifar_jax.interrupt import Interrupts
from cifar_jax.models.cnn import count_parameters
from cifar_jax.report import figures, files, provenance
from cifar_jax.report.console import Display, duration, epoch_line
from cifar_jax.report.evaluation import Evaluation, evaluate_logits
from cifar_jax.training.checkpoint import Checkpoints
from cifar_jax.training.loop import (
    EpochRow,
    HostData,
    RunEpoch,
    compile_device_epoch,
    compile_predict,
    compile_stream_epoch,
    epochs,
)
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainData, TrainSpec, TrainState, init_state

CHECKPOINTS = "checkpoints"
CONFIG = "config.toml"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.npz"
RESULTS = "results.json"
TENSORBOARD = "tensorboard"


class Interrupted(Exception):
    """The user stopped the run; the message says what is kept and how to go on."""


class Diverged(Exception):
    """The loss is no longer finite; the message says where and what to try."""


def _open(config: Config, display: Display) -> tuple[Config, Dataset]:
    """Load the data, with a progress bar, and a banner where they are a substitute."""
    config, dataset = open_dataset(config, display.progress)
    display.end_progress()
    if dataset.notice:
        display.banner(dataset.notice)
    return config, dataset


@dataclass(frozen=True)
class Start:
    """Where training begins: from scratch, or from a checkpoint."""

    state: TrainState
    history: list[dict[str, Any]]
    compile_seconds: float


def _check_resumable(record: dict[str, Any], config: Config, dataset: Dataset, where: Path) -> None:
    """Refuse to go on with another experiment than the one that was begun.

    More epochs are another length of the same experiment; the place of the data and how batches
    reach the device do not change it.
    """
    before = configuration.from_dict(record["config"], str(where))
    free = ("training.epochs:", "data.dataset:", "data.data_dir:", "data.pipeline:")
    changed = [d for d in configuration.differences(before, config) if not d.startswith(free)]
    if changed:
        raise UserError(f"--resume: {where} was begun with another config: {'; '.join(changed)}")
    if record["dataset"]["fingerprint"] != dataset.fingerprint:
        raise UserError(
            f"--resume: {where} was begun on other data: {record['dataset']['name']} "
            f"{record['dataset']['fingerprint'][:12]}, not {dataset.name} "
            f"{dataset.fingerprint[:12]}"
        )
    done = len(record["history"])
    if done > config.training.epochs:
        raise UserError(f"--epochs {config.training.epochs}: {where} already holds {done} epochs")


def _device_data(dataset: Dataset, train: np.ndarray, val: np.ndarray, stream: bool) -> TrainData:
    """Images on the device; where they are streamed, only those of the validation."""
    resident = train[:0] if stream else train
    return jax.device_put(
        TrainData(
            dataset.train_images[resident],
            dataset.train_labels[resident],
            dataset.train_images[val],
            dataset.train_labels[val],
        )
    )


def _tensorboard(workdir: Path, history: list[dict[str, Any]]) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(workdir / TENSORBOARD), purge_step=len(history) + 1)


def _write_scalars(writer: Any, row: dict[str, Any]) -> None:
    for name, value in row.items():
        if name != "epoch":
            writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
    writer.flush()


def _holds_run(workdir: Path) -> bool:
    return any((workdir / name).exists() for name in (CONFIG, METRICS, RESULTS, CHECKPOINTS))


def check_workdir(workdir: Path, resume: bool) -> None:
    """Refuse a directory that cannot be used, or that holds a run which is not to be resumed."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir}: is not a directory")
    if not resume and _holds_run(workdir):
        raise UserError(
            f"--workdir {workdir}: already holds a run; add --resume to go on with it, "
            "or choose another --workdir"
        )
    parent = next(p for p in [workdir.absolute(), *workdir.absolute().parents] if p.exists())
    if not os.access(parent, os.W_OK):
        raise UserError(f"--workdir {workdir}: {parent} cannot be written")


@dataclass
class _Files:
    """What a run appends to while it trains."""

    workdir: Path
    checkpoints: Checkpoints
    metrics: Any
    writer: Any

    def add(self, row: dict[str, Any]) -> None:
        self.metrics.write(files.json_lines([row]))
        self.metrics.flush()
        _write_scalars(self.writer, row)


@contextlib.contextmanager
def _open_files(workdir: Path, config: Config, history: list[dict[str, Any]]) -> Iterator[_Files]:
    """Create the run's files, or bring them to where its checkpoint stands."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir {workdir}: cannot be made ({error.strerror})") from None
    files.write_text(workdir / CONFIG, configuration.to_toml(config))
    files.write_text(workdir / METRICS, files.json_lines(history))
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    writer = _tensorboard(workdir, history)
    try:
        with open(workdir / METRICS, "a", encoding="utf-8") as metrics:
            yield _Files(workdir, checkpoints, metrics, writer)
    finally:
        writer.close()
        checkpoints.close()


def _train(
    run: RunEpoch,
    start: Start,
    open_files: _Files,
    last: int,
    n_train: int,
    record: dict[str, Any],
    display: Display,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Train up to epoch `last`, leaving a checkpoint and a row after each epoch."""
    history = list(start.history)
    state = start.state
    first = len(history) + 1
    workdir = open_files.workdir

    def on_first() -> None:
        display.say(
            "Interrupted: finishing this epoch and its checkpoint. Press Ctrl-C again to stop now."
        )

    steps = epochs(run, state, first, last, n_train)
    with Interrupts(on_first) as interrupts:
        for epoch in range(first, last + 1):
            display.progress("epochs", epoch - 1, last, plain=False)

            def advance() -> tuple[TrainState, EpochRow]:
                return next(steps)

            state, epoch_row = interrupts.run(advance)
            row = dataclasses.asdict(epoch_row)
            if not np.isfinite([row["train_loss"], row["val_loss"]]).all():
                raise Diverged(
                    f"training diverged in epoch {epoch}: the loss is not finite; "
                    f"try a lower --lr; {workdir} keeps the epochs before"
                )
            history.append(row)
            open_files.checkpoints.save(epoch, state, {**record, "history": history})
            open_files.add(row)
            seconds = [r["seconds"] for r in history[first - 1 :]]
            left = (last - epoch) * float(np.median(seconds))
            display.say(epoch_line(row, last, left))
            if interrupts.requested and epoch < last:
                raise Interrupted(
                    f"Stopped after epoch {epoch} of {last}; its checkpoint is in {workdir}. "
                    "Go on with the same command and --resume."
                )
    return state, history


def _write_results(
    workdir: Path, evaluation: Evaluation, logits: np.ndarray, labels: np.ndarray, **rest: Any
) -> dict[str, Any]:
    """Write predictions, figures and, last and at once, `results.json`."""
    classes = rest["dataset"]["classes"]
    title = f"{rest['dataset']['name']}, {rest['model']}, norm {rest['norm']}, seed {rest['seed']}"
    figures.save(figures.training_curves(rest["history"], title), workdir / "training_curves.png")
    figures.save(
        figures.confusion_matrix(
            evaluation.confusion,
            classes,
            f"{title}: test accuracy {100 * evaluation.accuracy:.2f} %",
        ),
        workdir / "confusion_matrix.png",
    )
    files.write_atomically(
        workdir / PREDICTIONS,
        lambda file: np.savez_compressed(
            file, logits=logits, predicted=logits.argmax(axis=1).astype(np.int32), label=labels
        ),
    )
    results = {
        **rest,
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "per_class_accuracy": dict(
            zip(classes, evaluation.per_class_accuracy.tolist(), strict=True)
        ),
        "confusion_matrix": evaluation.confusion.tolist(),
        "predictions": PREDICTIONS,
    }
    files.write_json(workdir / RESULTS, results)
    return results


def _say_evaluation(evaluation: Evaluation, dataset: Dataset, display: Display) -> None:
    total = len(dataset.test_labels)
    display.say(
        f"test loss {evaluation.loss:.4f}, test accuracy {100 * evaluation.accuracy:.2f} % "
        f"({evaluation.correct:,} of {total:,}) on {dataset.name}"
    )
    width = max(len(name) for name in dataset.classes)
    for name, accuracy in zip(dataset.classes, evaluation.per_class_accuracy, strict=True):
        display.say(f"  {name:{width}}  {100 * accuracy:6.2f} %")


def _evaluate(
    spec: TrainSpec, state: TrainState, dataset: Dataset
) -> tuple[Evaluation, np.ndarray, float]:
    """Evaluation on the test images, its logits (N, classes), and seconds spent compiling."""
    images = jax.device_put(np.asarray(dataset.test_images))
    start = time.perf_counter()
    predict = compile_predict(spec, state, images)
    compile_seconds = time.perf_counter() - start
    logits = np.asarray(predict(state, images))
    return evaluate_logits(logits, dataset.test_labels), logits, compile_seconds


def train_run(
    config: Config,
    *,
    workdir: Path | None = None,
    resume: bool = False,
    display: Display | None = None,
) -> dict[str, Any]:
    """Train, evaluate on the test set, and write everything a run leaves.

    Args:
        config: what to run.
        workdir: directory of the run; `run_directory` by default.
        resume: go on from its newest checkpoint, if it holds one.
        display: where progress is shown.

    Returns:
        What was written to `results.json`.

    Raises:
        UserError: for input that the user can mend, before anything is written.
        Interrupted, Diverged: with the run's directory left as the message says.
    """
    display = display or Display()
    if workdir is not None:
        check_workdir(workdir, resume)
    config, dataset = _open(config, display)
    train_rows, val_rows = split_rows(config, dataset)
    workdir = workdir or run_directory(config, dataset)
    check_workdir(workdir, resume)

    spec, hyper = train_spec(config), hyperparams(config)
    stream = config.data.pipeline == "stream"
    data = _device_data(dataset, train_rows, val_rows, stream)
    n_train, last = len(train_rows), config.training.epochs
    start = _begin(config, spec, data, dataset, workdir, resume)
    device = next(iter(data.val_images.devices()))
    device_line = provenance.describe_device(device.device_kind, device.platform)
    num_params = count_parameters(start.state.params)
    display.say(
        f"{dataset.name}: {n_train:,} training, {len(val_rows):,} validation, "
        f"{len(dataset.test_labels):,} test images; {config.model.name}, norm "
        f"{config.model.norm}, {num_params:,} parameters; {device_line}"
    )
    if start.history:
        display.say(f"resuming {workdir} after epoch {len(start.history)}")
    begun = time.perf_counter()
    host = HostData(dataset.train_images, dataset.train_labels, train_rows)
    run = _compile(spec, hyper, start.state, data, host if stream else None)
    compile_seconds = start.compile_seconds + time.perf_counter() - begun
    display.say(f"compiled in {time.perf_counter() - begun:.1f} s; run directory: {workdir}")

    record: dict[str, Any] = {
        "config": configuration.to_dict(config),
        "dataset": dataset_record(dataset, n_train, len(val_rows)),
        "compile_seconds": compile_seconds,
    }
    fresh = not workdir.exists()
    try:
        with _open_files(workdir, config, start.history) as open_files:
            state, history = _train(run, start, open_files, last, n_train, record, display)
    except KeyboardInterrupt:
        raise _discarded(workdir, fresh) from None
    finally:
        display.end_progress()

    evaluation, logits, predict_compile = _evaluate(spec, state, dataset)
    results = _write_results(
        workdir,
        evaluation,
        logits,
        np.asarray(dataset.test_labels),
        dataset=record["dataset"],
        model=config.model.name,
        norm=config.model.norm,
        seed=config.training.seed,
        num_params=num_params,
        config=record["config"],
        history=history,
        train_seconds=sum(row["seconds"] for row in history),
        compile_seconds=compile_seconds + predict_compile,
        device=device_line,
        versions=provenance.versions(),
        git_revision=provenance.git_revision(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _say_evaluation(evaluation, dataset, display)
    share = (
        100 * results["compile_seconds"] / (results["compile_seconds"] + results["train_seconds"])
    )
    display.say(
        f"trained in {duration(results['train_seconds'])}, compiled in "
        f"{results['compile_seconds']:.1f} s ({share:.1f} %); everything is in {workdir}"
    )
    if dataset.notice:
        display.banner(dataset.notice)
    return results


def _begin(
    config: Config,
    spec: TrainSpec,
    data: TrainData,
    dataset: Dataset,
    workdir: Path,
    resume: bool,
) -> Start:
    initial = jax.jit(init_state, static_argnums=(0, 2))
    state = initial(spec, jax.random.key(config.training.seed), data.val_images.shape[1:])
    if not (resume and (workdir / CHECKPOINTS).is_dir()):
        return Start(state, [], 0.0)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, create=False)
    try:
        if checkpoints.latest_epoch() is None:
            return Start(state, [], 0.0)
        record = checkpoints.read_record()
        _check_resumable(record, config, dataset, workdir)
        return Start(checkpoints.read_state(state), record["history"], record["compile_seconds"])
    finally:
        checkpoints.close()


def _compile(
    spec: TrainSpec,
    hyper: Hyperparams,
    state: TrainState,
    data: TrainData,
    host: HostData | None,
) -> RunEpoch:
    if host is None:
        return compile_device_epoch(spec, hyper, state, data)
    return compile_stream_epoch(spec, hyper, state, host, data)


def _discarded(workdir: Path, fresh: bool) -> Interrupted:
    """Stopped within an epoch: what is left, and how to go on."""
    kept = any((workdir / CHECKPOINTS).glob("[0-9]*"))
    if kept:
        return Interrupted(
            f"Stopped; the unfinished epoch is discarded, {workdir} keeps the newest checkpoint. "
            "Go on with the same command and --resume."
        )
    if fresh:
        shutil.rmtree(workdir, ignore_errors=True)
        return Interrupted("Stopped in the first epoch; nothing is kept.")
    return Interrupted(f"Stopped in the first epoch; {workdir} holds no checkpoint.")


def evaluate_run(
    checkpoint: Path,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    display: Display | None = None,
) -> Evaluation:
    """Restore the newest checkpoint of a run and evaluate it on the run's test images.

    Args:
        checkpoint: a run's directory, or the `checkpoints` directory in it.
        dataset: where the same images lie now, if not where they lay.
        data_dir: likewise.

    Raises:
        UserError: if there is no checkpoint, or the data are not those of the run.
    """
    display = display or Display()
    directory = _find_checkpoints(checkpoint)
    checkpoints = Checkpoints(directory, create=False)
    try:
        record = checkpoints.read_record()
        config = configuration.from_dict(record["config"], str(directory))
        if dataset is not None:
            config = configuration.override(config, "data", "dataset", dataset, "--dataset")
        if data_dir is not None:
            config = configuration.override(config, "data", "data_dir", data_dir, "--data-dir")
        config, images = _open(config, display)
        if images.fingerprint != record["dataset"]["fingerprint"]:
            raise UserError(
                f"{directory}: was trained on {record['dataset']['name']} "
                f"{record['dataset']['fingerprint'][:12]}, not on {images.name} "
                f"{images.fingerprint[:12]}"
            )
        spec = train_spec(config)
        like = init_state(spec, jax.random.key(0), images.test_images.shape[1:])
        state = checkpoints.read_state(like)
    finally:
        checkpoints.close()
    display.say(f"checkpoint after epoch {len(record['history'])} in {directory}")
    evaluation, _, _ = _evaluate(spec, state, images)
    _say_evaluation(evaluation, images, display)
    return evaluation


def _find_checkpoints(path: Path) -> Path:
    for candidate in (path / CHECKPOINTS, path):
        if candidate.is_dir() and any(p.name.isdigit() for p in candidate.iterdir()):
            return candidate
    raise UserError(f"--checkpoint {path}: holds no checkpoint of a run")
