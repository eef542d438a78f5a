"""Load a dataset by name, as a `Dataset` of uint8 arrays.

Slow steps report to a `progress` callable. Sources are imported when used.
"""

import dataclasses
import os
from pathlib import Path

from cifar_jax.data.sources.cache import cache_root
from cifar_jax.data.sources.contents import PLAIN, Dataset, FolderOptions, Progress, silent
from cifar_jax.data.subset import parse_classes, select_classes
from cifar_jax.errors import MachineError, UserError

__all__ = ["Dataset", "FolderOptions", "Progress", "cache_root", "load"]

NAMES = ("auto", "cifar10", "synthetic")


def _auto(data_dir: str | Path | None, root: Path, progress: Progress) -> Dataset:
    from cifar_jax.data.sources import cifar10, synthetic

    try:
        return cifar10.load(root, data_dir=data_dir, progress=progress)
    except MachineError:
        raise
    except UserError as error:
        reason = str(error).rstrip(".")
    notice = (
        "These images are NOT CIFAR-10. CIFAR-10 is not available, so the built-in synthetic "
        "images are used instead. No accuracy on them says anything about CIFAR-10. "
        f"Reason: {reason}."
    )
    return dataclasses.replace(synthetic.load(root, progress=progress), notice=notice)


def _named(
    name: str, data_dir: str | Path | None, root: Path, progress: Progress
) -> Dataset | None:
    """Load one of `NAMES`, or return None."""
    if name == "auto":
        return _auto(data_dir, root, progress)
    if name == "cifar10":
        from cifar_jax.data.sources import cifar10

        return cifar10.load(root, data_dir=data_dir, progress=progress)
    if name == "synthetic":
        from cifar_jax.data.sources import synthetic

        return synthetic.load(root, progress=progress)
    return None


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    classes: str | None = None,
    options: FolderOptions = PLAIN,
    progress: Progress = silent,
) -> Dataset:
    """Open a dataset. The first call prepares and caches it; later ones memory-map it.

    Args:
        name: "cifar10", "synthetic", "auto", or the path of an image folder with
            `train/<class>/*` and `test/<class>/*`. "auto" is CIFAR-10 if it is found or can be
            downloaded, else the synthetic images, with a `Dataset.notice`.
        data_dir: directory of CIFAR-10: that of tensorflow-datasets, or one with the archive
            `cifar-10-binary.tar.gz`; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        cache_dir: directory of decoded images; None means `cache_root()`.
        classes: use only these, names separated by commas; None means all.
        options: for an image folder.
        progress: called as `progress(description, done, total)` during slow steps.

    Raises:
        UserError: the images cannot be used.
    """
    root = Path(cache_dir).expanduser() if cache_dir is not None else cache_root()
    if name in NAMES and options.test_split != "test":
        raise UserError(f"--test-split {options.test_split}: only an image folder has other splits")
    dataset = _named(name, data_dir, root, progress)
    if dataset is not None:
        if classes is None:
            return dataset
        return select_classes(dataset, parse_classes(classes, dataset.classes))
    from cifar_jax.data.sources import cifar10_archive

    cifar10_archive.reject_pickled(Path(os.path.expanduser(name)), "--dataset")
    if not os.path.isdir(os.path.expanduser(name)):
        raise UserError(
            f"--dataset {name}: no such dataset or folder; allowed: {', '.join(NAMES)}, "
            "or an image folder with train/<class>/ and test/<class>/"
        )
    from cifar_jax.data.sources import folder

    return folder.load(name, root, options=options, classes=classes, progress=progress)
