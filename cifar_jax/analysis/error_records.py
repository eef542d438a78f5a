"""Records of the part `errors`."""

from msgspec import Struct

from cifar_jax.runner.results import Count, Line, Share, Text
from cifar_jax.runner.results import Number as Finite


class Errors(Struct, frozen=True):
    """Errors of one run.

    Attributes:
        confident: share of its errors with a confidence above 90 %; None without an error.
        classes: accuracy of each class by name; None for a class without test images.
        gap: largest minus smallest of them.
    """

    confident: Share | None
    classes: dict[Line, Share | None]
    gap: Share


class ArmErrors(Struct, frozen=True):
    """Errors of all seeds of an arm.

    Attributes:
        arm: its name.
        agreement: share of images on which two seeds predict the same class, mean over pairs.
        common: share of the images with an error of either seed that both get wrong.
        wrong: number of images that 0, 1, ..., all seeds get wrong.
        variance: of the test accuracy over the seeds.
        distribution: its part on the distribution of the test images, see `variance_parts`.
        calibrated: what a calibrated ensemble predicts, see `agreement.calibrated_variance`.
    """

    arm: Line
    agreement: Share | None
    common: Share | None
    wrong: tuple[Count, ...]
    variance: Finite | None
    distribution: Finite | None
    calibrated: Finite | None


class Between(Struct, frozen=True):
    """Errors of two arms: agreement and errors in common, mean over pairs with equal seeds."""

    arm: Line
    agreement: Share
    common: Share | None


class Picture(Struct, frozen=True):
    """A test image with a doubtful prediction or label.

    Attributes:
        row: of the test image.
        label: its label.
        predicted: the class with the highest mean probability.
        confidence: that probability, mean over all runs.
    """

    row: Count
    label: Line
    predicted: Line
    confidence: Share


class Together(Struct, frozen=True):
    """What all runs get wrong.

    Attributes:
        arms: one entry each.
        between: one entry for each other arm, compared with the control.
        matrix: agreement of the first 40 runs with each other.
        always_wrong: number of images that every run gets wrong.
        hardest: those with the highest confidence in another class.
        suspects: number of label-noise candidates; None without cleanlab.
        suspicious: the first of them.
        why_not: why there are no candidates, or "".
    """

    arms: tuple[ArmErrors, ...]
    between: tuple[Between, ...]
    matrix: tuple[tuple[Share, ...], ...]
    always_wrong: Count
    hardest: tuple[Picture, ...]
    suspects: Count | None
    suspicious: tuple[Picture, ...]
    why_not: Text | None = None
