"""Does Mish beat ReLU in the report's CNN?

Command: python -m cifar_jax.main study examples/mish.py --seeds 10
Cost: 4 minutes for the short study; in full, with ten seeds, about 6 hours on 2 CPU cores.
Answer: undecided (+1.06 points, 95 % interval -0.73 to +2.86). Nor are the two
equivalent within 0.3 points: undecided too. Mish took 3.5 times as long.

Answer and cost are of a short study: 10,000 images, 5 epochs, 3 seeds, with `--dataset FOLDER
--folder-is-cifar10 --train-examples 10000 --epochs 5 --seeds 3`. FOLDER has CIFAR-10 re-encoded
as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

Mish is x * tanh(softplus(x)) (Misra 2019, arXiv 1908.08681).
"""

import cifar_jax as cj

arms = {
    "relu": cj.Experiment(model=cj.CNN(norm="batch")),
    "mish": cj.Experiment(model=cj.CNN(norm="batch", activation=cj.nn.mish)),
}
claims = [
    cj.better("mish", "relu", by=0.0),  # points of test accuracy
    cj.equivalent("mish", "relu", within=0.3),
]
