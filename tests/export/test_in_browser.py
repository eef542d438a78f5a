"""The scripts of a page compute graphs in Chromium as NumPy, JAX and Pillow do."""

import io
import json

import jax
import numpy as np
import pytest
from networks import SHAPE, Own, images, made_up
from PIL import Image

from cifar_jax.core.model import CNN
from cifar_jax.core.resnet import ResNet
from cifar_jax.data.sources.contents import FolderOptions
from cifar_jax.data.sources.decode import decode
from cifar_jax.export.graph import Graph, Node
from cifar_jax.export.trace import trace
from cifar_jax.report.demo import encode, pack
from cifar_jax.report.scripts import scripts

NETWORKS = {
    "cnn": CNN(4, "batch", widths=(8, 16), hidden=16),
    "norm of groups": CNN(4, "group", widths=(8, 16), hidden=16),
    "padded shortcut": ResNet(4, "batch", blocks=(1, 1), widths=(8, 16)),
    "user's own": Own(),
}


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """A page with the scripts alone."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(str(scripts("network.js", "operators.js", "picture.js")), encoding="utf-8")
    browser.open(path)
    return browser


def outputs(page, graph, pixels):
    """Logits of images, uint8 (N, H, W, 3)."""
    size, given = (
        json.dumps(graph.image_shape[:2]),
        json.dumps(pixels.reshape(len(pixels), -1).tolist()),
    )
    return np.array(
        page.evaluate(
            f"(() => {{ const network = loadNetwork({json.dumps(pack(graph))});"
            f"return {given}.map(one => Array.from(logitsOf(network, one, {size}))); }})()"
        )
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_page_computes_the_logits(page, name):
    """Within 1e-2 of the largest logit: the page's weights are float16."""
    function, _ = made_up(NETWORKS[name])
    given = images(3)
    expected = np.asarray(jax.jit(function)(given))
    found = outputs(page, trace(function, SHAPE), given)
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()
    assert page.console == []


def one(op, *inputs, **attributes):
    """A graph of one operator, whose inputs are constants."""
    constants = {f"c{i}": np.asarray(value) for i, value in enumerate(inputs)}
    node = Node(op, tuple(constants), "out", (1,) * 4, attributes)
    return Graph((1, 1, 3), (node,), constants, "out")


