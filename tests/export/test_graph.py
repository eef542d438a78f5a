"""Graphs of networks, computed by ONNX Runtime, agree with JAX."""

import jax
import numpy as np
import pytest
from networks import SHAPE, Own, Unknown, images, made_up

from cifar_jax.core.model import CNN
from cifar_jax.core.resnet import ResNet
from cifar_jax.errors import UserError
from cifar_jax.export.onnx_file import onnx_model
from cifar_jax.export.trace import trace
from cifar_jax.methods.ghost import Ghost

NORMS = ("none", "batch", "layer", "instance", "group")
NETWORKS = {
    **{f"cnn-{norm}": CNN(4, norm, widths=(8, 16), hidden=16) for norm in NORMS},
    "pad": ResNet(4, "batch", blocks=(1, 1), widths=(8, 16)),
    "project": ResNet(4, "group", blocks=(1, 1), widths=(8, 16), shortcut="project"),
    "plain": ResNet(4, "none", blocks=(1, 1), widths=(8, 16), shortcut="none"),
    "ghost": CNN(4, Ghost(2), widths=(8, 16), hidden=16),
    "own": Own(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_computes_the_logits(name):
    pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    function, _ = made_up(NETWORKS[name])
    graph = trace(function, SHAPE)
    assert {value.dtype for value in graph.constants.values()} <= {np.dtype("f4"), np.dtype("?")}
    session = onnxruntime.InferenceSession(
        onnx_model(graph, {"classes": "a"}), providers=["CPUExecutionProvider"]
    )
    for n in (1, 3):
        (found,) = session.run(None, {"images": images(n)})
        expected = np.asarray(jax.jit(function)(images(n)))
        # Rounding of float32 in sums of a few hundred products.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_batch_normalization_becomes_the_weights_of_its_convolution():
    with_norm, without = (trace(made_up(NETWORKS[f"cnn-{n}"])[0], SHAPE) for n in NORMS[1::-1])
    assert [node.op for node in with_norm.nodes] == [node.op for node in without.nodes]


def test_an_unknown_operation_is_named_with_its_layer():
    with pytest.raises(UserError, match="layer Unknown/sorting: the operation sort has no "):
        trace(made_up(Unknown())[0], SHAPE)
