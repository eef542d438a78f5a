"""Does a smooth activation beat ReLU in the report's CNN?

Command: python -m cifar_jax.main study examples/three_arms.py --seeds 10
Cost: COST
Answer: not measured yet.

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
