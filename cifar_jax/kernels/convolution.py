"""Convolutions of any rank, channels last, in the fastest form for a platform.

On a CPU wide 3x3 kernels use Winograd's products, others the forms of direct.py. Under `jax.vmap`
with one kernel per run, XLA makes a grouped convolution. On GPUs it is slower than separate ones
(jax issue 26568). Here it becomes a product. benchmarks/layers.py measures the forms.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from cifar_jax.kernels import depthwise, direct, forms, pooling, winograd
from cifar_jax.kernels.blocks import blocks, conv3x3_in_blocks, rows_product
from cifar_jax.kernels.direct import Geometry as Geometry
from cifar_jax.kernels.direct import xla as xla
from cifar_jax.kernels.taps import output_size, taps

_MIN_TILED_CHANNELS = 16
_MIN_SHARED_CHANNELS = 64
_MAX_PATCHES_BYTES = 1 << 29
_THREE_TF32 = lax.DotAlgorithmPreset.TF32_TF32_F32_X3


def pad(x: jax.Array, padding: tuple[tuple[int, int], ...]) -> jax.Array:
    """Pad the spatial axes by zeros, or crop them where the padding is negative."""
    if not any(itertools.chain(*padding)):
        return x
    config = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def patches(
    x: jax.Array, kernel: jax.Array, geometry: Geometry, max_bytes: int = _MAX_PATCHES_BYTES
) -> jax.Array:
    """Any convolution as a product of its patches (im2col) and the kernel; see `conv`.

    Patches of more than `max_bytes` may not fit into memory. Then the result is a sum: each term
    takes some positions of the window.
    """
    *window, c, k = kernel.shape
    axes = range(1, x.ndim - 1)
    x = pad(x, geometry.padding)
    out_shape = [
        output_size(x.shape[axis], *sizes)
        for axis, *sizes in zip(axes, window, geometry.strides, geometry.dilation, strict=True)
    ]
    if math.prod(window) == 1:
        index = (slice(None), *(slice(None, None, stride) for stride in geometry.strides))
        positions = [x[index]]
    else:
        positions = taps(x, axes, window, geometry.strides, geometry.dilation)
    matrices = kernel.reshape(-1, c, k)  # one for each position
    rows, groups = len(x) * math.prod(out_shape), geometry.groups
    together = max(1, max_bytes // max(1, rows * c * groups * x.dtype.itemsize))
    result: jax.Array | int = 0
    for start in range(0, len(positions), together):
        part, matrix = positions[start : start + together], matrices[start : start + together]
        if groups == 1:
            columns = jnp.concatenate(part, -1).reshape(rows, -1)
            result += rows_product(columns, matrix.reshape(-1, k), geometry.precision)
        else:
            columns = jnp.stack([tap.reshape(rows, groups, c) for tap in part], 2)
            matrix = matrix.reshape(len(part), c, groups, -1)
            # m: row, g: group, t: position, c: input channel, k: output channel of the group.
            product = jnp.einsum("mgtc,tcgk->mgk", columns, matrix, precision=geometry.precision)
            result += product.reshape(rows, k)
    return jnp.asarray(result).reshape(len(x), *out_shape, k)


def _is_depthwise(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> bool:
    """Return whether each channel has a group of its own."""
    return kernel.shape[-2] == 1 and geometry.groups == x.shape[-1] > 1


def _is_dense3x3(kernel: jax.Array, geometry: Geometry) -> bool:
    """Return whether it is a 3x3 convolution without strides, dilation and groups."""
    return (
        kernel.shape[:-2] == (3, 3)
        and geometry.strides == geometry.dilation == (1, 1)
        and geometry.groups == 1
    )


def products(
    form: str, x: jax.Array, kernel: jax.Array, geometry: Geometry, by_onednn: bool = False
) -> jax.Array:
    """Any convolution as sums of products that `jax.vmap` keeps as such.

    Args:
        form: of a dense 3x3 convolution, see `forms.FORMS`.
        x, kernel, geometry: see `conv`.
        by_onednn: see `winograd.conv3x3`.
    """
    if _is_depthwise(x, kernel, geometry):
        padded = pad(x, geometry.padding)
        return depthwise.conv(padded, kernel[..., 0, :], geometry.strides, geometry.dilation)
    if form == "patches" or not _is_dense3x3(kernel, geometry):
        return patches(x, kernel, geometry)
    # One zero around is what the 3x3 forms add: pad by what is wanted beyond, cut off the excess.
    x = pad(x, tuple((max(0, low - 1), max(0, high - 1)) for low, high in geometry.padding))
    if form == "winograd" and x.shape[-1] >= _MIN_TILED_CHANNELS:
        y = winograd.conv3x3(x, kernel, geometry.precision, by_onednn)
    else:
        y = blocks(x, kernel, _THREE_TF32 if form == "split" else geometry.precision)
    return pad(y, tuple((min(0, low - 1), min(0, high - 1)) for low, high in geometry.padding))


def _on_accelerator(runs: int, x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The convolution of one of several runs, in the form that is fastest for so many."""
    form = forms.best_form(forms.precision_name(x.dtype, geometry.precision), runs)
    dense, wide = _is_dense3x3(kernel, geometry), x.shape[-1] >= _MIN_TILED_CHANNELS
    if form == "xla" or (form == "mixed" and wide) or (runs == 1 and not dense):
        return xla(x, kernel, geometry)
    return products(form, x, kernel, geometry)


