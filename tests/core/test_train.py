"""Training: a step, an epoch with its partial batch and sums, the whole. Numbers: tests/golden."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.core.inputs import Inputs, random_crop_and_flip
from cifar_jax.core.model import CNN
from cifar_jax.core.norms import BatchNorm
from cifar_jax.core.optim import Hyper
from cifar_jax.core.optimizers import adamw, nesterov
from cifar_jax.core.schedules import OneCycle
from cifar_jax.core.train import (
    INPUTS,
    Data,
    Experiment,
    TrainState,
    count_correct,
    cross_entropy,
    draw_key,
    epoch_order,
    init_state,
    predict,
    run_epoch,
    train,
    train_last,
    train_step,
    train_steps,
)
from cifar_jax.methods.muon import Muon
from cifar_jax.methods.regularise import LabelSmoothing, Mixup

N = 20
MEAN, STD = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])


def hyper(learning_rate: float = 0.01, momentum: float = 0.9, weight_decay: float = 5e-4) -> Hyper:
    """As arrays, for which a jitted function compiles once."""
    return Hyper(*map(jnp.float32, (learning_rate, momentum, weight_decay)))


HYPER = hyper()
step: Callable[..., TrainState] = jax.jit(train_step, static_argnums=(0, 2))
epoch: Any = jax.jit(run_epoch, static_argnums=0)
first_state: Callable[..., TrainState] = jax.jit(init_state, static_argnums=(0, 2))


class Linear(nn.Module):
    """Mean pixel, dropout and a dense layer: fast in a loop on a CPU."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x.mean((1, 2)))
        return nn.Dense(10, name="dense")(x)


