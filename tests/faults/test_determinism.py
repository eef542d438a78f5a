"""The same seed, device and version: bitwise the same run."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from commands import last_of_each
from runs import bits, results_of, train

from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, init_state
from cifar_jax.kernels import fast
from cifar_jax.main import main
from cifar_jax.methods.ghost import Ghost
from cifar_jax.runner.programs import compile_device_epoch
from cifar_jax.runner.streamed import HostData, compile_stream_epoch

pytestmark = [pytest.mark.usefixtures("cache", "blank_figures", "small_cnn"), pytest.mark.optimised]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


# 48 images, three batches: without a partial batch the program compiles in half the time.
FLAGS = last_of_each([*runs.FLAGS, "--val-examples", "27", "--epochs", "3"])


def run(folder, workdir, *flags: str) -> int:
    argv = ["--dataset", str(folder), "--workdir", str(workdir), *FLAGS, *flags]
    return main(last_of_each(argv))


@pytest.fixture(scope="module")
def whole(folder, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("determinism") / "whole"
    assert run(folder, workdir) == 0
    return workdir


def test_another_process_on_one_core_gives_the_same_bits_with_as_many_threads(
    whole, folder, tmp_path
):
    cores = 1 if shutil.which("taskset") else None
    done = train(folder, tmp_path / "w", *FLAGS, "--threads", str(CORES), cores=cores)
    assert done.returncode == 0, done.stderr
    assert bits(tmp_path / "w") == bits(whole)
    results = results_of(tmp_path / "w")
    assert results["deterministic"] is True
    assert results["computed_on"] == results_of(whole)["computed_on"]
    assert f"--threads {CORES}" in results["computed_on"][0]


def test_gone_on_with_another_number_of_threads_is_not_called_deterministic(folder, tmp_path):
    other = str(CORES + 1)
    flags = last_of_each([*FLAGS, "--epochs", "1", "--threads", other])
    assert train(folder, tmp_path, *flags).returncode == 0
    for epochs in ("2", "3"):
        assert run(folder, tmp_path, "--epochs", epochs, "--resume") == 0
        results = results_of(tmp_path)
        assert results["deterministic"] is False
        assert len(results["computed_on"]) == 2, results
        assert f"--threads {other}" in results["computed_on"][0]
        assert results["computed_on"][0] in results["determinism_note"]


def test_resumed(whole, folder, tmp_path):
    for epochs in ("1", "3"):
        assert run(folder, tmp_path / "w", "--epochs", epochs, "--resume") == 0
    assert bits(tmp_path / "w") == bits(whole)


def test_the_stream_pipeline_gives_the_same_bits(whole, folder, tmp_path):
    assert run(folder, tmp_path / "w", "--pipeline", "stream") == 0
    assert bits(tmp_path / "w") == bits(whole)


def test_a_cpu_run_says_what_decides_its_bits(whole):
    """Other cores would mean other threads, and other last bits: nothing is promised."""
    results = results_of(whole)
    assert results["deterministic"] is False
    assert "--threads" in results["determinism_note"]
    assert len(results["computed_on"]) == 1
    assert f"--threads {CORES}, jax {jax.__version__}" in results["computed_on"][0]


def epoch_of(norm: str, pipeline: str, n: int) -> list[bytes]:
    """State and metrics after an epoch of the report's CNN, batches of 128."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n + 50, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, n + 50, np.int32)
    data = Data(*map(jnp.asarray, (images[:n], labels[:n], images[n:], labels[n:])))
    hyper = Hyper(*map(np.float32, (0.01, 0.9, 5e-4)))
    experiment = Experiment(fast(CNN(norm=norm)))
    state = jax.jit(init_state, static_argnums=(0, 2))(experiment, jax.random.key(1), (32, 32, 3))
    if pipeline == "device":
        run = compile_device_epoch(experiment, hyper, state, data)
    else:
        source = HostData(images[:n], labels[:n], np.arange(n))
        run = compile_stream_epoch(experiment, hyper, state, source, data)
    state, metrics = run(hyper, state)
    trees = (state.params, state.batch_stats, state.opt_state, metrics)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees)]


@pytest.mark.faults_long
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "instance", "group", Ghost(4)])
def test_full_size_epochs_are_the_same_on_both_pipelines(norm):
    n = 128 + 72
    device = epoch_of(norm, "device", n)
    assert device == epoch_of(norm, "device", n)
    assert device == epoch_of(norm, "stream", n)
