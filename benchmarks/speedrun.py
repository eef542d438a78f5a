"""Time training to 94 % by the rules of the CIFAR-10 speedruns, beside PyTorch.

    python -m benchmarks.speedrun --runs 200 --peer airbench94_muon.py
    python -m benchmarks.speedrun --runs 20 --peer twin --limit 180

A run begins with images on the device, and ends with the predictions of the test images. It
includes initial values and whitening. One run to warm up, which compiles, does not count; its
time is told. The rules ask for a mean accuracy of at least 94.0 % over many runs.

Ours is `examples/airbench94.py`, a whole run as one program. With --together 1,4 a second program
trains four runs at once; the time of a run is then a quarter. The peer "twin" is
`benchmarks/airbench_torch.py`. A FILE is a script with `CifarNet` and `main(run, model)`, such as
airbench94_muon.py. It gets the same images. All candidates run in turns. Each line appears when
a run ends.
"""

import argparse
import dataclasses
import importlib.util
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
# PyTorch needs memory of the same GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import airbench94
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks._cli import integers, make_parser, parse, positive
from benchmarks._timing import table, write_json
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, count_correct, predict, train
from cifar_jax.data.dataset import Dataset, load
from cifar_jax.errors import one_line
from cifar_jax.kernels import fast, jit
from cifar_jax.study.statistics import estimate

TARGET = 0.94
MODES = ("eager", "default", "reduce-overhead", "max-autotune")

Call = Callable[[int], tuple[float, list[float]]]
"""From a seed to the seconds of a call, and the test accuracy of each of its runs."""


def images(args: argparse.Namespace) -> Dataset:
    """Load the images, those of training in a random order that is always the same."""
    data = load(args.dataset)
    order = np.random.default_rng(0).permutation(len(data.train_labels))[: args.train_examples]
    some = slice(args.test_examples)
    return dataclasses.replace(
        data,
        train_images=np.asarray(data.train_images)[order],
        train_labels=np.asarray(data.train_labels)[order],
        test_images=np.asarray(data.test_images)[some],
        test_labels=np.asarray(data.test_labels)[some],
    )


def recipe(args: argparse.Namespace, classes: int) -> tuple[Experiment, Hyper]:
    """Return the recipe. A narrow network has smaller rates, as its channels weigh more."""
    widths = tuple(args.widths)
    optimizer = airbench94.AirOptimizer(rate_scale=widths[-1] / 256)
    model: Any = airbench94.AirNet(widths=widths, classes=classes)
    experiment = dataclasses.replace(
        airbench94.RECIPE,
        model=fast(model) if args.kernels == "auto" else model,
        optimizer=optimizer,
        epochs=args.epochs,
        eval_batch_size=min(airbench94.RECIPE.eval_batch_size, args.test_examples or 500),
    )
    return experiment, airbench94.HYPER


def ours(args: argparse.Namespace, data: Dataset, together: int) -> Call:
    """Return a call of our program, which trains and tests some runs at once."""
    experiment, hyper = recipe(args, len(data.classes))
    labels = np.asarray(data.test_labels)
    # The rules do not ask for validation. One image costs nothing.
    few = Data(data.train_images, data.train_labels, data.test_images[:1], labels[:1])
    on_device = jax.device_put((few, data.test_images, labels))

    def one(key: jax.Array, data: Data, images: jax.Array, labels: jax.Array) -> jax.Array:
        state, _ = train(experiment, hyper, data, key)
        return count_correct(predict(experiment, state, images), labels) / len(labels)

    def program(seed: jax.Array, *data: Any) -> jax.Array:
        keys = jax.random.split(jax.random.key(seed), together)
        if together == 1:
            return one(keys[0], *data)[None]
        return jax.vmap(one, (0, None, None, None))(keys, *data)

    compiled = jit(program).lower(jnp.uint32(0), *on_device).compile()

    def call(seed: int) -> tuple[float, list[float]]:
        begun = time.perf_counter()
        accuracy = jax.block_until_ready(compiled(jnp.uint32(seed), *on_device))
        return time.perf_counter() - begun, np.asarray(accuracy).tolist()

    return call


