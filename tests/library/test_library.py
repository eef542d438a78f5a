"""`import cifar_jax as cj`: images, runs and their errors."""

import io
import signal
import subprocess
import sys
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import cifar_jax as cj
from cifar_jax.library.progress import progress_bar
from cifar_jax.main import main
from cifar_jax.names import PREDICTIONS
from cifar_jax.study.collect import read_ended

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(0, 256, (60, 8, 8, 3), np.uint8), np.arange(60) % 3
TRAIN, TEST = (PIXELS[:40], LABELS[:40]), (PIXELS[40:], LABELS[40:])
SMALL = cj.Experiment(cj.CNN(3, "batch", widths=(), hidden=8), batch_size=8, epochs=2)


@pytest.fixture(scope="module")
def data() -> cj.Images:
    """32 + 8 + 20 images of noise in three classes."""
    return cj.from_arrays(TRAIN, test=TEST)


@pytest.fixture(scope="module")
def runs(data: cj.Images) -> cj.Runs:
    return cj.run(SMALL, data, seeds=range(3))


IMPORT = """
import sys
import cifar_jax as cj
assert not {"jax", "numpy", "rich"} & sys.modules.keys()
cj.UserError, dir(cj)
assert "jax" not in sys.modules
cj.Hyper
assert "jax" in sys.modules
"""


def test_import_imports_no_jax() -> None:
    subprocess.run([sys.executable, "-c", IMPORT], check=True)


def test_every_public_name_is_there() -> None:
    assert {"Experiment", "CNN", "load", "run", "train", "nn"} <= set(dir(cj))
    for name in dir(cj):
        getattr(cj, name)
    assert cj.nn.mish(jnp.float32(1)) > 0
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        cj.trian  # noqa: B018


def test_arrays_are_split_and_described(data: cj.Images) -> None:
    assert repr(data) == (
        "<arrays-images: 32 training, 8 validation, 20 test images of 8x8x3, 3 classes, "
        f"fingerprint {data.fingerprint[:12]}>"
    )
    assert data.classes == ("0", "1", "2")
    rows = [*data.train_images, *data.val_images]
    assert sorted(map(np.ndarray.tobytes, rows)) == sorted(map(np.ndarray.tobytes, TRAIN[0]))
    assert data.train_labels.dtype == np.int32
    assert cj.from_arrays(TRAIN, test=TEST).fingerprint == data.fingerprint


def test_given_validation_images_are_used_as_they_are() -> None:
    found = cj.from_arrays((PIXELS[:30], LABELS[:30]), TEST, val=(PIXELS[30:40], LABELS[30:40]))
    np.testing.assert_array_equal(found.train_images, PIXELS[:30])
    np.testing.assert_array_equal(found.train_labels, LABELS[:30])
    np.testing.assert_array_equal(found.val_images, PIXELS[30:40])
    np.testing.assert_array_equal(found.val_labels, LABELS[30:40])
    assert len(cj.from_arrays(TRAIN, TEST, val=5).val_labels) == 5


