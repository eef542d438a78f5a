"""Measure images per second in training and evaluation, for both arms, compared with PyTorch.

    python -m benchmarks.throughput --peer torch
    python -m benchmarks.throughput --model benchmarks/models.py:SiluCNN --peer torch

Training is the whole step: augmentation, normalisation, forward and backward pass, update,
metrics. All candidates train on the same number of images per repeat, in turns ("no jit" only on
two batches).

    epoch           one compiled program per epoch, images on the device, as in a run
    step            the same step, one call per batch
    stream          one call for eight batches, images from the host: --pipeline stream
    no jit          the same step, not compiled
    torch eager     PyTorch, NCHW
    torch compiled  torch.compile of normalisation, forward and backward pass, and loss; on a GPU
                    with CUDA graphs
    ... nhwc        the same in channels_last

With --model only "epoch" runs beside PyTorch.

A second table compares a step of "epoch" with the device's measured ceilings. It has the
operations of the network's definition, and those that XLA counts in the compiled step. It has the
bytes that the step's loops read and write. All have their share of the ceilings. A share of
"defined" can be above 100 %: Winograd's products need fewer operations.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax
import numpy as np

from benchmarks import _roofline
from benchmarks._cli import add_precision, make_parser, parse, positive
from benchmarks._problem import CLASSES, Problem, forward_flops, make_problem, training_flops
from benchmarks._timing import Timing, show_progress, table, time_interleaved, write_json
from cifar_jax.core.train import TrainState, epoch_order, predict, train_step
from cifar_jax.device import cpu_count
from cifar_jax.errors import UserError, one_line
from cifar_jax.kernels import fast, jit
from cifar_jax.runner.programs import compile_device_epoch
from cifar_jax.runner.streamed import compile_stream_epoch

NO_JIT_STEPS = 2

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

TORCH_DEVICES = {"gpu": "cuda", "mps": "mps", "METAL": "mps"}
"""PyTorch's name of the device of JAX's backend; else the CPU."""


class Candidate(NamedTuple):
    """A call and its number of images."""

    call: Callable[[], Any]
    images: int


Candidates = dict[str, Candidate]


def _advance(run: Callable[[TrainState], tuple[TrainState, Any]], state: TrainState) -> Any:
    """Return a call of `run` that continues from the last state and returns its second result."""
    states = [state]

    def call() -> Any:
        states[0], metrics = run(states[0])
        return metrics

    return call


def _run_steps(step: Any, problem: Problem, steps: int) -> Any:
    """Return a function that calls `step` on `steps` shuffled batches of images on the device."""
    images, labels = problem.data.train_images, problem.data.train_labels
    n, batch = len(labels), problem.experiment.batch_size

    def run(state: TrainState) -> tuple[TrainState, Any]:
        order = epoch_order(state.key, 0, n)
        for rows in np.split(order[: steps * batch], steps):
            state = step(state, images, labels, rows)
        return state, state

    return run


def _step(problem: Problem) -> Callable[[TrainState, Any, Any, Any], TrainState]:
    """Return a training step on the given rows of the images."""
    experiment, hyper, _, host = problem

    def step(state: TrainState, images: Any, labels: Any, rows: Any) -> TrainState:
        return train_step(experiment, hyper, len(host.rows), state, images[rows], labels[rows])

    return step


def step_cost(problem: Problem) -> _roofline.Cost:
    """Return the cost of a step."""
    data, batch = problem.data, problem.experiment.batch_size
    rows = np.arange(batch, dtype=np.int32)
    lowered = jit(_step(problem)).lower(problem.state(), data.train_images, data.train_labels, rows)
    return _roofline.count(lowered.compile(), batch * training_flops())


def _not_available(error: Exception) -> str:
    """Return a line on why a candidate is omitted."""
    reason = (str(error).splitlines() or [""])[0]
    return f"not available: {type(error).__name__}: {reason}"[:200]


def epoch_candidate(problem: Problem) -> Candidates:
    """Return training as a run does it."""
    experiment, hyper, data, host = problem
    state = problem.state()
    epoch = partial(compile_device_epoch(experiment, hyper, state, data), hyper)
    return {"epoch": Candidate(_advance(epoch, state), len(host.rows))}


def training_candidates(problem: Problem, failed: dict[str, str]) -> Candidates:
    """Return our ways to train an epoch. Reasons for missing ones go into `failed`."""
    experiment, hyper, data, host = problem
    n = len(host.rows)
    step = _step(problem)
    jitted = jit(step, donate_argnums=0)
    state = problem.state()
    full = n // experiment.batch_size
    few = min(NO_JIT_STEPS, full)
    found = {
        **epoch_candidate(problem),
        "step": Candidate(_advance(_run_steps(jitted, problem, full), problem.state()), n),
        "no jit": Candidate(
            _advance(_run_steps(step, problem, few), problem.state()), few * experiment.batch_size
        ),
    }
    try:
        stream = partial(compile_stream_epoch(experiment, hyper, state, host, data), hyper)
        found["stream"] = Candidate(_advance(stream, problem.state()), n)
    except UserError as error:  # Grain cannot be imported.
        failed["stream"] = _not_available(error)
    return found


def evaluation_candidates(problem: Problem) -> Candidates:
    """Return our evaluation of the training images."""
    images = problem.data.train_images
    state = problem.state()
    compiled = jit(partial(predict, problem.experiment)).lower(state, images).compile()
    return {"predict": Candidate(partial(compiled, state, images), len(images))}


def set_torch_precision(tf32: bool) -> None:
    """Set our precision. PyTorch's default is TF32 in convolutions, float32 in matrix products."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def peer_network(model: str | None, norm: str) -> Callable[[], Any]:
    """Return a function that makes the same network in PyTorch."""
    from benchmarks import torch_models, torch_peer

    if model is None:
        return partial(torch_peer.network, norm, CLASSES)
    name = model.rpartition(":")[2]
    if not hasattr(torch_models, name):
        raise SystemExit(f"--peer torch: benchmarks/torch_models.py has no {name!r}")
    return getattr(torch_models, name)


