"""The command `export`: each format's file gives the run's logits, or nothing is written."""

import json
import sys
from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SHAPE, Own, Unknown, images, made_up
from PIL import Image
from small import draw_blank

from cifar_jax.core.model import CNN
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import Experiment
from cifar_jax.errors import UserError
from cifar_jax.export.checked import compare_logits, export_to
from cifar_jax.export.formats import FORMATS
from cifar_jax.export.plain import PlainNetwork, in_float32
from cifar_jax.main import main
from cifar_jax.methods.ghost import Ghost
from cifar_jax.names import EXPORTS
from cifar_jax.runner.pretrained import open_source
from cifar_jax.runner.transfer import named_leaves

NEEDS = {"onnx": ("onnx", "onnxruntime"), "stablehlo": ("flatbuffers",), "torch": ("torch",)}

SOURCE = '''"""Small networks."""
import cifar_jax as cj
arms = {"small": cj.Experiment(cj.CNN(3, "batch", widths=(4,), hidden=8), batch_size=16, epochs=1)}
'''


def needs(kind: str) -> None:
    for package in NEEDS.get(kind, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")


def network(model: nn.Module, classes: int = 4) -> PlainNetwork:
    """A network with made-up parameters."""
    _, variables = made_up(model)
    names = tuple(f"class {i}" for i in range(classes))
    return PlainNetwork(in_float32(Experiment(model)), variables, SHAPE, names, {})


@pytest.fixture(scope="module")
def run(folder, cache, tmp_path_factory):
    """The directory of a run of an experiment file, and the arguments of `export` for it."""
    root = tmp_path_factory.mktemp("export")
    file, workdir = root / "small.py", root / "run"
    file.write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        draw_blank(patch.setattr)
        argv = [str(file), "--dataset", str(folder), "--val-examples", "27"]
        assert main(["train", *argv, "--workdir", str(workdir)]) == 0
    return workdir, ["export", str(file), "--run", str(workdir)]


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_file_gives_the_runs_logits(run, folder, kind, tmp_path, capsys):
    needs(kind)
    workdir, argv = run
    output = tmp_path / f"small{EXPORTS[kind]}"
    assert main([*argv, "--format", kind, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "same class for 15 of 15 images" in said
    assert f"wrote {output} (" in said
    paths = sorted((folder / "test").rglob("*.png"))
    reader = FORMATS[kind].load(output, network(CNN(3, "batch", widths=(4,), hidden=8), 3))
    found = reader.logits(np.stack([np.asarray(Image.open(path)) for path in paths]))
    with np.load(workdir / "predictions.npz") as predictions:
        # Rounding of float32 in sums of a thousand products.
        np.testing.assert_allclose(found, predictions["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        *(CNN(4, norm, widths=(8,), hidden=16) for norm in ("none", "layer", "instance", "group")),
        CNN(4, Ghost(2), widths=(8,), hidden=16),
        CNN(4, "batch", nn.gelu, widths=(8,), hidden=16, norm_momentum=0.8),
        ResNet(4, "batch", blocks=(1, 2), widths=(8, 16)),
        ResNet(4, "group", blocks=(1, 1), widths=(8, 16), shortcut="project"),
        ResNet(4, "none", blocks=(1, 1), widths=(8, 16), shortcut="none"),
    ],
    ids=lambda model: f"{type(model).__name__}-{model.norm}",
)
def test_pytorchs_own_layers_compute_the_logits(model, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "network.safetensors"
    exported = export_to(path, "safetensors", network(model), images(20))
    assert exported.agreement.reader.startswith("PyTorch")
    assert exported.agreement.difference < 1e-5 * max(1, exported.agreement.largest)


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "stablehlo"])
def test_pixels_can_be_from_0_to_1(kind, tmp_path):
    needs(kind)
    made = replace(network(CNN(4, "batch", widths=(8,), hidden=16)), pixels="float32")
    path = tmp_path / f"network{EXPORTS[kind]}"
    export_to(path, kind, made, images(20))
    found = FORMATS[kind].load(path, made).logits(images(20).astype(np.float32) / 255)
    np.testing.assert_allclose(found, made.logits(images(20)), rtol=0, atol=1e-4)


def test_without_pytorch_the_tensors_are_read_back(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path, made = tmp_path / "network.safetensors", network(CNN(4, "batch", widths=(8,), hidden=16))
    exported = export_to(path, "safetensors", made, images(20))
    assert "load_torch.py was not run" in str(exported.agreement)
    source = open_source(path)  # As `--init-from` reads it.
    own = {**named_leaves(made.variables["params"]), **named_leaves(made.variables["batch_stats"])}
    assert source.shapes == {name: value.shape for name, value in own.items()}
    for name, value in own.items():
        np.testing.assert_array_equal(source.read(name), value)


class OfTheBatch(nn.Module):
    """Not a function of one image: it subtracts the mean over the batch."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(4)(x.reshape(x.shape[0], -1))
        return x - jnp.mean(x, axis=0)


def test_a_wrong_file_is_not_written(tmp_path):
    needs("onnx")
    with pytest.raises(UserError, match="nothing is written, because the file is wrong: largest"):
        export_to(tmp_path / "network.onnx", "onnx", network(OfTheBatch()), images(20))
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_not_numbers_do_not_agree():
    wrong = np.array([[0.0, np.nan]], np.float32)
    assert not compare_logits("a reader", wrong, np.zeros((1, 2), np.float32)).holds


def test_an_own_model_has_no_pytorch_code(tmp_path):
    message = "no PyTorch code for the model Own; allowed formats: onnx, stablehlo, torch"
    with pytest.raises(UserError, match=message):
        export_to(tmp_path / "network.safetensors", "safetensors", network(Own(), 5), images(4))


def test_stablehlo_takes_a_model_of_unknown_operations(tmp_path):
    needs("stablehlo")
    path = tmp_path / "network.stablehlo"
    agreement = export_to(path, "stablehlo", network(Unknown(), 3), images(4)).agreement
    assert agreement.difference < 1e-5 * agreement.largest
    about = json.loads((tmp_path / "network.stablehlo.json").read_text())
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert "six months" in about["lifetime"]


def test_an_own_model_becomes_a_program_of_pytorch(tmp_path):
    needs("torch")
    path = tmp_path / "network.pt2"
    agreement = export_to(path, "torch", network(Own(), 5), images(4)).agreement
    assert agreement.difference < 1e-5 * agreement.largest


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "onnx", "--output", "a.bin"], "--output a.bin: the name of a file of format"),
        (["--format", "onnx", "--output", "no/a.onnx"], "no/a.onnx: there is no directory no"),
        (["--format", "onnx", "--run", "study"], "--run study: is a study; name one of its runs"),
        (["--format", "onnx", "--run", "none"], "--run none: holds no checkpoint of a run"),
    ],
)
def test_bad_input_is_one_line(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study" / "batch" / "seed1").mkdir(parents=True)
    given = flags if "--run" in flags else [*flags, "--run", "study/batch/seed1"]
    assert main(["export", *given]) == 2
    assert message in capsys.readouterr().err
