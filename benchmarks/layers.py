"""Each layer's forward and backward pass, and the whole training step, in every formulation.

    python -m benchmarks.layers --repeats 9

"XLA" is what `lax.conv_general_dilated`, `lax.reduce_window` and the statistics written out give.
It is timed as one jitted call a pass, which favours it on the CPU: inside a scan its convolution
gradients are far slower. The step in our formulation is timed as it is used, scanned. PyTorch,
where installed, runs eagerly in both memory layouts.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._cli import make_parser, parse, positive
from benchmarks._timing import Timing, show_progress, table, time_interleaved, write_json
from cifar_jax.device import cpu_count
from cifar_jax.errors import one_line
from cifar_jax.models import convolution, layers, pooling
from cifar_jax.models.cnn import CNN
from cifar_jax.training.compiler import jit

Calls = dict[str, Callable[[], Any]]

SIZES = [(32, 3, 32), (16, 32, 64), (8, 64, 128)]
"""Height (= width), input and output channels of the report's three convolutions."""

RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4


def _draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def _pull(layer: Callable[..., jax.Array], g: jax.Array, *args: jax.Array) -> Calls:
    """A call of the jitted forward and backward pass."""

    @jit
    def run(g: jax.Array, *args: jax.Array) -> Any:
        y, pull = jax.vjp(layer, *args)
        return y, pull(g)

    return partial(run, g, *args)


def xla_pool(x: jax.Array) -> jax.Array:
    """ReLU and XLA's pooling, whose gradient is a select-and-scatter."""
    return nn.max_pool(nn.relu(x), (2, 2), (2, 2))


def xla_batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same sums, differentiated by JAX."""
    axes = tuple(range(x.ndim - 1))
    mean, var = jnp.mean(x, axes), jnp.var(x, axes)
    return (x - mean) * (scale * jax.lax.rsqrt(var + eps)) + bias, mean, var


def xla_batch_norm_pool(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two above, one after the other."""
    y, mean, var = xla_batch_norm(x, scale, bias, eps)
    return xla_pool(y), mean, var


def _xla_windows(x: jax.Array, kernel: jax.Array) -> layers.Windows:
    """XLA's convolution as `split_windows` gives it, which moves nothing."""
    return layers.Windows(pooling.split_windows(convolution.xla(x, kernel)), pooling.NHWC_AXES)


def _image(windows: jax.Array) -> jax.Array:
    """The inverse of `split_windows`."""
    n, rows, two, cols, _, c = windows.shape
    return windows.reshape(n, two * rows, two * cols, c)


@contextmanager
def plain_layers() -> Iterator[None]:
    """CNNs without norm or with batch norm, traced inside, are made of XLA's own operations."""
    saved = {name: getattr(layers, name) for name in layers.__all__}
    layers.conv3x3_windows = _xla_windows
    layers.bias_relu_max_pool_windows = lambda x, bias, _: xla_pool(_image(x) + bias)
    layers.batch_norm = xla_batch_norm
    layers.batch_norm_relu_max_pool_windows = lambda x, scale, bias, eps, _: xla_batch_norm_pool(
        _image(x), scale, bias, eps
    )
    try:
        yield
    finally:
        for name, layer in saved.items():
            setattr(layers, name, layer)


def _torch_pull(layer: Callable[..., Any], g: jax.Array, *args: Any) -> Callable[[], None]:
    import torch

    cotangent = torch.from_numpy(np.array(g)).permute(0, 3, 1, 2)

    def run() -> None:
        torch.autograd.grad(layer(*args), args, cotangent)

    return run


