"""A study: every arm with every seed, each run once, then the statistics and the report."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from cifar_jax import config as configuration
from cifar_jax import rundir
from cifar_jax.config import NORMS, Config, StudyConfig
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import UserError
from cifar_jax.experiment import Prepared, check_batches, open_dataset
from cifar_jax.inputs import Shape, fits, is_count, is_name, is_part, read_json
from cifar_jax.report import files
from cifar_jax.report.console import Display
from cifar_jax.report.page import write_report
from cifar_jax.run import Diverged, Interrupted, Programs, Progress, open_data, train_group
from cifar_jax.study.collect import STUDY, read_study, run_path
from cifar_jax.study.summary import summarise

FAILED = "failed.json"
_STUDY: Shape = {
    "arms": [is_part],
    "seeds": [is_count],
    "config": dict,
    "dataset": {"fingerprint": is_name},
}


@dataclass(frozen=True)
class Group:
    """Runs of one arm that are trained together."""

    arm: str
    seeds: tuple[int, ...]


def parse_arms(config: Config) -> tuple[str, ...]:
    """The arms of a study.

    Raises:
        UserError: if one is unknown or named twice.
    """
    arms = tuple(arm.strip() for arm in config.study.arms.split(","))
    for arm in arms:
        if arm not in NORMS:
            raise UserError(f"--arms: {arm!r} is not known; allowed: {', '.join(NORMS)}")
    if len(set(arms)) < len(arms):
        raise UserError(f"--arms {config.study.arms}: an arm is named twice")
    return arms


def study_seeds(config: Config) -> tuple[int, ...]:
    """The seeds of a study."""
    first = config.training.seed
    if first + config.study.seeds > 2**32:
        raise UserError(f"--seed {first}: with {config.study.seeds} seeds the last is above 2**32")
    return tuple(range(first, first + config.study.seeds))


def seed_parallelism(config: Config, platform: str) -> int:
    """How many seeds to train together.

    On a CPU one seed fills the cores, and the cache is better used by one; an accelerator is far
    from filled by one small CNN.

    Raises:
        UserError: if what is asked for is neither `auto` nor a number that can be used.
    """
    text, seeds = config.study.seed_parallelism, config.study.seeds
    stream = config.data.pipeline == "stream"
    if text == "auto":
        return 1 if platform == "cpu" or stream else seeds
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
        raise UserError(f"--seed-parallelism: {text!r} is neither auto nor a number from 1 to 1000")
    if stream and int(text) > 1:
        raise UserError("--seed-parallelism: must be 1 with --pipeline stream")
    return min(int(text), seeds)


def _batched(items: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])


def plan(
    arms: Sequence[str], seeds: Sequence[int], together: int, finished: dict[tuple[str, int], int]
) -> list[Group]:
    """What is left to train, seed by seed, so that an unfinished study still holds pairs.

    Args:
        together: largest number of runs in a group.
        finished: epochs that each (arm, seed) has behind it; runs that need none are absent.

    Returns:
        Groups of runs that stand at the same epoch.
    """
    groups = []
    for chunk in _batched(seeds, together):
        for arm in arms:
            left = sorted((finished[arm, seed], seed) for seed in chunk if (arm, seed) in finished)
            for _, rows in itertools.groupby(left, key=lambda row: row[0]):
                groups.append(Group(arm, tuple(seed for _, seed in rows)))
    return groups


def arm_config(config: Config, arm: str, seed: int) -> Config:
    """Config of one run of a study."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, norm=arm),
        training=dataclasses.replace(config.training, seed=seed),
        study=StudyConfig(),
    )


def _epochs_behind(workdir: Path) -> int:
    directory = workdir / rundir.CHECKPOINTS
    if not directory.is_dir():
        return 0
    return max((int(p.name) for p in directory.iterdir() if p.name.isdecimal()), default=0)


