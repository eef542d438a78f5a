"""The fixed split of the training images into training and validation."""

import numpy as np

from cifar_jax.errors import UserError


def train_val_split(
    n: int, n_val: int, seed: int, own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Split `range(n)` by a fixed seed.

    Args:
        n: number of labelled images, 50,000 for CIFAR-10.
        n_val: number of validation images, 5,000 in the protocol.
        seed: of the permutation. NumPy's PCG64 makes the same split on every device.
        own: the last `n_val` images are the user's validation images; only the others are shuffled.

    Returns:
        Indices of the training images, int64 (n - n_val,), and of the validation images, int64
        (n_val,). Both are shuffled (without `own`), so that a prefix is a random subset.

    Raises:
        UserError: no training image would remain.
    """
    if n_val >= n:
        raise UserError(f"--val-examples {n_val}: must be below the {n} images of the training set")
    rng = np.random.Generator(np.random.PCG64(seed))
    if own:
        return rng.permutation(n - n_val), np.arange(n - n_val, n)
    order = rng.permutation(n)
    return order[n_val:], order[:n_val]