def _conv_relu_pool(
    formulation: str, x: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """Convolution, bias, ReLU and pooling; "xla": all four XLA's own."""
    if formulation == "xla":
        return xla_pool(convolution.xla(x, kernel) + bias)
    windows = layers.conv3x3_windows(x, kernel, formulation=formulation)
    return windows.image(layers.bias_relu_max_pool_windows(windows.values, bias, windows.axes))


def layer_calls(batch: int, with_torch: bool) -> dict[str, Calls]:
    """Forward and backward pass of every layer; all gradients but that of the images."""
    calls: dict[str, Calls] = {}
    for index, (size, c, k) in enumerate(SIZES, start=1):
        x, kernel, g = _draw(batch, size, size, c), _draw(3, 3, c, k), _draw(batch, size, size, k)
        scale, pooled = _draw(k), _draw(batch, size // 2, size // 2, k)
        conv: Calls = {}
        for name in convolution.FORMULATIONS:
            layer = partial(convolution.conv3x3, formulation=name)
            conv[name] = (
                _pull(partial(layer, x), g, kernel) if c == 3 else _pull(layer, g, x, kernel)
            )
        # As the network has it: the pooling takes the layout that the convolution leaves.
        block: Calls = {}
        for name in convolution.FORMULATIONS:
            pooled_conv = partial(_conv_relu_pool, name)
            block[name] = (
                _pull(partial(pooled_conv, x), pooled, kernel, scale)
                if c == 3
                else _pull(pooled_conv, pooled, x, kernel, scale)
            )
        pool: Calls = {
            "xla": _pull(xla_pool, pooled, g),
            "chosen": _pull(layers.relu_max_pool_2x2, pooled, g),
        }
        norm: Calls = {
            "xla": _pull(lambda *a: xla_batch_norm(*a)[0], g, g, scale, scale),
            "chosen": _pull(lambda *a: layers.batch_norm(*a, 1e-5)[0], g, g, scale, scale),
        }
        both: Calls = {
            "xla": _pull(lambda *a: xla_batch_norm_pool(*a)[0], pooled, g, scale, scale),
            "chosen": _pull(
                lambda *a: layers.batch_norm_relu_max_pool_2x2(*a, 1e-5)[0], pooled, g, scale, scale
            ),
        }
        if with_torch:
            _add_torch_layers(conv, block, pool, norm, both, (x, kernel, g, pooled))
        calls |= {
            f"conv{index}": conv,
            f"conv+relu+pool{index}": block,
            f"relu+pool{index}": pool,
            f"norm{index}": norm,
            f"norm+relu+pool{index}": both,
        }
    return calls


def _add_torch_layers(
    conv: Calls,
    block: Calls,
    pool: Calls,
    norm: Calls,
    both: Calls,
    arrays: tuple[jax.Array, ...],
) -> None:
    """PyTorch's layers on channels_last tensors (a permuted view of ours)."""
    import torch
    import torch.nn.functional as F

    def tensor(array: jax.Array, *order: int, grad: bool = True) -> Any:
        return torch.from_numpy(np.array(array)).permute(order).requires_grad_(grad)

    x, kernel, g, pooled = arrays
    images = tensor(x, 0, 3, 1, 2, grad=False)
    weight = tensor(kernel, 3, 2, 0, 1).detach().contiguous().requires_grad_()
    z = tensor(g, 0, 3, 1, 2)
    scale, bias = (torch.ones(g.shape[-1], requires_grad=True) for _ in range(2))

    def conv_relu_pool(x: Any, weight: Any, bias: Any) -> Any:
        return F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=1)), 2)

    if x.shape[-1] == 3:
        conv["torch"] = _torch_pull(lambda w: F.conv2d(images, w, padding=1), g, weight)
        block["torch"] = _torch_pull(partial(conv_relu_pool, images), pooled, weight, bias)
    else:
        images.requires_grad_()
        conv["torch"] = _torch_pull(partial(F.conv2d, padding=1), g, images, weight)
        block["torch"] = _torch_pull(conv_relu_pool, pooled, images, weight, bias)
    pool["torch"] = _torch_pull(lambda z: F.max_pool2d(F.relu(z), 2), pooled, z)

    def batch_norm(z: Any, scale: Any, bias: Any) -> Any:
        return F.batch_norm(z, None, None, scale, bias, training=True)

    norm["torch"] = _torch_pull(batch_norm, g, z, scale, bias)
    both["torch"] = _torch_pull(
        lambda *a: F.max_pool2d(F.relu(batch_norm(*a)), 2), pooled, z, scale, bias
    )


def train_step(norm: str) -> tuple[Callable[..., Any], Any]:
    """One step of SGD with momentum and coupled weight decay, and its first state."""
    model = CNN(norm=norm)
    variables = model.init({"params": jax.random.key(0)}, _draw(2, 32, 32, 3), train=False)
    params, stats = variables["params"], variables.get("batch_stats", {})

    def step(state: Any, batch: Any) -> Any:
        params, velocity, stats, key = state
        key, dropout = jax.random.split(key)
        images, labels = batch

        def loss(params: Any) -> Any:
            logits, updates = model.apply(
                {"params": params, "batch_stats": stats},
                images,
                train=True,
                rngs={"dropout": dropout},
                mutable=["batch_stats"],
            )
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
            return -chosen.mean(), updates.get("batch_stats", {})

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        velocity = jax.tree.map(
            lambda v, g, p: MOMENTUM * v + g + DECAY * p, velocity, grads, params
        )
        params = jax.tree.map(lambda p, v: p - RATE * v, params, velocity)
        return (params, velocity, stats, key), value

    return step, (params, jax.tree.map(jnp.zeros_like, params), stats, jax.random.key(1))