def _read_study_file(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a study ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as a study ({error})") from None
    if not fits(found, _STUDY):
        raise UserError(f"{path}: cannot be read as a study (arms, seeds, config or dataset)")
    configuration.from_dict(found["config"], str(path))
    return found


def _claim(
    workdir: Path, prepared: Prepared, arms: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    """Write `study.json`, or check that the study there is this one.

    More epochs or other runs would be another study; more seeds or arms are the same one, longer.
    """
    path = workdir / STUDY
    config = configuration.to_dict(prepared.config)
    if path.exists():
        found = _read_study_file(path)
        before = configuration.from_dict(found["config"], str(path))
        free = ("study.", "data.dataset:", "data.data_dir:", "data.pipeline:", "model.norm:")
        changed = [
            d for d in configuration.differences(before, prepared.config) if not d.startswith(free)
        ]
        if changed:
            raise UserError(f"--workdir {workdir}: holds another study: {'; '.join(changed)}")
        if found["dataset"]["fingerprint"] != prepared.dataset.fingerprint:
            raise UserError(f"--workdir {workdir}: holds a study of other images")
        arms = tuple(dict.fromkeys([*found["arms"], *arms]))
        seeds = tuple(sorted({*found["seeds"], *seeds}))
    elif workdir.is_dir() and any(workdir.iterdir()):
        raise UserError(f"--workdir {workdir}: is not empty and holds no study")
    rundir.make_directory(workdir)
    record = {"arms": arms, "seeds": seeds, "config": config, "dataset": prepared.record()}
    files.write_json(path, record)


def _read_reason(path: Path) -> str:
    try:
        reason = read_json(path)["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        reason = None
    return reason if isinstance(reason, str) else f"{path}: a failed run, the reason cannot be read"


def _unfinished(
    workdir: Path, arms: Sequence[str], seeds: Sequence[int]
) -> tuple[dict[tuple[str, int], int], list[str]]:
    """Epochs behind every run that is not finished, and the reasons of those that failed."""
    left, failed = {}, []
    for arm, seed in itertools.product(arms, seeds):
        path = run_path(workdir, arm, seed)
        if (path / FAILED).exists():
            failed.append(_read_reason(path / FAILED))
        elif not (path / rundir.RESULTS).exists():
            left[arm, seed] = _epochs_behind(path)
    return left, failed


def study_run(
    config: Config, *, workdir: Path | None = None, display: Display | None = None
) -> list[str]:
    """Train what a study still lacks, then write its report.

    Args:
        config: of the study; each run's differs from it in norm and seed alone.
        workdir: directory of the study; `runs/study-<dataset>-<model>` by default.
        display: where progress is shown.

    Returns:
        One line for each run that failed.

    Raises:
        UserError: for input that the user can mend, before anything is written.
        Interrupted: finished runs and checkpoints are kept.
    """
    display = display or Display()
    arms, seeds = parse_arms(config), study_seeds(config)
    together = seed_parallelism(config, jax.default_backend())
    prepared = open_data(config, display)
    for arm in arms:
        check_batches(arm_config(prepared.config, arm, seeds[0]), len(prepared.train_rows))
    name = f"{config.name}-" if config.name else ""
    default = Path("runs") / f"{name}study-{prepared.dataset.name}-{config.model.name}"
    workdir = workdir or default
    rundir.check_workdir(workdir, resume=True)
    _claim(workdir, prepared, arms, seeds)

    left, failed = _unfinished(workdir, arms, seeds)
    total = len(arms) * len(seeds)
    display.say(
        f"study of {' and '.join(arms)} on {prepared.dataset.name}: {total} runs, "
        f"{total - len(left)} finished; {workdir}"
    )
    programs = Programs()
    groups = plan(arms, seeds, together, left)
    try:
        for number, group in enumerate(groups):
            later = sum(len(g.seeds) for g in groups[number + 1 :]) * config.training.epochs
            failed += _train_group(prepared, group, workdir, later, programs, display)
    except Interrupted as stop:
        raise Interrupted(f"{stop} Go on with the same command.") from None
    if len(failed) < total:
        _write(workdir, prepared.dataset, display)
    if prepared.dataset.notice:
        display.banner(prepared.dataset.notice)
    return failed


def _train_group(
    prepared: Prepared,
    group: Group,
    workdir: Path,
    later: int,
    programs: Programs,
    display: Display,
) -> list[str]:
    """Train a group of runs; returns a line for each that failed."""
    paths = [run_path(workdir, group.arm, seed) for seed in group.seeds]
    try:
        outcomes = train_group(
            prepared,
            [arm_config(prepared.config, group.arm, seed) for seed in group.seeds],
            paths,
            resume=True,
            display=display,
            programs=programs,
            progress=Progress(tuple(f"{group.arm} seed {s}" for s in group.seeds), later),
        )
    except UserError as error:  # For example a damaged checkpoint: the other runs go on.
        display.say(str(error))
        return [str(error)]
    failed = []
    for path, outcome in zip(paths, outcomes, strict=True):
        if isinstance(outcome, Diverged):
            files.write_json(path / FAILED, {"reason": str(outcome)})
            display.say(str(outcome))
            failed.append(str(outcome))
        else:
            accuracy = 100 * outcome["test_accuracy"]
            display.say(f"{group.arm} seed {outcome['seed']}: test accuracy {accuracy:.2f} %")
    return failed


def _write(workdir: Path, images: Dataset | None, display: Display) -> None:
    """Statistics, figures and report of what is finished."""
    study = read_study(workdir)
    summary = summarise(study)
    written = write_report(study, summary, images)
    for arm in summary["arms"]:
        row = summary["per_arm"].get(arm)
        if row:
            display.say(f"{arm}: test accuracy {_interval(row['test_accuracy'], 'mean')}")
    difference = summary["paired"].get("test_accuracy")
    if difference:
        first, second = summary["paired"]["arms"]
        display.say(f"{second} minus {first}: {_interval(difference, 'mean_difference')}")
    for path in written:
        if path.suffix == ".html":
            display.say(f"report: {path}")


def _interval(row: dict[str, Any], key: str) -> str:
    """A mean in percent with its 95 % interval, where there is one."""
    text = f"{100 * row[key]:.2f} %"
    if row["ci_t"] is None:
        return f"{text} ({row['n']} seed)"
    low, high = row["ci_t"]
    return f"{text} (95 % interval {100 * low:.2f} to {100 * high:.2f}, {row['n']} seeds)"


def redraw(
    workdir: Path,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    display: Display | None = None,
) -> None:
    """Write the report of a study again from what its runs left.

    Args:
        workdir: the study's directory.
        dataset: where its images lie now, if not where they lay.
        data_dir: likewise.
        display: where the answer is shown.

    Raises:
        UserError: if there is no study, or it has no finished run.
    """
    display = display or Display()
    record = _read_study_file(workdir / STUDY)
    config = configuration.from_dict(record["config"], str(workdir / STUDY))
    if dataset is not None:
        config = configuration.override(config, "data", "dataset", dataset, "--dataset")
    if data_dir is not None:
        config = configuration.override(config, "data", "data_dir", data_dir, "--data-dir")
    images: Dataset | None
    try:
        _, images = open_dataset(config, display.progress)
    except UserError as error:
        display.say(f"without the images: {error}")
        images = None
    display.end_progress()
    if images is not None and images.fingerprint != record["dataset"]["fingerprint"]:
        display.say(f"without the images: those of {images.name} are not those of the study")
        images = None
    _write(workdir, images, display)