def noise(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


A, B, C = noise(1, 2, 3, 4), noise(1, 2, 1, 4), noise(4)
POSITIVE, IMAGE = np.abs(A) + 0.1, noise(1, 2, 5, 7)
INFINITE = float("inf")


def windows(image, fill):
    """Windows 3x2 of an image (1, C, 5, 7), with stride 2 by 1 and padding 1, 0, 0, 1."""
    padded = np.pad(image, ((0, 0), (0, 0), (1, 0), (0, 1)), constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(2, 3))
    return found[:, :, ::2, ::1]


WINDOW = {"strides": (2, 1), "pads": (1, 0, 0, 1)}
KERNEL = noise(6, 1, 3, 2)
GROUPED = np.einsum("bgrcij,gfij->bgfrc", windows(IMAGE, 0), KERNEL.reshape(2, 3, 3, 2))
OPERATORS = {
    "Cast": (one("Cast", np.float32([0, 2, -1]), to="bool"), [0, 1, 1]),
    "Add": (one("Add", A, B), A + B),
    "Sub": (one("Sub", C, A), C - A),
    "Mul": (one("Mul", A, np.float32(3)), A * 3),
    "Div": (one("Div", A, POSITIVE), A / POSITIVE),
    "Pow": (one("Pow", POSITIVE, B), POSITIVE**B),
    "Max": (one("Max", A, B), np.maximum(A, B)),
    "Min": (one("Min", A, B), np.minimum(A, B)),
    "Equal": (one("Equal", C, C), np.ones(4)),
    "Less": (one("Less", A, B), A < B),
    "LessOrEqual": (one("LessOrEqual", A, A), np.ones_like(A)),
    "Greater": (one("Greater", A, B), A > B),
    "GreaterOrEqual": (one("GreaterOrEqual", A, B), A >= B),
    "And": (one("And", A > 0, B > 0), (A > 0) & (B > 0)),
    "Or": (one("Or", A > 0, B > 0), (A > 0) | (B > 0)),
    "Not": (one("Not", A > 0), A <= 0),
    "Where": (one("Where", B > 0, A, C), np.where(B > 0, A, C)),
    "Relu": (one("Relu", A), np.maximum(A, 0)),
    "Exp": (one("Exp", A), np.exp(A)),
    "Log": (one("Log", POSITIVE), np.log(POSITIVE)),
    "Tanh": (one("Tanh", A), np.tanh(A)),
    "Sigmoid": (one("Sigmoid", A), 1 / (1 + np.exp(-A))),
    "Sqrt": (one("Sqrt", POSITIVE), np.sqrt(POSITIVE)),
    "Reciprocal": (one("Reciprocal", POSITIVE), 1 / POSITIVE),
    "Abs": (one("Abs", A), np.abs(A)),
    "Neg": (one("Neg", A), -A),
    "Sign": (one("Sign", A), np.sign(A)),
    "Erf": (one("Erf", A), jax.scipy.special.erf(A)),
    "Floor": (one("Floor", A), np.floor(A)),
    "Ceil": (one("Ceil", A), np.ceil(A)),
    "Sin": (one("Sin", A), np.sin(A)),
    "Cos": (one("Cos", A), np.cos(A)),
    "Conv": (
        one("Conv", IMAGE, KERNEL, C[:1].repeat(6), **WINDOW, dilations=(1, 1), group=2),
        GROUPED.reshape(1, 6, 2, 7) + C[0],
    ),
    "MaxPool": (
        one("MaxPool", IMAGE, **WINDOW, kernel_shape=(3, 2), dilations=(1, 1)),
        windows(IMAGE, -INFINITE).max(axis=(4, 5)),
    ),
    "AveragePool": (
        one("AveragePool", IMAGE, **WINDOW, kernel_shape=(3, 2)),
        windows(IMAGE, 0).mean(axis=(4, 5)),
    ),
    "Gemm": (one("Gemm", noise(1, 5), noise(5, 3), noise(3)), noise(1, 5) @ noise(5, 3) + noise(3)),
    "MatMul": (one("MatMul", noise(2, 3, 5), noise(5, 6)), noise(2, 3, 5) @ noise(5, 6)),
    "ReduceSum": (one("ReduceSum", A, axes=(3, 1), keepdims=0), A.sum(axis=(1, 3))),
    "ReduceMax": (one("ReduceMax", A, axes=(2,), keepdims=0), A.max(axis=2)),
    "ReduceMin": (one("ReduceMin", A, axes=(1, 2), keepdims=0), A.min(axis=(1, 2))),
    "Reshape": (one("Reshape", A, shape=(3, -1)), A.reshape(3, -1)),
    "Expand": (one("Expand", B, shape=(5, 1, 3, 1)), np.broadcast_to(B, (5, 2, 3, 4))),
    "Transpose": (one("Transpose", A, perm=(2, 0, 3, 1)), A.transpose(2, 0, 3, 1)),
    "Slice": (
        one("Slice", A, axes=(3, 2), starts=(-1, 0), ends=(-99, 2), steps=(-2, 1)),
        A[:, :, 0:2, ::-2],
    ),
    "Pad": (
        one("Pad", B, pads=(0, 1, 0, 0, 0, 0, 2, 1), value=-INFINITE),
        np.pad(B, ((0, 0), (1, 0), (0, 2), (0, 1)), constant_values=-INFINITE),
    ),
    "Concat": (one("Concat", A, B, axis=2), np.concatenate([A, B], axis=2)),
}


def test_every_operator_is_computed(page):
    """Within 1e-5, for float32; `Erf` and convolutions have no more digits."""
    assert set(page.evaluate("Object.keys(operators)")) == set(OPERATORS)
    for name, (graph, expected) in OPERATORS.items():
        text = json.dumps(pack(graph))
        found = page.evaluate(
            f"(() => {{ const network = loadNetwork({text}), [node] = network.nodes;"
            "const out = operators[node[0]](node[3], ...node[1].map(x => network.constants[x]));"
            "return [out.shape, Array.from(out.data, String)]; })()"
        )
        np.testing.assert_array_equal(found[0], np.shape(expected), err_msg=name)
        values = np.array([float(text) for text in found[1]])
        np.testing.assert_allclose(values, np.ravel(expected), rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_report_cnn_takes_less_than_100_ms(page):
    """The best of ten images; the first compile the scripts."""
    rng = np.random.default_rng(0)
    weights = [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (2048, 256), (256, 10)]
    constants = {
        f"w{i}": rng.normal(0, 0.05, shape).astype("f4") for i, shape in enumerate(weights)
    }
    nodes, last = [Node("Transpose", ("images",), "v", (), {"perm": (0, 3, 1, 2)})], "v"
    pads = {"pads": (1, 1, 1, 1), "strides": (1, 1), "dilations": (1, 1), "group": 1}
    pool = {"pads": (0,) * 4, "strides": (2, 2), "dilations": (1, 1), "kernel_shape": (2, 2)}

    def add(op, *more, **attributes):
        nonlocal last
        nodes.append(Node(op, (last, *more), f"v{len(nodes)}", (1,) * 4, attributes))
        last = nodes[-1].output

    for i in range(3):
        add("Conv", f"w{i}", **pads)
        add("Relu")
        add("MaxPool", **pool)
    add("Reshape", shape=(-1, 2048))
    add("Gemm", "w3")
    add("Relu")
    add("Gemm", "w4")
    text = json.dumps(pack(Graph((32, 32, 3), tuple(nodes), constants, last)))
    times = page.evaluate(
        f"(() => {{ const network = loadNetwork({text}), pixels = new Uint8Array(3072).fill(99);"
        "return [...Array(10)].map(() => { const begun = performance.now();"
        "logitsOf(network, pixels, [32, 32]); return performance.now() - begun; }); })()"
    )
    assert min(times) < 100


def files():
    """Files of images with their names, and the largest difference of a pixel that is allowed."""
    rng = np.random.default_rng(0)

    def saved(shape, kind, **options):
        smooth = Image.fromarray(rng.integers(0, 256, (9, 9, shape[2]), np.uint8))
        image, content = smooth.resize(shape[1::-1], Image.Resampling.BICUBIC), io.BytesIO()
        image.save(content, kind, **options)
        return content.getvalue()

    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "of this size": (saved((32, 32, 3), "PNG"), 0),
        "high": (saved((41, 32, 3), "PNG"), 0),
        "wide, by half a pixel": (saved((50, 77, 3), "PNG"), 0),
        "small": (saved((20, 13, 3), "PNG"), 0),
        "large": (saved((400, 900, 3), "PNG"), 0),
        "rotated": (saved((40, 64, 3), "JPEG", exif=turned, quality=95), 2),
        "transparent": (saved((64, 64, 4), "PNG"), 2),
    }


@pytest.mark.parametrize("name", files())
def test_images_are_prepared_as_for_training(page, tmp_path, name):
    """Equal to Pillow's pixels; decoders of JPEG and blending may round otherwise."""
    content, most = files()[name]
    (tmp_path / "image").write_bytes(content)
    expected = decode(str(tmp_path / "image"), FolderOptions(resize=True)).pixels
    found = page.evaluate(
        f"(async () => {{ const blob = new Blob([bytesOf('{encode(content)}')]);"
        "const bitmap = await createImageBitmap(blob, {colorSpaceConversion: 'none'});"
        "return Array.from(pixelsOf(bitmap, bitmap.width, bitmap.height, [32, 32])); })()"
    )
    assert np.abs(np.ravel(expected).astype(int) - found).max() <= most


def test_changes_of_the_pixels(page):
    pixels = images(1)[0]
    given = f"new Uint8ClampedArray({pixels.ravel().tolist()}), [8, 8]"

    def changed(call):
        return np.array(page.evaluate(f"Array.from({call})")).reshape(8, 8, 3)

    np.testing.assert_array_equal(changed(f"flip({given})"), pixels[:, ::-1])
    moved = np.zeros_like(pixels)
    moved[:6, 3:] = pixels[2:, :5]
    np.testing.assert_array_equal(changed(f"shift({given}, 3, -2)"), moved)
    np.testing.assert_array_equal(changed(f"blur({given}, 0)"), pixels)
    from scipy import ndimage

    expected = ndimage.gaussian_filter(
        pixels.astype(float), (1, 1, 0), mode="nearest", radius=(3, 3, 0)
    )
    assert np.abs(changed(f"blur({given}, 1)") - expected).max() <= 0.51  # It is rounded.
