"""Write a trained network of `run` for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING

import jax

from cifar_jax.errors import InputError, counted, shown
from cifar_jax.export.checked import Exported, check_output, export_to
from cifar_jax.export.plain import PIXELS, PlainNetwork, in_float32
from cifar_jax.names import EXPORTS

if TYPE_CHECKING:
    from cifar_jax.library.training import Runs


def export_runs(
    runs: "Runs", path: str | Path, seed: int | None = None, pixels: str = "uint8"
) -> Exported:
    """Write the network of one seed, if the file computes the same logits of test images.

    Args:
        runs: of an experiment.
        path: of the file. Its end chooses the format: .safetensors, .onnx, .stablehlo or .pt2.
        seed: of the run; None for the first that did not diverge.
        pixels: what the file takes: "uint8", from 0 to 255, or "float32", from 0 to 1.

    Raises:
        InputError: a wrong argument.
        UserError: the format cannot have this network, a package is missing, or the logits do not
            agree. Then nothing is written.
    """
    path = Path(path).expanduser()
    kind = next((kind for kind, end in EXPORTS.items() if path.name.endswith(end)), None)
    if kind is None:
        allowed = ", ".join(EXPORTS.values())
        raise InputError(f"path: {shown(str(path))} is of no known format; allowed ends: {allowed}")
    check_output(path, kind, "path")
    if pixels not in PIXELS:
        raise InputError(f"pixels: {shown(pixels)} is not allowed; allowed: {', '.join(PIXELS)}")
    usable = [found for found in runs.seeds if found not in runs.diverged]
    if not usable:
        raise InputError("runs: every seed diverged, so there is no network to export")
    if seed not in (None, *usable):
        allowed = ", ".join(map(str, usable))
        raise InputError(f"seed: {shown(seed)} has no network; allowed: {allowed}")
    index = runs.seeds.index(usable[0] if seed is None else seed)
    state = jax.tree.map(lambda leaf: leaf[index], runs.states)
    params, batch_stats = runs.experiment.evaluated(state)
    network = PlainNetwork(
        in_float32(runs.experiment),
        {"params": params, "batch_stats": batch_stats},
        runs.data.test_images.shape[1:],
        runs.data.classes,
        {
            "dataset": f"{runs.data.name}, fingerprint {runs.data.fingerprint[:12]}",
            "trained": counted(runs.experiment.epochs, "epoch"),
        },
        pixels,
    )
    return export_to(path, kind, network, runs.data.test_images)
