"""Say from a pilot study how many seeds decide which claim."""

from collections.abc import Sequence

from cifar_jax.errors import counted
from cifar_jax.study.claims import Better, Claim, Equivalent, against_control
from cifar_jax.study.collect import Study
from cifar_jax.study.planning import largest_likely_std, seeds_for_equivalence, seeds_needed
from cifar_jax.study.questions import DIGITS, Question, asked
from cifar_jax.study.statistics import ALPHA, POWER, standard_deviation
from cifar_jax.study.summary import compared_arms, study_claims
from cifar_jax.study.verdicts import claim_rows

CHANCE = f"with a probability of {100 * POWER:.0f} %"


def planned_claims(study: Study) -> tuple[Claim, ...]:
    """Return the claims to plan for: the study's, else every arm against the control."""
    both = compared_arms(study)
    return study_claims(study) or (against_control(study.arms, both[0]) if both else ())


def plan_text(study: Study, claims: Sequence[Claim] | None = None) -> list[str]:
    """Return lines that say, from a pilot, how many seeds decide which claim.

    Args:
        study: the pilot, with at least two finished seed pairs to be of use.
        claims: see `planned_claims`.
    """
    claims = planned_claims(study) if claims is None else claims
    found = asked(study, claims)
    if not found:
        return ["No two arms share a finished seed, so there is nothing to plan from."]
    rows = claim_rows(study, [claim for claim, _, _ in found])
    family = sum(isinstance(claim, Better | Equivalent) for claim, _, _ in found)
    lines = []
    for (claim, both, question), row in zip(found, rows, strict=True):
        shares = family if isinstance(claim, Better | Equivalent) else 1
        lines.append(
            f"{row['claim']}: {row['verdict']} with {counted(len(both.pairs), 'paired seed')}."
        )
        if row["verdict"] == "undecided":
            lines.append("  " + _advice(question, len(both.pairs), shares))
    if any(row["verdict"] == "undecided" for row in rows):
        lines.append(
            f"To decide is to show the claim or its opposite {CHANCE}, if the true difference is "
            "the measured one. A pilot's difference and deviation are uncertain, so take the "
            "larger number."
        )
    return lines


def _advice(question: Question | None, pairs: int, comparisons: int) -> str:
    """Say how many seeds decide an undecided claim."""
    if question is None:
        return "It is about many classes, so no number of seeds can be given."
    values = question.sample.values
    std = standard_deviation(values)
    if not values:
        return f"The runs cannot answer: {question.measured}."
    if std is None:
        return "One seed shows no deviation. Train at least 3, better 5, and ask again."
    if question.found.interval is None or std == 0:
        return f"No number of seeds can be given: {question.found.reason or 'no spread'}."
    if question.found.rule != "seeds":
        return (
            f"The error of the {question.found.errors[1].freedom + 1:,} test images counts too. "
            "More seeds do not reduce it; more test images do."
        )
    upper = largest_likely_std(std, len(values))
    digits, unit = DIGITS[question.unit], question.unit
    now, careful = (_decides(question, s, comparisons) for s in (std, upper))
    measured = f"measured {question.found.mean:+z.{digits}f}, deviation {std:.{digits}f} {unit}"
    if now is None:
        return f"More than a million seeds would be needed ({measured})."
    text = f"{max(now, pairs + 1):,} seeds decide it ({measured})"
    if careful is None:
        text += "; more than a million"
    else:
        text += f"; {max(careful, pairs + 1):,}"
    return f"{text} if the deviation is {upper:.{digits}f}, its upper {100 * POWER:.0f} % limit."


def _decides(question: Question, std: float, comparisons: int) -> int | None:
    """Return the number of seeds that decide a question if the true mean is the measured one.

    Several comparisons share the error of 5 % equally, which Holm's method needs at most.
    """
    alpha, mean = ALPHA / comparisons, question.found.mean or 0.0
    if question.sign:
        return seeds_needed(mean - question.bound, std, alpha=alpha)
    if abs(mean) < question.bound:
        return seeds_for_equivalence(question.bound, std, mean, alpha=alpha)
    return seeds_needed(abs(mean) - question.bound, std, alpha=alpha)
