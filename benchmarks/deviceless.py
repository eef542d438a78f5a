"""Compile the programs of an epoch for an accelerator that the machine need not have.

    python -m benchmarks.deviceless --platform cuda --runs 1,5,10

It shows whether XLA compiles them, how many kernels a step launches, and how much memory they need.
It does so for one run, and for several in one program. It runs no program, so it measures no speed.
On the device itself XLA may choose other kernels, by timing them.

    cuda    an H100, by NVIDIA's compiler; needs the extra `cuda`
    tpu     one chip of a v5e; needs the package libtpu
"""

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if __name__ == "__main__":
    # Without a driver the plugin's check of versions fails.
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # Otherwise JAX queries a cloud server for minutes.

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from benchmarks._cli import add_precision, integers, make_parser, parse, positive
from benchmarks._timing import show_progress, table, write_json
from cifar_jax.config.build import build_experiment
from cifar_jax.config.settings import MODELS, NORMS, Config, ModelConfig, TrainingConfig
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import (
    Data,
    Experiment,
    TrainState,
    end_epoch,
    init_state,
    predict,
    train_last,
    train_steps,
)
from cifar_jax.kernels import jit
from cifar_jax.runner.programs import over_runs

BACKENDS = {"cuda": "gpu", "tpu": "tpu"}
EXTRA = {"cuda": "the extra cuda", "tpu": "the package libtpu"}
TRAINED, VALIDATED = 45_000, 5_000
IMAGE = (32, 32, 3)

# Description of the device for XLA's compiler, here an H100 SXM with 80 GB: a text
# GpuTargetConfigProto.
_H100 = """
platform_name: "CUDA"
device_description_str: "H100"
runtime_version { major: 13 minor: 0 patch: 0 }
dnn_version_info { major: 9 minor: 12 patch: 0 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  device_memory_size: 85899345920 memory_bandwidth: 3350000000000 l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
}
"""
_TOPOLOGY: dict[str, dict[str, str]] = {
    "cuda": {"topology_name": "h100", "target_config": _H100, "topology": "1x1x1"},
    "tpu": {"topology_name": "v5e:2x2x1"},
}
_NO_KERNEL = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"}


def absent_device(platform: str) -> Any:
    """Return a device to compile for.

    Raises:
        RuntimeError: its compiler is not installed.
    """
    from jax.experimental import topologies

    jax.config.update("jax_platforms", f"{platform},cpu")
    try:
        return topologies.get_topology_desc(platform=platform, **_TOPOLOGY[platform]).devices[0]
    finally:
        jax.config.update("jax_platforms", "cpu")


def kernels_of_loop(text: str) -> int | None:
    """Count the kernels in the body of a compiled program's loop. None if it has not one loop.

    Args:
        text: of the program, from XLA.
    """
    bodies = re.findall(r" while\(.*body=%?([\w.-]+)", text)
    if len(bodies) != 1:
        return None
    (body,) = re.findall(rf"^%?{re.escape(bodies[0])} \(.*\n((?: .*\n)*)", text, re.MULTILINE)
    operations = re.findall(r"^ .*? = .*? ([a-z-]+)\(", body, re.MULTILINE)
    return sum(operation not in _NO_KERNEL for operation in operations)


def as_on(platform: str) -> Any:
    """Make a platform the default backend, which determines layers and precision."""
    return mock.patch.object(jax, "default_backend", return_value=BACKENDS[platform])


