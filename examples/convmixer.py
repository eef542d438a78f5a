"""Does a small ConvMixer beat the report's CNN in as many epochs?

Command: python -m cifar_jax.main study examples/convmixer.py --seeds 10
Cost: 5 minutes for the short study; in full, with ten seeds, about 7 hours on 2 CPU cores.
Answer: no, it is worse (-14.57 points, 95 % interval -17.14 to -12.00).
It took 3.7 times as long.

Answer and cost are of a short study: 10,000 images, 5 epochs, 3 seeds, with `--dataset FOLDER
--folder-is-cifar10 --train-examples 10000 --epochs 5 --seeds 3`. FOLDER has CIFAR-10 re-encoded
as JPEG. 2 cores of an AMD EPYC beside other work, 2026-11-27.

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