def torch_candidates(
    problem: Problem, network: Callable[[], Any], training: bool, failed: dict[str, str]
) -> Iterator[tuple[str, Candidate]]:
    """Return PyTorch's ways to do the same. Reasons for failed ones go into `failed`."""
    import torch

    from benchmarks import torch_peer as peer

    device = torch.device(TORCH_DEVICES.get(jax.default_backend(), "cpu"))
    torch.set_num_threads(cpu_count())
    torch.backends.cudnn.benchmark = True
    n = len(problem.host.rows)
    nhwc = torch.from_numpy(problem.host.images[:n]).to(device)
    images = nhwc.permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(problem.host.labels[:n]).long().to(device)
    set_torch_precision(problem.experiment.precision == "tensorfloat32")
    short = problem.experiment.inputs.dtype == "bfloat16"
    eager = peer.bfloat16_loss_and_correct if short else peer.loss_and_correct
    compiled = torch.compile(
        eager,
        dynamic=False,
        mode="reduce-overhead" if device.type == "cuda" else None,
    )
    layouts = {"": torch.contiguous_format, " nhwc": torch.channels_last}
    for kind, forward in {"eager": eager, "compiled": compiled}.items():
        for suffix, layout in layouts.items():
            model = network().to(device, memory_format=layout)
            data, passes = (images, labels), partial(forward, layout=layout)
            if training:
                size = problem.experiment.batch_size
                call = partial(peer.train_epoch, model, peer.sgd(model), *data, size, passes)
            else:
                call = partial(peer.evaluate, model, *data, passes)
            name = f"torch {kind}{suffix}"
            if kind == "compiled":
                show_progress(f"compiling: {name}")
                try:
                    call()
                except Exception as error:
                    # A missing dependency (for example a C++ compiler) is a result.
                    failed[name] = _not_available(error)
                    continue
            yield name, Candidate(call, n)


def _rates(candidates: Candidates, timings: dict[str, Timing]) -> dict[str, dict[str, Any]]:
    """Return images a second: median, quartiles, and the ratio to PyTorch's fastest."""
    rates = {}
    for name, timing in timings.items():
        n = candidates[name].images
        rates[name] = {
            "images/s": n / timing.median,
            "q1": n / timing.q3,
            "q3": n / timing.q1,
            "best": n / min(timing.samples),
            "samples": [n / seconds for seconds in timing.samples],
        }
    peers = [rate["images/s"] for name, rate in rates.items() if name.startswith("torch")]
    for rate in rates.values():
        rate["ratio to best torch"] = rate["images/s"] / max(peers) if peers else None
    return rates


def load_model(name: str) -> Any:
    """Load the Flax model FILE:NAME: a module class or function without required arguments."""
    file, _, attribute = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise SystemExit(f"--model {name}: no Python file {file!r}; expected FILE:NAME")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise SystemExit(f"--model {name}: {file} has no {attribute!r}")
    return getattr(module, attribute)()


