"""Which runs of a study train together, and in which order."""

import itertools
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cifar_jax.config.settings import Config
from cifar_jax.errors import UserError
from cifar_jax.kernels import forms
from cifar_jax.runner.checkpoint_files import Position
from cifar_jax.study.directory import Cell
from cifar_jax.study.grid import Arm, parse_sweep


@dataclass(frozen=True)
class Group:
    """Runs that train together. Each is an arm and a seed."""

    runs: tuple[Cell, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each run on the terminal."""
        return tuple(f"{arm.label}{',' * bool(arm.field)} seed {seed}" for arm, seed in self.runs)


class Spread(NamedTuple):
    """How a study is spread over devices and processes.

    Attributes:
        data_parallel: number of devices that divide each batch. With 1, each device trains runs of
            its own.
        part, parts: this process trains every `parts`-th seed, from number `part` on. Other
            processes train the others.
        engine: "ray" lets a cluster train the groups; empty: this process trains them.
    """

    data_parallel: int = 1
    part: int = 0
    parts: int = 1
    engine: str = ""

    def own(self, seeds: Sequence[int]) -> Sequence[int]:
        """Return the seeds that this process trains."""
        return seeds[self.part :: self.parts]


ALONE = Spread()


def study_seeds(config: Config) -> tuple[int, ...]:
    """Return the seeds of a study.

    Raises:
        UserError: the last seed is too large.
    """
    first = config.training.seed
    if config.study.half_width is not None:
        if config.study.seeds < 2:
            raise UserError("--seeds 1: --half-width needs at least 2 seeds for its first stage")
        if config.study.sweep is not None:
            raise UserError("--half-width: cannot be combined with --sweep")
    if first + config.study.seeds > 2**32:
        raise UserError(f"--seed {first}: with {config.study.seeds} seeds the last is above 2**32")
    return tuple(range(first, first + config.study.seeds))


def seed_parallelism(config: Config, platform: str, devices: int = 1) -> int:
    """Return the largest number of runs to train together.

    On a CPU one run uses all cores, and several would share its cache. One small CNN leaves most
    of an accelerator idle. There all runs train together, or as many as take the least time per run
    by `forms.json`. Several devices train several times as many.

    Args:
        platform: JAX's name of the backend.
        devices: that train different runs.

    Raises:
        UserError: `study.seed_parallelism` is neither `auto` nor an allowed number.
    """
    sweep = parse_sweep(config)
    text = config.study.seed_parallelism
    runs = config.study.seeds * (len(sweep.values) if sweep else 1)
    stream = config.data.pipeline == "stream"
    if text == "auto":
        if platform == "cpu" or stream:
            return min(runs, devices)
        return min(runs, (forms.best_group(config.training.precision) or runs) * devices)
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
        raise UserError(f"--seed-parallelism: {text!r} is neither auto nor a number from 1 to 1000")
    if stream and int(text) > 1:
        raise UserError("--seed-parallelism: must be 1 with --pipeline stream")
    return min(int(text), runs)


def _batched(items: Sequence[Cell], size: int) -> list[tuple[Cell, ...]]:
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]


def plan_groups(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    group_size: int,
    remaining: dict[Cell, Position],
    program: Callable[[Arm], Hashable],
) -> list[Group]:
    """Divide the remaining runs into groups that train together.

    Groups train seed by seed, so an interrupted study already has pairs of runs with one seed.

    Args:
        arms, seeds: all of the study.
        group_size: largest number of runs in a group.
        remaining: unfinished runs, and the position of their newest checkpoint.
        program: key of an arm's compiled program. Arms with equal keys can train together.

    Returns:
        Groups, in the order of training. The runs of a group are at the same position.
    """
    families: dict[Hashable, list[Arm]] = {}
    for arm in arms:
        families.setdefault(program(arm), []).append(arm)
    chunks = [
        _batched([(arm, seed) for seed in seeds for arm in family], group_size)
        for family in families.values()
    ]
    groups = []
    for row in itertools.zip_longest(*chunks, fillvalue=()):
        for chunk in row:
            runs = sorted((run for run in chunk if run in remaining), key=remaining.__getitem__)
            for _, equal in itertools.groupby(runs, key=remaining.__getitem__):
                groups.append(Group(tuple(equal)))
    return groups
