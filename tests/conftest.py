"""Small problems that many tests share, with their compiled programs."""

import functools
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from counting import counts
from filelock import FileLock
from jax._src import compiler as jax_compiler
from PIL import Image
from small import draw_blank, shrink

from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Data, Experiment, Metrics, TrainState, init_state, train
from cifar_jax.data.sources import synthetic
from cifar_jax.kernels import compiler

Train = Callable[[Hyper, jax.Array], tuple[TrainState, Metrics]]

SYNTHETIC = 5000, 300  # training and test images, 500 and 30 of each class
# Directories and files that take longest.
_LONGEST = {"golden", "training", "test_examples", "test_run_study", "test_tutorials"}
_LONGEST |= {"test_benchmarks", "test_file_studies", "test_pretrained", "test_run"}
_MOST_WORKERS = 4  # each takes up to 2.5 GB


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the cores that this process may use, for `-n auto`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _MOST_WORKERS)


os.environ["MPLBACKEND"] = "agg"  # Jupyter's children have another.
gc.set_threshold(100_000)  # By default, collections take a seventh of the time.

# XLA's newer emitters of loops take as long as all the rest of a fast compilation. What its
# optimisations of loops and its newer scheduler take is a third of what is left.
_LOOPS = (
    "while-loop-simplifier",
    "simplify-while-loops",
    "while-loop-invariant-code-motion",
    "while-loop-constant-sinking",
)
_FASTER = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": "1",
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
    "xla_disable_hlo_passes": ",".join(_LOOPS),
}
_users_flags = os.environ.get("XLA_FLAGS", "")
_options: dict[str, str | bool] = {}  # of all programs of this process


@functools.cache
def _faster() -> dict[str, str | bool]:
    return compiler.known_options(_FASTER)


def _compile_with_options() -> None:
    """Let JAX use `_options` too. XLA reads its flags in the environment only once."""
    get = jax_compiler.get_compile_options

    def get_compile_options(*args: Any, **options: Any) -> Any:
        overrides = options.pop("env_options_overrides", None) or {}
        return get(*args, env_options_overrides={**_options, **overrides}, **options)

    jax_compiler.get_compile_options = get_compile_options


_compile_with_options()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compile fast, in child processes too, except for tests marked `optimised`."""
    global _options
    fast = item.get_closest_marker("optimised") is None
    flags = [f"--{name}={str(value).lower()}" for name, value in _faster().items()]
    os.environ["XLA_FLAGS"] = " ".join([_users_flags, *flags]) if fast else _users_flags
    if fast:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    else:
        os.environ.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    if _options != (options := _faster() if fast else {}):
        _options = options
        jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", fast)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process waits for another one's at the end."""
    items.sort(key=lambda item: _LONGEST.isdisjoint((item.path.parent.name, item.path.stem)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counts"] = dict(counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    counts.update(getattr(node, "workeroutput", {}).get("counts", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if counts:
        done = ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.items()))
        terminalreporter.write_line(f"faults and fuzz: {done}")


@pytest.fixture(scope="session")
def tiny_experiment() -> Experiment:
    """Three steps an epoch on `tiny_data`, the last with 4 images; the protocol's schedule.

    Without convolutions: they take twice as long to compile.
    """
    return Experiment(CNN(norm="batch", widths=(), hidden=16), batch_size=8)


@pytest.fixture(scope="session")
def tiny_data() -> Data:
    """20 + 12 images of 8x8 noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 10, 32, np.int32)
    return Data(*map(jnp.asarray, (images[:20], labels[:20], images[20:], labels[20:])))


@pytest.fixture(scope="session")
def tiny_state(tiny_experiment: Experiment) -> TrainState:
    """First state of the small problem from key 0."""
    return jax.jit(lambda key: init_state(tiny_experiment, key, (8, 8, 3)))(jax.random.key(0))


@pytest.fixture(scope="session")
def tiny_train(tiny_experiment: Experiment, tiny_data: Data) -> Train:
    """30 epochs of the small problem, compiled once for all tests."""
    return jax.jit(lambda hyper, key: train(tiny_experiment, hyper, tiny_data, key))


def _half(rng: np.random.Generator, label: int) -> Image.Image:
    """Noise with one bright half."""
    pixels = rng.integers(0, 120, (32, 32, 3), np.uint8)
    pixels[[np.s_[:, :16], np.s_[:, 16:], np.s_[:16, :]][label]] += 120
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of all processes of this test session."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(shared: Path) -> MakeOnce:
    """Return a function that makes a shared directory in the first process that needs it.

    `make_once(name, make)` calls `make` of a path that does not exist. The other processes wait,
    and get the same path. They must not change what is in it.
    """

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        directory, made = shared / name, shared / f"{name}.made"
        with FileLock(shared / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(directory, ignore_errors=True)
                make(directory)
                made.touch()
        return directory

    return make_once


@pytest.fixture(scope="session")
def folder(make_once: MakeOnce) -> Path:
    """An image folder of three classes, 75 training and 15 test images, as PNG."""
    return make_once("data", lambda data: _draw_halves(data / "halves")) / "halves"


def _draw_halves(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 25), ("test", 5)):
        for label, name in enumerate(("left", "right", "top")):
            directory = root / split / name
            directory.mkdir(parents=True)
            for i in range(count):
                _half(rng, label).save(directory / f"{i:02d}.png")


@pytest.fixture(scope="session")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of ten classes, 80 training and 20 test images of noise."""
    root = tmp_path_factory.mktemp("data") / "ten"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for label in range(10):
            directory = root / split / f"class{label}"
            directory.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(directory / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def cache_directory(shared: Path) -> Path:
    """Cache of images and compiled programs, shared by tests. Its synthetic set is small."""
    directory = shared / "cache"
    directory.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        draw = synthetic._contents
        patch.setattr(synthetic, "_contents", lambda _n, _m, *rest: draw(*SYNTHETIC, *rest))
        synthetic.load(directory)
    return directory


@pytest.fixture(scope="module")
def cache(cache_directory: Path) -> Iterator[None]:
    """Use `cache_directory`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_JAX_CACHE", str(cache_directory))
        yield


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """Write files without content for figures, which take a third of the time of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        draw_blank(patch.setattr)
        yield


@pytest.fixture(scope="module")
def small_cnn() -> Iterator[None]:
    """Let commands train a CNN of one convolution in place of the report's."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        yield


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    opened = Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield opened
    opened.close()
