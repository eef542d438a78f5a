"""Networks with made-up parameters, for the tests of exports."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.core.train import Experiment, init_state
from cifar_jax.study.network import forward

SHAPE = (8, 8, 3)


def made_up(model: nn.Module) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """A function of images to logits, and its variables, all different from their first values."""
    experiment = Experiment(model)
    example = jax.eval_shape(lambda key: init_state(experiment, key, SHAPE), jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: (
            np.abs(rng.normal(1, 0.5, leaf.shape))
            if leaf.ndim < 2
            else rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        ).astype(np.float32),
        {"params": example.params, "batch_stats": example.batch_stats},
    )
    return lambda images: forward(experiment, variables, images), variables


def images(n: int) -> np.ndarray:
    """Noise, uint8 (n, 8, 8, 3)."""
    return np.random.default_rng(n).integers(0, 256, (n, *SHAPE), np.uint8)


class Own(nn.Module):
    """A user's own network of many operations: pools, attention, a token, flips, indexing."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = (x + x[:, :, ::-1]) / 2
        x = nn.Conv(8, (3, 3), feature_group_count=1, kernel_dilation=2)(x)
        x = nn.leaky_relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Conv(8, (3, 3), strides=2, feature_group_count=4)(x)
        x = jnp.concatenate([nn.avg_pool(x, (2, 2), (2, 2)), nn.max_pool(x, (2, 2), (2, 2))], -1)
        x = nn.gelu(nn.LayerNorm()(x), approximate=False)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        token = self.param("token", nn.initializers.normal(), (1, 1, x.shape[-1]))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, x.shape[-1])), x], axis=1)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(x, x)
        return nn.Dense(5)(nn.silu(x[:, 0]) ** 3 + jnp.clip(nn.softplus(x[:, 1]), 0.5, 2.0))


class Unknown(nn.Module):
    """A network with an operation that no format but StableHLO has."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Sorting(name="sorting")(x.reshape(x.shape[0], -1))
        return nn.Dense(3)(x)


class Sorting(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.sort(x)