def torch_steps(norm: str, images: jax.Array, labels: jax.Array, channels_last: bool) -> Any:
    """A call that trains a PyTorch model, eagerly, on every batch."""
    import torch
    from torch import nn as tnn

    def block(c: int, k: int) -> list[Any]:
        middle = [tnn.BatchNorm2d(k)] if norm == "batch" else []
        return [tnn.Conv2d(c, k, 3, padding=1), *middle, tnn.ReLU(), tnn.MaxPool2d(2)]

    model = tnn.Sequential(
        *(layer for _, c, k in SIZES for layer in block(c, k)),
        tnn.Flatten(),
        tnn.Linear(2048, 256),
        *([tnn.BatchNorm1d(256)] if norm == "batch" else []),
        tnn.ReLU(),
        tnn.Dropout(0.5),
        tnn.Linear(256, 10),
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, foreach=True
    )
    batches = [
        (
            torch.from_numpy(np.array(x)).permute(0, 3, 1, 2).contiguous(memory_format=layout),
            torch.from_numpy(np.array(y)).long(),
        )
        for x, y in zip(images, labels, strict=True)
    ]

    def run() -> None:
        for x, y in batches:
            optimizer.zero_grad(set_to_none=True)
            tnn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    return run


def step_calls(norm: str, batch: int, steps: int, with_torch: bool) -> Calls:
    """Calls that train for `steps` batches."""
    images = _draw(steps, batch, 32, 32, 3)
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 10, (steps, batch)))
    step, state = train_step(norm)
    scanned = jit(lambda state, data: jax.lax.scan(step, state, data))
    calls: Calls = {"chosen": partial(scanned, state, (images, labels))}
    with plain_layers():
        plain_step, plain_state = train_step(norm)
        compiled = jax.jit(plain_step).lower(plain_state, (images[0], labels[0])).compile()

    def plain() -> Any:
        carry = plain_state
        for data in zip(images, labels, strict=True):
            carry, _ = compiled(carry, data)
        return carry

    calls["xla"] = plain
    if with_torch:
        calls["torch"] = torch_steps(norm, images, labels, channels_last=False)
        calls["torch channels_last"] = torch_steps(norm, images, labels, channels_last=True)
    return calls


def _rows(name: str, timings: dict[str, Timing], scale: float) -> list[list[str]]:
    return [
        [
            f"{name} {candidate}",
            *(f"{1000 * scale * value:.2f}" for value in (t.median, t.q1, t.q3)),
            f"{timings['xla'].median / t.median:.2f}",
        ]
        for candidate, t in timings.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, write a JSON."""
    parser = make_parser("layers", __doc__)
    parser.add_argument("--batch", type=positive, default=128, help="images a step (128)")
    parser.add_argument("--repeats", type=positive, default=9, help="of each candidate (9)")
    parser.add_argument("--steps", type=positive, default=16, help="steps a repeat (16)")
    parser.add_argument("--only", choices=["layers", "steps"], help="one half of the table")
    args = parse(parser, argv, steps=3, repeats=3)
    try:
        import torch
    except Exception as error:  # Also of a library that it loads.
        print(f"without PyTorch, which cannot be imported ({one_line(error)})")
        with_torch = False
    else:
        with_torch = True
        torch.set_num_threads(cpu_count())

    measured: dict[str, dict[str, Timing]] = {}
    rows: list[list[str]] = []
    if args.only != "steps":
        for name, calls in layer_calls(args.batch, with_torch).items():
            measured[name] = time_interleaved(calls, args.repeats, progress=show_progress)
            rows += _rows(name, measured[name], 1)
    if args.only != "layers":
        for norm in ("none", "batch"):
            name = f"step {norm}"
            calls = step_calls(norm, args.batch, args.steps, with_torch)
            measured[name] = time_interleaved(calls, args.repeats, progress=show_progress)
            rows += _rows(name, measured[name], 1 / args.steps)
    show_progress("")
    print(table(["what", "median ms", "q1", "q3", "x faster than XLA"], rows))
    results = {
        what: {name: timing._asdict() for name, timing in timings.items()}
        for what, timings in measured.items()
    }
    settings = {"batch": args.batch, "repeats": args.repeats, "steps": args.steps}
    write_json(args.output, {"settings": settings, "seconds a call": results})
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
