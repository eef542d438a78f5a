"""Open cached images while JAX is imported.

Both take about half a second. Nothing is written or printed: images that are not cached, and
errors, are left to the ordinary way.
"""

from cifar_jax.config.settings import DataConfig
from cifar_jax.data.dataset import Dataset, FolderOptions, load
from cifar_jax.data.sources.cache import only_cached
from cifar_jax.data.sources.contents import Progress, silent
from cifar_jax.runner.background import Background

_opening: dict[DataConfig, Background[Dataset | None]] = {}


def open_named(data: DataConfig, progress: Progress = silent) -> Dataset:
    """Open the dataset that a config names, see `data.dataset.load`."""
    return load(
        data.dataset,
        data_dir=data.data_dir,
        classes=data.classes,
        options=FolderOptions(
            resize=data.resize,
            test_split=data.test_split,
            white_level=data.white_level,
            size=data.image_size or FolderOptions.size,
            val_split=data.val_split,
            stream=data.pipeline == "stream",
        ),
        progress=progress,
    )


def begin(data: DataConfig) -> None:
    """Begin to open the images of a config, if they are cached."""

    def work() -> Dataset | None:
        only_cached.set(True)  # In the context of this thread.
        try:
            return open_named(data)
        except Exception:
            return None

    _opening.clear()
    _opening[data] = Background(work)


def opened(data: DataConfig) -> Dataset | None:
    """Return the images that `begin` opened, once. None if it did not."""
    opening = _opening.pop(data, None)
    return opening.result() if opening else None
