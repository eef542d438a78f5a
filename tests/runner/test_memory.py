"""Runs that do not fit into the device's memory are found before training."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from cifar_jax.runner import memory
from cifar_jax.runner.memory import TooManyRuns, check_memory

SHARED = np.zeros(100, np.uint8)


def program(shared: int, runs: int, a_run: int) -> Any:
    """A program that needs `shared` bytes once and `a_run` bytes for each run."""
    sizes = SimpleNamespace(
        argument_size_in_bytes=shared + runs * a_run // 2,
        output_size_in_bytes=runs * a_run // 4,
        temp_size_in_bytes=runs * a_run // 2,
        alias_size_in_bytes=runs * a_run // 4,
    )
    return SimpleNamespace(memory_analysis=lambda: sizes)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that limits the device's memory."""
    return lambda value: monkeypatch.setattr(memory, "memory_limit", lambda device: value)


@pytest.mark.parametrize(("bytes_", "fits"), [(500, 1), (899, 1), (900, 2), (1299, 2), (3699, 8)])
def test_the_error_says_how_many_runs_fit(bytes_: int, fits: int, limit: Any) -> None:
    """100 bytes are shared, and a run needs 400."""
    limit(bytes_)
    small = program(100, 10, 8)
    with pytest.raises(TooManyRuns, match=f"--seed-parallelism 10: .*; {fits} fit$") as error:
        check_memory([small, program(100, 10, 400)], 10, SHARED, jax.devices()[0])
    assert error.value.fits == fits


def test_not_even_one_run_fits(limit: Any) -> None:
    limit(499)
    with pytest.raises(TooManyRuns, match=r"^--batch-size: 10 runs need .* not even one run fits"):
        check_memory([program(100, 10, 400)], 10, SHARED, jax.devices()[0])


@pytest.mark.parametrize("bytes_", [None, 4100])
def test_runs_that_fit_pass(bytes_: int | None, limit: Any) -> None:
    limit(bytes_)
    check_memory([program(100, 10, 400)], 10, SHARED, jax.devices()[0])
