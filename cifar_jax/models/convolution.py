"""3x3 convolution in the formulation that is fastest on the backend at hand.

XLA's own convolution is used on accelerators, but where several runs are stacked: each has its own
kernels, so that XLA would make one grouped convolution of theirs, which on GPUs is slower than one
after the other (jax issue 26568). There the same sums are a matrix product, which becomes a batched
one; no GPU was at hand, so this is not measured.

On the CPU XLA's forward pass is fair, but its weight gradient runs at a tenth of the speed of a
matrix product, and inside a loop (`lax.scan`) a hundred times slower still; there the same sums are
written as matrix products. benchmarks/layers.py measures each formulation.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax

from cifar_jax.kernels import pooling, winograd
from cifar_jax.kernels.convolution import blocks, conv3x3_in_blocks

RUNS = "runs"
"""Axis over which runs are stacked: `jax.vmap(..., axis_name=RUNS)`."""

_MIN_WINOGRAD_CHANNELS = 16


def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


FORMULATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "xla": xla,
    "blocks": blocks,
    "winograd": winograd.conv3x3,
}


def is_stacked() -> bool:
    """Whether what is traced is one of several runs that are stacked over the axis `RUNS`."""
    try:
        lax.psum(1, RUNS)  # A constant: no operation.
    except NameError:
        return False
    return True


def choose(platform: str, channels: int, stacked: bool) -> str:
    """The key of `FORMULATIONS` for a backend, a number of input channels, and stacked runs."""
    if platform != "cpu":
        return "blocks" if stacked else "xla"
    return "blocks" if channels < _MIN_WINOGRAD_CHANNELS else "winograd"


def conv3x3(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    formulation: str | None = None,
) -> jax.Array:
    """3x3 convolution (cross-correlation), stride 1, same (zero) padding.

    Args:
        x: (N, H, W, Cin).
        kernel: (3, 3, Cin, Cout), the dtype of x.
        bias: (Cout,) or None.
        formulation: key of `FORMULATIONS`; by default `choose` decides.

    Returns:
        (N, H, W, Cout), the dtype of x.
    """
    name = formulation or choose(jax.default_backend(), x.shape[-1], is_stacked())
    y = FORMULATIONS[name](x, kernel)
    return y if bias is None else y + bias


class Windows(NamedTuple):
    """The 2x2 windows that pooling takes, in the layout in which a convolution leaves them.

    Attributes:
        values: (..., Cout), two axes of size 2 among them.
        axes: of the row and the column in a window.
        tiled: the other axes are (2, 2, N, H/4, W/4), two windows a tile each way, not
            (N, H/2, W/2).
    """

    values: jax.Array
    axes: tuple[int, int]
    tiled: bool = False

    def whole(self) -> jax.Array:
        """All values as an image, (N, H, W, Cout)."""
        if self.tiled:
            y = self.values.transpose(4, 5, 0, 1, 6, 2, 3, 7)
            n, rows, _, _, cols, _, _, features = y.shape
            return y.reshape(n, 4 * rows, 4 * cols, features)
        n, rows, cols, features = (
            size for axis, size in enumerate(self.values.shape) if axis not in self.axes
        )
        y = jax.numpy.moveaxis(self.values, self.axes, pooling.NHWC_AXES)
        return y.reshape(n, 2 * rows, 2 * cols, features)

    def image(self, pooled: jax.Array) -> jax.Array:
        """One value a window, `values` without `axes`, as (N, H/2, W/2, Cout)."""
        if not self.tiled:
            return pooled
        two, _, n, rows, cols, features = pooled.shape
        return pooled.transpose(2, 3, 0, 4, 1, 5).reshape(n, two * rows, two * cols, features)


def conv3x3_windows(x: jax.Array, kernel: jax.Array, *, formulation: str | None = None) -> Windows:
    """`conv3x3` without bias, for a pooling behind it: no transposition of the whole result.

    Args:
        x: (N, H, W, Cin), H and W even.
        kernel: (3, 3, Cin, Cout), the dtype of x.
        formulation: see `conv3x3`.

    Raises:
        ValueError: H or W is odd.
    """
    _, h, w, c = x.shape
    name = formulation or choose(jax.default_backend(), c, is_stacked())
    if name == "winograd" and h % winograd.TILE == w % winograd.TILE == 0:
        y = winograd.tiled_conv3x3(x, kernel)
        return Windows(y.reshape(2, 2, 2, 2, *y.shape[2:]), (1, 3), tiled=True)
    if name == "blocks" and h % 2 == w % 2 == 0:
        return Windows(conv3x3_in_blocks(x, kernel), (3, 4))
    return Windows(pooling.split_windows(FORMULATIONS[name](x, kernel)), pooling.NHWC_AXES)
