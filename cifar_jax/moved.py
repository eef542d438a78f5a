"""The images of a run or study that is done; they may have moved since."""

from typing import NamedTuple

from cifar_jax import config as configuration
from cifar_jax.config import Config
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import UserError
from cifar_jax.experiment import open_dataset
from cifar_jax.report.console import Display


class Moved(NamedTuple):
    """Where the images lie now, by the flags of these names; None for where they lay."""

    dataset: str | None = None
    data_dir: str | None = None


def find_images(config: Config, digest: str, moved: Moved, display: Display) -> Dataset | None:
    """The images of a config, or None and a line for the user that says why.

    Args:
        config: of the run or study.
        digest: the fingerprint of its images.
        moved: where they lie now.
        display: where the line is shown.

    Raises:
        UserError: if a flag has a wrong value.
    """
    for name, value in moved._asdict().items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            config = configuration.override(config, "data", name, value, flag)
    try:
        _, images = open_dataset(config, display.progress)
    except UserError as error:
        display.say(f"the page shows no images: {error}")
        return None
    finally:
        display.end_progress()
    if images.fingerprint != digest:
        display.say(f"the page shows no images: those of {images.name} are other images")
        return None
    return images
