"""Conversion of torchvision's names and layouts of tensors."""

import numpy as np
import pytest

from cifar_jax.runner.torch_names import our_layout, our_name


@pytest.mark.parametrize(
    ("theirs", "ndim", "ours"),
    [
        ("conv1.weight", 4, "conv1.kernel"),
        ("bn1.weight", 1, "norm1.scale"),
        ("bn1.bias", 1, "norm1.bias"),
        ("layer1.0.bn2.running_mean", 1, "layer1.0.norm2.mean"),
        ("layer1.0.bn2.running_var", 1, "layer1.0.norm2.var"),
        ("layer2.0.downsample.0.weight", 4, "layer2.0.downsample.0.kernel"),
        ("layer2.0.downsample.1.weight", 1, "layer2.0.downsample.1.scale"),
        ("fc.weight", 2, "fc.kernel"),
        ("bn1.num_batches_tracked", 0, None),
        ("weight", 2, "kernel"),
    ],
)
def test_torchvisions_names(theirs, ndim, ours):
    assert our_name(theirs, ndim) == ours


def test_layouts():
    assert our_layout(np.zeros((8, 3, 5, 7))).shape == (5, 7, 3, 8)
    matrix = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(our_layout(matrix), matrix.T)
