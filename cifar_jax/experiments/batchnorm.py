"""The BatchNorm study of the course report: its claims and published numbers."""

from msgspec import structs

from cifar_jax.study.claims import (
    Better,
    Claim,
    Faster,
    GainsMost,
    NearlyEveryClass,
    Slower,
    Smoother,
)

BASELINE, BATCHNORM = "none", "batch"
# Names of the arms in text.
LABELS = {
    "none": "baseline",
    "batch": "BatchNorm",
    "layer": "LayerNorm",
    "instance": "InstanceNorm",
    "group": "GroupNorm",
}
PUBLISHED_GAIN = 3.47  # points of test accuracy
PUBLISHED_OVERHEAD = 11.3  # per cent of training time

# About the images of CIFAR-10 alone.
_HARD_CLASSES = GainsMost(
    arm=BATCHNORM,
    than=BASELINE,
    name="hard_classes_gain_most",
    classes=("cat", "dog", "deer"),
    text="Cat, dog and deer gain most",
)
_CLAIMS: tuple[Claim, ...] = (
    Better(
        arm=BATCHNORM,
        than=BASELINE,
        name="accuracy_gain",
        text="BatchNorm raises the test accuracy",
    ),
    # 1 point is 1.6 standard errors of an accuracy of 75 % on 5,000 validation images.
    Faster(
        arm=BATCHNORM,
        than=BASELINE,
        name="faster_convergence",
        early=5,
        late=10,
        tolerance=1.0,
        text="BatchNorm's validation accuracy after 5 epochs is about the baseline's after 10",
    ),
    Smoother(
        arm=BATCHNORM,
        than=BASELINE,
        name="smoother_train_loss",
        curve="train_loss",
        text="BatchNorm's training loss curve is smoother",
    ),
    Smoother(
        arm=BATCHNORM,
        than=BASELINE,
        name="smoother_val_loss",
        curve="val_loss",
        text="BatchNorm's validation loss curve is smoother",
    ),
    NearlyEveryClass(
        arm=BATCHNORM,
        than=BASELINE,
        name="nearly_every_class",
        text="BatchNorm improves nearly every class",
    ),
    _HARD_CLASSES,
    Slower(
        arm=BATCHNORM,
        than=BASELINE,
        name="time_overhead",
        text="BatchNorm takes longer to train",
    ),
)
# The report's text, and its number, which an interval may contain.
_PUBLISHED: dict[str | None, tuple[str, float | None]] = {
    "accuracy_gain": (f"+{PUBLISHED_GAIN} points", PUBLISHED_GAIN),
    "faster_convergence": ("about equal", None),
    "smoother_train_loss": ("by eye", None),
    "smoother_val_loss": ("by eye", None),
    "nearly_every_class": ("nearly every class", None),
    "hard_classes_gain_most": ("cat, dog, deer", None),
    "time_overhead": (f"+{PUBLISHED_OVERHEAD} %", PUBLISHED_OVERHEAD),
}


def claims(cifar10: bool) -> tuple[Claim, ...]:
    """Return the claims of the course report.

    Args:
        cifar10: whether the images are CIFAR-10's. Only then do published numbers and the claim
            about named classes apply.
    """
    if not cifar10:
        return tuple(claim for claim in _CLAIMS if claim is not _HARD_CLASSES)
    return tuple(
        structs.replace(claim, published=words, published_value=value)
        for claim in _CLAIMS
        for words, value in [_PUBLISHED[claim.name]]
    )
