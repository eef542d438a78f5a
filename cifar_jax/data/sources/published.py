"""Published datasets: their files, and how they are loaded, without TensorFlow.

`load` takes the first of these that has the images:

1. the cache of decoded images
2. array_record files that this project or tensorflow-datasets prepared
3. the authors' files
4. the network
"""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from cifar_jax.data.sources import cifar_tar, idx, svhn
from cifar_jax.data.sources.archives import data_directory, find_file, obtain
from cifar_jax.data.sources.cache import open_or_build
from cifar_jax.data.sources.contents import Contents, Dataset, Progress, silent
from cifar_jax.data.sources.prepared import find_prepared, prepare, read_prepared
from cifar_jax.data.sources.spec import File, Published
from cifar_jax.errors import UserError
from cifar_jax.storage import remove

_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_DIGITS = tuple("0123456789")


def _files(address: str, *rows: tuple[str, int, str]) -> tuple[File, ...]:
    return tuple(File(address + name, size, sha256) for name, size, sha256 in rows)


def _idx_files(address: str, *rows: tuple[int, str]) -> tuple[File, ...]:
    """Return the files of MNIST or Fashion-MNIST, in the order of `idx.read`."""
    names = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    return _files(address, *((name, *row) for name, row in zip(names, rows, strict=True)))


CIFAR10 = Published(
    name="cifar10",
    title="CIFAR-10",
    files=_files(
        _CIFAR,
        (
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    counts=(50_000, 10_000),
    shape=(32, 32, 3),
    classes=(
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    read=partial(cifar_tar.read, cifar_tar.CIFAR10),
    prepared=("cifar10",),
    homepage=_CIFAR + "cifar.html",
    citation="Krizhevsky: Learning multiple layers of features from tiny images. 2009.",
)  # fmt: skip
CIFAR100 = replace(
    CIFAR10,
    name="cifar100",
    title="CIFAR-100",
    files=_files(
        _CIFAR,
        (
            "cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    classes=(
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
        "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
        "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
        "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
        "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
        "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
        "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
        "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
        "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
        "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ),
    read=partial(cifar_tar.read, cifar_tar.FINE),
    prepared=("cifar100",),
)  # fmt: skip
CIFAR100_COARSE = replace(
    CIFAR100,
    name="cifar100_coarse",
    title="CIFAR-100 (coarse classes)",
    classes=(
        "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables",
        "household_electrical_devices", "household_furniture", "insects", "large_carnivores",
        "large_man-made_outdoor_things", "large_natural_outdoor_scenes",
        "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates", "people",
        "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
    ),
    read=partial(cifar_tar.read, cifar_tar.COARSE),
    label="coarse_label",
)  # fmt: skip
SVHN = Published(
    name="svhn",
    title="SVHN",
    files=_files(
        "https://ufldl.stanford.edu/housenumbers/",
        (
            "train_32x32.mat",
            182_040_794,
            "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        (
            "test_32x32.mat",
            64_275_384,
            "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
    counts=(73_257, 26_032),
    shape=(32, 32, 3),
    classes=_DIGITS,
    read=svhn.read,
    homepage="http://ufldl.stanford.edu/housenumbers/",
    citation="Netzer et al.: Reading digits in natural images with unsupervised feature learning. "
    "2011.",
    folders=("svhn",),
    prepared=("svhn_cropped",),
)
MNIST = Published(
    name="mnist",
    title="MNIST",
    files=_idx_files(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    counts=(60_000, 10_000),
    shape=(28, 28, 1),
    classes=_DIGITS,
    read=idx.read,
    homepage="http://yann.lecun.com/exdb/mnist/",
    citation="LeCun, Cortes, Burges: The MNIST database of handwritten digits. 1998.",
    folders=("mnist", "MNIST/raw"),
    prepared=("mnist",),
)
FASHION_MNIST = replace(
    MNIST,
    name="fashion_mnist",
    title="Fashion-MNIST",
    files=_idx_files(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    classes=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    ),
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    citation="Xiao, Rasul, Vollgraf: Fashion-MNIST. 2017, arXiv 1708.07747.",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    prepared=("fashion_mnist",),
)  # fmt: skip

PUBLISHED = {
    spec.name: spec for spec in (CIFAR10, CIFAR100, CIFAR100_COARSE, SVHN, MNIST, FASHION_MNIST)
}


def _has_files(directory: Path, spec: Published) -> bool:
    return all(find_file(directory, spec, file) for file in spec.files)


def contents(directory: Path, spec: Published, progress: Progress) -> Contents:
    """Read a dataset from its data directory, or download it there.

    Raises:
        UserError: the dataset is not available.
    """
    try:
        os.stat(directory)
    except FileNotFoundError:
        pass  # It will be made.
    except OSError as error:
        raise UserError(f"--data-dir {directory}: cannot be used ({error.strerror})") from None
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--data-dir {directory}: is a file; give its folder")
    prepared = find_prepared(directory, (spec.own, *spec.prepared))
    if prepared is not None:
        try:
            return read_prepared(prepared, spec, progress)
        except UserError:
            # Remove only this project's own, and only if the files can replace it.
            if prepared.parent.name != spec.own or not _has_files(directory, spec):
                raise
            remove(prepared)
    paths = obtain(directory, spec, progress)
    return read_prepared(prepare(directory, paths, spec, progress), spec, progress)


def load(
    spec: Published,
    root: Path,
    *,
    data_dir: str | Path | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Open a published dataset, in its authors' order.

    Args:
        spec: the dataset, one of `PUBLISHED`.
        root: the cache directory.
        data_dir: see `data_directory`; may contain the files or a prepared dataset. A new one is
            prepared here.
        progress: of downloading, preparing and reading.

    Raises:
        UserError: the dataset is not available.
    """
    return open_or_build(
        root,
        spec.key,
        spec.name,
        lambda: contents(data_directory(data_dir), spec, progress),
    )
