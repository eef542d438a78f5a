"""Checkpoints: everything comes back bitwise, and what cannot is said."""

import json

import jax
import numpy as np
import pytest

from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Optimizer, sgd
from cifar_jax.core.optimizers import adamw
from cifar_jax.core.train import Experiment, TrainState, init_state
from cifar_jax.errors import MachineError, UserError
from cifar_jax.methods.muon import Muon
from cifar_jax.runner.checkpoint import KEEP, Checkpoints
from cifar_jax.runner.checkpoint_files import Position, seal
from cifar_jax.runner.transfer import named_leaves, replaced


def state_of(norm: str, seed: int = 0, width: int = 4, optimizer: Optimizer = sgd) -> TrainState:
    model = CNN(norm=norm, widths=(width, 8, 8), hidden=16)
    experiment = Experiment(model, optimizer=optimizer)
    state = init_state(experiment, jax.random.key(seed), (32, 32, 3))
    # No tensor may be at its initial value, else forgetting it would go unnoticed.
    noisy = jax.tree.map(lambda x: x + x.dtype.type(1), state.replace(key=None, step=None))
    return noisy.replace(key=state.key, step=state.step + 17)


def stacked(*states: TrainState) -> TrainState:
    return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *states)


def save(checkpoints, epoch: int, state: TrainState, record=None, steps: int = 0) -> None:
    """Save a group of one run."""
    checkpoints.save(Position(epoch, steps), stacked(state), record or {"runs": [{}]})


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("norm", "optimizer"),
    [("none", sgd), ("batch", sgd), ("batch", adamw), ("none", Muon(10))],
    ids=["none-sgd", "batch-sgd", "batch-adamw", "none-muon"],
)
def test_state_and_record_come_back_bitwise(checkpoints, norm, optimizer):
    state = state_of(norm, optimizer=optimizer)
    other = state_of(norm, seed=2, optimizer=optimizer)
    record = {"runs": [{"name": "a"}, {"name": "b", "history": [{"epoch": 1, "loss": 0.1}]}]}
    checkpoints.save(Position(1), stacked(other, state), record)
    again = Checkpoints(checkpoints.directory, create=False)
    restored = again.read_state(state_of(norm, seed=1, optimizer=optimizer), 1)
    assert again.read_record() == record
    again.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert np.array_equal(jax.random.key_data(restored.key), jax.random.key_data(state.key))
    pairs = zip(
        jax.tree.leaves(restored.replace(key=None)),
        jax.tree.leaves(state.replace(key=None)),
        strict=True,
    )
    for found, wanted in pairs:
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)


def test_only_the_newest_are_kept(checkpoints):
    state = state_of("none")
    for epoch in range(1, KEEP + 3):
        save(checkpoints, epoch, state, {"epoch": epoch, "runs": [{}]})
    assert checkpoints.latest() == (KEEP + 2, 0)
    names = {p.name for p in checkpoints.directory.iterdir()}
    assert names == {str(e) for e in range(3, KEEP + 3)}
    assert checkpoints.read_record()["epoch"] == KEEP + 2


def test_one_within_an_epoch_is_newer_than_its_begin_and_gone_at_its_end(checkpoints):
    state = state_of("none")

    def names():
        return {p.name for p in checkpoints.directory.iterdir()}

    for epoch in (8, 9, 10):
        save(checkpoints, epoch, state, {"epoch": epoch, "runs": [{}]})
    for steps in (2, 11):
        save(checkpoints, 10, state, {"steps": steps, "runs": [{}]}, steps)
        assert names() == {"9", "10", f"10+{steps}"}
        assert checkpoints.latest() == (10, steps)
        assert checkpoints.read_record()["steps"] == steps
    (checkpoints.directory / "10+11" / "SHA256SUMS").write_text("")
    assert checkpoints.latest() == (10, 0)
    checkpoints.rename_damaged()
    assert names() == {"9", "10", "damaged-10+11"}
    save(checkpoints, 10, state, steps=5)
    save(checkpoints, 11, state)
    assert names() == {"10", "11", "damaged-10+11"}


