"""Runs trained together on several devices, which a process must be started with."""

import os
import subprocess
import sys

PROGRAM = """
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, init_state
from cifar_jax.runner.programs import compile_device_epoch, stack_runs

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (32, 4, 4, 3), np.uint8)
labels = rng.integers(0, 10, 32, np.int32)
data = Data(images[:20], labels[:20], images[20:], labels[20:])
experiment = Experiment(CNN(norm="batch", widths=(), hidden=16), batch_size=8)
hyper = stack_runs([jax.tree.map(np.float32, Hyper())] * 2)

def train(states, images):
    run = compile_device_epoch(experiment, hyper, states, images)
    for _ in range(2):  # What comes out goes in again.
        states, metrics = run(hyper, states)
    return states, metrics

mesh = Mesh(np.array(jax.devices()), ("seed",))
divided, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("seed",), ()))
states = stack_runs([init_state(experiment, jax.random.key(seed), (4, 4, 3)) for seed in (0, 1)])
one, one_metrics = train(states, jax.device_put(data))
two, two_metrics = train(jax.device_put(states, divided), jax.device_put(data, everywhere))
for a, b in zip(*(jax.tree.leaves((s.params, s.batch_stats, m))
                  for s, m in ((one, one_metrics), (two, two_metrics))), strict=True):
    assert len(a.sharding.device_set) == 1 and b.sharding.is_equivalent_to(divided, b.ndim)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
print(len(jax.devices()), "devices")
"""


def test_seeds_divided_among_devices_give_the_same_results_and_stay_divided() -> None:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "2 devices\n", done.stderr
