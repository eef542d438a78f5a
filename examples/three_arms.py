"""Does a smooth activation beat ReLU in the report's CNN?

Command: python -m cifar_jax.main study examples/three_arms.py --seeds 10
Cost: 4 minutes for the short study; in full, with ten seeds, about 6 hours on 2 CPU cores.
Answer: GELU does (+2.04 points, 95 % interval +1.84 to +2.24).
SiLU is undecided (+0.70 points, 95 % interval -1.56 to +2.96).

Answer and cost are of a short study: 10,000 images, 5 epochs, 3 seeds, with `--dataset FOLDER
--folder-is-cifar10 --train-examples 10000 --epochs 5 --seeds 3`. FOLDER has CIFAR-10 re-encoded
as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

Each arm is compared with the control. Without `claims`, the claim is that each arm is better than
the control. Holm's method adjusts the p-values for their number.
"""

import cifar_jax as cj


def network(activation):
    return cj.Experiment(model=cj.CNN(norm="batch", activation=activation))


arms = {
    "gelu": network(cj.nn.gelu),
    "silu": network(cj.nn.silu),
    "relu": network(cj.nn.relu),
}
labels = {"gelu": "GELU", "silu": "SiLU", "relu": "ReLU"}
control = "relu"