class Explodes(nn.Module):
    """Network with infinite logits, and so loss, from the third training batch on."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        batches = self.variable("batch_stats", "batches", jnp.zeros, ())
        if train:
            batches.value += 1
        bias = self.param("bias", nn.initializers.zeros, (10,))
        return jnp.zeros((len(x), 10)) + bias + jnp.where(batches.value > 2, jnp.inf, 0.0)


@pytest.fixture(scope="module")
def batch(tiny_data: Data) -> tuple[jax.Array, jax.Array]:
    return tiny_data.train_images[:8], tiny_data.train_labels[:8]


def assert_equal(a: object, b: object) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def params_differ(a: TrainState, b: TrainState) -> bool:
    return any(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x != y).any()), a.params, b.params)))


def host(tree: object) -> list[np.ndarray]:
    def plain(leaf: jax.Array) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return [plain(leaf) for leaf in jax.tree.leaves(tree)]


# One step.


def test_loss_and_hits_are_of_the_batch_before_the_update(
    tiny_experiment, tiny_state, batch
) -> None:
    model = tiny_experiment.model.clone(dropout=0.0)
    experiment = replace(tiny_experiment, model=model, inputs=Inputs(augment=()))
    images, labels = batch
    new = step(experiment, HYPER, N, tiny_state, images, labels)
    x = (images / 255 - MEAN) / STD
    variables = {"params": tiny_state.params, "batch_stats": tiny_state.batch_stats}
    logits, _ = model.apply(variables, x.astype(np.float32), train=True, mutable=["batch_stats"])
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert float(new.loss_sum) == pytest.approx(-log_p[np.arange(8), labels].mean(), rel=1e-4)
    assert int(new.correct_sum) == (logits.argmax(1) == labels).sum()


def test_augmentation_is_the_draw_of_the_step(batch) -> None:
    images, labels = batch
    experiment = Experiment(Linear(), batch_size=8)
    state = first_state(experiment, jax.random.key(0), (8, 8, 3)).replace(step=jnp.int32(5))
    key = jax.random.fold_in(draw_key(state.key, INPUTS, 5), 0)
    plain = replace(experiment, inputs=Inputs(augment=()))
    expected = step(plain, HYPER, N, state, random_crop_and_flip(key, images), labels)
    assert_equal(step(experiment, HYPER, N, state, images, labels).params, expected.params)
    other = step(plain, HYPER, N, state, images, labels)
    assert float(other.loss_sum) != float(expected.loss_sum)


def test_each_step_draws_its_own_dropout(batch) -> None:
    experiment = Experiment(Linear(dropout=0.5), inputs=Inputs(augment=()), batch_size=8)
    state = first_state(experiment, jax.random.key(0), (8, 8, 3))
    losses = {
        float(step(experiment, HYPER, N, state.replace(step=jnp.int32(i)), *batch).loss_sum)
        for i in range(4)
    }
    assert len(losses) == 4


def test_a_step_counts_itself_and_keeps_the_key(tiny_experiment, tiny_state, batch) -> None:
    new = step(tiny_experiment, HYPER, N, tiny_state, *batch)
    assert int(new.step) == int(tiny_state.step) + 1
    assert_equal(jax.random.key_data(new.key), jax.random.key_data(tiny_state.key))


def test_types_and_shapes_of_the_state_stay(tiny_experiment, tiny_state, batch) -> None:
    new = step(tiny_experiment, HYPER, N, tiny_state, *batch)

    def kinds(state: TrainState) -> Any:
        return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), state)

    assert kinds(new) == kinds(tiny_state)


def test_weight_decay_reaches_every_parameter(tiny_experiment, tiny_state, batch) -> None:
    state = tiny_state.replace(params=jax.tree.map(lambda p: p + 0.1, tiny_state.params))
    decayed = step(tiny_experiment, hyper(weight_decay=1.0), N, state, *batch)
    free = step(tiny_experiment, hyper(weight_decay=0.0), N, state, *batch)
    jax.tree.map(
        lambda p, a, b: np.testing.assert_allclose(b - a, 0.01 * p, atol=1e-6),
        state.params,
        decayed.params,
        free.params,
    )


@pytest.mark.parametrize(
    "changes",
    [{}, *({"optimizer": o, "schedule": OneCycle()} for o in (nesterov, adamw, Muon(10)))],
    ids=["sgd", "nesterov", "adamw", "muon"],
)
def test_other_hyper_parameters_do_not_trace_again(batch, changes: dict[str, Any]) -> None:
    experiment = Experiment(CNN(widths=(), hidden=8), batch_size=8, **changes)
    state = first_state(experiment, jax.random.key(0), (8, 8, 3))
    traces = 0

    @jax.jit
    def counted(hyper: Hyper, state: TrainState) -> TrainState:
        nonlocal traces
        traces += 1
        return train_step(experiment, hyper, N, state, *batch)

    once = counted(HYPER, state)
    others = [hyper(learning_rate=0.1), hyper(momentum=0.5), hyper(weight_decay=1.0)]
    states = [counted(other, once) for other in others]
    again = counted(HYPER, once)
    assert traces == 1
    assert all(params_differ(again, other) for other in states)


def test_a_model_without_statistics_carries_none(batch) -> None:
    experiment = Experiment(Linear(), batch_size=8)
    state = first_state(experiment, jax.random.key(0), (8, 8, 3))
    new = step(experiment, HYPER, N, state, *batch)
    assert state.batch_stats == {}
    assert new.batch_stats == {}
    assert params_differ(new, state)


def test_loss_and_hits_are_of_softened_targets(batch) -> None:
    """With label smoothing and mixup, on the images that the network sees."""
    images, labels = batch
    inputs = Inputs((), (Mixup(10),))
    loss = LabelSmoothing(0.1)
    experiment = Experiment(Linear(), inputs, loss, batch_size=8)
    state = first_state(experiment, jax.random.key(0), (8, 8, 3))
    new = step(experiment, HYPER, N, state, images, labels)
    x, shares = jax.jit(inputs.train)(draw_key(state.key, INPUTS, 0), images, labels)
    logits = experiment.model.apply({"params": state.params}, x, train=True)
    assert float(new.loss_sum) == pytest.approx(float(loss(logits, shares)), rel=1e-4)
    assert float(new.correct_sum) == pytest.approx(float(count_correct(logits, shares)), rel=1e-5)


def test_an_augmentation_can_know_the_epoch(tiny_data) -> None:
    """Its images are the epoch's number, so the model's mean input is too."""
    black = Inputs(
        (lambda key, images, epoch: jnp.full_like(images, epoch),), mean=(0.0,), std=(1.0,)
    )

    class Sees(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            seen = self.variable("batch_stats", "seen", jnp.zeros, (5,))
            if train:
                seen.value = jnp.append(seen.value[1:], 255 * x.mean())
            return nn.Dense(10)(x.reshape(len(x), -1))

    experiment = Experiment(Sees(), black, batch_size=8, epochs=2)
    data = tiny_data._replace(
        train_images=tiny_data.train_images[:20], train_labels=tiny_data.train_labels[:20]
    )
    state, _ = jax.jit(partial(train, experiment, HYPER))(data, jax.random.key(0))
    np.testing.assert_allclose(state.batch_stats["seen"], [0, 0, 1, 1, 1], atol=1e-5)


def test_a_model_can_start_from_the_first_images(tiny_data) -> None:
    class Centred(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            mean = self.variable("batch_stats", "mean", lambda: x.mean((0, 1, 2)))
            return nn.Dense(10)((x - mean.value).reshape(len(x), -1))

    experiment = Experiment(Centred(), Inputs(()), batch_size=8, epochs=1, init_images=3)
    state, _ = jax.jit(partial(train, experiment, HYPER))(tiny_data, jax.random.key(0))
    expected = Inputs().evaluate(tiny_data.train_images[:3]).mean((0, 1, 2))
    np.testing.assert_allclose(state.batch_stats["mean"], expected, rtol=1e-5)


def test_loss_and_hits_are_those_of_the_definition() -> None:
    logits = np.random.default_rng(0).normal(size=(30, 10))
    labels = np.arange(30) % 10
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    arguments = jnp.asarray(logits, jnp.float32), jnp.asarray(labels)
    expected = -np.log(p[np.arange(30), labels]).mean()
    assert float(cross_entropy(*arguments)) == pytest.approx(expected, rel=1e-5)
    assert int(count_correct(*arguments)) == (logits.argmax(1) == labels).sum()


# One epoch.


class Recorder(nn.Module):
    """Network that does not learn, but records the batch of each image, numbered in its pixels."""

    images: int = 200

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        batches = self.variable("batch_stats", "batches", jnp.zeros, (), jnp.int32)
        visits = self.variable("batch_stats", "visits", jnp.zeros, (self.images,), jnp.int32)
        sizes = self.variable("batch_stats", "sizes", jnp.zeros, (self.images,), jnp.int32)
        turns = self.variable("batch_stats", "turns", jnp.zeros, (self.images,), jnp.int32)
        if train:
            number = jnp.round(255 * (x[:, 0, 0, 0] * STD[0] + MEAN[0])).astype(jnp.int32)
            visits.value = visits.value.at[number].add(1)
            sizes.value = sizes.value.at[number].set(len(x))
            turns.value = turns.value.at[number].set(batches.value)
            batches.value += 1
        return jnp.zeros((len(x), 10)) + self.param("bias", nn.initializers.zeros, (10,))


class NormOnly(nn.Module):
    """Batch Normalization of the pixels, and a layer that needs a gradient."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = BatchNorm(name="norm")(x, train=train)
        return nn.Dense(10, name="dense")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def numbered() -> Data:
    """200 images whose pixels are noise but for the first, their number; two for validation.

    A batch of 128 and one of 72 images, as at the end of the protocol's epochs.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(200)
    labels = rng.integers(0, 10, 200, np.int32)
    return Data(*map(jnp.asarray, (images, labels, images[:2], labels[:2])))


def one_epoch(model: nn.Module, data: Data, **changes: Any) -> tuple[TrainState, TrainState]:
    """The state before and after the steps of an epoch."""
    experiment = Experiment(model, Inputs(augment=()), **changes)
    state = first_state(experiment, jax.random.key(0), data.train_images.shape[1:])

    @jax.jit
    def steps(state: TrainState) -> TrainState:
        full = len(data.train_labels) // experiment.batch_size
        return train_last(
            experiment, HYPER, data, train_steps(experiment, HYPER, data, state, 0, full)
        )

    return state, steps(state)


def test_every_image_is_used_once_and_no_batch_is_filled_up(numbered) -> None:
    start, end = one_epoch(Recorder(), numbered)
    np.testing.assert_array_equal(end.batch_stats["visits"], np.ones(200))
    assert int(end.batch_stats["batches"]) == int(end.step) == 2
    order = np.asarray(epoch_order(start.key, 0, 200))
    sizes, turns = np.empty(200, int), np.empty(200, int)
    sizes[order[:128]], sizes[order[128:]] = 128, 72
    turns[order] = np.arange(200) // 128
    np.testing.assert_array_equal(end.batch_stats["sizes"], sizes)
    np.testing.assert_array_equal(end.batch_stats["turns"], turns)


@pytest.mark.parametrize(("batch_size", "steps"), [(50, 4), (200, 1), (201, 1)])
def test_full_batches_alone_and_fewer_images_than_a_batch(numbered, batch_size, steps) -> None:
    _, end = one_epoch(Recorder(), numbered, batch_size=batch_size)
    np.testing.assert_array_equal(end.batch_stats["visits"], np.ones(200))
    np.testing.assert_array_equal(end.batch_stats["sizes"], np.full(200, min(batch_size, 200)))
    assert int(end.step) == steps


def test_statistics_of_the_partial_batch_are_of_its_72_images(numbered) -> None:
    start, end = one_epoch(NormOnly(), numbered)
    x = np.asarray(Inputs().evaluate(numbered.train_images), np.float64)
    x = x[np.asarray(epoch_order(start.key, 0, 200))]
    full, partial = (part.reshape(-1, 3) for part in (x[:128], x[128:]))
    stats = end.batch_stats["norm"]
    mean = 0.9 * 0.1 * full.mean(0) + 0.1 * partial.mean(0)
    var = 0.9 * (0.9 + 0.1 * full.var(0, ddof=1)) + 0.1 * partial.var(0, ddof=1)
    np.testing.assert_allclose(stats["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-6)


def test_order_is_a_permutation_of_its_own_every_epoch() -> None:
    key = jax.random.key(0)
    first, again, second = (np.asarray(epoch_order(key, epoch, 1000)) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    for order in (first, second):
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    # One in common is expected by chance.
    assert (first == second).sum() < 10
    assert (first == np.asarray(epoch_order(jax.random.key(1), 0, 1000))).sum() < 10


def test_the_second_epoch_has_its_own_order(numbered) -> None:
    """The epoch's number comes from the state's step, at any step of the epoch."""
    experiment = Experiment(Recorder(), Inputs(augment=()), batch_size=50)
    state = first_state(experiment, jax.random.key(0), (4, 4, 3))
    run = jax.jit(lambda state: train_steps(experiment, HYPER, numbered, state, 0, 4))
    turns = np.asarray(run(run(state)).batch_stats["turns"])
    order = np.asarray(epoch_order(state.key, 1, 200))
    np.testing.assert_array_equal(turns[order], 4 + np.arange(200) // 50)


def steps_one_by_one(
    experiment: Experiment, data: Data, state: TrainState
) -> tuple[list[float], list[float], TrainState]:
    """Return loss and hits of each step of an epoch by `train_step`, and the final state."""
    order = epoch_order(state.key, 0, len(data.train_labels))
    losses, hits, size = [], [], experiment.batch_size
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        zero = state.replace(loss_sum=jnp.zeros(()), correct_sum=jnp.zeros(()))
        images, labels = data.train_images[rows], data.train_labels[rows]
        state = step(experiment, HYPER, len(order), zero, images, labels)
        losses.append(float(state.loss_sum) * size / len(rows))
        hits.append(float(state.correct_sum))
    return losses, hits, state


def test_an_epoch_is_its_steps_and_its_means_are_over_images(tiny_data) -> None:
    """The partial batch of 4 counts by its size."""
    experiment = Experiment(Linear(), batch_size=8)
    state = first_state(experiment, jax.random.key(0), (8, 8, 3))
    losses, hits, expected = steps_one_by_one(experiment, tiny_data, state)
    new, metrics = epoch(experiment, HYPER, tiny_data, state)
    for a, b in zip(host(new.params), host(expected.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    mean = (8 * losses[0] + 8 * losses[1] + 4 * losses[2]) / 20
    assert float(metrics.train_loss) == pytest.approx(mean, rel=1e-5)
    assert float(metrics.train_accuracy) == pytest.approx(sum(hits) / 20)
    assert float(metrics.learning_rate) == pytest.approx(0.01)
    assert int(metrics.bad_step) == -1
    # The next epoch begins with new sums.
    assert (float(new.loss_sum), float(new.correct_sum), int(new.bad_step)) == (0, 0, -1)
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, new)]
    assert kinds[0] == kinds[1]


def test_the_sums_of_a_stopped_epoch_continue(tiny_data) -> None:
    """Bitwise, for any division of the steps into calls. Only the state passes between calls."""
    experiment = Experiment(Linear(), batch_size=4)
    start = first_state(experiment, jax.random.key(0), (8, 8, 3))
    run = jax.jit(lambda s, a, b: train_steps(experiment, HYPER, tiny_data, s, a, b))
    whole = run(start, 0, 5)
    assert float(whole.loss_sum) > 0
    for stop in (1, 3):
        assert_equal(host(run(run(start, 0, stop), stop, 5)), host(whole))


@pytest.mark.parametrize(("batch_size", "expected"), [(4, 2), (8, 2), (10, -1)])
def test_the_first_bad_step_is_counted_within_the_epoch(tiny_data, batch_size, expected) -> None:
    """The loss of the third batch is the first that is not finite; it can be the partial one."""
    experiment = Experiment(Explodes(), batch_size=batch_size)
    state = first_state(experiment, jax.random.key(0), (8, 8, 3))
    state, metrics = epoch(experiment, HYPER, tiny_data, state)
    assert int(metrics.bad_step) == expected
    assert metrics.bad_step.dtype == jnp.int32
    assert np.isfinite(float(metrics.train_loss)) == (expected < 0)
    _, metrics = epoch(experiment, HYPER, tiny_data, state)
    assert int(metrics.bad_step) == 0


@pytest.mark.parametrize("n", [1, 250, 253])
def test_evaluation_of_any_number_of_images_is_that_of_each(
    tiny_experiment, tiny_state, n: int
) -> None:
    images = np.random.default_rng(n).integers(0, 256, (n, 8, 8, 3), np.uint8)
    state = tiny_state.replace(batch_stats=jax.tree.map(lambda s: s + 0.5, tiny_state.batch_stats))
    logits = predict(tiny_experiment, state, jnp.asarray(images))
    assert logits.shape == (n, 10)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    for row in {0, n // 2, n - 2, n - 1} - {-1}:
        x = Inputs().evaluate(images[row : row + 1])
        alone = tiny_experiment.model.apply(variables, x, train=False)[0]
        np.testing.assert_allclose(logits[row], alone, rtol=1e-5, atol=1e-6)


def test_the_size_of_an_evaluation_batch_changes_no_logits(tiny_experiment, tiny_state, tiny_data):
    images = tiny_data.val_images
    wanted = predict(tiny_experiment, tiny_state, images)
    for size in (1, 5):
        found = predict(replace(tiny_experiment, eval_batch_size=size), tiny_state, images)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_validation_is_of_the_state_after_the_epoch(tiny_experiment, tiny_data, tiny_state) -> None:
    new, metrics = epoch(tiny_experiment, HYPER, tiny_data, tiny_state)
    logits = np.asarray(predict(tiny_experiment, new, tiny_data.val_images), np.float64)
    labels = np.asarray(tiny_data.val_labels)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -log_p[np.arange(len(labels)), labels].mean()
    assert float(metrics.val_loss) == pytest.approx(loss, rel=1e-5)
    assert float(metrics.val_accuracy) == pytest.approx((logits.argmax(1) == labels).mean())


def test_epochs_run_on_the_device_without_compiling_again(
    tiny_experiment, tiny_data, tiny_state
) -> None:
    state, _ = epoch(tiny_experiment, HYPER, tiny_data, tiny_state)
    programs = epoch._cache_size()
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            state, _ = epoch(tiny_experiment, HYPER, tiny_data, state)
    assert int(state.step) == 12
    assert epoch._cache_size() == programs
    # The guard does see what is not on the device.
    on_host = tiny_data._replace(train_images=np.asarray(tiny_data.train_images))
    with (
        pytest.raises(Exception, match="Disallowed host-to-device"),
        jax.transfer_guard("disallow"),
    ):
        epoch(tiny_experiment, HYPER, on_host, state)


# Whole trainings.


def test_history_reports_the_rate_of_each_epoch(tiny_train) -> None:
    _, history = tiny_train(HYPER, jax.random.key(0))
    assert all(field.shape == (30,) for field in history)
    rates = np.asarray(history.learning_rate)[[0, 9, 10, 19, 20, 29]]
    np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)


def test_the_same_seed_gives_the_same_bits(tiny_train) -> None:
    first, second = (host(tiny_train(HYPER, jax.random.key(42))) for _ in range(2))
    assert_equal(first, second)


def test_another_seed_differs(tiny_train) -> None:
    (_, first), (_, second) = (tiny_train(HYPER, jax.random.key(seed)) for seed in (42, 43))
    assert (np.asarray(first.train_loss) != np.asarray(second.train_loss)).all()


def test_another_momentum_or_decay_differs(tiny_train) -> None:
    settings = (HYPER, hyper(momentum=0.5), hyper(weight_decay=0.1))
    losses = {float(tiny_train(one, jax.random.key(0))[1].val_loss[-1]) for one in settings}
    assert len(losses) == 3


def test_training_is_its_epochs_one_after_the_other(
    tiny_experiment, tiny_data, tiny_state, tiny_train
) -> None:
    _, history = tiny_train(HYPER, jax.random.key(0))
    state = tiny_state
    for i in range(3):
        state, metrics = epoch(tiny_experiment, HYPER, tiny_data, state)
        for field, value in metrics._asdict().items():
            np.testing.assert_allclose(value, getattr(history, field)[i], rtol=1e-4, err_msg=field)


def test_vmap_over_seeds_and_settings_is_each_run_alone(
    tiny_experiment, tiny_data, tiny_train
) -> None:
    """Later epochs amplify rounding, so the first few count."""
    keys = jax.random.split(jax.random.key(0), 3)
    hypers = Hyper(
        jnp.array([0.01, 0.003, 0.02]), jnp.array([0.9, 0.8, 0.9]), jnp.array([5e-4, 0.0, 0.1])
    )
    grid = jax.jit(jax.vmap(lambda hyper, key: train(tiny_experiment, hyper, tiny_data, key)))
    state, history = grid(hypers, keys)
    assert all(field.shape == (3, 30) for field in history)
    assert state.loss_sum.shape == state.bad_step.shape == (3,)
    for i in range(3):
        _, alone = tiny_train(jax.tree.map(lambda h, i=i: h[i], hypers), keys[i])
        for field, value in alone._asdict().items():
            together = getattr(history, field)[i, :3]
            np.testing.assert_allclose(together, value[:3], rtol=1e-4, err_msg=field)


def test_an_experiment_is_a_value() -> None:
    """Equal ones are one program; every field has the protocol's default."""
    assert Experiment() == Experiment(model=CNN(norm="none"), inputs=Inputs())
    assert hash(Experiment()) == hash(Experiment(batch_size=128, epochs=30))
    assert Experiment() != Experiment(model=CNN(norm="batch"))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_small_run_learns_512_images(norm: str) -> None:
    """Ten colours under strong noise, with augmentation and dropout."""
    rng = np.random.default_rng(0)
    colours = rng.integers(32, 224, (10, 1, 1, 3))
    labels = (np.arange(640) % 10).astype(np.int32)
    noise = rng.normal(0, 24, (640, 8, 8, 3))
    images = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
    arrays = (images[:512], labels[:512], images[512:], labels[512:])
    data = Data(*map(jnp.asarray, arrays))
    experiment = Experiment(CNN(norm=norm, widths=(8,), hidden=64), batch_size=32)
    state = first_state(experiment, jax.random.key(42), (8, 8, 3))
    losses = []
    for number in range(10):
        order = epoch_order(state.key, number, 512).reshape(-1, 32)
        state = state.replace(loss_sum=jnp.zeros(()))
        for rows in order:  # A loop of calls: XLA's convolution is slow in a loop of its own.
            batch = data.train_images[rows], data.train_labels[rows]
            state = step(experiment, HYPER, 512, state, *batch)
        losses.append(float(state.loss_sum) / len(order))
    whole = replace(experiment, eval_batch_size=128)
    logits = np.asarray(predict(whole, state, data.val_images))
    assert losses[0] > 1.5
    assert losses[-1] < 0.6
    assert (logits.argmax(1) == data.val_labels).mean() > 0.95
