"""An epoch in several calls: bitwise the epoch in one, with no program compiled again."""

import functools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.core.inputs import Inputs, random_crop_and_flip
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import (
    Data,
    Experiment,
    Metrics,
    TrainState,
    init_state,
    predict,
    run_epoch,
)
from cifar_jax.kernels import jit
from cifar_jax.methods.regularise import Cutout, Mixup, RandomErasing
from cifar_jax.runner.boundaries import Boundary, boundaries
from cifar_jax.runner.programs import CompiledEpoch, compile_device_epoch, stack_runs, unstack_run
from cifar_jax.runner.streamed import HostData, compile_stream_epoch

HYPER = Hyper(*map(np.float32, (0.01, 0.9, 5e-4)))
FULL = 3


@functools.cache
def noise() -> Data:
    """28 + 12 images of 4x4 noise: three batches of 8, and one of 4."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 4, 4, 3), np.uint8)
    labels = rng.integers(0, 10, 40, np.int32)
    return Data(*map(jnp.asarray, (images[:28], labels[:28], images[28:], labels[28:])))


def experiment_of(norm: str) -> Experiment:
    """Without convolutions: XLA computes them in another way inside a loop on a CPU."""
    return Experiment(CNN(norm=norm, widths=(), hidden=16), Inputs(augment=()), batch_size=8)


@functools.cache
def start(norm: str, seed: int = 0) -> TrainState:
    make = jax.jit(init_state, static_argnums=(0, 2))
    return make(experiment_of(norm), jax.random.key(seed), (4, 4, 3))


def host_data(data: Data) -> HostData:
    images, labels = np.asarray(data.train_images), np.asarray(data.train_labels)
    return HostData(images, labels, np.arange(len(labels)))


@functools.cache
def compiled(norm: str, pipeline: str) -> CompiledEpoch:
    experiment, state, data = experiment_of(norm), start(norm), noise()
    if pipeline == "device":
        return compile_device_epoch(experiment, HYPER, state, data)
    return compile_stream_epoch(experiment, HYPER, state, host_data(data), data)


def bits(state: TrainState, metrics: object = None) -> list[bytes]:
    tree: object = (state.replace(key=None), metrics)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def in_pieces(
    program: CompiledEpoch, hyper: Hyper, state: TrainState, size: int
) -> tuple[TrainState, Metrics]:
    """An epoch in calls of so many steps; the state goes through the host between them."""
    for begin in range(0, FULL, size):
        state = program.advance(hyper, state, begin, min(begin + size, FULL))
        kept = jax.tree.map(lambda m: jnp.array(np.asarray(m)), state.replace(key=None))
        state = kept.replace(key=state.key)
    return program.finish(hyper, state)


@pytest.mark.optimised
def test_any_number_of_calls_gives_the_same_bits_in_both_pipelines() -> None:
    norm, ends = "batch", set()
    one_program = jit(lambda state: run_epoch(experiment_of(norm), HYPER, noise(), state))
    for pipeline in ("device", "stream"):
        program = compiled(norm, pipeline)
        assert (program.full, program.steps) == (FULL, FULL + 1)
        for size in (1, 2, FULL):
            end = start(norm)
            for _ in range(2):
                end, row = in_pieces(program, HYPER, end, size)
            ends.add(tuple(bits(end, row)))
        middle, row = program(HYPER, start(norm))
        ends.add(tuple(bits(*program(HYPER, middle))))
    assert len(ends) == 1
    whole, metrics = one_program(start(norm))
    assert bits(middle) == bits(whole)
    np.testing.assert_allclose(row, metrics, rtol=1e-6)  # Its means may be rounded otherwise.


def test_seeds_that_train_together_can_be_stopped_together_and_are_each_alone() -> None:
    states = stack_runs([start("batch", seed) for seed in (0, 1)])
    hyper = stack_runs([HYPER, HYPER.replace(learning_rate=np.float32(0.02))])
    program = compile_device_epoch(experiment_of("batch"), hyper, states, noise())
    whole, metrics = program(hyper, states)
    for size in (1, 2):
        assert bits(*in_pieces(program, hyper, states, size)) == bits(whole, metrics)
    alone = compiled("batch", "device")
    for i in (0, 1):
        one, row = alone(jax.tree.map(lambda h, i=i: h[i], hyper), start("batch", i))
        pairs = zip(
            jax.tree.leaves((unstack_run(whole, i).replace(key=None), metrics)),
            jax.tree.leaves((one.replace(key=None), row)),
            strict=True,
        )
        for found, expected in pairs:
            found = found[i] if found.ndim > expected.ndim else found
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_one_run_with_a_leading_axis_is_the_run_without() -> None:
    """In both pipelines; only the last bits may differ, as between any two programs."""
    hyper, state = stack_runs([HYPER]), stack_runs([start("batch")])
    for pipeline in ("device", "stream"):
        alone = compiled("batch", pipeline)(HYPER, start("batch"))
        if pipeline == "device":
            program = compile_device_epoch(experiment_of("batch"), hyper, state, noise())
        else:
            source = host_data(noise())
            program = compile_stream_epoch(experiment_of("batch"), hyper, state, source, noise())
        end, metrics = program(hyper, state)
        found = jax.tree.leaves((end.replace(key=None), metrics))
        expected = jax.tree.leaves((alone[0].replace(key=None), alone[1]))
        for mine, its in zip(found, expected, strict=True):
            assert mine.shape == (1, *its.shape)
            np.testing.assert_allclose(mine[0], its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_stopped_at_every_boundary_and_resumed(seconds) -> None:
    """Whether a call is a step or all that remains; a state seen at a boundary stays as it is."""
    program = compiled("batch", "device")
    middle, first = program(HYPER, start("batch"))
    whole = [bits(middle, first), bits(*program(HYPER, middle))]
    seen = list(boundaries(program, HYPER, Boundary(start("batch"), 1, 0, 0.0), 2, seconds))
    steps = [1, 2, 3, 4] * 2 if seconds == 0 else [1, 3, 4, 3, 4]
    assert [at.steps for at in seen] == steps
    assert [at.epoch for at in seen if at.metrics is not None] == [1, 2]
    for at in seen:
        assert int(at.state.step) == 4 * (at.epoch - 1) + at.steps
        if at.metrics is not None:
            assert bits(at.state, at.metrics) == whole[at.epoch - 1]
            continue
        ends = [end for end in boundaries(program, HYPER, at, 2) if end.metrics is not None]
        assert [bits(end.state, end.metrics) for end in ends] == whole[at.epoch - 1 :]
        assert ends[0].seconds > at.seconds


def test_other_bounds_neither_compile_nor_wait_for_the_host(caplog) -> None:
    program, hyper, state = compiled("batch", "device"), jax.device_put(HYPER), start("batch")

    def compilations() -> list[str]:
        return [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]

    with jax.log_compiles(True):
        for begin in range(FULL):
            with jax.transfer_guard_device_to_host("disallow"):
                state = program.advance(hyper, state, begin, begin + 1)
        with jax.transfer_guard("disallow"):
            program.finish(hyper, state)
        assert compilations() == []
        jax.jit(lambda x: x + 41)(1)
    assert compilations() != []


def test_an_epoch_refuses_host_numbers_under_the_guard_and_keeps_its_arguments() -> None:
    """The guard does see what is not on the device. The state before a call can be saved while it
    runs, so that the call must not take its buffers."""
    hyper, before = jax.device_put(HYPER), start("batch")
    state = jax.tree.map(jnp.copy, before)
    program = compiled("batch", "device")
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            program(HYPER, state)
        program(hyper, state)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((state, noise(), hyper)))
    assert bits(state) == bits(before)


@pytest.mark.parametrize(("images", "programs"), [(24, 2), (28, 3)])
def test_an_epoch_and_the_evaluation_are_at_most_three_programs(
    monkeypatch, images: int, programs: int
) -> None:
    """Full batches, a partial one if there is one, and the end, which also evaluates."""
    compile_, compiled_now = jax.stages.Lowered.compile, []

    def noted(self):
        compiled_now.append(compile_(self))
        return compiled_now[-1]

    monkeypatch.setattr(jax.stages.Lowered, "compile", noted)
    data, state = noise(), start("batch")
    data = data._replace(
        train_images=data.train_images[:images], train_labels=data.train_labels[:images]
    )
    program = compile_device_epoch(experiment_of("batch"), HYPER, state, data)
    before = bits(state)
    end, _ = program(HYPER, state)
    program.predict(HYPER, end, np.asarray(data.train_images))
    assert len(compiled_now) == programs
    assert bits(state) == before


class Keeper(nn.Module):
    """Learns nothing; keeps the two last batches of 8 that it is trained on."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        seen = self.variable("batch_stats", "seen", jnp.zeros, (2, 8, 8, 8, 3))
        if train:
            seen.value = jnp.roll(seen.value, -1, axis=0).at[-1].set(x)
        return jnp.zeros((len(x), 10)) + self.param("bias", nn.initializers.zeros, (10,))


