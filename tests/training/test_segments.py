"""An epoch in several calls: bitwise the epoch in one, with no program compiled again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.models.cnn import CNN
from cifar_jax.training.compiler import jit
from cifar_jax.training.epoch import run_epoch
from cifar_jax.training.loop import (
    CompiledEpoch,
    HostData,
    SteppedEpoch,
    Unfinished,
    compile_device_epoch,
    compile_stream_epoch,
    stack_runs,
    unstack_state,
)
from cifar_jax.training.optimizer import Hyperparams
from cifar_jax.training.state import TrainData, TrainSpec, TrainState, init_state

pytestmark = pytest.mark.optimised

HYPER = Hyperparams(*map(np.float32, (0.01, 0.9, 5e-4)))
FULL = 3


@functools.cache
def noise() -> TrainData:
    """28 + 12 images of 8x8 noise: three batches of 8, and one of 4."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 10, 40, np.int32)
    return TrainData(*map(jnp.asarray, (images[:28], labels[:28], images[28:], labels[28:])))


def spec_of(norm: str) -> TrainSpec:
    return TrainSpec(CNN(norm=norm, widths=(4,), hidden=16), batch_size=8)


@functools.cache
def start(norm: str, seed: int = 0) -> TrainState:
    make = jax.jit(init_state, static_argnums=(0, 2))
    return make(spec_of(norm), jax.random.key(seed), (8, 8, 3))


@functools.cache
def compiled(norm: str, pipeline: str) -> CompiledEpoch:
    data = noise()
    if pipeline == "device":
        return compile_device_epoch(spec_of(norm), HYPER, start(norm), data)
    images, labels = np.asarray(data.train_images), np.asarray(data.train_labels)
    host = HostData(images, labels, np.arange(28))
    return compile_stream_epoch(spec_of(norm), HYPER, start(norm), host, data)


def bits(state: TrainState, metrics: object) -> list[bytes]:
    tree: object = (state.step, state.params, state.batch_stats, state.opt_state, metrics)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def in_pieces(
    program: CompiledEpoch, hyper: Hyperparams, state: TrainState, size: int
) -> tuple[TrainState, object]:
    """An epoch in calls of so many steps; the metrics go through the host between them."""
    metrics = program.empty
    for begin in range(0, FULL, size):
        stop = min(begin + size, FULL)
        state, metrics = program.advance(hyper, state, metrics, begin, stop)
        metrics = jax.tree.map(lambda m: jnp.array(np.asarray(m)), metrics)
    return program.finish(hyper, state, metrics)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_any_number_of_calls_gives_the_same_bits(norm) -> None:
    one_program = jit(lambda state: run_epoch(spec_of(norm), HYPER, state, noise()))
    ends = set()
    for pipeline in ("device", "stream"):
        program = compiled(norm, pipeline)
        assert program.full == FULL
        for size in (1, 2, FULL):
            end = start(norm)
            for _ in range(2):
                end, row = in_pieces(program, HYPER, end, size)
            ends.add(tuple(bits(end, row)))
        middle, row = program(HYPER, start(norm))
        ends.add(tuple(bits(*program(HYPER, middle))))
    assert len(ends) == 1
    whole, metrics = one_program(start(norm))
    assert bits(middle, None) == bits(whole, None)
    np.testing.assert_allclose(row, metrics, rtol=1e-6)  # Its means may be rounded otherwise.


def test_seeds_that_train_together_can_be_stopped_together() -> None:
    states = stack_runs([start("batch", seed) for seed in (0, 1)])
    hyper = stack_runs([HYPER, HYPER])
    program = compile_device_epoch(spec_of("batch"), hyper, states, noise(), 2)
    whole = bits(*program(hyper, states))
    for size in (1, 2):
        assert bits(*in_pieces(program, hyper, states, size)) == whole
    assert whole != bits(*program(hyper, stack_runs([unstack_state(states, 1, 2)] * 2)))


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_stopped_at_every_boundary_and_gone_on(seconds) -> None:
    """Whether a call is a step or what is left; what is seen at a boundary stays as it is."""
    program = compiled("batch", "device")
    whole = bits(*program(HYPER, start("batch")))
    seen: list[Unfinished] = []
    run = SteppedEpoch(program, HYPER, seen.append, seconds=seconds)
    assert bits(*run(start("batch"))) == whole
    assert [here.steps for here in seen] == ([0, 1, 2, 3] if seconds == 0 else [0, 1, 3])
    for here in seen:
        rest = SteppedEpoch(program, HYPER, begun=here)
        assert bits(*rest(here.state)) == whole


def test_what_a_boundary_raises_ends_the_epoch() -> None:
    def stop(here: Unfinished) -> None:
        if here.steps == 2:
            raise InterruptedError

    run = SteppedEpoch(compiled("batch", "device"), HYPER, stop, seconds=0)
    with pytest.raises(InterruptedError):
        run(start("batch"))


def test_other_bounds_neither_compile_nor_wait_for_the_host(caplog) -> None:
    program, hyper, state = compiled("batch", "device"), jax.device_put(HYPER), start("batch")

    def compilations() -> list[str]:
        return [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]

    with jax.log_compiles(True):
        with jax.transfer_guard("disallow"):
            for begin in range(FULL):
                state, metrics = program.advance(hyper, state, program.empty, begin, begin + 1)
            program.finish(hyper, state, metrics)
        assert compilations() == []
        jax.jit(lambda x: x + 41)(1)
    assert compilations() != []


def test_the_state_is_trained_in_the_buffers_of_a_copy(monkeypatch) -> None:
    """Both programs write over the copy; what they were called with stays."""
    compile_, programs = jax.stages.Lowered.compile, []

    def noted(self):
        programs.append(compile_(self))
        return programs[-1]

    monkeypatch.setattr(jax.stages.Lowered, "compile", noted)
    state = start("batch")
    program = compile_device_epoch(spec_of("batch"), HYPER, state, noise())
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state)))
    reused = [one.memory_analysis().alias_size_in_bytes for one in programs]
    assert sum(size >= held for size in reused) == 2, reused
    before = bits(state, program.empty)
    program(HYPER, state)
    assert bits(state, program.empty) == before
