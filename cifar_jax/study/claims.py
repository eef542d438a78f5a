"""What a study claims: plain data that `study.json` keeps. `cifar_jax.study.verdicts` decides it.

A claim is about two arms, `arm` and `than`, over their seed pairs. Amounts have the metric's unit:
points of accuracy, nats of loss, per cent of time.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

import msgspec
from msgspec.structs import force_setattr

from cifar_jax.errors import UserError, shown
from cifar_jax.inputs import is_name

Metric = Literal["test_accuracy", "val_accuracy", "test_loss", "train_seconds"]


class Quantity(NamedTuple):
    """How a metric is compared and written.

    Attributes:
        words: its name in text.
        unit: of differences.
        scale: from the metric of `pair_samples` to the unit.
        higher: whether higher is better.
        most: largest amount that a claim may name.
    """

    words: str
    unit: str
    scale: float
    higher: bool
    most: float


QUANTITIES: dict[str, Quantity] = {
    "test_accuracy": Quantity("test accuracy", "points", 100, True, 100),
    "val_accuracy": Quantity("final validation accuracy", "points", 100, True, 100),
    "test_loss": Quantity("test loss", "nats", 1, False, 1e6),
    "train_seconds": Quantity("training time", "%", 100, False, 1e6),
}


class _About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """Two arms, and how the claim is written.

    Attributes:
        arm: name of the arm that the claim is about.
        than: name of the arm that it is compared with.
        text: the claim in words; None for a sentence made from its fields.
        name: the row's `id`; None for one made from its fields.
        published, published_value: what a publication says of CIFAR-10, in words, and its number.
        only_cifar10: whether the claim is about CIFAR-10 alone.
    """

    arm: str
    than: str
    text: str | None = None
    name: str | None = None
    published: str | None = None
    published_value: float | None = None
    only_cifar10: bool = False

    def __post_init__(self) -> None:
        if self.arm == self.than:
            raise ValueError(f"compares {shown(self.arm)} with itself; name two arms")
        if self.text is not None and not is_name(self.text):
            raise ValueError(f"text={shown(self.text)} is not a line of text")


class Better(_About, frozen=True, kw_only=True, tag="better"):
    """The arm's metric is better by more than `by`: higher accuracy, lower loss, less time."""

    by: float = 0.0
    metric: Metric = "test_accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("by", self.by, self.metric)
        force_setattr(self, "by", float(self.by))  # NumPy's numbers cannot be saved.


class Equivalent(_About, frozen=True, kw_only=True, tag="equivalent"):
    """The arms' metrics differ by less than `within`, in either direction."""

    within: float
    metric: Metric = "test_accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("within", self.within, self.metric)
        force_setattr(self, "within", float(self.within))
        if self.within == 0:
            raise ValueError("within=0: no study can show that; allowed: more than 0")


class Faster(_About, frozen=True, kw_only=True, tag="faster"):
    """After `early` epochs the arm validates about as well as the other after `late`.

    "About" is at most `tolerance` points lower.
    """

    early: int = 5
    late: int = 10
    tolerance: float = 1.0


class Smoother(_About, frozen=True, kw_only=True, tag="smoother"):
    """The arm's loss curve oscillates less."""

    curve: Literal["train_loss", "val_loss"]


class NearlyEveryClass(_About, frozen=True, kw_only=True, tag="nearly_every_class"):
    """The arm's test accuracy is higher for all classes but one at most."""


class GainsMost(_About, frozen=True, kw_only=True, tag="gains_most"):
    """The named classes gain more test accuracy than the others."""

    classes: tuple[str, ...]


class Slower(_About, frozen=True, kw_only=True, tag="slower"):
    """The arm takes longer to train."""


Claim = Better | Equivalent | Faster | Smoother | NearlyEveryClass | GainsMost | Slower


def on_dataset(claims: Sequence[Claim], cifar10: bool) -> tuple[Claim, ...]:
    """Return the claims that a dataset can decide. Only CIFAR-10 has published numbers."""
    if cifar10:
        return tuple(claims)
    return tuple(
        msgspec.structs.replace(claim, published=None, published_value=None)
        for claim in claims
        if not claim.only_cifar10
    )


def _check(name: str, amount: Any, metric: Any) -> None:
    """Check the metric and the amount of a claim.

    Raises:
        ValueError: one is not allowed.
    """
    if metric not in get_args(Metric):
        raise ValueError(
            f"metric={shown(metric)} is not known; allowed: {', '.join(get_args(Metric))}"
        )
    quantity = QUANTITIES[metric]
    number = isinstance(amount, Real) and not isinstance(amount, bool) and math.isfinite(amount)
    if not number or not 0 <= amount <= quantity.most:
        unit = {"%": "per cent"}.get(quantity.unit, quantity.unit)
        raise ValueError(
            f"{name}={shown(amount)} is not a number of {unit}; allowed: 0 to {quantity.most:,g}"
        )


def better(
    arm: str, than: str, by: float = 0.0, metric: Metric = "test_accuracy", text: str | None = None
) -> Better:
    """Claim that an arm is better than another by more than `by`.

    Args:
        arm: name of the arm.
        than: name of the arm that it is compared with.
        by: points of accuracy, nats of loss, per cent of time.
        metric: `test_accuracy`, `val_accuracy`, `test_loss` or `train_seconds`. Lower loss and
            less time are better.
        text: the claim in words, for the report.

    Raises:
        UserError: a value is not allowed.
    """
    try:
        return Better(arm=arm, than=than, by=by, metric=metric, text=text)
    except ValueError as error:
        raise UserError(f"better({shown(arm)}, {shown(than)}): {error}") from None


def equivalent(
    arm: str, than: str, within: float, metric: Metric = "test_accuracy", text: str | None = None
) -> Equivalent:
    """Claim that two arms differ by less than `within`, in either direction.

    Args:
        arm: name of the arm.
        than: name of the arm that it is compared with.
        within: more than 0; points of accuracy, nats of loss, per cent of time.
        metric: see `better`.
        text: the claim in words, for the report.

    Raises:
        UserError: a value is not allowed.
    """
    try:
        return Equivalent(arm=arm, than=than, within=within, metric=metric, text=text)
    except ValueError as error:
        raise UserError(f"equivalent({shown(arm)}, {shown(than)}): {error}") from None


def against_control(arms: Sequence[str], control: str) -> tuple[Better, ...]:
    """Return the claims of a study that names none: every other arm is better than the control."""
    return tuple(Better(arm=arm, than=control) for arm in arms if arm != control)


def check_claims(claims: Iterable[Any], arms: Sequence[str]) -> tuple[Claim, ...]:
    """Return the claims of a study, each once.

    Raises:
        UserError: one is not a claim, or names an arm that the study does not have.
    """
    found = tuple(claims)
    for claim in found:
        if not isinstance(claim, Claim):
            raise UserError(
                f"claims: {shown(claim)} is not a claim; allowed: what better() and equivalent() "
                "return"
            )
        for name in (claim.arm, claim.than):
            if name not in arms:
                raise UserError(
                    f"claims: {shown(name)} is not an arm of this study; its arms: "
                    f"{', '.join(arms)}"
                )
    return tuple(dict.fromkeys(found))
