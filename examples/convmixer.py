"""Does a small ConvMixer beat the report's CNN in as many epochs?

Command: python -m cifar_jax.main study examples/convmixer.py --seeds 10
Cost: COST
Answer: not measured yet.

The model is plain Flax. Any module can be an arm if `model(x, train=...)` returns the logits.
ConvMixer: Trockman & Kolter 2022, arXiv 2201.09792.
"""

import flax.linen as nn

import cifar_jax as cj


class ConvMixer(nn.Module):
    width: int = 64
    depth: int = 4
    classes: int = 10

    @nn.compact
    def __call__(self, x, train):
        def norm(x):
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.gelu(x))

        x = norm(nn.Conv(self.width, (2, 2), strides=(2, 2))(x))
        for _ in range(self.depth):
            depthwise = nn.Conv(self.width, (5, 5), feature_group_count=self.width)
            x = x + norm(depthwise(x))
            x = norm(nn.Conv(self.width, (1, 1))(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))


arms = {
    "cnn": cj.Experiment(model=cj.CNN(norm="batch")),
    "convmixer": cj.Experiment(model=ConvMixer()),
}
labels = {"cnn": "CNN", "convmixer": "ConvMixer"}
claims = [cj.better("convmixer", "cnn")]
