"""Find the images of a finished run or study, which may have moved."""

from typing import NamedTuple

from cifar_jax.config import tables
from cifar_jax.config.settings import Config
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import UserError
from cifar_jax.runner.console import Display
from cifar_jax.runner.prepare import open_dataset


class Moved(NamedTuple):
    """Values of `--dataset` and `--data-dir` for moved images. None: not given."""

    dataset: str | None = None
    data_dir: str | None = None

    def set_in(self, config: Config) -> Config:
        """Return a config with the given values.

        Raises:
            UserError: a value is not allowed.
        """
        for name, value in self._asdict().items():
            if value is not None:
                flag = f"--{name.replace('_', '-')}"
                config = tables.override(config, "data", name, value, flag)
        return config


def find_images(config: Config, digest: str, moved: Moved, display: Display) -> Dataset | None:
    """Load the images of a config. Return None and print the reason if that fails.

    Args:
        config: of the run or study.
        digest: the fingerprint of its images.
        moved: where they are now.
        display: prints the reason.

    Raises:
        UserError: a flag's value is not allowed.
    """
    config = moved.set_in(config)
    try:
        _, images = open_dataset(config, display.progress)
    except UserError as error:
        display.say(f"the page shows no images: {error}")
        return None
    finally:
        display.end_progress()
    if images.fingerprint != digest:
        display.say(f"the page shows no images: {images.name} has other images than the run")
        return None
    return images
