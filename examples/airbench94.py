"""Does the recipe of a speedrun beat the report's CNN in as many epochs?

Command: python -m cifar_jax.main study examples/airbench94.py --seeds 10
Cost: 9 minutes for the short study; in full it needs a GPU, and was not run.
Answer: not in the short study (-4.07 points, 95 % interval -4.33 to -3.80). There the recipe has
a 16th of the CNN's parameters, and 14 steps where the CNN has 196.

Answer and cost are of a short study: `WIDTHS = (16, 32, 32)`, 12,500 images, 2 epochs, 3 seeds.
docs/gallery.md has its command. 2 cores of an AMD EPYC beside much other work, 2026-11-28.

The recipe is that of airbench94_muon (Jordan 2024, github.com/KellerJordan/cifar10-airbench;
arXiv 2404.00498 describes its tricks). It reaches 94 % on CIFAR-10 in 8 epochs. docs/speedrun.md
lists the tricks, and `airbench94_ablation.py` turns each of them off.

Many fields of an `Experiment` work together here. A layer starts from the first training images
(`init_images`). An augmentation knows the epoch. Groups of parameters have optimisers of their
own. The model averages several views of a test image. On a CPU it computes in float32, which is
faster there than bfloat16.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import cifar_jax as cj

WIDTHS = (64, 256, 256)  # of the convolutions; (16, 32, 32) suits a laptop
BATCH = 2000  # The rates of biases and head are for the gradient's sum over so many images.
DTYPE = "float32" if jax.default_backend() == "cpu" else "bfloat16"


def own_coin(images):
    """A bit of a hash of each image's pixels: bool (B,), the same in every epoch."""
    pixels = images.reshape(len(images), -1).astype(jnp.uint32)
    factors = jax.random.bits(jax.random.key(0), pixels.shape[1:], jnp.uint32) | 1
    return (pixels * factors).sum(1, dtype=jnp.uint32) >> 31 == 1


def alternating_flip(key, images, epoch):
    """Mirror half of the images in even epochs, and the other half in odd ones."""
    flip = own_coin(images) ^ (epoch % 2 == 1)
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def translate(key, images):
    """Move each image by up to 2 pixels each way; its reflection fills the border."""
    corners = jax.random.randint(key, (len(images), 2), 0, 5)
    padded = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")

    def window(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    return jax.vmap(window)(padded, corners)


def uniform(key, shape, dtype=jnp.float32):
    """PyTorch's initial values: uniform, with variance 1 / (3 * inputs of an output)."""
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)


def partial_identity(key, shape, dtype=jnp.float32):
    """The first outputs of a 3x3 convolution repeat its inputs; the others are `uniform`."""
    same = jnp.arange(min(shape[-2:]))
    values = uniform(key, shape, dtype).at[..., same].set(0)
    return values.at[1, 1, same, same].set(1)


def unit_std(key, shape, dtype=jnp.float32):
    """Uniform values, scaled to standard deviation 1."""
    values = uniform(key, shape, dtype)
    return values / values.std(ddof=1)


def whitening(x, eps=5e-4):
    """The eigenvectors of the 2x2 patches of x, float (N, H, W, C), scaled to unit variance.

    Each comes with its negative: a kernel, float (2, 2, C, 8 * C).
    """
    h, w, c = x.shape[1:]
    shifted = [x[:, i : h - 1 + i, j : w - 1 + j] for i in (0, 1) for j in (0, 1)]
    patches = jnp.concatenate(shifted, -1).reshape(-1, 4 * c)
    patches = patches.astype(jnp.promote_types(x.dtype, jnp.float32))
    covariance = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
    values, vectors = jnp.linalg.eigh(covariance)
    filters = vectors / jnp.sqrt(values + eps)
    return jnp.concatenate([filters, -filters], 1).reshape(2, 2, c, -1)


