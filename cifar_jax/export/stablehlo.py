"""Write a network as a StableHLO program of `jax.export`, with a JSON file about it."""

import json
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.errors import UserError, one_line
from cifar_jax.export.graph import IMAGES
from cifar_jax.export.plain import PlainNetwork, Reader

PLATFORMS = ("cpu", "cuda", "tpu")
# https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees
_LIFETIME = (
    "jax promises that its releases of six months after jax {jax} read the file, and those of "
    "three weeks before it. Keep the checkpoint to export it again."
)


def _export() -> Any:
    try:
        import flatbuffers  # noqa: F401  # jax.export's container
        from jax import export
    except ImportError:
        raise UserError(
            'stablehlo: needs the packages of pip install -e ".[export]": flatbuffers is missing'
        ) from None
    return export


def write(network: PlainNetwork, name: str) -> dict[str, bytes]:
    """Return a network as a program for CPU, CUDA and TPU, and a JSON file about it.

    Raises:
        UserError: flatbuffers is missing, or the network depends on the number of images.
    """
    export = _export()
    (n,) = export.symbolic_shape("N")
    images = jax.ShapeDtypeStruct((n, *network.image_shape), jnp.dtype(network.pixels))
    program = jax.jit(network.__call__)
    try:
        exported = export.export(program, platforms=PLATFORMS)(images)
    # JAX raises many types for a program whose number of images is unknown.
    except Exception as error:
        raise UserError(f"stablehlo: jax cannot export this network: {one_line(error)}") from error
    version = metadata.version("jax")
    about = {
        **network.metadata,
        "classes": list(network.classes),
        "input": IMAGES,
        "platforms": list(PLATFORMS),
        "jax": version,
        "calling_convention_version": exported.calling_convention_version,
        "written": datetime.now(UTC).date().isoformat(),
        "lifetime": _LIFETIME.format(jax=version),
        "read": f"jax.export.deserialize(open({name!r}, 'rb').read()).call(images)",
    }
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    return {name: bytes(exported.serialize()), f"{name}.json": text.encode()}


def load(path: Path, network: PlainNetwork) -> Reader:
    """Open a file in jax, on its default device."""
    exported = _export().deserialize(bytearray(path.read_bytes()))
    return Reader(
        f"jax {metadata.version('jax')} on {jax.default_backend()}",
        lambda images: np.asarray(exported.call(images)),
    )
