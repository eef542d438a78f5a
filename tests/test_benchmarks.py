"""Every benchmark runs, at a tiny size, and writes its results."""

import functools
import importlib
import importlib.util
import itertools
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small import draw_blank

from cifar_jax.core.inputs import Inputs
from cifar_jax.core.model import CNN
from cifar_jax.core.train import Experiment, init_state, train_step
from cifar_jax.kernels import fast

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    "coverage",
    "deviceless",
    "host",
    "layers",
    "many_runs",
    "scaling",
    "seeds",
    "startup",
    "throughput",
    "torch_peer",
]

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def _one_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that compiles fast."""
    layers = importlib.import_module("benchmarks.layers")
    monkeypatch.setattr(layers, "step_calls", functools.partial(layers.step_calls, widths=(4,)))
    monkeypatch.setattr(importlib.import_module("benchmarks._roofline"), "SWEPT", 2**12)
    monkeypatch.setitem(importlib.import_module("benchmarks._roofline").MATRIX, "cpu", 16)
    for name in ("throughput", "seeds"):
        module = importlib.import_module(f"benchmarks.{name}")
        small = functools.partial(module.make_problem, widths=(4,))
        monkeypatch.setattr(module, "make_problem", small)


def measured(name: str, output: Path, *arguments: str) -> Any:
    """Run a benchmark in this process; the results that it wrote."""
    importlib.import_module(f"benchmarks.{name}").main(["--output", str(output), *arguments])
    content = json.loads(output.read_text())
    assert content["environment"].keys() >= {"date", "command", "processor", "cores", "versions"}
    return content["results"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_as_a_file(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `python benchmarks/NAME.py` in a new process, whose path has no root of the project."""
    if name == "torch_peer":
        pytest.importorskip("torch")
    for module in [found for found in sys.modules if found.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, module)
    others = [path for path in sys.path if Path(path).resolve() != ROOT]
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *others])
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")
    assert not ended.value.code
    assert "--output" in capsys.readouterr().out


@pytest.mark.usefixtures("_one_convolution")
def test_throughput(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "throughput.json"
    arguments = ["--norm", "none", "--batch", "2", "--steps", "1", "--repeats", "2"]
    results = measured("throughput", output, *arguments, "--eval-images", "3")
    rates = results["training, norm none"] | results["evaluation, norm none"]
    assert rates.keys() == {"epoch", "step", "stream", "no jit", "predict"}
    assert all(rate["q1"] <= rate["images/s"] <= rate["q3"] for rate in rates.values())
    printed = capfd.readouterr()
    assert "training, norm none: stream" in printed.out
    assert "ceilings, measured" in printed.out
    placed = results["roofline"]["training, norm none"]
    assert placed["seconds"] == pytest.approx(2 / rates["epoch"]["images/s"], rel=1e-3)
    assert "repeat 2/2" in printed.err


@pytest.mark.usefixtures("_one_convolution")
def test_throughput_without_grain_omits_streaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)
    arguments = ["--norm", "none", "--only", "training", "--batch", "2", "--steps", "1"]
    output = tmp_path / "throughput.json"
    results = measured("throughput", output, *arguments, "--repeats", "1")
    rates = results["training, norm none"]
    assert rates.keys() == {"epoch", "step", "stream", "no jit"}
    assert rates["stream"].startswith("not available: UserError: --pipeline stream: Grain cannot")
    printed = capsys.readouterr().out
    assert "training, norm none: stream: not available: UserError: --pipeline stream" in printed


def test_roofline_counts_a_program_whose_cost_is_known() -> None:
    from benchmarks import _roofline

    n = 64
    x = np.ones((n, n), np.float32)
    product = jax.jit(lambda x, y: x @ y).lower(x, x).compile()
    cost = _roofline.count(product, defined=2 * n**3)
    assert cost.flops == 2 * n**3
    assert cost.bytes == 3 * n * n * 4
    placed = _roofline.compare(cost, _roofline.Ceilings(flops=4 * n**3, bytes=3 * n * n * 4), 2.0)
    assert placed["of FLOP/s ceiling"] == placed["of FLOP/s ceiling, defined"] == 0.25
    assert placed["of bytes/s ceiling"] == 0.5
    assert placed["bound by"] == "bytes/s"


