"""`python many_devices.py ROOT IMAGES`: train on several virtual devices, and on one.

It prints what differs as JSON. A process has a fixed number of devices, so tests start this program
with `XLA_FLAGS`.
"""

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from small import draw_blank, shrink
from x64 import enable_x64

from cifar_jax.config.build import for_device
from cifar_jax.core import train as core
from cifar_jax.core.inputs import Inputs
from cifar_jax.core.model import CNN
from cifar_jax.core.norms import Norm
from cifar_jax.core.optim import Hyper
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import Data, Experiment, TrainState, init_state
from cifar_jax.main import main
from cifar_jax.methods.ghost import Ghost
from cifar_jax.runner.devices import data_mesh, divided, on_all, runs_mesh, spread
from cifar_jax.runner.programs import compile_device_epoch, over_runs, stack_runs

N = 404  # 50 batches of 8, and one of 4, which 8 devices cannot divide.
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (N + 20, 8, 8, 3), np.uint8)
LABELS = RNG.integers(0, 10, N + 20, np.int32)
DATA = Data(IMAGES[:N], LABELS[:N], IMAGES[N:], LABELS[N:])


def experiment(dtype: str, norm: Norm = "batch") -> Experiment:
    model = CNN(norm=norm, widths=(8,), hidden=16)
    size = 8 if norm == "batch" else 64  # Parts of two images would make rounding errors grow.
    return for_device(Experiment(model, inputs=Inputs(dtype=dtype), batch_size=size))


@partial(jax.jit, static_argnums=0)
def initial(experiment: Experiment, key: jax.Array) -> TrainState:
    return init_state(experiment, key, (8, 8, 3))


def begin(dtype: str, seeds: int, mesh: Any) -> tuple[Hyper, TrainState]:
    def cast(leaf: Any) -> Any:
        return leaf.astype(dtype) if jax.numpy.issubdtype(leaf.dtype, np.floating) else leaf

    keys = map(jax.random.key, range(seeds))
    states = stack_runs([initial(experiment(dtype), key) for key in keys])
    hyper = stack_runs([jax.tree.map(np.dtype(dtype).type, Hyper())] * seeds)
    return spread(hyper, mesh), spread(jax.tree.map(cast, states), mesh)


def trained(dtype: str, seeds: int, mesh: Any, norm: Norm = "batch") -> list[np.ndarray]:
    """Parameters, statistics and metrics after an epoch, without the repeats of the last run."""
    hyper, state = begin(dtype, seeds, mesh)
    run = compile_device_epoch(experiment(dtype, norm), hyper, state, on_all(DATA, mesh))
    state, metrics = run(hyper, state)
    if mesh is not None:
        assert len(state.step.sharding.device_set) == mesh.size, "no longer on all devices"
    leaves = jax.tree.leaves((state.params, state.batch_stats, metrics))
    return [np.asarray(leaf)[:seeds] for leaf in leaves]


def difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """The largest difference, of the runs that both have."""
    runs = min(len(first[0]), len(second[0]))
    pairs = zip(first, second, strict=True)
    return max(float(np.abs(a[:runs] - b[:runs]).max(initial=0)) for a, b in pairs)


def gathered_convolutions(model: Any) -> int:
    """Count the grouped convolutions in a divided step, and the all-gathers of a convolution."""
    mesh = data_mesh(4)
    whole = Experiment(model, batch_size=8)
    state = spread(stack_runs([initial(whole, jax.random.key(0))]), mesh)
    hyper, one = spread(stack_runs([Hyper()]), mesh), divided(whole, mesh)

    def step(hyper: Hyper, state: TrainState, data: Data) -> TrainState:
        return core.train_steps(one, hyper, data, state, 0, 2)

    lowered = jax.jit(over_runs(step, state)).lower(hyper, state, on_all(DATA, mesh))
    text = lowered.compile().as_text()
    assert "all-reduce" in text, "nothing is divided"
    grouped = re.findall(r" convolution\(.*(?:feature|batch)_group_count=", text)
    gathered = re.findall(r" all-gather\(.*op_name=\"[^\"]*conv_general_dilated", text)
    return len(grouped) + len(gathered)


def reductions(norm: Norm) -> int:
    """Count the all-reduces of a loss and its gradients, with each batch on 8 devices."""
    mesh = data_mesh(8)
    one = divided(experiment("float32", norm), mesh)
    state = on_all(initial(experiment("float32", norm), jax.random.key(0)), mesh)

    def gradients(state: TrainState, images: jax.Array, labels: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            return core.step_loss(params, one, Hyper(), N, state, images, labels)[0]

        return jax.value_and_grad(loss)(state.params)

    batch = on_all((IMAGES[:64], LABELS[:64]), mesh)
    text = jax.jit(gradients).lower(state, *batch).compile().as_text()
    moved = re.findall(r" (all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
    assert not (moved and norm == Ghost(8)), moved
    return len(re.findall(r" all-reduce(?:-start)?\(", text))


NORMS: dict[str, Norm] = {"ghost": Ghost(8), "layer": "layer", "batch": "batch"}


def ghost() -> dict[str, float]:
    """Compare statistics of each device with those of 8 parts of a batch on one device."""
    with enable_x64(True):
        pair = [trained("float64", 1, mesh, Ghost(8)) for mesh in (None, data_mesh(8))]
    return {name: reductions(norm) for name, norm in NORMS.items()} | {"float64": difference(*pair)}


def programs() -> dict[str, float]:
    """Compare programs."""
    two, five = trained("float32", 2, None), trained("float32", 5, runs_mesh(4))
    with enable_x64(True):
        exact = [trained("float64", 1, mesh) for mesh in (None, data_mesh(8))]
    return {
        "runs": difference(two, five),
        "float32": difference(two, trained("float32", 1, data_mesh(8))),
        "float64": difference(*exact),
        "convolutions": gathered_convolutions(CNN(norm="batch", widths=(8,), hidden=16))
        + gathered_convolutions(ResNet(blocks=(1,), widths=(8,), norm="batch")),
    }


def logits(workdir: Path) -> dict[str, np.ndarray]:
    """The test logits of the runs in a directory."""
    return {
        str(path.parent.relative_to(workdir)): np.load(path)["logits"]
        for path in sorted(workdir.rglob("predictions.npz"))
    }


def commands(root: Path, images: str) -> dict[str, float]:
    """Compare what commands write."""
    shrink()
    draw_blank()
    sizes = f"--dataset {images} --val-examples 16 --batch-size 32 --epochs 1".split()
    study = ["study", *sizes, "--arms", "batch", "--seeds", "3"]
    found = {}
    for name, flags in (("one", ["--seed-parallelism", "1"]), ("several", [])):
        assert main([*study, *flags, "--workdir", str(root / name)]) == 0
    for name, devices in (("alone", "1"), ("together", "8")):
        flags = ["--bn", "--data-parallel", devices, "--workdir", str(root / name)]
        assert main([*sizes, *flags]) == 0
    for name, pair in (("study", ("one", "several")), ("train", ("alone", "together"))):
        first, second = (logits(root / part) for part in pair)
        assert first.keys() == second.keys()
        found[name] = max(float(np.abs(first[key] - second[key]).max()) for key in first)
    return found


if __name__ == "__main__":
    root, images = sys.argv[1:]
    found = {"commands": commands(Path(root), images), "programs": programs(), "ghost": ghost()}
    print(json.dumps(found))