def test_no_checkpoint_is_said(checkpoints):
    assert checkpoints.latest() is None
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoints.read_record()


@pytest.mark.parametrize("other", [("none", 0, 6), ("batch", 0, 4)], ids=["width", "norm"])
def test_another_model_is_refused(checkpoints, other):
    save(checkpoints, 1, state_of("none"))
    with pytest.raises(UserError, match="checkpoints"):
        checkpoints.read_state(state_of(*other))


def aligned(array):
    """A copy where JAX, if it ever does, takes the memory rather than the values."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copied = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


def test_a_restored_state_has_memory_of_its_own(checkpoints, monkeypatch):
    """Training writes into the state that it is given; NumPy's memory is freed meanwhile."""
    state = state_of("batch")
    save(checkpoints, 1, state)
    given = []

    def restore(*_, args):
        tree = jax.tree.map(aligned, args.item)
        given.extend(jax.tree.leaves(tree))
        return tree

    monkeypatch.setattr(checkpoints._orbax, "restore", restore)
    restored = checkpoints.read_state(state)
    made = jax.tree.leaves(restored.replace(key=jax.random.key_data(restored.key)))
    places = {leaf.unsafe_buffer_pointer() for leaf in made}
    assert len(given) == len(made) == len(places)
    assert places.isdisjoint(leaf.ctypes.data for leaf in given)


def test_values_taken_over_have_memory_of_their_own():
    params = state_of("none").params
    values = {name: aligned(np.asarray(leaf)) for name, leaf in named_leaves(params).items()}
    places = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(replaced(params, values))}
    assert len(places) == len(values)
    assert places.isdisjoint(leaf.ctypes.data for leaf in values.values())


@pytest.mark.parametrize(
    "name",
    ["My [old] project", "*", "a?", "back\\slash", "b:", "line\nend", "\u732b \udcff '\"#%~"],
)
def test_any_path_that_a_disk_can_have_will_do(name, tmp_path, tiny_state):
    """Orbax takes the path for a pattern when it merges its files."""
    opened = Checkpoints(tmp_path / name / "checkpoints")
    save(opened, 1, tiny_state)
    restored = opened.read_state(tiny_state)
    opened.close()
    for found, wanted in zip(
        jax.tree.leaves(restored.params), jax.tree.leaves(tiny_state.params), strict=True
    ):
        assert np.array_equal(found, wanted)


def test_a_checkpoint_that_cannot_be_read_back_is_found_when_it_is_saved(
    checkpoints, tiny_state, monkeypatch
):
    restore, read = checkpoints._orbax.restore, []

    def missing(*_, **__):
        raise ValueError("NOT_FOUND: Metadata at key/.zarray does not exist")

    def altered(*given, **named):
        return jax.tree.map(np.zeros_like, restore(*given, **named))

    def counted(*given, **named):
        read.append(given)
        return restore(*given, **named)

    for broken, said in ((missing, "NOT_FOUND"), (altered, "differs from what was written")):
        monkeypatch.setattr(checkpoints._orbax, "restore", broken)
        with pytest.raises(MachineError, match=f"epoch 1 cannot be written .*{said}"):
            save(checkpoints, 1, tiny_state)
        assert list(checkpoints.directory.iterdir()) == []
    monkeypatch.setattr(checkpoints._orbax, "restore", counted)
    for epoch in (1, 2):
        save(checkpoints, epoch, tiny_state)
    assert len(read) == 1  # The first is enough.


def test_a_checkpoint_of_another_format_is_refused_in_one_line(checkpoints):
    """The state of format 1 had no axis of runs, and its record named no format."""
    save(checkpoints, 1, state_of("none"), {"runs": [{}]})
    path = checkpoints.directory / "1"
    for format_ in ({}, {"format": 1}, {"format": 3}):
        (path / "record" / "metadata").write_text(json.dumps({**format_, "runs": [{}]}))
        seal(path)
        with pytest.raises(UserError, match="another version of cifar_jax wrote this") as refused:
            checkpoints.read_record()
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
