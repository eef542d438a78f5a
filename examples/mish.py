"""Does Mish beat ReLU in the report's CNN?"""

import cifar_jax as cj

arms = {
    "relu": cj.Experiment(model=cj.CNN(norm="batch")),
    "mish": cj.Experiment(model=cj.CNN(norm="batch", activation=cj.nn.mish)),
}
