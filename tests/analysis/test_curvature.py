"""The part `curvature`: the loss in evaluation mode, the faster layers' Hessian, the maps."""

import html
import json
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cifar_jax.analysis.curvature import SIDE, evaluated_loss
from cifar_jax.analysis.loss_surface import hessian_product
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment, init_state
from cifar_jax.kernels import fast
from cifar_jax.runner.evaluation import cross_entropy
from cifar_jax.study.collect import read_ended

pytestmark = pytest.mark.usefixtures("cache")


def part_of(directory) -> dict[str, Any]:
    return json.loads((directory / "analysis.json").read_text())["parts"]["curvature"]


def test_the_loss_is_that_of_evaluation(tiny_experiment, tiny_state, tiny_data) -> None:
    """Against NumPy's cross-entropy of the logits: 1e-5 relative."""
    images, labels = tiny_data.val_images, tiny_data.val_labels
    loss = evaluated_loss(tiny_experiment, Hyper(), tiny_state.batch_stats, images, labels)
    variables = {"params": tiny_state.params, "batch_stats": tiny_state.batch_stats}
    x = tiny_experiment.inputs.evaluate(images)
    logits = tiny_experiment.model.apply(variables, x, train=False)
    wanted = cross_entropy(np.asarray(logits), np.asarray(labels)).mean()
    assert jax.jit(loss)(tiny_state.params) == pytest.approx(wanted, rel=1e-5)


def test_faster_layers_have_the_hessian_of_the_plain_ones() -> None:
    """Convolutions, BatchNorm, ReLU and pooling in evaluation mode: 1e-4 relative."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (8, 16, 16, 3), np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, 8, np.int32))
    model = CNN(norm="batch", widths=(4, 8), hidden=8)
    state = jax.jit(lambda key: init_state(Experiment(model), key, (16, 16, 3)))(jax.random.key(0))
    vector = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), state.params)

    def product(model: Any) -> np.ndarray:
        loss = evaluated_loss(Experiment(model), Hyper(), state.batch_stats, images, labels)
        found: Callable[..., Any] = jax.jit(lambda v: hessian_product(loss, state.params, v))
        return np.asarray(ravel_pytree(found(vector))[0])

    plain, faster = product(model), product(fast(model))
    assert np.linalg.norm(faster - plain) < 1e-4 * np.linalg.norm(plain)


def test_every_run_has_eigenvalues_and_one_seed_of_each_arm_a_surface(analysed) -> None:
    """The middle of the surface is the recorded network: its training loss is finite and low."""
    part = part_of(analysed.directory)
    for run in part["runs"]:
        values = run["record"]["eigenvalues"]
        assert values == sorted(values, reverse=True)
        assert values[0] > 0
        assert run["record"]["images"] == 48
    surfaces = part["together"]["record"]
    assert [(run["arm"], run["seed"]) for run in surfaces["runs"]] == [("narrow", 3), ("wide", 3)]
    for run in surfaces["runs"]:
        losses = np.array(run["losses"])
        assert losses.shape == (SIDE, SIDE)
        ended = read_ended(analysed.directory / run["arm"] / "seed3")
        # The test images are of the same distribution: noise with one bright half.
        assert losses[SIDE // 2, SIDE // 2] == pytest.approx(ended.tested.test_loss, abs=0.5)
        assert np.ptp(losses) > 0.01


def test_the_page_has_the_maps_and_their_script_without_text_of_the_user(analysed) -> None:
    text = (analysed.directory / "report.html").read_text()
    maps = re.findall(r'<canvas data-map="([^"]+)"', text)
    assert len(maps) == 2
    span, low, high, rows = json.loads(html.unescape(maps[0]))
    assert (span, len(rows), len(rows[0])) == (1.0, SIDE, SIDE)
    assert 0 < low < high
    assert rows == part_of(analysed.directory)["together"]["record"]["runs"][0]["losses"]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (script,) = [script for script in scripts if "data-map" in script]
    assert "narrow" not in script
    assert "http" not in script
