"""One training step. Its numbers are checked against PyTorch in tests/golden."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.data.augment import normalise, random_crop_and_flip
from cifar_jax.data.regularise import mixup, random_cutout, random_erasing
from cifar_jax.models.cnn import CNN
from cifar_jax.training.loss import count_correct, training_loss
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import (
    AUGMENT,
    CUTOUT,
    DROPOUT,
    ERASING,
    INIT,
    MIXUP,
    ORDER,
    Regularisers,
    TrainData,
    TrainSpec,
    TrainState,
    draw_key,
    init_state,
)
from cifar_jax.training.step import StepMetrics, network_inputs, train_step

Step = Callable[..., tuple[TrainState, StepMetrics]]
step: Step = jax.jit(train_step, static_argnums=(0, 2))
HYPER = Hyperparams()
N = 20


@pytest.fixture
def state(tiny_state: TrainState) -> TrainState:
    return tiny_state


@pytest.fixture(scope="module")
def batch(tiny_data: TrainData) -> tuple[jax.Array, jax.Array]:
    return tiny_data.train_images[:8], tiny_data.train_labels[:8]


def assert_equal(a: object, b: object) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def params_differ(a: TrainState, b: TrainState) -> bool:
    return any(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x != y).any()), a.params, b.params)))


def test_metrics_are_of_the_batch_before_the_update(tiny_spec, state, batch) -> None:
    spec = replace(tiny_spec, model=tiny_spec.model.clone(dropout=0.0), augment=False)
    images, labels = batch
    _, metrics = step(spec, HYPER, N, state, images, labels)
    x = (images / 255 - np.array([0.4914, 0.4822, 0.4465])) / np.array([0.2470, 0.2435, 0.2616])
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = spec.model.apply(
        variables, x.astype(np.float32), train=True, mutable=["batch_stats"]
    )
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert float(metrics.loss) == pytest.approx(-log_p[np.arange(8), labels].mean(), rel=1e-4)
    assert int(metrics.correct) == (logits.argmax(1) == labels).sum()


def test_augmentation_is_the_draw_of_the_step(tiny_spec, state, batch) -> None:
    images, labels = batch
    state = state.replace(step=jnp.int32(5))
    augmented = random_crop_and_flip(draw_key(state.key, AUGMENT, 5), images)
    plain = replace(tiny_spec, augment=False)
    expected = step(plain, HYPER, N, state, augmented, labels)
    assert_equal(step(tiny_spec, HYPER, N, state, images, labels)[1], expected[1])
    assert float(step(plain, HYPER, N, state, images, labels)[1].loss) != float(expected[1].loss)


def test_each_step_draws_its_own_dropout(tiny_spec, state, batch) -> None:
    spec = replace(tiny_spec, augment=False)
    losses = {
        float(step(spec, HYPER, N, state.replace(step=jnp.int32(i)), *batch)[1].loss)
        for i in range(4)
    }
    assert len(losses) == 4


def test_a_step_counts_itself_and_keeps_the_key(tiny_spec, state, batch) -> None:
    new, _ = step(tiny_spec, HYPER, N, state, *batch)
    assert int(new.step) == int(state.step) + 1
    assert_equal(jax.random.key_data(new.key), jax.random.key_data(state.key))


def test_types_and_shapes_of_the_state_stay(tiny_spec, state, batch) -> None:
    new, _ = step(tiny_spec, HYPER, N, state, *batch)
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, new)]
    assert kinds[0] == kinds[1]


def test_weight_decay_reaches_every_parameter(tiny_spec, state, batch) -> None:
    state = state.replace(params=jax.tree.map(lambda p: p + 0.1, state.params))
    decayed, _ = step(tiny_spec, Hyperparams(weight_decay=1.0), N, state, *batch)
    free, _ = step(tiny_spec, Hyperparams(weight_decay=0.0), N, state, *batch)
    jax.tree.map(
        lambda p, a, b: np.testing.assert_allclose(b - a, 0.01 * p, atol=1e-6),
        state.params,
        decayed.params,
        free.params,
    )


def test_setting_another_learning_rate_does_not_trace_again(tiny_spec, state, batch) -> None:
    traces = 0

    @jax.jit
    def counted(hyper: Hyperparams, state: TrainState) -> TrainState:
        nonlocal traces
        traces += 1
        return train_step(tiny_spec, hyper, N, state, *batch)[0]

    fast, slow = (counted(Hyperparams(rate, 0.8, 0.1), state) for rate in (0.1, 0.01))
    assert params_differ(fast, slow)
    assert traces == 1


def test_the_baseline_carries_no_statistics(batch) -> None:
    spec = TrainSpec(CNN(widths=(4,), hidden=16), batch_size=8)
    state = jax.jit(lambda key: init_state(spec, key, (8, 8, 3)))(jax.random.key(0))
    new, _ = step(spec, HYPER, N, state, *batch)
    assert state.batch_stats == {}
    assert new.batch_stats == {}
    assert params_differ(new, state)


ALL_ON = Regularisers(label_smoothing=0.1, cutout=4, random_erasing=0.5, mixup=1.0)


def test_regularisers_follow_one_another_with_keys_of_their_own(tiny_spec, state, batch) -> None:
    images, labels = batch
    state = state.replace(step=jnp.int32(5))
    crop, erasing, cutout, mix = (
        draw_key(state.key, purpose, 5) for purpose in (AUGMENT, ERASING, CUTOUT, MIXUP)
    )
    expected = normalise(random_erasing(erasing, random_crop_and_flip(crop, images), 0.5))
    expected, weight, partner = mixup(mix, random_cutout(cutout, expected, 4), 1.0)
    found, mixed = network_inputs(replace(tiny_spec, regularisers=ALL_ON), state, images, labels)
    np.testing.assert_array_equal(found, expected)
    assert mixed is not None
    assert float(mixed.weight) == float(weight)
    np.testing.assert_array_equal(mixed.labels, labels[partner])
    plain, nothing = network_inputs(tiny_spec, state, images, labels)
    assert nothing is None
    np.testing.assert_array_equal(plain, normalise(random_crop_and_flip(crop, images)))


def test_purposes_of_random_numbers_keep_their_numbers() -> None:
    """A run of an earlier version goes on with the same draws."""
    assert (INIT, ORDER, AUGMENT, DROPOUT, CUTOUT, ERASING, MIXUP) == (0, 1, 2, 3, 4, 5, 6)


def test_loss_and_accuracy_are_of_the_softened_labels(tiny_spec, state, batch) -> None:
    spec = replace(
        tiny_spec, model=tiny_spec.model.clone(dropout=0.0), augment=False, regularisers=ALL_ON
    )
    images, labels = batch
    _, metrics = step(spec, HYPER, N, state, images, labels)
    x, mixed = network_inputs(spec, state, images, labels)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = spec.model.apply(variables, x, train=True, mutable=["batch_stats"])
    assert float(metrics.loss) == pytest.approx(
        float(training_loss(logits, labels, 0.1, mixed)), rel=1e-4
    )
    assert float(metrics.correct) == pytest.approx(float(count_correct(logits, labels, mixed)))


@pytest.mark.parametrize("name", ["nesterov", "adamw", "muon"])
def test_settings_of_other_optimisers_do_not_trace_again(tiny_spec, batch, name: str) -> None:
    spec = replace(tiny_spec, optimizer=name, schedule="onecycle")
    state = init_state(spec, jax.random.key(0), (8, 8, 3))
    traces = 0

    @jax.jit
    def counted(hyper: Hyperparams, state: TrainState) -> TrainState:
        nonlocal traces
        traces += 1
        return train_step(spec, hyper, N, state, *batch)[0]

    first = Hyperparams(*map(jnp.float32, (0.01, 0.9, 5e-4)))
    states = [counted(first, state)]
    for change in ({"learning_rate": 0.1}, {"momentum": 0.5}, {"weight_decay": 1.0}):
        (field,) = change
        other = first.replace(**{field: jnp.float32(change[field])})
        states.append(counted(other, counted(first, state)))
    assert traces == 1
    again = counted(first, counted(first, state))
    assert all(params_differ(again, other) for other in states[1:])
