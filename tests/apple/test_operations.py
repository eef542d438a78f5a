"""Every program consists of operations that the plugins for Apple GPUs are known to run.

No Mac is needed: JAX lowers for a platform that is absent. It is no proof that they run right.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.config.build import build_experiment
from cifar_jax.config.settings import Config, ModelConfig, TrainingConfig
from cifar_jax.core.optim import Hyper
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import (
    Data,
    Experiment,
    end_epoch,
    init_state,
    predict,
    train_last,
    train_step,
    train_steps,
)
from cifar_jax.kernels import FastModel
from cifar_jax.runner.programs import over_runs

KNOWN = json.loads((Path(__file__).parent / "operations.json").read_text())
N, BATCH = 10, 4
# Structure of a module, which no device runs; and `chlo.square`, which StableHLO's own pass turns
# into a multiplication; and shardings, which jax-mps passes by.
STRUCTURE = {"builtin.module", "func.func", "chlo.square", "stablehlo.custom_call Sharding"}


def _experiment(model: ModelConfig, training: TrainingConfig) -> Experiment:
    with mock.patch.object(jax, "default_backend", return_value="mps"):
        return build_experiment(Config(model=model, training=training))


def _state(experiment: Experiment, runs: int, shape: tuple[int, ...]) -> Any:
    one = jax.eval_shape(lambda: init_state(experiment, jax.random.key(0), shape))
    if runs == 1:
        return one
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((runs, *leaf.shape), leaf.dtype), one)


def _walk(operation: Any, found: set[str]) -> None:
    """Add the names of an operation and of all in its regions, with the target of a custom call."""
    name = operation.name
    if name == "stablehlo.custom_call":
        name += " " + operation.attributes["call_target_name"].value
    found.add(name)
    for region in operation.regions:
        for block in region:
            for inner in block:
                _walk(inner.operation, found)


def operations(experiment: Experiment, runs: int = 1) -> set[str]:
    """The operations of all programs of a training, lowered for the platform of jax-mps."""
    shape = (32, 32, 3)
    images, labels = np.zeros((N, *shape), np.uint8), np.zeros(N, np.int32)
    data, state = Data(images, labels, images, labels), _state(experiment, runs, shape)
    hyper = jax.tree.map(
        lambda leaf: np.full((runs,) if runs > 1 else (), leaf, np.float32), Hyper()
    )

    def end(hyper: Hyper, state: Any, data: Data) -> Any:
        logits = predict(experiment, state, data.val_images)
        return end_epoch(experiment, hyper, N, state, logits, data.val_labels), logits

    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "steps": (
            lambda hyper, state, data, start, stop: train_steps(
                experiment, hyper, data, state, start, stop
            ),
            (data, np.int32(0), np.int32(2)),
        ),
        "last step": (lambda h, state, data: train_last(experiment, h, data, state), (data,)),
        "streamed step": (
            lambda hyper, state, x, y: train_step(experiment, hyper, N, state, x, y),
            (images[:BATCH], labels[:BATCH]),
        ),
        "evaluation": (end, (data,)),
    }
    found: set[str] = set()
    with mock.patch.object(jax, "default_backend", return_value="mps"):
        for function, rest in programs.values():
            traced = jax.jit(over_runs(function, state)).trace(hyper, state, *rest)
            module = traced.lower(lowering_platforms=("mps",)).compiler_ir("stablehlo")
            _walk(module.operation, found)
    return found


REGULARISED = {
    "batch_size": BATCH,
    "label_smoothing": 0.1,
    "mixup": 0.2,
    "cutout": 8,
    "random_erasing": 0.5,
}
CASES: dict[str, tuple[ModelConfig, TrainingConfig, int]] = {
    "batch": (ModelConfig(norm="batch", num_classes=10), TrainingConfig(batch_size=BATCH), 1),
    "stacked, bfloat16, adamw, one cycle": (
        ModelConfig(norm="group", num_classes=10),
        TrainingConfig(
            batch_size=BATCH, precision="bfloat16", optimizer="adamw", schedule="onecycle"
        ),
        3,
    ),
    "regularised, muon, cosine": (
        ModelConfig(norm="instance", num_classes=10),
        TrainingConfig(**REGULARISED, optimizer="muon", schedule="cosine"),
        1,
    ),
    "resnet20": (
        ModelConfig("resnet20", norm="layer", num_classes=10),
        TrainingConfig(batch_size=BATCH),
        1,
    ),
}


@pytest.fixture(autouse=True)
def as_jax_mps_configures() -> Iterator[None]:
    """Jax-mps switches the Shardy partitioner off when JAX loads it."""
    before = jax.config.jax_use_shardy_partitioner
    jax.config.update("jax_use_shardy_partitioner", False)
    yield
    jax.config.update("jax_use_shardy_partitioner", before)


@pytest.mark.parametrize("case", CASES)
def test_jax_mps_implements_every_operation(case: str) -> None:
    model, training, runs = CASES[case]
    experiment = _experiment(model, training)
    fast = experiment.model
    assert isinstance(fast, FastModel)
    if isinstance(fast.model, ResNet):  # One block of each width has all operations.
        fast = dataclasses.replace(fast, model=fast.model.clone(blocks=(1, 1, 1)))
        experiment = dataclasses.replace(experiment, model=fast)
    found = operations(experiment, runs)
    assert {"stablehlo.dynamic_slice", "stablehlo.while", "stablehlo.dot_general"} <= found
    assert sorted(found - STRUCTURE - set(KNOWN["jax-mps"]["operations"])) == []
    assert sorted(found & set(KNOWN["jax-metal"]["lacks"])) == []


def test_an_operation_that_is_not_implemented_is_seen() -> None:
    """The check can fail: jax-mps has no rng, and jax-metal no erf."""

    def own(key: Any, images: jax.Array) -> jax.Array:
        x = images.astype(jnp.float32)
        noise = jax.lax.rng_uniform(jnp.float32(0), jnp.float32(1), x.shape)
        return jax.lax.erf(x) + noise

    plain = _experiment(ModelConfig(num_classes=10), TrainingConfig(batch_size=BATCH))
    inputs = dataclasses.replace(plain.inputs, function=own)
    found = operations(dataclasses.replace(plain, inputs=inputs))
    assert found & set(KNOWN["jax-metal"]["lacks"])
    assert found - STRUCTURE - set(KNOWN["jax-mps"]["operations"])
