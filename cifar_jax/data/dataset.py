"""Load a dataset by name, as a `Dataset` of uint8 arrays.

Slow steps report to a `progress` callable.
"""

import dataclasses
import os
from pathlib import Path

from cifar_jax.data.sources import published
from cifar_jax.data.sources.archives import reject_pickled
from cifar_jax.data.sources.cache import cache_root
from cifar_jax.data.sources.contents import PLAIN, Dataset, FolderOptions, Progress, silent
from cifar_jax.data.subset import parse_classes, select_classes
from cifar_jax.errors import MachineError, UserError

__all__ = ["Dataset", "FolderOptions", "Progress", "cache_root", "load"]

NAMES = ("auto", *published.PUBLISHED, "synthetic")


def _auto(data_dir: str | Path | None, root: Path, progress: Progress) -> Dataset:
    """Load CIFAR-10, or the synthetic images with a notice."""
    try:
        return published.load(published.CIFAR10, root, data_dir=data_dir, progress=progress)
    except MachineError:
        raise
    except UserError as error:
        reason = str(error).rstrip(".")
    notice = (
        "These images are NOT CIFAR-10. CIFAR-10 is not available, so the built-in synthetic "
        "images are used instead. No accuracy on them says anything about CIFAR-10. "
        f"Reason: {reason}."
    )
    return dataclasses.replace(_synthetic(root, progress), notice=notice)


def _synthetic(root: Path, progress: Progress) -> Dataset:
    from cifar_jax.data.sources import synthetic

    return synthetic.load(root, progress=progress)


def _named(name: str, data_dir: str | Path | None, root: Path, progress: Progress) -> Dataset:
    """Load one of `NAMES`."""
    if name == "auto":
        return _auto(data_dir, root, progress)
    if name == "synthetic":
        return _synthetic(root, progress)
    return published.load(published.PUBLISHED[name], root, data_dir=data_dir, progress=progress)


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
        name: one of `NAMES`, or the path of an image folder (`sources.folder`), of a CSV table
            (`sources.table`) or of a prepared dataset (`sources.records`). "auto" is CIFAR-10 if
            it is found or can be downloaded, else the synthetic images, with a `Dataset.notice`.
        data_dir: directory of published datasets: that of tensorflow-datasets, or one with the
            authors' files, such as `cifar-10-binary.tar.gz`; None means $TFDS_DATA_DIR, else
            ~/tensorflow_datasets.
        cache_dir: directory of decoded images; None means `cache_root()`.
        classes: use only these, names separated by commas; None means all.
        options: for images in files.
        progress: called as `progress(description, done, total)` during slow steps.

    Raises:
        UserError: the images cannot be used.
    """
    root = Path(cache_dir).expanduser() if cache_dir is not None else cache_root()
    path = Path(os.path.expanduser(name))
    if name in NAMES:
        _check_options(options)
        dataset = _named(name, data_dir, root, progress)
    else:
        reject_pickled(path, "--dataset")
        if path.suffix.lower() == ".csv" or (path / "dataset_info.json").exists():
            dataset = _other(path, root, options, progress)
        elif name and path.is_dir():
            from cifar_jax.data.sources import folder

            return folder.load(name, root, options=options, classes=classes, progress=progress)
        else:
            raise UserError(
                f"--dataset {name}: no such dataset or folder; allowed: {', '.join(NAMES)}, a CSV "
                "table, a prepared dataset, or an image folder with train/<class>/ and "
                "test/<class>/"
            )
    if classes is None:
        return dataset
    return select_classes(dataset, parse_classes(classes, dataset.classes))


def _check_options(options: FolderOptions) -> None:
    """Check the options of a named dataset.

    Raises:
        UserError: one applies only to files.
    """
    if options.test_split != "test" or options.val_split is not None:
        flag = "--val-split" if options.val_split else "--test-split"
        split = options.val_split or options.test_split
        raise UserError(f"{flag} {split}: only an image folder has other splits")
    if options.size != FolderOptions.size:
        raise UserError(f"--image-size {options.size}: only images in files have another size")


def _other(path: Path, root: Path, options: FolderOptions, progress: Progress) -> Dataset:
    """Open a CSV table, or a dataset that tensorflow-datasets prepared."""
    from cifar_jax.data.sources import prepared, records, table

    if path.suffix.lower() == ".csv":
        if options.test_split != "test" or options.val_split is not None:
            raise UserError(f"{path}: its column split has the splits; leave out --test-split")
        return table.load(path, root, options=options, progress=progress)
    if not prepared.is_prepared(path):
        raise UserError(
            f"--dataset {path}: is not prepared as array_record; prepare it again with "
            'tfds.builder(NAME, file_format="array_record").download_and_prepare()'
        )
    return records.load(path, root, options=options, progress=progress)
