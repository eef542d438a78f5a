"""What the course report says about BatchNorm: its claims and numbers.

Data alone, without JAX, so that a page or a plan of finished runs need not load it.
"""

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
PUBLISHED_GAIN = 3.47  # points of test accuracy
PUBLISHED_OVERHEAD = 11.3  # per cent of training time

claims: tuple[Claim, ...] = (
    Better(
        arm=BATCHNORM,
        than=BASELINE,
        name="accuracy_gain",
        text="BatchNorm raises the test accuracy",
        published=f"+{PUBLISHED_GAIN} points",
        published_value=PUBLISHED_GAIN,
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
        published="about equal",
    ),
    Smoother(
        arm=BATCHNORM,
        than=BASELINE,
        name="smoother_train_loss",
        curve="train_loss",
        text="BatchNorm's training loss curve is smoother",
        published="by eye",
    ),
    Smoother(
        arm=BATCHNORM,
        than=BASELINE,
        name="smoother_val_loss",
        curve="val_loss",
        text="BatchNorm's validation loss curve is smoother",
        published="by eye",
    ),
    NearlyEveryClass(
        arm=BATCHNORM,
        than=BASELINE,
        name="nearly_every_class",
        text="BatchNorm improves nearly every class",
        published="nearly every class",
    ),
    GainsMost(
        arm=BATCHNORM,
        than=BASELINE,
        name="hard_classes_gain_most",
        classes=("cat", "dog", "deer"),
        text="Cat, dog and deer gain most",
        published="cat, dog, deer",
        only_cifar10=True,
    ),
    Slower(
        arm=BATCHNORM,
        than=BASELINE,
        name="time_overhead",
        text="BatchNorm takes longer to train",
        published=f"+{PUBLISHED_OVERHEAD} %",
        published_value=PUBLISHED_OVERHEAD,
    ),
)