def test_throughput_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def compile_nothing(*_: Any, **__: Any) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("no compiler\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    output = tmp_path / "throughput.json"
    model = str(Path(__file__).parents[1] / "benchmarks" / "models.py") + ":SiluCNN"
    arguments = ["--model", model, "--peer", "torch", "--clock", "cpu", "--repeats", "2"]
    sizes = ["--batch", "2", "--steps", "1", "--eval-images", "3"]
    results = measured("throughput", output, *arguments, *sizes)
    for half, ours in (("training", "epoch"), ("evaluation", "predict")):
        rates = results[f"{half}, {model}"]
        best = max(rates[name]["images/s"] for name in ("torch eager", "torch eager nhwc"))
        ratio = rates[ours]["ratio to best torch"]
        assert ratio == pytest.approx(rates[ours]["images/s"] / best, rel=1e-3)
        assert rates["torch compiled"] == "not available: RuntimeError: no compiler"


def test_peer_sees_the_same_pixels() -> None:
    torch = pytest.importorskip("torch")
    from benchmarks import torch_peer

    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    theirs = torch_peer.normalise(tensor, torch.channels_last).permute(0, 2, 3, 1)
    np.testing.assert_allclose(theirs, Inputs().evaluate(images), atol=1e-6)


def test_peer_cuts_windows_out_of_the_padded_image() -> None:
    torch = pytest.importorskip("torch")
    from benchmarks import torch_peer

    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    possible = set()
    for flipped in (image, image[:, :, ::-1]):
        padded = np.pad(flipped, ((0, 0), (4, 4), (4, 4)))
        for top, left in itertools.product(range(9), range(9)):
            possible.add(padded[:, top : top + 32, left : left + 32].tobytes())
    torch.manual_seed(0)
    augmented = torch_peer.augment(torch.from_numpy(image).expand(2000, 3, 32, 32)).numpy()
    # Each of the 162 is missed with probability (161 / 162) ** 2000 = 4e-6.
    assert {one.tobytes() for one in augmented} == possible


@pytest.mark.usefixtures("_one_convolution")
def test_seeds(tmp_path: Path) -> None:
    arguments = ["--seeds", "1,2", "--norm", "none", "--batch", "2", "--steps", "1"]
    results = measured("seeds", tmp_path / "seeds.json", *arguments, "--repeats", "2")
    seconds = results["seconds an epoch of all seeds"]
    assert seconds["1"].keys() == {"one by one"}
    assert seconds["2"].keys() >= {"one by one", "together"}
    assert len(seconds["2"]["together"]["samples"]) == 2


def test_coverage_of_the_interval_is_what_it_promises(tmp_path: Path) -> None:
    """200 studies a cell: at 95 % fewer than 88.8 % covered happens once in 10,000."""
    arguments = ["--images", "20,1000", "--seeds", "2", "--studies", "200"]
    arguments += ["--simulated", "200", "--equal-arms", "200"]
    results = measured("coverage", tmp_path / "coverage.json", *arguments)
    rows = results["coverage in %"]
    assert len(rows) == 7 * 2
    assert min(row["rule"] for row in rows) > 88.8
    assert min(row["rule, accuracy"] for row in rows) > 88.8
    # What it mends: two seeds on few images agree too often.
    assert min(row["t alone"] for row in rows if row["images"] == 20) < 60
    for row in results["equivalence in %"]:
        if row["differences"] == "normal":
            assert max(row["wrongly supported"], row["wrongly not supported"]) < 11.2
    for row in results["two stages in %"]:
        assert row["differences"] != "normal" or row["covered"] > 88.8
    assert all(
        max(row["either direction"], row["better"]) < 11.2 for row in results["equal arms in %"]
    )


def test_many_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_blank(monkeypatch.setattr)
    sizes = ["--runs", "4", "--images", "30", "--epochs", "2", "--directory", str(tmp_path)]
    for _ in ("made", "used again"):
        results = measured("many_runs", tmp_path / "many.json", *sizes)
    assert results["parts"].keys() == {"begin", "collect", "statistics", "page"}
    peaks = [part["MiB"] for part in results["parts"].values()]
    assert peaks == sorted(peaks)
    assert results["page bytes"] == (tmp_path / "study4" / "report.html").stat().st_size


def test_scaling(tmp_path: Path) -> None:
    output = tmp_path / "scaling.json"
    arguments = ["--only", "width", "--widths", "4", "--norm", "none", "--batch", "2"]
    results = measured("scaling", output, *arguments, "--steps", "1", "--repeats", "1")
    (point,) = results["width"]
    assert point["width"] == 4
    assert point["images/s"] == pytest.approx(2 / point["seconds"]["median"], rel=1e-3)
    assert point["peak resident MiB"] > 50
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_scaling_tells_why_a_point_failed() -> None:
    from benchmarks.scaling import Point, measure_apart

    failed = measure_apart(Point("nonsense", batch=2, seeds=1, images=2, width=4, repeats=1))
    assert failed == {"failed": "exit status 1: KeyError: 'nonsense'"}


SMALL = '''"""A small network."""
import cifar_jax as cj
arms = {"small": cj.Experiment(cj.CNN(3, norm="batch", widths=(8,), hidden=16))}
'''


def test_startup(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small network. To compile Python's libraries takes most of a run without any cache."""
    startup = importlib.import_module("benchmarks.startup")
    environment = startup._environment

    def with_bytecode(cache: Path) -> dict[str, str]:
        kept: dict[str, str] = environment(cache)
        del kept["PYTHONPYCACHEPREFIX"]
        return kept

    monkeypatch.setattr(startup, "_environment", with_bytecode)
    (tmp_path / "small.py").write_text(SMALL)
    run = ["train", str(tmp_path / "small.py"), "--arm", "small", "--dataset", str(folder)]
    run += ["--batch-size", "5", "--val-examples", "5", "--epochs", "1"]
    results = measured("startup", tmp_path / "startup.json", "--repeats", "1", "--", *run)
    names = ["nothing cached", "images cached", "all cached"]
    measured_names = ["--help", *(f"first step, {name}" for name in names), "whole run, all cached"]
    assert [*results["seconds"]] == measured_names
    assert (tmp_path / "startup.png").stat().st_size > 1000
    for parts in results["timelines"].values():
        assert {"import JAX", "compile", "train", "evaluate"} <= {name for name, _, _ in parts}
        assert all(0 <= begin <= end <= parts[-1][1] for _, begin, end in parts)


@pytest.mark.usefixtures("blank_figures")
def test_host(tmp_path: Path) -> None:
    sizes = ["--seeds", "2", "--together", "2", "--epochs", "2", "--images", "128", "--width", "1"]
    results = measured("host", tmp_path / "host.json", *sizes)
    (found,) = results["seconds by seeds together"].values()
    assert found["loop"] < found["command"]
    assert found["outside"] == pytest.approx(found["loop"] - found["programs"], abs=1e-3)
    hooks = sum(found[name] for name in ("Saves", "Rows", "TensorBoard", "Lines", "Bar"))
    assert 0 < hooks < found["outside"]
    assert found["fsync"] > 20


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_plain_step_is_made_of_other_operations(norm: str) -> None:
    """Else two equal programs would be compared; both compute the same."""
    layers = importlib.import_module("benchmarks.layers")
    texts, losses = {}, {}
    for name, (experiment, hyper, data, _) in layers.problems(norm, 4, 1, (4,)).items():
        state = init_state(experiment, jax.random.key(0), (32, 32, 3))
        step = functools.partial(train_step, experiment, hyper, 4)
        texts[name] = str(jax.make_jaxpr(step)(state, *data[:2]))
        losses[name] = float(jax.jit(step)(state, *data[:2]).loss_sum)
    for operation in ("conv_general_dilated", "select_and_scatter"):
        assert operation in texts["xla"]
        assert operation not in texts["fast"]
    assert losses["fast"] == pytest.approx(losses["xla"], rel=1e-5)


def test_both_kernels_of_a_layer_have_equal_results() -> None:
    layers = importlib.import_module("benchmarks.layers")
    calls = layers.layer_calls(dict(layers.cases(2))["block3, norm batch"])
    plain, ours = (jax.tree.leaves(calls[name]()) for name in ("xla", "fast"))
    for wanted, found in zip(plain, ours, strict=True):
        # A bias before a batch norm has no gradient: what is found there is rounding noise.
        np.testing.assert_allclose(found, wanted, atol=1e-3 * max(1, np.abs(wanted).max()))


@pytest.mark.usefixtures("_one_convolution")
def test_layers(tmp_path: Path) -> None:
    arguments = ["--only", "steps", "--batch", "2", "--steps", "1", "--repeats", "2"]
    results = measured("layers", tmp_path / "layers.json", *arguments)
    assert results["seconds a call"]["step, norm batch"].keys() == {"xla", "fast"}


LOOPED = """HloModule steps

%body (state: (s32[], f32[4])) -> (s32[], f32[4]) {
  %state = (s32[], f32[4]) parameter(0)
  %x = f32[4] get-tuple-element(%state), index=1
  %y = f32[4] fusion(%x), kind=kLoop, calls=%add
  %z = (f32[4], u8[0]) custom-call(%y), custom_call_target="__cublas$gemm"
  ROOT %next = (s32[], f32[4]) tuple(%x, %y)
}

ENTRY %main (state: (s32[], f32[4])) -> (s32[], f32[4]) {
  %state = (s32[], f32[4]) parameter(0)
  ROOT %end = (s32[], f32[4]) while(%state), condition=%until, body=%body
}
"""


def test_kernels_are_counted_in_the_one_loop() -> None:
    deviceless = importlib.import_module("benchmarks.deviceless")
    assert deviceless.kernels_of_loop(LOOPED) == 2
    assert deviceless.kernels_of_loop(LOOPED.replace("while", "call")) is None


@pytest.mark.parametrize("runs", [1, 2])
def test_programs_are_compiled_from_shapes_as_for_a_gpu(runs: int) -> None:
    """Traced as on a GPU, compiled for the CPU, which is there."""
    deviceless = importlib.import_module("benchmarks.deviceless")
    model = fast(CNN(norm="batch", widths=(4,), hidden=16))
    experiment = Experiment(model, batch_size=128)
    found = deviceless.measure(experiment, runs, jax.devices("cpu")[0], "cuda")
    images = (45_000 * 32 * 32 * 3, 5_000 * 32 * 32 * 3)
    assert sum(images) > found["steps"]["arguments"] > images[0]
    assert found.keys() == {"steps", "last step", "end"}


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="it is installed")
def test_without_its_compiler_a_device_is_one_line() -> None:
    command = [sys.executable, "-m", "benchmarks.deviceless", "--platform", "tpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--platform tpu needs the package libtpu" in done.stderr.splitlines()[-1]
