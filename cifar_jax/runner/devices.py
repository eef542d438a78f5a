"""Spread runs, or the images of a batch, over several devices.

A mesh has two axes. Along `runs` each device trains runs of its own. Along `data` all devices train
one run, and each computes a part of every batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cifar_jax.core.inputs import Inputs
from cifar_jax.core.train import Experiment
from cifar_jax.device import local_devices
from cifar_jax.errors import UserError

Tree = TypeVar("Tree")

RUNS, DATA = "runs", "data"
# An array without axes of the mesh is whole on every device.
_WHOLE, _BY_RUN = PartitionSpec(), PartitionSpec(RUNS)

DIVIDES = (0, 10)  # the first version of jax with which divided batches were tested


def runs_mesh(runs: int) -> Mesh | None:
    """Return a mesh of as many devices as can train `runs` runs, or None for one device."""
    devices = local_devices()[:runs]
    return Mesh(np.array(devices)[:, None], (RUNS, DATA)) if len(devices) > 1 else None


def data_mesh(count: int) -> Mesh | None:
    """Return a mesh of `count` devices that divide each batch, or None for one device.

    With several processes, it has all their devices.

    Raises:
        UserError: there is another number of devices, or JAX is too old.
    """
    devices = local_devices()
    if jax.process_count() > 1:
        devices = jax.devices(devices[0].platform)
        if count not in (1, len(devices)):
            raise UserError(f"--data-parallel {count}: the processes have {len(devices)} devices")
        count = len(devices)
    if count > len(devices):
        raise UserError(f"--data-parallel {count}: JAX finds only {len(devices)} here")
    # With jax 0.5.0 a batch norm trains otherwise on several devices than on one.
    if count > 1 and jax.__version_info__ < DIVIDES:
        wanted = ".".join(map(str, DIVIDES))
        raise UserError(f"--data-parallel needs jax {wanted} or newer; this is {jax.__version__}")
    return Mesh(np.array(devices[:count])[None], (RUNS, DATA)) if count > 1 else None


def check_batch(mesh: Mesh | None, batch_size: int) -> None:
    """Check that the devices of a mesh can divide a batch.

    Raises:
        UserError: its size is no multiple of their number.
    """
    devices = mesh.shape[DATA] if mesh else 1
    if batch_size % devices:
        raise UserError(
            f"--data-parallel {devices}: does not divide --batch-size {batch_size}; give a "
            f"multiple, such as {-(-batch_size // devices) * devices}"
        )


def describe(mesh: Mesh, copied: Any) -> str:
    """Say in one line how many devices train, and what each has a copy of.

    Args:
        mesh: with the devices.
        copied: arrays on each device.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(copied)) / 2**20
    runs, data = mesh.shape[RUNS], mesh.shape[DATA]
    if runs > 1:
        return f"{runs} devices train different runs; each has all images, {size:,.0f} MiB"
    return (
        f"{_in_words(data)} train one run and divide each batch; each has all images, network "
        f"and optimiser, {size:,.0f} MiB"
    )


def describe_division(mesh: Mesh | None) -> str:
    """Say which devices divide each batch, or return "" if a batch is on one device."""
    devices = mesh.shape[DATA] if mesh else 1
    return f"{_in_words(devices)} divide each batch" if devices > 1 else ""


def _in_words(devices: int) -> str:
    processes = jax.process_count()
    return f"{devices} devices" + (f" of {processes} processes" if processes > 1 else "")


def mesh_of(array: Any) -> Mesh | None:
    """Return the mesh that an array, or its shape, is placed on. None on a single device."""
    found = getattr(array, "sharding", None)
    if not isinstance(found, NamedSharding) or found.num_devices == 1:
        return None
    mesh: Any = found.mesh  # An `AbstractMesh` has no devices, and nothing is placed on it.
    return mesh


def on_all(tree: Tree, mesh: Mesh | None) -> Tree:
    """Put a copy of each array on every device of a mesh. None: on the default device."""
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, _WHOLE)
    placed: Tree = jax.tree.map(lambda leaf: _put(leaf, sharding), tree)
    return placed


