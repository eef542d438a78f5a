"""Decide the claims of a study, each by a rule that is fixed before any measurement.

One seed decides no claim. If a study has several claims of the kinds better and equivalent, Holm's
method adjusts their p-values for that number. The other kinds are not adjusted.
"""

from collections.abc import Sequence
from typing import Any

from cifar_jax.errors import counted
from cifar_jax.study.claims import Better, Claim, Equivalent, Faster, GainsMost, Smoother
from cifar_jax.study.collect import Study
from cifar_jax.study.questions import Comparison, Question, Verdict, asked
from cifar_jax.study.samples import Sample
from cifar_jax.study.statistics import ALPHA, Interval, holm

# "Nearly every" of fewer classes has no meaning.
FEWEST_CLASSES = 5


def decide(interval: Interval | None) -> Verdict:
    """Decide "the mean is above 0" from a 95 % interval for the mean."""
    if interval is None:
        return "undecided"
    low, high = interval
    if low > 0:
        return "supported"
    return "not supported" if high < 0 else "undecided"


def nearly_every_class(gains: dict[str, Sample]) -> tuple[str, Verdict, str]:
    """Decide the claim that an arm improves nearly every class.

    "Supported" needs nearly all intervals, so the error rate does not grow with the number of
    classes, and each interval may have 95 %. "Not supported" needs any two classes, so Holm's
    method adjusts the p-values for the number of classes.

    Returns:
        The measured numbers in words, the verdict and its rule.
    """
    found = [gain.estimate() for gain in gains.values()]
    verdicts = [decide(one.interval) for one in found]
    total, better, worse = (
        len(found),
        verdicts.count("supported"),
        verdicts.count("not supported"),
    )
    adjusted = holm([1.0 if one.p is None else one.p for one in found])
    surely_worse = sum(
        v == "not supported" and p is not None and p < ALPHA
        for v, p in zip(verdicts, adjusted, strict=True)
    )
    verdict: Verdict = "undecided"
    if total >= FEWEST_CLASSES and surely_worse > 1:
        verdict = "not supported"
    elif total >= FEWEST_CLASSES and better >= total - 1 and not worse:
        verdict = "supported"
    higher = sum((one.mean or 0.0) > 0 for one in found)
    if total >= FEWEST_CLASSES:
        rule = (
            f"supported if the 95 % paired intervals of at least {total - 1} of {total} classes "
            "are entirely above 0 and none entirely below; not supported if two or more are below "
            f"after Holm's correction for {total} classes; otherwise, or with one seed, undecided"
        )
    else:
        rule = f"undecided with fewer than {FEWEST_CLASSES} classes"
    measured = (
        f"{higher} of {counted(total, 'class')} with a higher mean; {better} clearly higher, "
        f"{worse} clearly lower"
    )
    return measured, verdict, rule


def claim_rows(study: Study, claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Decide claims. Return a row of plain data for each, without those that have no seed pair.

    Keys of a row: `id`, `claim`, `published`, `measured`, `interval` (95 %, not adjusted), `unit`,
    `verdict`, `rule`, `published_inside_interval` and `p_holm`. The last is the p-value adjusted
    for the study's claims of the kinds better and equivalent. It is None for other kinds.
    """
    found = asked(study, claims)
    family = [
        question
        for claim, _, question in found
        if question is not None and isinstance(claim, Better | Equivalent)
    ]
    # As in `with_holm`: seeds that are all equal count as a test with p = 1.
    tested = [
        1.0 if p is None and len(question.sample.values) > 1 else p
        for question in family
        for p, _ in [question.evidence()]
    ]
    adjusted = dict(zip(map(id, family), holm(tested), strict=True))
    rows = []
    for claim, both, question in found:
        if question is None:
            row = _classes_row(claim, both)
        elif id(question) in adjusted:
            row = _row(claim, question, adjusted[id(question)], len(family))
        else:
            row = _row(claim, question)
        rows.append(row)
    return rows


def _classes_row(claim: Claim, both: Comparison) -> dict[str, Any]:
    measured, verdict, rule = nearly_every_class(both.gains)
    text = f"{both.arm} improves nearly every class"
    return _plain(claim, text, measured, "classes", verdict) | {"rule": rule}


def _row(
    claim: Claim, question: Question, p_holm: float | None = None, comparisons: int = 1
) -> dict[str, Any]:
    p, verdict = question.evidence()
    measured = question.measured
    if p is not None and comparisons > 1 and p_holm is not None:
        measured += f"; adjusted p = {p_holm:.2g}"
    if p is None or (p if p_holm is None else p_holm) >= ALPHA:
        verdict = "undecided"
    row = _plain(claim, question.text, measured, question.unit, verdict)
    ends, number = question.found.interval, claim.published_value
    inside = None if number is None or ends is None else ends[0] <= number <= ends[1]
    return row | {
        "interval": None if ends is None else list(ends),
        "rule": question.rule(comparisons),
        "published_inside_interval": inside,
        "p_holm": None if p is None else p_holm,
    }


def _plain(claim: Claim, text: str, measured: str, unit: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "id": claim.name or _default_name(claim),
        "claim": claim.text or text,
        "published": claim.published,
        "measured": measured,
        "interval": None,
        "unit": unit,
        "verdict": verdict,
        "rule": "",
        "published_inside_interval": None,
        "p_holm": None,
    }


def _default_name(claim: Claim) -> str:
    """Return an id of the claim's kind, arms and other fields."""
    match claim:
        case Better():
            more = [claim.metric, *([f"by_{claim.by:g}"] if claim.by else [])]
        case Equivalent():
            more = [claim.metric, f"within_{claim.within:g}"]
        case Faster():
            more = [f"{claim.early}_{claim.late}"]
        case Smoother():
            more = [claim.curve]
        case GainsMost():
            more = list(claim.classes)
        case _:
            more = []
    kind = str(type(claim).__struct_config__.tag)
    return "_".join([kind, claim.arm, claim.than, *more])