def twin(args: argparse.Namespace, data: Dataset) -> Call:
    """Return a call of our PyTorch twin."""
    from benchmarks.airbench_torch import Twin

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    mode = None if args.mode == "eager" else args.mode
    made = Twin(data, device, tuple(args.widths), mode, args.epochs)

    def call(seed: int) -> tuple[float, list[float]]:
        seconds, accuracy = made.run(seed)
        return seconds, [accuracy]

    return call


def script(path: Path, data: Dataset, mode: str) -> Call:
    """Return a call of a script that is written as airbench94_muon.py is.

    It reads `cifar10/train.pt` and `cifar10/test.pt`, which are made here of our images, and tells
    its seconds to `print_training_details`.
    """
    import torch

    folder = tempfile.TemporaryDirectory()
    os.mkdir(f"{folder.name}/cifar10")
    for part in ("train", "test"):
        pixels = torch.from_numpy(getattr(data, f"{part}_images"))
        labels = torch.from_numpy(getattr(data, f"{part}_labels")).long()
        content = {"images": pixels, "labels": labels, "classes": list(data.classes)}
        torch.save(content, f"{folder.name}/cifar10/{part}.pt")
    spec = importlib.util.spec_from_file_location("peer_script", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.argv[0], kept = str(path), sys.argv[0]  # It reads its own text.
    try:
        spec.loader.exec_module(module)
    finally:
        sys.argv[0] = kept
    seconds = [0.0]

    def note(variables: dict[str, Any], is_final_entry: bool) -> None:
        seconds[0] = variables["time_seconds"]

    module.print_training_details = note
    model = module.CifarNet().cuda().to(memory_format=torch.channels_last)
    if mode != "eager":
        model.compile(mode=mode)
    first = ["warmup"]

    def call(seed: int) -> tuple[float, list[float]]:
        torch.manual_seed(seed)
        before = os.getcwd()
        os.chdir(folder.name)
        try:
            accuracy = module.main(first.pop() if first else seed, model)
        finally:
            os.chdir(before)
        return seconds[0], [float(accuracy)]

    return call


def candidates(args: argparse.Namespace, data: Dataset) -> dict[str, Callable[[], Call]]:
    """Return how to make the call of each candidate."""
    makers: dict[str, Callable[[], Call]] = {}
    for together in args.together:
        name = "ours" if together == 1 else f"ours, {together} together"
        makers[name] = lambda together=together: ours(args, data, together)
    if args.peer == "twin":
        makers[f"twin, {args.mode}"] = lambda: twin(args, data)
    elif args.peer:
        makers[Path(args.peer).name] = lambda: script(Path(args.peer), data, args.mode)
    return makers


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def warm_up(name: str, make: Callable[[], Call]) -> tuple[Call, float] | str:
    """Compile a candidate, and run it once. Return it with the seconds, or why it failed."""
    say(f"{name}: warm-up")
    begun = time.perf_counter()
    try:
        call = make()
        last, accuracy = call(0)
    except Exception as error:  # A compiler that is missing or memory that is short is a result.
        return f"not available: {type(error).__name__}: {one_line(error)}"[:300]
    seconds = time.perf_counter() - begun
    shown = " ".join(f"{100 * one:.2f}" for one in accuracy)
    say(f"{name}: warm-up with compilation {seconds:.1f} s, of it a run {last:.2f} s, {shown} %")
    return call, seconds


def measure(args: argparse.Namespace, data: Dataset) -> dict[str, Any]:
    """Run all candidates in turns, until each has its runs or the time is over."""
    end = time.perf_counter() + args.limit
    results: dict[str, Any] = {}
    calls: dict[str, Call] = {}
    for name, make in candidates(args, data).items():
        found = warm_up(name, make)
        if isinstance(found, str):
            results[name] = found
            say(f"{name}: {found}")
        else:
            calls[name] = found[0]
            results[name] = {"warm-up seconds": found[1], "seconds": [], "accuracy": []}
    for seed in itertools.count(1):
        left = [name for name in calls if len(results[name]["accuracy"]) < args.runs]
        for name in left:
            if time.perf_counter() > end and results[name]["accuracy"]:
                say(f"{name}: stopped by --limit")
                del calls[name]
                continue
            seconds, accuracy = calls[name](seed)
            results[name]["seconds"] += [seconds / len(accuracy)] * len(accuracy)
            results[name]["accuracy"] += accuracy
            shown = " ".join(f"{100 * one:.2f}" for one in accuracy)
            say(f"{name}: {seconds / len(accuracy):.4f} s a run, {shown} %")
        if not left:
            return results


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and the ends of its 95 % t interval."""
    mean = float(np.mean(values))
    return mean, *(estimate(values).interval or (mean, mean))


def summarise(results: dict[str, Any]) -> list[list[str]]:
    """Add means, intervals and p values to the results. Return the rows of a table."""
    rows = []
    for name, found in results.items():
        if isinstance(found, str):
            rows.append([name, "-", found, "", "", ""])
            continue
        seconds, accuracy = found["seconds"], found["accuracy"]
        found["mean seconds"], found["mean accuracy"] = interval(seconds), interval(accuracy)
        p = stats.ttest_1samp(accuracy, TARGET, alternative="greater").pvalue
        found["p of at least 94 %"] = float(p) if len(accuracy) > 1 else None
        time_text = "{:.3f} ({:.3f} to {:.3f})".format(*found["mean seconds"])
        percent = [100 * value for value in found["mean accuracy"]]
        accuracy_text = "{:.2f} ({:.2f} to {:.2f})".format(*percent)
        p_text = f"{p:.2g}" if len(accuracy) > 1 else ""
        warm = f"{found['warm-up seconds']:.1f}"
        rows.append([name, str(len(accuracy)), time_text, accuracy_text, p_text, warm])
    return rows


def differences(results: dict[str, Any]) -> list[str]:
    """Compare each of our candidates with the peer: Welch's 95 % interval, and ratio of times."""
    done = {name: found for name, found in results.items() if not isinstance(found, str)}
    peers = [name for name in done if not name.startswith("ours")]
    lines = []
    for name, found in done.items():
        for peer in peers if name.startswith("ours") else []:
            ratio = done[peer]["mean seconds"][0] / found["mean seconds"][0]
            line = f"{name}: {ratio:.2f} times as fast as {peer}"
            samples = (np.array(one["accuracy"]) for one in (found, done[peer]))
            test = stats.ttest_ind(*samples, equal_var=False)
            if min(len(found["accuracy"]), len(done[peer]["accuracy"])) > 1:
                low, high = test.confidence_interval()
                line += f", accuracy {100 * low:+.2f} to {100 * high:+.2f} points of its"
            lines.append(line)
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print lines and a table, write a JSON."""
    parser = make_parser("speedrun", __doc__)
    parser.add_argument("--runs", type=positive, default=200, help="of each candidate (200)")
    parser.add_argument("--peer", metavar="twin|FILE", help="measure PyTorch too")
    parser.add_argument(
        "--mode", choices=MODES, default="max-autotune", help="of torch.compile (max-autotune)"
    )
    parser.add_argument("--together", type=integers, default=[1], help="runs a program (1)")
    parser.add_argument(
        "--limit", type=float, default=3600.0, help="seconds after which no run starts"
    )
    parser.add_argument("--dataset", default="auto", help="as of cifar_jax.main")
    parser.add_argument("--kernels", choices=("auto", "plain"), default="auto")
    parser.add_argument("--epochs", type=positive, default=8, help="(8)")
    parser.add_argument("--widths", type=integers, default=[64, 256, 256], help="(64,256,256)")
    parser.add_argument("--train-examples", type=positive, help="the first N in a random order")
    parser.add_argument("--test-examples", type=positive, help="the first N")
    short = {"runs": 2, "epochs": 1, "widths": [4, 4, 4], "mode": "eager"}
    args = parse(parser, argv, **short, dataset="synthetic", train_examples=200, test_examples=100)
    results = measure(args, images(args))
    header = ["", "runs", "seconds a run", "accuracy in %", "p of >= 94 %", "warm-up in s"]
    print(table(header, summarise(results)))
    for line in differences(results):
        print(line)
    write_json(args.output, {"runs": results, "dataset": args.dataset})
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
