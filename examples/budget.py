"""Is a wide CNN better than a narrow one, at equal epochs and at equal time?

Command: python -m cifar_jax.main study examples/budget.py --seeds 10
Cost: 2 minutes for the short study; in full, with ten seeds, about 3 hours on 2 CPU cores.
Answer: at equal epochs yes (+5.78 points, 95 % interval +2.58 to +8.97).
At equal time undecided (+0.54 points, 95 % interval -0.11 to +1.19); the wide one
took 119 % of the narrow one's time.

Answer and cost are of a short study: 10,000 images, 3 seeds, and 5, 5 and 3 epochs instead of 30,
30 and 16, with `--dataset FOLDER --folder-is-cifar10 --train-examples 10000 --seeds 3`. FOLDER
has CIFAR-10 re-encoded as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

An arm's `epochs` are part of its experiment. The third arm has as many epochs as take the time of
the narrow CNN. The number is for one device. To choose it for yours, run this, and divide the
narrow CNN's time by the wide one's:

    python -m cifar_jax.main study examples/budget.py --arms narrow,wide --seeds 1 --epochs 2

The last claim checks the choice: it compares the measured times. A cosine ends every training
with a small learning rate, whatever its length. Do not give --epochs to the study: it replaces
the epochs of all arms.
"""

import cifar_jax as cj

NARROW = cj.CNN(norm="batch", widths=(16, 32, 64), hidden=128)
WIDE = cj.CNN(norm="batch", widths=(32, 64, 128), hidden=256)


def experiment(model, epochs):
    return cj.Experiment(model=model, epochs=epochs, schedule=cj.Cosine())


arms = {
    "narrow": experiment(NARROW, epochs=30),
    "wide": experiment(WIDE, epochs=30),
    "wide_short": experiment(WIDE, epochs=16),
}
labels = {"wide_short": "wide at equal time"}
claims = [
    cj.better("wide", "narrow"),
    cj.better("wide_short", "narrow"),
    cj.equivalent("wide_short", "narrow", within=20, metric="train_seconds"),
]
