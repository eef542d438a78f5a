"""The part `landscape`: it repeats the recorded training, and measures a step's own gradient."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.analysis.landscape import FACTORS, Landscape, Point, compile_measure, numbers
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import step_loss

pytestmark = pytest.mark.usefixtures("cache")


def records(directory) -> dict[tuple[str, int], dict]:
    part = json.loads((directory / "analysis.json").read_text())["parts"]["landscape"]
    return {(run["arm"], run["seed"]): run["record"] for run in part["runs"]}


def test_the_repeated_training_is_the_recorded_one(analysed) -> None:
    """Three steps of 16 of 48 images in each of 2 epochs. Losses are recorded in float32."""
    for found in records(analysed.directory).values():
        assert found["difference"] < 1e-6
        assert (found["epochs"], found["steps_per_epoch"]) == (2, 3)
        assert [point["step"] for point in found["points"]] == list(range(6))


def test_a_point_is_the_loss_along_the_gradient_of_its_step(
    tiny_experiment, tiny_state, tiny_data
) -> None:
    """Against the loss and gradient of `step_loss`, computed one by one: 1e-4 relative."""
    images, labels, hyper = tiny_data.train_images[:8], tiny_data.train_labels[:8], Hyper()
    measure = compile_measure(tiny_experiment, 20)
    rate, found, smoothness = measure(hyper, tiny_state, images, labels)
    rest = (tiny_experiment, hyper, 20, tiny_state, images, labels)
    gradient = jax.jit(jax.value_and_grad(lambda params: step_loss(params, *rest)[0]))
    value, first = gradient(tiny_state.params)
    assert rate == pytest.approx(0.01)
    assert found.loss == pytest.approx(float(value), rel=1e-5)

    def norm(tree) -> float:
        return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree))))

    ratios = []
    for factor, there, change in zip(FACTORS, found.losses, found.changes, strict=True):
        step = 0.01 * factor
        moved = jax.tree.map(lambda p, g, s=step: p - s * g, tiny_state.params, first)
        wanted, new = gradient(moved)
        assert there == pytest.approx(float(wanted), rel=1e-4)
        distance = norm(jax.tree.map(jnp.subtract, new, first))
        assert change == pytest.approx(distance, rel=1e-3)
        ratios.append(distance / (step * norm(first)))
    assert smoothness == pytest.approx(max(ratios), rel=1e-3)


def test_numbers_are_means_over_points() -> None:
    rows = np.random.default_rng(0).uniform(size=(3, 2, 7))
    points = [
        Point(i, 0.01, 1.0, tuple(losses), tuple(changes), float(i))
        for i, (losses, changes) in enumerate(rows.tolist())
    ]
    found = {n.quantity.key: n.value for n in numbers(Landscape(1, 3, tuple(points), 0.0))}
    assert found["loss_range"] == pytest.approx(np.ptp(rows[:, 0], axis=1).mean())
    assert found["gradient_change"] == pytest.approx(rows[:, 1].max(axis=1).mean())
    assert found["smoothness"] == pytest.approx(1.0)
    infinite = Point(3, 0.01, 1.0, (None, *rows[0, 0, 1:].tolist()), points[0].changes, 1.0)
    found = {n.quantity.key: n.value for n in numbers(Landscape(1, 3, (infinite,), 0.0))}
    assert found["loss_range"] is None
    assert found["smoothness"] == 1.0
