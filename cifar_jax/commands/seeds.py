"""The command `seeds`: how many seeds a question takes. It trains nothing."""

from collections.abc import Callable
from pathlib import Path

from cifar_jax.errors import UserError, counted
from cifar_jax.study.planning import (
    half_width,
    seeds_for_half_width,
    seeds_needed,
    smallest_difference,
)
from cifar_jax.study.statistics import ALPHA, LEVEL, POWER

SHOWN = (3, 5, 10, 20, 50)
CHANCE = f"with a probability of {100 * POWER:.0f} %"


def _number(seeds: int | None) -> str:
    return "More than a million seeds" if seeds is None else counted(seeds, "seed")


def answer(difference: float | None, std: float, width: float | None) -> list[str]:
    """Return the lines for one standard deviation of paired differences.

    Args:
        difference: to find, or None.
        std: above 0, in the same unit.
        width: wanted half-width of the interval, or None.
    """
    lines = []
    if difference is not None:
        found = _number(seeds_needed(difference, std))
        lines.append(
            f"{found} in each arm: a true difference of {difference:g} is shown {CHANCE} "
            f"(two-sided paired t test at {100 * ALPHA:.0f} %)."
        )
    if width is not None:
        found = _number(seeds_for_half_width(std, width))
        lines.append(
            f"{found} in each arm: the {100 * LEVEL:.0f} % interval is about ±{width:g} or "
            "narrower."
        )
    lines.append(f"If the paired differences have a standard deviation of {std:.3g}:")
    lines.append(f"{'seeds':>8}  {'95 % interval':>14}  difference shown {CHANCE}")
    for seeds in SHOWN:
        interval = f"± {half_width(std, seeds):.3g}"
        lines.append(f"{seeds:>8}  {interval:>14}  {smallest_difference(std, seeds):.3g}")
    return lines


def _from_study(directory: Path, difference: float | None, width: float | None) -> list[str]:
    """Return the lines for the test accuracy of a study, in points.

    Raises:
        UserError: it is no study, has a sweep, or has no finished run.
    """
    from cifar_jax.study.claims import against_control
    from cifar_jax.study.collect import read_study
    from cifar_jax.study.plans import plan_text
    from cifar_jax.study.questions import asked
    from cifar_jax.study.record import read_plan
    from cifar_jax.study.statistics import standard_deviation
    from cifar_jax.study.summary import compared_arms

    if read_plan(directory).sweep is not None:
        raise UserError(f"{directory}: has a sweep; allowed: a study without one")
    study = read_study(directory)
    if difference is None and width is None:
        return plan_text(study)
    both = compared_arms(study)
    claims = against_control(study.arms, both[0]) if both else ()
    lines = []
    for _, pair, question in asked(study, claims):
        values = question.sample.values if question else []
        what = f"{pair.arm} minus {pair.than}, test accuracy in points"
        std = standard_deviation(values)
        if not std:
            why = "all seeds give the same difference" if len(values) > 1 else "it has one seed"
            lines.append(f"{what}: no standard deviation, because {why}.")
        else:
            lines += [f"{what}, {len(values)} paired seeds:", *answer(difference, std, width)]
    return lines or [f"{directory}: no two arms share a finished seed, so nothing is compared."]


def seeds_run(
    difference: float | None = None,
    std: float | None = None,
    half_width: float | None = None,
    study_dir: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Print how many seeds a question takes.

    Args:
        difference: true difference to find; None for no such question.
        std: standard deviation of the paired differences, in the same unit.
        half_width: wanted half-width of the 95 % interval; None for no such question.
        study_dir: a study to take the standard deviation from, instead of `std`. Without
            `difference` and `half_width`, prints how many seeds decide each of its claims.
        say: prints a line.

    Raises:
        UserError: neither or both of `std` and `study_dir` are given, or the study is unusable.
    """
    if (std is None) == (study_dir is None):
        raise UserError(
            "seeds: needs the standard deviation of the paired differences; give either --std or "
            "--from (see --help)"
        )
    if study_dir is not None:
        lines = _from_study(study_dir, difference, half_width)
    else:
        assert std is not None
        lines = answer(difference, std, half_width)
    for line in lines:
        say(line)
