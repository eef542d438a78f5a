"""What an epoch of a run must not do: compile again, wait for the host."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cifar_jax.commands import train as run
from cifar_jax.config.settings import Config, DataConfig, ModelConfig, TrainingConfig
from cifar_jax.runner import session
from cifar_jax.runner.console import Display
from cifar_jax.runner.programs import CompiledEpoch, compile_device_epoch

pytestmark = pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")

EPOCHS = 3


class Compilations(logging.Handler):
    """Counts the programs that JAX compiles."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Finished XLA compilation of "):
            self.names.append(message.split()[4])


@pytest.fixture
def compilations() -> Iterator[Compilations]:
    """What is compiled during the test; JAX's own handlers stay silent."""
    handler, logger = Compilations(), logging.getLogger("jax")
    kept = logger.handlers[:], logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.handlers, logger.propagate = kept[0], kept[1]
    logger.setLevel(kept[2])


class Counting(Display):
    """Notes how many programs had been compiled when an epoch's line was shown."""

    def __init__(self, compilations: Compilations) -> None:
        super().__init__()
        self.compilations = compilations
        self.after_epoch: list[int] = []

    def say(self, text: str) -> None:
        if "epoch " in text and "val" in text:
            self.after_epoch.append(len(self.compilations.names))


def config(folder: Path, pipeline: str) -> Config:
    return Config(
        data=DataConfig(dataset=str(folder), val_examples=20, pipeline=pipeline),
        model=ModelConfig(norm="batch"),
        training=TrainingConfig(batch_size=16, epochs=EPOCHS, decay_every=1),
    )


@pytest.mark.parametrize("pipeline", ["device", "stream"])
def test_a_run_compiles_nothing_after_its_first_epoch_and_an_epoch_moves_nothing(
    folder: Path,
    tmp_path: Path,
    compilations: Compilations,
    monkeypatch: pytest.MonkeyPatch,
    pipeline: str,
) -> None:
    """The whole host loop, checkpoints and rows included, over a drop of the learning rate."""

    def guard(program: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with jax.transfer_guard("disallow"):
                return program(*args)

        return call

    def guarded(*args: Any) -> CompiledEpoch:
        compiled = compile_device_epoch(*args)
        return dataclasses.replace(
            compiled, advance=guard(compiled.advance), finish=guard(compiled.finish)
        )

    monkeypatch.setattr(session, "compile_device_epoch", guarded)
    display = Counting(compilations)
    results = run.train_run(config(folder, pipeline), workdir=tmp_path / "run", display=display)
    assert len(results.history) == EPOCHS
    assert len(display.after_epoch) == EPOCHS
    assert display.after_epoch[0] > 0
    assert display.after_epoch == display.after_epoch[:1] * EPOCHS, compilations.names
    before = len(compilations.names)
    jax.jit(lambda x: x * 3 + before)(np.ones(7))
    assert len(compilations.names) > before