def _in_evaluation(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The convolution of one run on a CPU, in a program without gradients."""
    if x.shape[-1] < _MIN_TILED_CHANNELS and _is_dense3x3(kernel, geometry):
        return products("winograd", x, kernel, geometry)
    return direct.conv(x, kernel, geometry)


def _form_for(
    platform: str, runs: int, trains: bool = False
) -> Callable[[jax.Array, jax.Array, Geometry], jax.Array]:
    """Return the convolution for a number of runs. `trains`: the program has gradients too."""
    if platform != "cpu":
        return functools.partial(_on_accelerator, runs)
    if runs > 1:
        return functools.partial(products, "winograd")
    return direct.training_conv if trains else _in_evaluation


def _gradients(
    platform: str,
    geometry: Geometry,
    runs: int,
    g: jax.Array,
    x: jax.Array,
    kernel: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `_form_for(platform, runs)` with respect to x and kernel."""
    if platform != "cpu" or runs > 1:
        form = _form_for(platform, runs)
        d_x, d_kernel = jax.vjp(lambda x, kernel: form(x, kernel, geometry), x, kernel)[1](g)
        return d_x, d_kernel
    if set(geometry.strides) == {1}:
        d_x = direct.training_conv(g, *direct.transposed(g, x, kernel, geometry))
    else:
        d_x = direct.strided_input_gradient(g, x, kernel, geometry)
    return d_x, direct.kernel_gradient(g, x, kernel, geometry)


def _by_runs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function(1, ...)`. Under `jax.vmap` over n runs it becomes `function(n, ...)`."""
    single = custom_vmap(functools.partial(function, 1))

    @single.def_vmap
    def rule(runs: int, in_batched: Sequence[bool], *operands: jax.Array) -> tuple[Any, Any]:
        if list(in_batched) == [True, False]:  # Only the images: one larger batch.
            x, kernel = operands
            y = single(x.reshape(-1, *x.shape[2:]), kernel)
            return y.reshape(*x.shape[:2], *y.shape[1:]), True
        axes = [0 if batched else None for batched in in_batched]
        y = jax.vmap(functools.partial(function, runs), axes)(*operands)
        return y, jax.tree.map(lambda _: True, y)

    return single


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def by_runs(
    x: jax.Array, kernel: jax.Array, platform: str, geometry: Geometry, trains: bool = False
) -> jax.Array:
    """A convolution in the form for the number of runs that `jax.vmap` gives it."""

    def forward(runs: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _form_for(platform, runs, trains)(x, kernel, geometry)

    y: jax.Array = _by_runs(forward)(x, kernel)
    return y


def _forward(
    x: jax.Array, kernel: jax.Array, platform: str, geometry: Geometry, _: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return by_runs(x, kernel, platform, geometry, True), (x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _gradients_by_runs(
    g: jax.Array, x: jax.Array, kernel: jax.Array, platform: str, geometry: Geometry
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `by_runs`, with a derivative of their own: JAX has none of `custom_vmap`."""
    d_x, d_kernel = _by_runs(functools.partial(_gradients, platform, geometry))(g, x, kernel)
    return d_x, d_kernel


def _gradients_forward(
    g: jax.Array, x: jax.Array, kernel: jax.Array, platform: str, geometry: Geometry
) -> tuple[Any, Any]:
    return _gradients_by_runs(g, x, kernel, platform, geometry), (g, x, kernel)


def _gradients_backward(platform: str, geometry: Geometry, saved: Any, cotangents: Any) -> Any:
    """Second derivatives are those of XLA's convolution."""

    def gradients(g: jax.Array, x: jax.Array, kernel: jax.Array) -> Any:
        return jax.vjp(lambda x, kernel: xla(x, kernel, geometry), x, kernel)[1](g)

    return jax.vjp(gradients, *saved)[1](cotangents)


_gradients_by_runs.defvjp(_gradients_forward, _gradients_backward)


def _backward(
    platform: str, geometry: Geometry, _: bool, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _gradients_by_runs(g, *saved, platform, geometry)


by_runs.defvjp(_forward, _backward)


def conv(platform: str, x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolution in the form that is fastest on a platform.

    Args:
        platform: JAX's name of the backend, "cpu" for example.
        x: (N, ..., Cin).
        kernel: (..., Cin / groups, Cout), the dtype of x.

    Returns:
        (N, ..., Cout), the dtype of x.
    """
    if platform == "cpu":
        *window, c, k = kernel.shape
        by_onednn = direct.by_onednn(x, kernel)
        few = c < _MIN_TILED_CHANNELS and not by_onednn
        few_or_many = few or min(c, k) >= _MIN_SHARED_CHANNELS
        if (
            geometry.groups > 1
            or math.prod(window) == 1
            or (few_or_many and _is_dense3x3(kernel, geometry))
            or x.dtype == jnp.float64  # XLA's CPU backend has no fast convolution of it.
        ):
            return products("winograd", x, kernel, geometry, by_onednn)
    return by_runs(x, kernel, platform, geometry)


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

    def image(self, pooled: jax.Array) -> jax.Array:
        """One value a window, `values` without `axes`, as (N, H/2, W/2, Cout)."""
        if not self.tiled:
            return pooled
        two, _, n, rows, cols, features = pooled.shape
        # In two steps: before a dense layer, XLA does not vectorise one transposition of all axes.
        in_rows = pooled.transpose(0, 2, 3, 4, 1, 5)
        return jnp.stack(list(in_rows), 2).reshape(n, two * rows, two * cols, features)


def conv3x3_windows(platform: str, x: jax.Array, kernel: jax.Array) -> Windows:
    """3x3 convolution, same padding, for a 2x2 pooling after it: no transposition of its result.

    Args:
        platform: see `conv`.
        x: (N, H, W, Cin), H and W even.
        kernel: (3, 3, Cin, Cout), the dtype of x.
    """
    _, h, w, c = x.shape
    if platform == "cpu":
        if c < _MIN_TILED_CHANNELS:
            return Windows(conv3x3_in_blocks(x, kernel), (3, 4))
        if h % winograd.TILE == w % winograd.TILE == 0:
            y = winograd.tiled_conv3x3(x, kernel)
            return Windows(y.reshape(2, 2, 2, 2, *y.shape[2:]), (1, 3), tiled=True)
    # The setting of now: a loop's body is vectorised later, outside the context that sets it.
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), precision=precision)
    y = conv(platform, x, kernel, geometry)
    return Windows(pooling.split_windows(y), pooling.NHWC_AXES)
