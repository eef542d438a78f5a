"""Measure the host memory of streaming a prepared dataset, at 20,000 and 500,000 images.

    python tests/data/measure_stream.py DIRECTORY

The images are noise, 32x32, in one file of records that is copied for more. Needs 2 GB of disk.
"""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from cifar_jax.data.dataset import load
from cifar_jax.data.sources.contents import Contents, FolderOptions, silent
from cifar_jax.data.sources.prepared import prepare
from cifar_jax.data.sources.published import CIFAR10
from cifar_jax.data.streaming import stream_batches

N, BATCHES = 20_000, 400


def make(directory: Path, copies: int) -> Path:
    """Prepare N images, and copy their file: the directory of the dataset."""

    def read(spec: object, paths: object) -> Contents:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (N, 32, 32, 3), np.uint8)
        labels = (np.arange(N) % 10).astype(np.int32)
        return Contents(images, labels, images[:100], labels[:100], CIFAR10.classes)

    made = prepare(directory, [], dataclasses.replace(CIFAR10, read=read), silent)
    target = directory / f"copies{copies}" / made.name
    shutil.copytree(made, target)
    (shard,) = target.glob("*-train.array_record-00000-of-00001")
    name = shard.name.removesuffix("00000-of-00001")
    for number in range(copies):
        os.link(shard, target / f"{name}{number:05d}-of-{copies:05d}.new")
    shard.unlink()
    for file in target.glob("*.new"):
        file.rename(file.with_suffix(""))
    info = json.loads((target / "dataset_info.json").read_text())
    for split in info["splits"]:
        if split["name"] == "train":
            split["shardLengths"] = [str(N)] * copies
            split["numBytes"] = str(int(split["numBytes"]) * copies)
    (target / "dataset_info.json").write_text(json.dumps(info))
    return target


def measure(directory: str, cache: str) -> None:
    """Open the dataset, stream batches of a shuffled epoch, and print the largest memory."""
    images = load(directory, cache_dir=cache, options=FolderOptions(stream=True))
    opened = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n = len(images.train_labels)
    order = np.random.default_rng(1).permutation(n)[: BATCHES * 128]
    begun = time.perf_counter()
    for _ in stream_batches(images.train_images, images.train_labels, order, 128):
        pass
    rate = len(order) / (time.perf_counter() - begun)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{n:,} images: at most {opened / 1024:.0f} MiB after opening, {most / 1024:.0f} MiB after "
        f"{BATCHES} batches, {rate:,.0f} images/s"
    )


def main(directory: Path) -> None:
    """Measure each size in a process of its own."""
    for copies in (1, 25):
        made = make(directory, copies)
        for _ in ("first opening", "cached"):
            command = [sys.executable, __file__, str(made), str(directory / "cache")]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(*sys.argv[1:])
    else:
        main(Path(sys.argv[1]))
