"""Measure the report of a study of many runs: seconds and peak memory of each part.

    python -m benchmarks.many_runs --runs 5000 --directory DIR

The runs are made up, with the files that real ones leave: `results.json` and `predictions.npz`.
Half of them are of each arm. An existing directory with as many runs is used again.

    begin       find the unfinished runs, as the command `study` does
    collect     read and check the results and predictions of all runs
    statistics  compute every number of the report
    page        draw and write the page, its figures and its tables

Memory is the largest resident memory so far, in MiB. A part loads the libraries that it needs.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks._cli import make_parser, parse, positive
from benchmarks._timing import show_progress, table, write_json
from cifar_jax.config import tables
from cifar_jax.config.settings import Config, DataConfig, ModelConfig, TrainingConfig
from cifar_jax.data.sources.published import CIFAR10
from cifar_jax.names import REPORT, RESULTS, STUDY
from cifar_jax.runner.evaluation import evaluate_logits
from cifar_jax.runner.outcome import write_finished
from cifar_jax.runner.results import DatasetRecord, EpochRow, Spent
from cifar_jax.study.grid import NORM_LABELS, norm_arm
from cifar_jax.study.record import Plan, PlanArm, read_plan, run_path, write_plan

ARMS = ("none", "batch")
KIB = 1 if sys.platform == "darwin" else 1024  # bytes of a unit of ru_maxrss


def _config(epochs: int) -> Config:
    data = DataConfig(dataset="cifar10", val_examples=5000)
    training = TrainingConfig(seed=1, epochs=epochs, batch_size=128)
    return Config(data=data, model=ModelConfig(num_classes=10), training=training)


def _dataset(images: int) -> DatasetRecord:
    return DatasetRecord(
        name="cifar10",
        fingerprint="ab" * 32,
        n_train=45_000,
        n_val=5_000,
        n_test=images,
        classes=CIFAR10.classes,
        notes=(),
    )


def _history(rng: np.random.Generator, level: float, epochs: int) -> tuple[EpochRow, ...]:
    rows = []
    for epoch in range(1, epochs + 1):
        loss = float(level + 1.4 * np.exp(-epoch / 5) + 0.02 * rng.normal())
        rows.append(
            EpochRow(
                epoch=epoch,
                train_loss=loss + 0.1,
                train_accuracy=1 - loss / 2.6,
                val_loss=loss + 0.01 * rng.normal(),
                val_accuracy=1 - loss / 2.9 + 0.004 * rng.normal(),
                seconds=0.16 + 0.01 * rng.random(),
                learning_rate=0.01 * 0.1 ** ((epoch - 1) // 10),
                images_per_second=280_000.0,
            )
        )
    return tuple(rows)


def _write_run(directory: Path, arm: str, seed: int, images: int, epochs: int) -> None:
    """Write the files of a made-up run, unless they are there."""
    if (directory / RESULTS).exists():
        return
    batch = arm == "batch"
    labels = np.arange(images, dtype=np.int32) % 10
    shared = np.random.default_rng([0, 0, 1]).normal(size=(images, 10))
    rng = np.random.default_rng([seed, batch])
    logits = (1.2 * shared + 0.7 * rng.normal(size=shared.shape)).astype(np.float32)
    logits[np.arange(images), labels] += 2.9 + 0.3 * batch + 0.02 * rng.normal()
    history = _history(rng, 0.6 if batch else 0.7, epochs)
    directory.mkdir(parents=True, exist_ok=True)
    write_finished(
        directory,
        evaluate_logits(logits, labels),
        logits,
        labels,
        config=tables.to_dict(norm_arm(arm).config(_config(epochs), seed)),
        dataset=_dataset(images),
        compile_seconds=0.5,
        computed_on=("cpu: made up, jax 0.11.2",),
        history=history,
        spent=Spent(data=0.1, compiling=0.5, training=5.0, writing=0.1, evaluation=0.1),
        model="cnn",
        norm=arm,
        seed=seed,
        num_params=621_322 if batch else 620_362,
        train_seconds=sum(row.seconds for row in history),
        compile_share=0.1,
        seed_parallelism=10,
        peak_memory_bytes=None,
        peak_device_memory_bytes=None,
        device="cpu: made up",
        variables={},
        deterministic=True,
        determinism_note="made up",
    )


def make_study(workdir: Path, runs: int, images: int, epochs: int) -> None:
    """Write a study of made-up runs, half of each arm. An interrupted call can be repeated.

    Args:
        workdir: its directory, made if it is missing.
        runs: an even number.
        images: for testing.
        epochs: of a run.
    """
    seeds = tuple(range(1, runs // 2 + 1))
    workdir.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        show_progress(f"making runs of seed {seed:,} of {len(seeds):,}")
        for arm in ARMS:
            _write_run(run_path(workdir, arm, seed), arm, seed, images, epochs)
    arms = tuple(PlanArm(arm, NORM_LABELS[arm], {"model.norm": arm}) for arm in ARMS)
    write_plan(workdir, Plan(arms, seeds, tables.to_dict(_config(epochs)), _dataset(images)))


def measure(workdir: Path) -> dict[str, dict[str, float]]:
    """Return seconds and peak MiB of each part of a report."""
    found: dict[str, dict[str, float]] = {}

    def part(name: str, call: Callable[[], Any]) -> Any:
        show_progress(name)
        begun = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / 2**20
        found[name] = {"seconds": seconds, "MiB": peak}
        return result

    def begin() -> None:
        from cifar_jax.study.directory import unfinished

        plan = read_plan(workdir)
        left, _ = unfinished(workdir, plan.grid_arms, plan.seeds)
        if left:
            raise RuntimeError(f"{len(left)} runs of {workdir} are not finished")

    def collect() -> Any:
        from cifar_jax.study.collect import read_study

        return read_study(workdir)

    def statistics() -> Any:
        from cifar_jax.study.summary import summarise

        return summarise(study)

    def page() -> None:
        from cifar_jax.report.page import write_report

        write_report(study, summary, None)

    part("begin", begin)
    study = part("collect", collect)
    summary = part("statistics", statistics)
    part("page", page)
    show_progress("")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Make the runs, measure, print a table, write a JSON."""
    parser = make_parser("many_runs", __doc__)
    parser.add_argument("--runs", type=positive, default=5000, help="an even number (5000)")
    parser.add_argument("--images", type=positive, default=10_000, help="for testing (10000)")
    parser.add_argument("--epochs", type=positive, default=30, help="of a run (30)")
    parser.add_argument("--directory", type=Path, help="to keep the runs in (default: temporary)")
    args = parse(parser, argv, runs=100, images=1000)
    with tempfile.TemporaryDirectory() as temporary:
        workdir = (args.directory or Path(temporary)) / f"study{args.runs}"
        if not (workdir / STUDY).exists():
            make_study(workdir, args.runs, args.images, args.epochs)
        found = measure(workdir)
        size = (workdir / REPORT).stat().st_size
    rows = [[name, f"{row['seconds']:.1f}", f"{row['MiB']:,.0f}"] for name, row in found.items()]
    print(table([f"{args.runs:,} runs", "seconds", "peak MiB"], rows))
    print(f"page: {size / 1e6:.1f} MB")
    settings = {name: getattr(args, name) for name in ("runs", "images", "epochs")}
    write_json(args.output, {"settings": settings, "parts": found, "page bytes": size})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