def measure(experiment: Experiment, runs: int, device: Any, platform: str) -> dict[str, Any]:
    """Compile the programs of an epoch. Return kernels, memory in bytes and compilation time."""
    placed = SingleDeviceSharding(device)
    stacked = () if runs == 1 else (runs,)

    def there(tree: Any, lead: tuple[int, ...] = ()) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype, sharding=placed),
            tree,
        )

    def end(hyper: Hyper, state: TrainState, data: Data) -> Any:
        logits = predict(experiment, state, data.val_images)
        return end_epoch(experiment, hyper, TRAINED, state, logits, data.val_labels), logits

    initial = jax.eval_shape(lambda: init_state(experiment, jax.random.key(0), IMAGE))
    images = [np.broadcast_to(np.uint8(0), (n, *IMAGE)) for n in (TRAINED, VALIDATED)]
    labels = [np.broadcast_to(np.int32(0), n) for n in (TRAINED, VALIDATED)]
    data = there(Data(images[0], labels[0], images[1], labels[1]))
    hyper = there(jax.tree.map(np.float32, Hyper()), stacked)
    bound, state = there(np.int32(0)), there(initial, stacked)
    found: dict[str, Any] = {}
    with as_on(platform):
        bounds = {"steps": (bound, bound), "last step": (), "end": ()}
        functions: dict[str, Any] = {
            "steps": lambda hyper, state, *rest: train_steps(
                experiment, hyper, rest[0], state, *rest[1:]
            ),
            "last step": lambda hyper, state, data: train_last(experiment, hyper, data, state),
            "end": end,
        }
        for name, function in functions.items():
            program = jit(over_runs(function, state), donate_argnums=1)
            lowered = program.lower(hyper, state, data, *bounds[name])
            begun = time.perf_counter()
            compiled = lowered.compile()
            memory = compiled.memory_analysis()
            found[name] = {
                "compile seconds": time.perf_counter() - begun,
                "arguments": memory.argument_size_in_bytes,
                "temporary": memory.temp_size_in_bytes,
            }
            if name == "steps" and platform == "cuda":
                found[name]["kernels a step"] = kernels_of_loop(compiled.as_text())
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Compile, print a table, write a JSON."""
    parser = make_parser("deviceless", __doc__)
    parser.add_argument("--platform", choices=tuple(BACKENDS), default="cuda", help="(cuda)")
    parser.add_argument("--runs", type=integers, default=[1, 5, 10], help="in one program (1,5,10)")
    parser.add_argument("--model", choices=MODELS, default="cnn", help="(cnn)")
    parser.add_argument("--norms", default="none,batch", help="(none,batch)")
    parser.add_argument("--batch", type=positive, default=128, help="images a step (128)")
    add_precision(parser)
    args = parse(parser, argv, runs=[1, 2])
    norms = args.norms.split(",")
    if unknown := set(norms) - set(NORMS):
        parser.error(f"--norms: {min(unknown)!r} is not one of {', '.join(NORMS)}")
    try:
        device = absent_device(args.platform)
    except RuntimeError as error:
        why = str(error).strip().partition("\n")[0]
        parser.error(f"--platform {args.platform} needs {EXTRA[args.platform]} ({why})")

    results: dict[str, dict[str, Any]] = {}
    lines = []
    for norm in norms:
        for runs in args.runs:
            what = f"{norm}, {runs} run{'s' if runs > 1 else ''}"
            show_progress(f"compiling: {what}")
            config = Config(
                model=ModelConfig(args.model, norm=norm, num_classes=10),
                training=TrainingConfig(batch_size=args.batch, precision=args.precision),
            )
            with as_on(args.platform):
                experiment = build_experiment(config)
            found = measure(experiment, runs, device, args.platform)
            results.setdefault(norm, {})[str(runs)] = found
            peak = max(one["arguments"] + one["temporary"] for one in found.values())
            seconds = sum(one["compile seconds"] for one in found.values())
            kernels = found["steps"].get("kernels a step")
            row = [what, "" if kernels is None else f"{kernels}"]
            lines.append([*row, f"{peak / 2**20:,.0f}", f"{seconds:.1f}"])
    show_progress("")
    print(table([f"for {device.device_kind}", "kernels a step", "MiB", "compiled in s"], lines))
    named = ("platform", "model", "batch", "precision")
    settings = {name: getattr(args, name) for name in named} | {"device": device.device_kind}
    write_json(args.output, {"settings": settings, "norms": results})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
