"""Runs from start to end: data in, training epoch by epoch, evaluation, results out."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np

from cifar_jax import config as configuration
from cifar_jax import outcome, pretrained, rundir
from cifar_jax.build import build_experiment, hyperparams
from cifar_jax.combinations import check_all
from cifar_jax.config import Config
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, TrainState, init_state
from cifar_jax.data.dataset import Dataset
from cifar_jax.device import peak_device_memory_bytes, peak_memory_bytes
from cifar_jax.errors import UserError
from cifar_jax.experiment import (
    Prepared,
    check_batches,
    open_dataset,
    prepare,
    run_directory,
)
from cifar_jax.host import Interrupted, Progress, discarded, resumed_steps, train_epochs
from cifar_jax.interrupt import GRACE, apart
from cifar_jax.report import provenance
from cifar_jax.report.console import Display, class_lines, duration
from cifar_jax.report.evaluation import Evaluation, evaluate_logits
from cifar_jax.results import DivergedAt, EpochRow, Finished, Origin, Results
from cifar_jax.resume import Start, behind, find_checkpoints, read_record, resumed
from cifar_jax.study.collect import divergence_line, read_divergence
from cifar_jax.training.checkpoint import Checkpoints
from cifar_jax.training.loop import (
    CompiledEpoch,
    Divergence,
    compile_device_epoch,
    compile_predict,
    compile_stream_epoch,
    stack_runs,
)
from cifar_jax.training.nonfinite import replay

Predict = Callable[[TrainState, jax.Array], jax.Array]


class Diverged(Exception):
    """The loss is no longer finite; the message says where and what to try."""


@dataclass
class Programs:
    """Compiled programs of one dataset, kept so that the next run need not compile again."""

    epoch: dict[tuple[Experiment, int], CompiledEpoch] = dataclasses.field(default_factory=dict)
    predict: dict[Experiment, Predict] = dataclasses.field(default_factory=dict)


def open_data(
    config: Config, display: Display, train_examples: Sequence[int | None] = ()
) -> Prepared:
    """Load and split the data, with a progress bar, and a banner where they are a substitute.

    `train_examples` are those of a sweep, see `sizes.fit_defaults`.
    """
    prepared = prepare(config, display.progress, train_examples)
    display.end_progress()
    if prepared.dataset.notice:
        display.banner(prepared.dataset.notice)
    for note in prepared.notes:
        display.say(note)
    return prepared


def _compiled_epoch(
    programs: Programs,
    prepared: Prepared,
    config: Config,
    hyper: Hyper,
    state: TrainState,
    runs: int,
) -> CompiledEpoch:
    """The epoch of a config, compiled now or before; over a stack of states where runs > 1."""
    experiment, data = build_experiment(config), prepared.data
    if (experiment, runs) not in programs.epoch:
        if config.data.pipeline == "stream":
            program = compile_stream_epoch(experiment, hyper, state, prepared.host, data)
        else:
            program = compile_device_epoch(experiment, hyper, state, data, runs)
        programs.epoch[experiment, runs] = program
    return programs.epoch[experiment, runs]


def evaluate_state(
    programs: Programs, experiment: Experiment, state: TrainState, dataset: Dataset
) -> tuple[Evaluation, np.ndarray, float]:
    """Evaluation on the test images, its logits (N, classes), and seconds spent compiling."""
    images = jax.device_put(np.asarray(dataset.test_images))
    start = time.perf_counter()
    if experiment not in programs.predict:
        programs.predict[experiment] = compile_predict(experiment, state, images)
    compile_seconds = time.perf_counter() - start
    logits = np.asarray(programs.predict[experiment](state, images))
    return evaluate_logits(logits, dataset.test_labels), logits, compile_seconds


def say_evaluation(evaluation: Evaluation, dataset: Dataset, display: Display) -> None:
    """Loss, accuracy, and accuracy of every class."""
    total = len(dataset.test_labels)
    display.say(
        f"test loss {evaluation.loss:.4f}, test accuracy {100 * evaluation.accuracy:.2f} % "
        f"({evaluation.correct:,} of {total:,}) on {dataset.name}"
    )
    for line in class_lines(dataset.classes, evaluation.per_class_accuracy.tolist()):
        display.say(line)


def train_group(
    prepared: Prepared,
    configs: Sequence[Config],
    workdirs: Sequence[Path],
    *,
    resume: bool,
    display: Display,
    programs: Programs | None = None,
    progress: Progress | None = None,
    debug_nans: bool = False,
) -> list[Results]:
    """Train runs that share a program together, and leave the files of each.

    They differ in their seed and in hyper-parameters that the program takes as values.

    One run is a group of one. Several are one program, `jax.vmap` over their states, and share
    the clock: `seconds` of an epoch is its wall-clock time divided by the number of runs.

    Args:
        prepared: the data.
        configs: one a run, with the same experiment and data.
        workdirs: one a run.
        resume: go on from the newest checkpoints; all must be at the same epoch.
        display: where progress is shown.
        programs: what is compiled already, added to.
        progress: where the group stands in a study.
        debug_nans: find the operation at which a run diverges; for a group of one.

    Returns:
        One a run: what was written to its `results.json`.

    Raises:
        UserError: for input that the user can mend, before anything is written.
        Interrupted: with the directories left as the message says.
    """
    programs = programs or Programs()
    progress = progress or Progress(("",) * len(configs))
    config, dataset, seeds = configs[0], prepared.dataset, len(configs)
    check_batches(config, len(prepared.train_rows))
    experiment = build_experiment(config)
    n_train, last = len(prepared.train_rows), config.training.epochs
    starts = [
        _begin(experiment, c, prepared, workdir, resume)
        for c, workdir in zip(configs, workdirs, strict=True)
    ]
    if not any(progress.label) and not (starts[0].history or starts[0].unfinished):
        _say_origin(starts[0].origin, display)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(starts[0].state.params))
    device = next(iter(prepared.data.val_images.devices()))
    device_line = provenance.describe_device(device.device_kind, device.platform)
    computing = provenance.describe_computing(device.device_kind, device.platform)
    if not any(progress.label):
        display.say(
            f"{dataset.name}: {n_train:,} training, {len(prepared.val_rows):,} validation, "
            f"{len(dataset.test_labels):,} test images; {config.model.name}, norm "
            f"{config.model.norm}, {num_params:,} parameters; {device_line}"
        )
    for start, workdir in zip(starts, workdirs, strict=True):
        if start.damaged:
            display.say(f"{start.damaged[0]}; going back to the one before")
        if start.history or start.unfinished:
            display.say(f"resuming {workdir} after {behind(start.history, start.unfinished)}")
        if start.computed_on and computing != start.computed_on[-1]:
            display.say(
                f"begun on {start.computed_on[-1]}; going on with {computing}: the last bits may "
                "differ from a run that was never stopped"
            )
    state = stack_runs([start.state for start in starts])
    hyper = jax.device_put(stack_runs([hyperparams(c) for c in configs]))
    begun = time.perf_counter()
    # Apart, so that a signal need not wait for the compiler.
    epoch = apart(lambda: _compiled_epoch(programs, prepared, config, hyper, state, seeds))
    steps = resumed_steps(starts, epoch)
    spent = starts[0].unfinished.seconds if starts[0].unfinished else 0.0
    compiled = time.perf_counter() - begun
    where = workdirs[0] if seeds == 1 else workdirs[0].parent
    display.say(f"compiled in {compiled:.1f} s; run directory: {where}")

    records: list[dict[str, Any]] = [
        {
            "config": configuration.to_dict(c),
            "dataset": prepared.record(),
            "compile_seconds": start.compile_seconds + compiled,
            "computed_on": tuple(dict.fromkeys([*start.computed_on, computing])),
            **({"init_from": start.origin} if start.origin else {}),
        }
        for c, start in zip(configs, starts, strict=True)
    ]
    written: list[Results | None] = [None] * seeds
    finished: dict[int, tuple[Finished, np.ndarray]] = {}

    def common(i: int, predict_compile: float = 0.0) -> dict[str, Any]:
        """Fields of the results of a run, however it ended."""
        compile_seconds = records[i]["compile_seconds"] + predict_compile
        train_seconds = sum(row["seconds"] for row in opened[i].history)
        return {
            **records[i],
            "compile_seconds": compile_seconds,
            "compile_share": compile_seconds / (compile_seconds + train_seconds),
            "peak_memory_bytes": peak_memory_bytes(),
            "peak_device_memory_bytes": peak_device_memory_bytes(device),
            "model": configs[i].model.name,
            "norm": configs[i].model.norm,
            "seed": configs[i].training.seed,
            "num_params": num_params,
            "history": tuple(EpochRow(**row) for row in opened[i].history),
            "train_seconds": train_seconds,
            "seed_parallelism": seeds,
            "device": device_line,
            **provenance.determinism(device.platform, records[i]["computed_on"]),
        }

    def on_divergence(i: int, divergence: Divergence, before: TrainState) -> None:
        operation = None
        if debug_nans:
            display.say(f"{divergence}; replaying epoch {divergence.epoch} step by step")
            operation = _operation(experiment, hyper, before, prepared, divergence.epoch)
        found = DivergedAt(epoch=divergence.epoch, step=divergence.step, operation=operation)
        written[i] = outcome.write_divergence(opened[i].workdir, found, **common(i))

    fresh = [not rundir.holds_run(workdir) for workdir in workdirs]
    try:
        with contextlib.ExitStack() as stack:
            opened = [
                stack.enter_context(
                    rundir.open_run(workdir, c, msgspec.to_builtins(record), start.history)
                )
                for workdir, c, record, start in zip(
                    workdirs, configs, records, starts, strict=True
                )
            ]
            states = train_epochs(
                epoch,
                hyper,
                state,
                opened,
                last,
                n_train,
                progress,
                display,
                on_divergence,
                (steps, spent),
            )
        display.end_progress()
        for i, final in enumerate(states):
            if final is None:
                continue
            evaluation, logits, predict_compile = evaluate_state(
                programs, experiment, final, dataset
            )
            rest = common(i, predict_compile)
            labels = np.asarray(dataset.test_labels)
            written[i] = results = outcome.write_finished(
                workdirs[i], evaluation, logits, labels, **rest
            )
            finished[i] = (results, evaluation.confusion)
    except KeyboardInterrupt as stop:
        raise discarded(workdirs, fresh, stop) from None
    finally:
        display.end_progress()
    for i, (results, confusion) in finished.items():
        written[i], problems = outcome.draw(workdirs[i], results, confusion)
        for problem in problems:
            display.say(problem)
    return [row for row in written if row is not None]


def _operation(
    experiment: Experiment, hyper: Hyper, start: TrainState, prepared: Prepared, epoch: int
) -> str:
    """The operation at which an epoch from this state diverges, as text."""
    found = apart(lambda: replay(experiment, hyper, start, prepared.host, epoch))
    if found is None:
        return "step by step every training step is finite: rounding or the validation decides"
    step, operation = found
    return f"step {step}: {operation}"


def _begin(
    experiment: Experiment, config: Config, prepared: Prepared, workdir: Path, resume: bool
) -> Start:
    initial = jax.jit(init_state, static_argnums=(0, 2))
    key = jax.random.key(config.training.seed)
    state = initial(experiment, key, prepared.data.val_images.shape[1:])
    dataset = prepared.dataset
    found = resumed(state, config, dataset.fingerprint, workdir) if resume else None
    if found is not None:
        return found
    source = pretrained.source_path(config)
    if source is None:
        return Start(state, [], 0.0)
    opened = pretrained.open_source(source)
    state, origin = pretrained.start_from(opened, config, state, dataset.classes)
    return Start(state, [], 0.0, origin)


def _memory(results: Finished) -> str:
    """The peaks of memory that are known, in words."""
    peaks = {
        "of memory": results.peak_memory_bytes,
        "of the device's": results.peak_device_memory_bytes,
    }
    return "".join(f", at most {peak / 2**20:,.0f} MiB {of}" for of, peak in peaks.items() if peak)


def _say_origin(origin: Origin | None, display: Display) -> None:
    """Where the initial values come from, and one line for each tensor that does not."""
    if origin is None:
        return
    display.say(
        f"starting from {origin.source} (digest {origin.digest[:12]}): "
        f"{origin.parameters_taken:,} parameters and statistics taken"
    )
    for line in origin.left:
        display.say(f"  {line}")


def train_run(
    config: Config,
    *,
    workdir: Path | None = None,
    resume: bool = False,
    debug_nans: bool = False,
    grace: float = GRACE,
    display: Display | None = None,
) -> Finished:
    """Train, evaluate on the test set, and write everything a run leaves.

    Args:
        config: what to run.
        workdir: directory of the run; `run_directory` by default.
        resume: go on from its newest checkpoint, if it holds one.
        debug_nans: if the run diverges, find the operation.
        grace: seconds that it may go on after SIGTERM.
        display: where progress is shown.

    Returns:
        What was written to `results.json`.

    Raises:
        UserError: for input that the user can mend, before anything is written.
        Interrupted, Diverged: with the run's directory left as the message says.
    """
    display = display or Display()
    check_all([config.training])
    if workdir is not None:
        rundir.check_workdir(workdir, resume)
    prepared = open_data(config, display)
    config, dataset = prepared.config, prepared.dataset
    workdir = workdir or run_directory(config, dataset)
    rundir.check_workdir(workdir, resume)
    before = read_divergence(workdir)
    if before is not None and not debug_nans:
        raise UserError(
            f"--resume: {divergence_line(before, workdir)}; it would again: take another --workdir "
            "and a lower --lr, or add --debug-nans to find the operation"
        )
    try:
        with rundir.held(workdir, "train"):
            rundir.check_workdir(workdir, resume)
            (results,) = train_group(
                prepared,
                [config],
                [workdir],
                resume=resume,
                display=display,
                progress=Progress(grace=grace),
                debug_nans=debug_nans,
            )
    except Interrupted as stop:
        kept = rundir.holds_run(workdir)
        how = " Go on with the same command and --resume." if kept else ""
        raise Interrupted(f"{stop}{how}", stop.status) from None
    if not isinstance(results, Finished):
        raise Diverged(f"{divergence_line(results.diverged, workdir)}; try a lower --lr")
    labels = np.asarray(dataset.test_labels)
    with np.load(workdir / results.predictions, allow_pickle=False) as predictions:
        say_evaluation(evaluate_logits(predictions["logits"], labels), dataset, display)
    display.say(
        f"trained in {duration(results.train_seconds)}, compiled in "
        f"{results.compile_seconds:.1f} s ({100 * results.compile_share:.1f} %)"
        f"{_memory(results)}; everything is in {workdir}"
    )
    if dataset.notice:
        display.banner(dataset.notice)
    return results


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
        display: where the result is shown.

    Raises:
        UserError: if there is no checkpoint, or the data are not those of the run.
    """
    display = display or Display()
    directory = find_checkpoints(checkpoint)
    checkpoints = Checkpoints(directory, create=False)
    try:
        record = read_record(checkpoints)
        for wrong in checkpoints.damaged():
            display.say(f"{wrong}; going back to the one before")
        config = record.settings
        if dataset is not None:
            config = configuration.override(config, "data", "dataset", dataset, "--dataset")
        if data_dir is not None:
            config = configuration.override(config, "data", "data_dir", data_dir, "--data-dir")
        config, images = open_dataset(config, display.progress)
        display.end_progress()
        if images.fingerprint != record.dataset.fingerprint:
            raise UserError(
                f"{directory}: was trained on {record.dataset.name} "
                f"{record.dataset.fingerprint[:12]}, not on {images.name} "
                f"{images.fingerprint[:12]}"
            )
        experiment = build_experiment(config)
        like = init_state(experiment, jax.random.key(0), images.test_images.shape[1:])
        state = checkpoints.read_state(like)
    finally:
        checkpoints.close()
    done = behind(record.history, record.unfinished)
    display.say(f"checkpoint after {done} in {directory}")
    evaluation, _, _ = evaluate_state(Programs(), experiment, state, images)
    say_evaluation(evaluation, images, display)
    return evaluation
