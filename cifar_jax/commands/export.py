"""The command `export`: write a run's network for other programs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.export.checked import Exported, check_output, export_to, spread
from cifar_jax.export.plain import plain_network
from cifar_jax.names import EXPORTS
from cifar_jax.runner.console import Display
from cifar_jax.runner.moved import Moved
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.network import open_images, restore


@dataclass(frozen=True)
class Wanted:
    """What the user asks for.

    Attributes:
        kind: a format of `names.EXPORTS`.
        output: the file; None for one in the run's directory.
        pixels: dtype of the images that the file takes, see `PlainNetwork`.
    """

    kind: str
    output: Path | None = None
    pixels: str = "uint8"


def export_run(
    directory: Path,
    wanted: Wanted,
    *,
    file: ExperimentFile | None = None,
    moved: Moved | None = None,
    display: Display | None = None,
) -> Exported:
    """Write the network of a run's newest checkpoint, if the file computes the same logits.

    Args:
        directory: of the run.
        wanted: format, file and pixels.
        file: the run's experiment file, if it has one.
        moved: where the images are now.
        display: shows the result.

    Raises:
        UserError: there is no checkpoint, its images are not found, the format cannot have its
            network, a package is missing, or the logits do not agree. Nothing is written then.
    """
    display = display or Display()
    if runs := sorted(directory.glob("*/seed*")):
        raise UserError(f"--run {directory}: is a study; name one of its runs, such as {runs[0]}")
    kind, path = wanted.kind, wanted.output
    if path is not None:
        check_output(path, kind, "--output")
    network = restore(directory, file)
    for wrong in network.damaged:
        display.say(f"{wrong}; exporting the one before")
    images = np.asarray(open_images(network, file, moved or Moved(), display).test_images)
    display.say(f"checkpoint after {network.progress} in {network.path}")
    plain = plain_network(network, wanted.pixels)
    path = path or directory / f"network{EXPORTS[kind]}"
    exported = export_to(path, kind, plain, images)
    display.say(f"{kind}: {exported.agreement}")
    trained = network.experiment.inputs.dtype
    if trained != "float32":
        images = spread(images)
        before, after = network.logits(images).argmax(1), plain.logits(images).argmax(1)
        display.say(
            f"trained in {trained}, exported in float32: same class for "
            f"{int(np.sum(before == after)):,} of {len(images):,} images"
        )
    for written in exported.files:
        display.say(f"wrote {written} ({written.stat().st_size:,} bytes)")
    return exported