def _put(leaf: Any, sharding: NamedSharding) -> Any:
    """Put an array that all processes have on the devices of a mesh."""
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def spread(stacked: Tree, mesh: Mesh | None) -> Tree:
    """Put stacked runs on the devices of a mesh, equally many on each.

    Repeats of the last run fill the last devices, and are dropped later.

    Args:
        stacked: arrays, or their shapes, with a leading axis of runs.
        mesh: None for the default device.
    """
    if mesh is None:
        return stacked
    devices = mesh.shape[RUNS]
    sharding = NamedSharding(mesh, _BY_RUN)

    def place(leaf: Any) -> Any:
        runs = -(-len(leaf) // devices) * devices
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((runs, *leaf.shape[1:]), leaf.dtype, sharding=sharding)
        return _put(leaf[jnp.minimum(jnp.arange(runs), len(leaf) - 1)], sharding)

    placed: Tree = jax.tree.map(place, stacked)
    return placed


def on_each(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """Let each device call a function of (hyper, state, ...) for its own runs.

    So a device runs the program that it would run alone, and the devices exchange nothing.

    Args:
        function: of hyper-parameters and states with a leading axis of runs, and shared arrays.
        mesh: with the runs. None, or one that divides batches: the function does not change.
    """
    if mesh is None or mesh.shape[RUNS] == 1:
        return function

    def each(hyper: Any, state: Any, *shared: Any) -> Any:
        specs = (_BY_RUN, _BY_RUN, *[_WHOLE] * len(shared))
        return _shard_map(function, mesh, specs)(hyper, state, *shared)

    return each


def _shard_map(function: Callable[..., Any], mesh: Mesh, specs: Any) -> Callable[..., Any]:
    options: dict[str, Any] = {"mesh": mesh, "in_specs": specs, "out_specs": _BY_RUN}
    if hasattr(jax, "shard_map"):
        mapped: Callable[..., Any] = jax.shard_map(function, check_vma=False, **options)
        return mapped
    from jax.experimental.shard_map import shard_map  # until 0.6

    mapped = shard_map(function, check_rep=False, **options)
    return mapped


def batch_sharding(mesh: Mesh | None, size: int) -> NamedSharding | None:
    """Return the division of a batch of `size` images. A size that does not divide stays whole."""
    if mesh is None:
        return None
    even = size % mesh.shape[DATA] == 0
    return NamedSharding(mesh, PartitionSpec(DATA) if even else _WHOLE)


def own_share(mesh: Mesh | None, size: int) -> slice:
    """Return the images of a batch that this process reads: those of its own devices."""
    sharding = batch_sharding(mesh, size)
    if sharding is None:
        return slice(0, size)
    found: Any = sharding.addressable_devices_indices_map((size,)).values()
    parts = [index[0].indices(size) for index in found]
    return slice(min(part[0] for part in parts), max(part[1] for part in parts))


def of_shares(shares: tuple[np.ndarray, ...], mesh: Mesh | None, size: int) -> tuple[Any, ...]:
    """Return a batch of `size` images of what each process has read of it."""
    sharding = batch_sharding(mesh, size)
    if sharding is None:
        return shares
    return tuple(
        jax.make_array_from_process_local_data(sharding, own, (size, *own.shape[1:]))
        for own in shares
    )


@dataclass(frozen=True)
class _Divided(Inputs):
    """Inputs whose images are divided among the devices of a mesh.

    All later layers compute their part of the batch. XLA adds up the sums over it: of the loss, the
    gradients, and BatchNorm's statistics.

    Attributes:
        whole: the inputs to divide.
        mesh: with the devices.
    """

    whole: Inputs = Inputs()
    mesh: Mesh | None = None

    def _divide(self, tree: Tree) -> Tree:
        def divide(leaf: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(leaf, batch_sharding(self.mesh, len(leaf)))

        divided: Tree = jax.tree.map(divide, tree)
        return divided

    def evaluate(self, images: jax.Array) -> jax.Array:
        return self._divide(self.whole.evaluate(self._divide(images)))

    def train(
        self, key: jax.Array, images: jax.Array, labels: jax.Array, epoch: jax.Array | int = 0
    ) -> tuple[jax.Array, jax.Array]:
        return self._divide(self.whole.train(key, *self._divide((images, labels)), epoch))


def divided(experiment: Experiment, mesh: Mesh | None) -> Experiment:
    """Return an experiment whose batches are divided among the devices along `data`."""
    if mesh is None or mesh.shape[DATA] == 1:
        return experiment
    devices, size = mesh.shape[DATA], experiment.eval_batch_size
    return replace(
        experiment,
        inputs=_Divided(whole=experiment.inputs, mesh=mesh),
        eval_batch_size=-(-size // devices) * devices,
    )
