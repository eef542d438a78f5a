"""Does Mish beat ReLU in the report's CNN?

Command: python -m cifar_jax.main study examples/mish.py --seeds 10
Cost: COST
Answer: not measured yet.

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