def measure(args: argparse.Namespace, norm: str, training: bool) -> dict[str, Any]:
    """Measure one table: an arm or the model of `--model`, in training or evaluation."""
    n = args.steps * args.batch if training else args.eval_images
    model = load_model(args.model) if args.model else None
    if model is not None and args.kernels == "auto":
        model = fast(model)
    problem = make_problem(norm, args.batch, n, precision=args.precision, model=model)
    show_progress("compiling")
    failed: dict[str, str] = {}
    if not training:
        candidates = evaluation_candidates(problem)
    elif model is None:
        candidates = training_candidates(problem, failed)
    else:
        candidates = epoch_candidate(problem)
    if args.peer == "torch":
        network = peer_network(args.model, norm)
        candidates |= torch_candidates(problem, network, training, failed)
    calls = {name: candidate.call for name, candidate in candidates.items()}
    timings = time_interleaved(
        calls, args.repeats, progress=show_progress, clock=CLOCKS[args.clock]
    )
    rates = _rates(candidates, timings)
    return {**rates, **failed}


def rows(what: str, results: dict[str, Any], flops: int) -> list[list[str]]:
    """Return one line a candidate. GFLOP/s counts the operations of the network's definition."""
    lines = []
    for name, rate in results.items():
        if isinstance(rate, str):
            lines.append([f"{what}: {name}", "not run", "", "", "", "", ""])
            continue
        ratio = rate["ratio to best torch"]
        lines.append(
            [
                f"{what}: {name}",
                *(f"{rate[key]:,.0f}" for key in ("images/s", "q1", "q3", "best")),
                f"{rate['images/s'] * flops / 1e9:.1f}" if flops else "",
                "" if ratio is None else f"{ratio:.2f}",
            ]
        )
    return lines


def roofline(args: argparse.Namespace, results: dict[str, Any]) -> dict[str, Any]:
    """Compare a step of each arm's "epoch" with the device's ceilings."""
    problems = {
        f"training, norm {norm}": make_problem(
            norm, args.batch, args.batch, precision=args.precision
        )
        for norm in ("none", "batch")
    }
    experiment = problems["training, norm none"].experiment
    ceilings = _roofline.measure_ceilings(experiment, args.repeats, progress=show_progress)
    rates: dict[str, Any] = {"ceilings": ceilings._asdict()}
    for what, problem in problems.items():
        if what in results:
            show_progress(f"counting: {what}")
            seconds = args.batch / results[what]["epoch"]["images/s"]
            rates[what] = _roofline.compare(step_cost(problem), ceilings, seconds)
    show_progress("")
    return rates


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON."""
    parser = make_parser("throughput", __doc__)
    parser.add_argument("--peer", choices=("torch",), help="measure PyTorch too")
    parser.add_argument("--model", metavar="FILE:NAME", help="another Flax model than the report's")
    parser.add_argument(
        "--kernels", choices=("auto", "plain"), default="auto", help="bodies of --model's layers"
    )
    parser.add_argument("--norm", choices=("none", "batch", "both"), default="both")
    parser.add_argument("--only", choices=("training", "evaluation"), help="one half")
    parser.add_argument("--batch", type=positive, default=128, help="images a step (128)")
    parser.add_argument("--steps", type=positive, default=16, help="training steps a repeat (16)")
    parser.add_argument("--eval-images", type=positive, default=5000, help="a repeat (5000)")
    parser.add_argument("--repeats", type=positive, default=9, help="of each candidate (9)")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of one core, on a busy machine"
    )
    add_precision(parser)
    args = parse(parser, argv, batch=128, steps=3, eval_images=1000, repeats=3)
    if args.peer == "torch":
        try:
            importlib.import_module("torch")
        except Exception as error:  # A library that it loads can raise any type.
            parser.error(f"--peer torch needs PyTorch, pip install torch ({one_line(error)})")

    results: dict[str, Any] = {}
    lines: list[list[str]] = []
    norms = ("none", "batch") if args.norm == "both" else (args.norm,)
    for norm in ("none",) if args.model else norms:
        for half in (args.only,) if args.only else ("training", "evaluation"):
            what = f"{half}, {args.model or f'norm {norm}'}"
            results[what] = measure(args, norm, half == "training")
            flops = training_flops() if half == "training" else sum(forward_flops())
            flops = 0 if args.model else flops
            lines += rows(what, results[what], flops)
    show_progress("")
    print(table(["what", "images/s", "q1", "q3", "best", "GFLOP/s", "x best torch"], lines))
    for what, found in results.items():
        for name, rate in found.items():
            if isinstance(rate, str):
                print(f"{what}: {name}: {rate}")
    if args.only != "evaluation" and not args.model:
        results["roofline"] = roofline(args, results)
        print("\n" + _roofline.describe(results["roofline"]))
    named = ("model", "kernels", "batch", "steps", "eval_images", "repeats", "clock", "precision")
    settings = {name: getattr(args, name) for name in named}
    write_json(args.output, {"settings": settings, **results})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