def views(x):
    """x, two shifts by a pixel, and the mirror images of all three: (6 * N, H, W, C)."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    seen = jnp.concatenate([x, padded[:, :h, :w], padded[:, 2:, 2:]])
    return jnp.concatenate([seen, seen[:, :, ::-1]])


class AirNet(nn.Module):
    """A whitening 2x2 convolution, three groups of two 3x3 convolutions, and a linear head."""

    widths: tuple[int, ...] = WIDTHS
    classes: int = 10
    activation: Callable[[jax.Array], jax.Array] = partial(nn.gelu, approximate=False)
    whitened: bool = True
    conv_init: Callable[..., jax.Array] = partial_identity
    head_init: Callable[..., jax.Array] = unit_std
    norm_momentum: float = 0.6
    norm_scale: bool = False
    averaged: bool = True  # over six views of each image, in evaluation

    @nn.compact
    def __call__(self, x, train):
        c = x.shape[-1]
        if self.whitened:  # A running statistic that no step changes.
            kernel = self.variable("batch_stats", "whitening", whitening, x).value
        else:
            kernel = self.param("first", uniform, (2, 2, c, 8 * c))
        bias = self.param("first_bias", lambda key: uniform(key, (4 * c, 8 * c))[0])
        x = views(x) if self.averaged and not train else x
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel.astype(x.dtype), (1, 1), "VALID", dimension_numbers=numbers
        )
        x = self.activation(x + bias.astype(x.dtype))
        for index, width in enumerate(self.widths):
            x = nn.max_pool(self.conv(x, width, f"conv{index}_1"), (2, 2), (2, 2))
            x = self.activation(self.norm(x, f"norm{index}_1", train))
            x = self.conv(x, width, f"conv{index}_2")
            x = self.activation(self.norm(x, f"norm{index}_2", train))
        x = x.max((1, 2)).astype(jnp.promote_types(x.dtype, jnp.float32))
        head = nn.Dense(self.classes, use_bias=False, kernel_init=self.head_init, name="head")
        logits = head(x) / x.shape[-1]
        if self.averaged and not train:
            shares = jnp.array([2, 1, 1, 2, 1, 1], logits.dtype) / 8
            logits = jnp.tensordot(shares, logits.reshape(6, -1, self.classes), 1)
        return logits

    def conv(self, x, width, name):
        init = self.conv_init
        return nn.Conv(width, (3, 3), use_bias=False, kernel_init=init, dtype=x.dtype, name=name)(x)

    def norm(self, x, name, train):
        layer = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.norm_momentum,
            epsilon=1e-12,
            use_scale=self.norm_scale,
            dtype=x.dtype,
            name=name,
        )
        return layer(x)


def to_zero(rate, steps_per_epoch, steps):
    """Fall from the rate to zero along a line: a triangle that starts at its peak."""
    return optax.linear_schedule(rate, 0.0, steps)


def orthogonal(x, dtype):
    """Replace the singular values of x, (K, rows, columns), by values around 1.

    Three quintic Newton-Schulz steps (Jordan et al. 2024, kellerjordan.github.io/posts/muon).
    """
    if x.shape[1] > x.shape[2]:
        return orthogonal(x.mT, dtype).mT
    y = (x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-7)).astype(dtype)
    for _ in range(3):
        square = y @ y.mT
        y = 3.4445 * y + (2.0315 * square @ square - 4.775 * square) @ y
    return y.astype(x.dtype)


def orthogonalise(kernels, params, dtype):
    """Apply `orthogonal` to (..., outputs) kernels as matrices, those of a shape together."""
    leaves, tree = jax.tree.flatten(kernels)
    for shape in dict.fromkeys(leaf.shape for leaf in leaves):
        same = [i for i, leaf in enumerate(leaves) if leaf.shape == shape]
        matrices = jnp.stack([leaves[i].reshape(-1, shape[-1]).T for i in same])
        for i, matrix in zip(same, orthogonal(matrices, dtype), strict=True):
            leaves[i] = matrix.T.reshape(shape)
    return jax.tree.unflatten(tree, leaves)


def normalise(updates, params):
    """Scale each kernel to the norm sqrt(outputs) before its update."""

    def one(update, kernel):
        return update + kernel * (kernel.shape[-1] ** 0.5 / jnp.linalg.norm(kernel) - 1)

    return jax.tree.map(one, updates, params)


@dataclass(frozen=True)
class AirOptimizer:
    """Muon for the convolutions, Nesterov's SGD with rates of their own for biases and head.

    Attributes:
        muon: False for SGD in its place, at the rate `hyper.learning_rate`.
        normalised: scale the convolutions' kernels before each step of Muon.
        bias_rate, head_rate: learning rates of SGD.
        rate_scale: of both rates. Each channel of a narrow network weighs more in the logits.
        momentum: of SGD. That of Muon is `hyper.momentum`.
        dtype: of Muon's products.
    """

    muon: bool = True
    normalised: bool = True
    bias_rate: float = 0.053
    head_rate: float = 0.67
    rate_scale: float = 1.0
    momentum: float = 0.85
    dtype: str = DTYPE

    def __call__(self, hyper, schedule):
        def share(step):  # of its first value
            return schedule(step) / hyper.learning_rate

        def first_share(step):  # The first bias is trained for 3 of 8 epochs.
            return jnp.maximum(1 - 8 / 3 * (1 - share(step)), 0)

        def sgd(rate, share):
            return optax.chain(
                optax.scale(BATCH),
                optax.add_decayed_weights(hyper.weight_decay / rate),
                optax.trace(self.momentum, nesterov=True),
                optax.scale_by_learning_rate(lambda step: rate * share(step)),
            )

        muon = optax.chain(
            optax.trace(hyper.momentum, nesterov=True),
            optax.stateless(partial(orthogonalise, dtype=self.dtype)),
            optax.scale_by_learning_rate(schedule),
            optax.stateless(normalise) if self.normalised else optax.identity(),
        )
        groups = {
            "filters": muon if self.muon else sgd(hyper.learning_rate, share),
            "head": sgd(self.rate_scale * self.head_rate, share),
            "biases": sgd(self.rate_scale * self.bias_rate, share),
            "first_bias": sgd(self.rate_scale * self.bias_rate, first_share),
        }
        return optax.partition(groups, partial(jax.tree_util.tree_map_with_path, group_of))


def group_of(path, parameter):
    """Return the group of a parameter, a key of `AirOptimizer`'s `groups`."""
    name = str(path[-1].key)
    return name if name == "first_bias" else {4: "filters", 2: "head", 1: "biases"}[parameter.ndim]


HYPER = cj.Hyper(learning_rate=0.24, momentum=0.6, weight_decay=0.004)
RECIPE = cj.Experiment(
    model=AirNet(),
    inputs=cj.Inputs(augment=(alternating_flip, translate), dtype=DTYPE),
    loss=cj.LabelSmoothing(0.2),
    optimizer=AirOptimizer(rate_scale=WIDTHS[-1] / 256),
    schedule=to_zero,
    batch_size=BATCH,
    epochs=8,
    precision=None,
    eval_batch_size=500,
    init_images=5000,
)
REPORT = cj.Experiment(model=cj.CNN(norm="batch"), epochs=RECIPE.epochs)

arms = {"report": REPORT, "airbench94": cj.Arm(RECIPE, HYPER)}
labels = {"report": "the report's CNN", "airbench94": "airbench94"}
claims = [cj.better("airbench94", "report")]