WRONG_ARRAYS = [
    ({"train": TRAIN[0]}, "train: must be a pair (images, labels)"),
    ({"train": (TRAIN[0] / 255, TRAIN[1])}, "train images: have type float64, must be uint8"),
    ({"train": (TRAIN[0][..., 0], TRAIN[1])}, r"(40, 8, 8), must be (N, H, W, C)"),
    ({"train": (TRAIN[0], TRAIN[1][:-1])}, "train labels: have shape (39,), must be (40,)"),
    ({"test": (TEST[0], TEST[1] / 2)}, "test labels: have type float64, must be integers"),
    ({"test": (TEST[0], TEST[1] - 1)}, "test labels: -1 is not a class; allowed: 0 to 2"),
    ({"classes": ["a", "b"]}, "train labels: 2 is not a class; allowed: 0 to 1"),
    (
        {"test": (TEST[0][:, :4], TEST[1])},
        "test images: are (4, 8, 3), those of train are (8, 8, 3)",
    ),
    ({"val": 40}, "val=40: must be from 1 to 39"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG_ARRAYS)
def test_wrong_arrays(changed: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(ValueError) as found:  # noqa: PT011
        cj.from_arrays(**{"train": TRAIN, "test": TEST, **changed})
    assert isinstance(found.value, cj.UserError)
    assert message in str(found.value)


@pytest.mark.optimised
@pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")
def test_a_run_equals_that_of_the_command(folder: Path, tmp_path: Path) -> None:
    """Bit for bit: history and logits. What is the same program is compiled once."""
    command_line = (
        f"--bn --dataset {folder} --train-examples 40 --epochs 2 --batch-size 16 --seed 7 --lr 0.02"
    )
    assert main([*command_line.split(), "--workdir", str(tmp_path / "run")]) == 0
    command = read_ended(tmp_path / "run")
    data = cj.load(str(folder), train_examples=40)
    network = cj.CNN(3, "batch", widths=(8,), hidden=16)
    experiment = cj.Experiment(network, epochs=2, batch_size=16)
    runs = cj.run(experiment, data, seeds=[7], hyper=cj.Hyper(learning_rate=0.02))
    assert command is not None
    assert data.fingerprint == command.results.dataset.fingerprint
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"):
        assert runs.history[name][0].tolist() == command.curve(name)
    np.testing.assert_array_equal(runs.logits[0], command.logits)
    with np.load(tmp_path / "run" / PREDICTIONS) as predictions:
        assert runs.test_accuracy[0] == np.mean(predictions["predicted"] == predictions["label"])


def test_runs_have_arrays_with_a_row_for_each_seed(runs: cj.Runs, data: cj.Images) -> None:
    assert runs.history["val_accuracy"].shape == (3, 2)
    assert (runs.logits.shape, runs.test_accuracy.shape) == ((3, 20, 3), (3,))
    logits = jax.vmap(lambda state: cj.predict(SMALL, state, jnp.asarray(data.test_images)))
    np.testing.assert_allclose(logits(runs.states), runs.logits, rtol=1e-4, atol=1e-5)
    mean, std = 100 * runs.test_accuracy.mean(), 100 * runs.test_accuracy.std(ddof=1)
    assert repr(runs) == (
        "<3 runs of 2 epochs on arrays-images, seeds 0, 1, 2, "
        f"test accuracy {mean:.2f} ± {std:.2f} %>"
    )


def test_seeds_that_train_together_have_the_same_numbers(runs: cj.Runs, data: cj.Images) -> None:
    """Up to rounding in float32."""
    together = cj.run(SMALL, data, seeds=range(3), seed_parallelism=2)
    for name in ("train_loss", "val_loss", "learning_rate"):
        np.testing.assert_allclose(together.history[name], runs.history[name], rtol=1e-4)
    np.testing.assert_allclose(together.logits, runs.logits, rtol=1e-3, atol=1e-4)


def test_a_run_equals_the_pure_function(runs: cj.Runs, data: cj.Images) -> None:
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    train = jax.jit(jax.vmap(lambda key: cj.train(SMALL, cj.Hyper(), data.arrays, key)))
    _, history = train(keys)
    np.testing.assert_allclose(history.val_loss, runs.history["val_loss"], rtol=1e-4)


def test_seeds_that_diverge_are_said_and_nan(data: cj.Images) -> None:
    runs = cj.run(SMALL, data, seeds=[3, 4], hyper=cj.Hyper(learning_rate=1e6))
    assert "seed 3 diverged in epoch 1" in repr(runs)
    assert set(runs.diverged) == {3, 4}
    assert np.isnan(runs.test_accuracy).all()
    assert np.isnan(runs.logits).all()
    assert np.isnan(runs.history["train_loss"]).all()


WRONG_RUNS = [
    ({"seeds": []}, "seeds: there is none"),
    ({"seeds": 3}, "seeds: 3 is not a list of seeds; give [3], or range(3)"),
    ({"seeds": [1, 2, 1]}, "seeds: 1 is repeated"),
    ({"seeds": [-1]}, "seeds: -1 is not allowed; allowed: 0 to 2**32 - 1"),
    ({"seeds": [0.5]}, "seeds: 0.5 is not allowed"),
    ({"hyper": 0.1}, "hyper: 0.1 is not a Hyper"),
    ({"hyper": cj.Hyper(learning_rate=(0.1, 0.2))}, "learning_rate: (0.1, 0.2) is not a number"),
    ({"hyper": cj.Hyper(momentum=1)}, "hyper: momentum: 1.0 is out of range; allowed: at least 0"),
    ({"experiment": cj.CNN()}, "is not an Experiment"),
    (
        {"experiment": cj.Experiment()},
        "returns (2, 10) for 2 images; must be logits (2, 3)",
    ),
    ({"experiment": cj.Experiment(SMALL.model, batch_size=31)}, "would be a single one"),
    (
        {"experiment": cj.Experiment(SMALL.model, epochs=0)},
        "experiment: epochs: 0 is out of range",
    ),
    ({"data": TRAIN}, "data: a tuple is not allowed; make it by load or from_arrays"),
    ({"seed_parallelism": 0}, "seed_parallelism=0: must be at least 1"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG_RUNS)
def test_wrong_arguments(changed: dict[str, typing.Any], message: str, data: cj.Images) -> None:
    with pytest.raises(ValueError) as found:  # noqa: PT011
        cj.run(**{"experiment": SMALL, "data": data, **changed})
    assert isinstance(found.value, cj.UserError)
    assert message in str(found.value)


def test_a_run_writes_and_prints_nothing_and_sets_no_handler(
    data: cj.Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
        seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
        return cj.cross_entropy(logits, targets)

    cj.run(cj.Experiment(SMALL.model, loss=loss, batch_size=8, epochs=1), data)
    assert seen
    assert all(handlers == before for handlers in seen)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar() -> None:
    stream = io.StringIO()
    with progress_bar(console=Console(file=stream, force_terminal=True)) as show:
        show("2 runs, epochs", 1, 2)
    assert "2 runs, epochs" in stream.getvalue()


def test_auto_warns_of_other_images_than_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    from cifar_jax.data import dataset
    from cifar_jax.data.sources import synthetic
    from cifar_jax.errors import UserError

    def missing(*_: typing.Any, **__: typing.Any) -> typing.NoReturn:
        raise UserError("no network")

    monkeypatch.setattr("cifar_jax.data.sources.published.load", missing)
    monkeypatch.setattr(synthetic, "load", lambda *_, **__: synthetic.generate(40, 10))
    with pytest.warns(UserWarning, match="NOT CIFAR-10"):
        data = cj.load(train_examples=20)
    assert data.name == "synthetic"
    assert dataset.NAMES[0] == "auto"