def test_regularised_batches_are_the_same_in_both_pipelines(tiny_data: Data) -> None:
    """Another draw would differ by about 1; mixup's products and sum are contracted differently in
    the two programs of jax 0.5.0, which changes last bits."""
    inputs = Inputs((random_crop_and_flip, RandomErasing()), (Cutout(4), Mixup(10)))
    experiment = Experiment(Keeper(), inputs, batch_size=8)
    first = jax.jit(lambda key: init_state(experiment, key, (8, 8, 3)))(jax.random.key(1))
    images, labels = tiny_data.train_images[:16], tiny_data.train_labels[:16]
    data = tiny_data._replace(train_images=images, train_labels=labels)
    host = host_data(data)
    states = [
        compile_device_epoch(experiment, HYPER, first, data)(HYPER, first),
        compile_stream_epoch(experiment, HYPER, first, host, data)(HYPER, first),
    ]
    resident, streamed = (np.asarray(state.batch_stats["seen"]) for state, _ in states)
    np.testing.assert_allclose(resident, streamed, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(resident == 0, streamed == 0)
    assert (resident == 0).any()
    assert len(np.unique(resident)) > 1000
    assert states[0][1].train_accuracy == states[1][1].train_accuracy


@pytest.mark.parametrize("pipeline", ["device", "stream"])
def test_fewer_images_than_a_batch_are_one_partial_step(pipeline: str) -> None:
    data = noise()
    experiment = replace(experiment_of("none"), batch_size=32)
    if pipeline == "device":
        program = compile_device_epoch(experiment, HYPER, start("none"), data)
    else:
        program = compile_stream_epoch(experiment, HYPER, start("none"), host_data(data), data)
    assert (program.full, program.steps) == (0, 1)
    (end,) = boundaries(program, HYPER, Boundary(start("none"), 1, 0, 0.0), 1)
    assert int(end.state.step) == end.steps == 1
    assert end.metrics is not None
    assert np.isfinite(float(end.metrics.train_loss))


@pytest.mark.parametrize("n", [1, 12, 28])
def test_predictions_are_those_of_predict(n: int) -> None:
    """The program of an epoch's end takes 12 images a call. It predicts what `evaluate` does."""
    experiment, state, images = experiment_of("batch"), start("batch"), noise().train_images[:n]
    found = compiled("batch", "device").predict(HYPER, state, np.asarray(images))
    alone = np.asarray(jit(functools.partial(predict, experiment))(state, images))
    np.testing.assert_allclose(alone, predict(experiment, state, images), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-7)
    assert found.shape == (n, 10)
