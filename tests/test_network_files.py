"""Networks of other programs: torchvision's ResNets and ONNX files, against NumPy."""

import json
import re

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import save_file

from cifar_jax.main import main
from cifar_jax.study.network_files import open_safetensors_network
from cifar_jax.study.onnx_network import open_file

pytestmark = pytest.mark.usefixtures("cache")

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CIFAR_MEAN, CIFAR_STD = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])


class Made:
    """A state_dict of a torchvision ResNet with made-up values, and its logits by NumPy."""

    def __init__(self, stem: int, widths, blocks: int, bottleneck: bool, classes: int) -> None:
        rng = np.random.default_rng(stem + bottleneck)
        self.stem, self.widths, self.blocks, self.bottleneck = stem, widths, blocks, bottleneck
        self.tensors: dict[str, np.ndarray] = {}

        def conv(name: str, outer: int, inner: int, size: int) -> None:
            value = rng.normal(0, (inner * size * size) ** -0.5, (outer, inner, size, size))
            self.tensors[f"{name}.weight"] = value.astype(np.float32)

        def norm(name: str, width: int) -> None:
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                value = (
                    rng.uniform(0.5, 1.5, width) if "b" not in leaf else rng.normal(0, 0.3, width)
                )
                self.tensors[f"{name}.{leaf}"] = value.astype(np.float32)
            self.tensors[f"{name}.num_batches_tracked"] = np.array(7)

        conv("conv1", widths[0], 3, stem)
        norm("bn1", widths[0])
        before = widths[0]
        for stage, width in enumerate(widths, 1):
            outer = 4 * width if bottleneck else width
            for block in range(blocks):
                at = f"layer{stage}.{block}"
                shapes = [(width, before, 3), (width, width, 3)]
                if bottleneck:
                    shapes = [(width, before, 1), (width, width, 3), (outer, width, 1)]
                for number, shape in enumerate(shapes, 1):
                    conv(f"{at}.conv{number}", *shape)
                    norm(f"{at}.bn{number}", shape[0])
                if block == 0 and (stage > 1 or before != outer):
                    conv(f"{at}.downsample.0", outer, before, 1)
                    norm(f"{at}.downsample.1", outer)
                before = outer
        self.tensors["fc.weight"] = rng.normal(0, 0.3, (classes, before)).astype(np.float32)
        self.tensors["fc.bias"] = rng.normal(0, 0.3, classes).astype(np.float32)

    def _conv(self, x, name: str, stride: int, bn: str):
        kernel = self.tensors[f"{name}.weight"].astype(float)
        pad, size = kernel.shape[-1] // 2, kernel.shape[-1]
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride]
        x = np.tensordot(windows, kernel, ([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2)
        of = {
            leaf: self.tensors[f"{bn}.{leaf}"][:, None, None].astype(float)
            for leaf in ("weight", "bias", "running_mean", "running_var")
        }
        scaled = (x - of["running_mean"]) / np.sqrt(of["running_var"] + 1e-5)
        return scaled * of["weight"] + of["bias"]

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits of normalised images, (N, 3, H, W)."""
        large = self.stem == 7
        x = np.maximum(self._conv(x, "conv1", 2 if large else 1, "bn1"), 0)
        if large:
            x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
            x = sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))
        for stage in range(1, len(self.widths) + 1):
            for block in range(self.blocks):
                at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                strides = (1, stride, 1) if self.bottleneck else (stride, 1)
                y = x
                for number, step in enumerate(strides, 1):
                    y = self._conv(y, f"{at}.conv{number}", step, f"{at}.bn{number}")
                    y = y if number == len(strides) else np.maximum(y, 0)
                if f"{at}.downsample.0.weight" in self.tensors:
                    x = self._conv(x, f"{at}.downsample.0", stride, f"{at}.downsample.1")
                x = np.maximum(x + y, 0)
        return x.mean((2, 3)) @ self.tensors["fc.weight"].T + self.tensors["fc.bias"]


def small(classes: int = 3) -> Made:
    return Made(3, (4, 6, 8, 8), 1, False, classes)


@pytest.mark.parametrize(
    ("made", "side", "mean", "std"),
    [
        (small(), 32, CIFAR_MEAN, CIFAR_STD),
        (Made(7, (4, 4, 6, 8), 2, False, 5), 224, MEAN, STD),
        (Made(7, (2, 2, 3, 4), 2, True, 5), 224, MEAN, STD),
    ],
    ids=["3x3 stem", "7x7 stem", "bottlenecks"],
)
def test_a_torchvision_resnet_computes_the_same_logits(tmp_path, made, side, mean, std):
    path = tmp_path / "network.safetensors"
    save_file(made.tensors, path)
    network = open_safetensors_network(path, "--run")
    assert network.image_shape == (side, side, 3)
    assert network.classes == tuple(f"class {i}" for i in range(len(made.tensors["fc.bias"])))
    images = np.random.default_rng(1).integers(0, 256, (2, side, side, 3), np.uint8)
    expected = made.logits(((images / 255 - mean) / std).transpose(0, 3, 1, 2))
    np.testing.assert_allclose(network.logits(images), expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.1


def test_it_is_evaluated_and_predicts(folder, tmp_path, capsys):
    made, path = small(), tmp_path / "network.safetensors"
    save_file(made.tensors, path, {"classes": json.dumps(["top", "left", "right"])})
    assert main(["evaluate", "--checkpoint", str(path), "--dataset", str(folder)]) == 0
    said = capsys.readouterr().out
    argv = ["predict", str(folder / "test"), "--run", str(path), "--json"]
    assert main(argv) == 0
    pictures = json.loads(capsys.readouterr().out)["images"]
    right = sum(f"/{picture['answer']}/" in picture["image"] for picture in pictures)
    assert f"({right} of 15)" in said
    assert {picture["unlike_training"] for picture in pictures} == {None}
    save_file(made.tensors, path)
    assert main([*argv, "--dataset", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["left", "right", "top"]


def without(tensors, pattern: str):
    return {name: value for name, value in tensors.items() if not re.search(pattern, name)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda of: without(of, "layer"), "are not those of a torchvision ResNet"),
        (lambda of: without(of, "running"), "only BatchNorm is known"),
        (lambda of: without(of, "downsample"), "layer2.0.downsample.0.kernel: initial values"),
        (lambda of: {**of, "extra.weight": np.zeros(3, np.float32)}, "extra.scale: not in this"),
        (lambda of: {**of, "fc.bias": np.full(3, np.nan, np.float32)}, "fc.bias has values that"),
        (lambda of: small(5).tensors, "has 5 classes, and the images have 3"),
    ],
)
def test_other_tensors_are_refused(folder, tmp_path, capsys, change, said):
    path = tmp_path / "network.safetensors"
    save_file(change(small().tensors), path)
    argv = ["evaluate", "--checkpoint", str(path), "--dataset", str(folder)]
    assert main(argv) == 2
    written = capsys.readouterr().err
    assert said in written.splitlines()[-1]


def test_a_file_needs_images(tmp_path, capsys):
    path = tmp_path / "network.safetensors"
    save_file(small().tensors, path)
    assert main(["evaluate", "--checkpoint", str(path)]) == 2
    assert "give them by --dataset" in capsys.readouterr().err
    assert main(["predict", "a.png", "--run", str(path), "--arm", "batch"]) == 2
    assert "is a file, which has no arms" in capsys.readouterr().err


def brightest(path, kind: str, shape, **metadata: str) -> None:
    """Write an ONNX file whose logits are the means of the channels."""
    onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    helper, kinds = onnx.helper, {"uint8": 2, "float": 1}
    axes = [2, 3] if shape[1] == 3 else [1, 2]
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], to=1),
        helper.make_node("ReduceMean", ["y"], ["logits"], axes=axes, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", kinds[kind], shape)],
        [helper.make_tensor_value_info("logits", 1, [shape[0], 3])],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("shape", [("N", 32, 32, 3), (4, 3, 32, 32), ("N", 3, "H", "W")], ids=str)
def test_an_onnx_file_gets_the_pixels_that_it_needs(tmp_path, kind, shape):
    brightest(tmp_path / "means.onnx", kind, shape)
    network = open_file(tmp_path / "means.onnx", "--onnx")
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    means = images.mean((1, 2))
    expected = means if kind == "uint8" else (means / 255 - CIFAR_MEAN) / CIFAR_STD
    np.testing.assert_allclose(network.logits(images), expected, rtol=1e-4, atol=1e-4)


def test_an_onnx_file_may_say_that_it_takes_pixels_from_0_to_1(tmp_path):
    brightest(tmp_path / "means.onnx", "float", ("N", 8, 8, 3), images="float32, RGB, 0 to 1")
    network = open_file(tmp_path / "means.onnx", "--onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(network.logits(images), images.mean((1, 2)) / 255, atol=1e-6)


def test_an_onnx_file_is_evaluated_by_the_names_of_its_classes(folder, tmp_path, capsys):
    path = tmp_path / "means.onnx"
    classes = json.dumps(["right", "top", "left"])
    brightest(path, "uint8", ("N", 32, 32, 3), classes=classes)
    assert main(["evaluate", "--onnx", str(path), "--dataset", str(folder)]) == 0
    said = capsys.readouterr().out
    assert main(["predict", str(folder / "test"), "--run", str(path), "--json"]) == 0
    pictures = json.loads(capsys.readouterr().out)["images"]
    right = sum(f"/{picture['answer']}/" in picture["image"] for picture in pictures)
    assert f"({right} of 15)" in said


def test_wrong_onnx_files_are_refused(tmp_path, capsys):
    path = tmp_path / "network.onnx"
    brightest(path, "uint8", ("N", 32, 32, 4))
    argv = ["evaluate", "--onnx", str(path), "--dataset", "synthetic"]
    assert main(argv) == 2
    assert "needed: squares of 3 channels" in capsys.readouterr().err
    path.write_bytes(b"not ONNX")
    assert main(argv) == 2
    assert "is not an ONNX file" in capsys.readouterr().err
    path.unlink()
    assert main(argv) == 2
    assert "cannot be read (No such file" in capsys.readouterr().err
    assert main([*argv, "--checkpoint", "runs/a"]) == 2
    assert "not allowed with" in capsys.readouterr().err
