"""Starting from another network: our checkpoints, weight files, and what is refused."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import last_of_each
from safetensors.numpy import save_file

from cifar_jax.config import tables
from cifar_jax.config.build import build_experiment
from cifar_jax.config.settings import Config
from cifar_jax.core.train import init_state
from cifar_jax.errors import UserError
from cifar_jax.main import main
from cifar_jax.runner import pretrained
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.checkpoint_files import Position
from cifar_jax.runner.programs import stack_runs
from cifar_jax.runner.transfer import named_leaves, own_shapes, take

pytestmark = pytest.mark.usefixtures("cache", "blank_figures")

FLAGS = ("--bn", "--val-examples", "11", "--batch-size", "16", "--seed", "3")


def run(folder, workdir, *flags: str) -> int:
    argv = ["--dataset", str(folder), "--workdir", str(workdir), *FLAGS, *flags]
    return main(last_of_each(argv))


def results_of(workdir):
    return json.loads((workdir / "results.json").read_text())


def parameters_of(workdir) -> dict[str, np.ndarray]:
    source = pretrained.open_source(workdir)
    return {name: source.read(name) for name in source.shapes}


@pytest.fixture(scope="module")
def two(folder, cache, tmp_path_factory):
    """A run on two of the three classes."""
    workdir = tmp_path_factory.mktemp("runs") / "two"
    assert run(folder, workdir, "--classes", "left,right", "--epochs", "1") == 0
    return workdir


@pytest.fixture(scope="module")
def tuned(two, folder, tmp_path_factory):
    """One that starts from it on other two, its convolutions and their norms frozen."""
    workdir = tmp_path_factory.mktemp("runs") / "tuned"
    frozen = ("--freeze", "conv*,norm[123]", "--lr-multipliers", "dense2=10")
    flags = ("--classes", "top,left", "--init-from", str(two), *frozen)
    assert run(folder, workdir, *flags, "--epochs", "1") == 0
    return workdir, flags


def test_a_class_subset_is_said_everywhere(two):
    results = results_of(two)
    assert results["dataset"]["name"] == "folder-halves-2of3"
    assert results["dataset"]["classes"] == ["left", "right"]
    assert [results["dataset"][n] for n in ("n_train", "n_val", "n_test")] == [39, 11, 10]
    assert len(results["confusion_matrix"]) == 2
    # The report's 621,322 less eight outputs of the last layer, 257 parameters each.
    assert results["num_params"] == 621_322 - 8 * 257
    assert "init_from" not in results


def test_frozen_layers_are_bitwise_those_of_the_source_and_the_head_is_new(two, tuned):
    before, after = parameters_of(two), parameters_of(tuned[0])
    same = {name for name in before if np.array_equal(before[name], after[name])}
    layers = {name.partition(".")[0] for name in same}
    assert layers == {"conv1", "conv2", "conv3", "norm1", "norm2", "norm3"}
    assert same == {name for name in before if name.partition(".")[0] in layers}
    assert before["dense2.kernel"].shape == after["dense2.kernel"].shape  # two classes each


def test_results_record_what_they_were_initialised_from(two, tuned):
    found = results_of(tuned[0])["init_from"]
    assert found["digest"] == pretrained.open_source(two).digest
    assert str(two) in found["source"]
    assert found["source"].endswith("after epoch 1")
    # All but the last layer's two tensors, running statistics included.
    assert found["tensors_taken"] == len(parameters_of(two)) - 2
    assert found["left"] == [
        f"dense2.{leaf}: initial values: the source has other classes"
        for leaf in ("bias", "kernel")
    ]


def test_a_fine_tuned_run_needs_its_source_no_more(two, tuned, folder, tmp_path, capsys):
    workdir, flags = tuned
    origin = results_of(workdir)["init_from"]
    two.rename(tmp_path / "moved")
    try:
        assert main(["evaluate", "--checkpoint", str(workdir)]) == 0
        assert run(folder, workdir, *flags, "--epochs", "2", "--resume") == 0
        capsys.readouterr()
        assert run(folder, tmp_path / "new", *flags, "--epochs", "1") == 2
        assert f"--init-from {two}: is neither" in capsys.readouterr().err
    finally:
        (tmp_path / "moved").rename(two)
    assert len(results_of(workdir)["history"]) == 2
    assert results_of(workdir)["init_from"] == origin


def test_a_study_compares_from_scratch_with_pretrained(two, folder, tmp_path, capsys):
    sweep = f"init_from=none,{two.parent}/t{{seed}}"
    two.with_name("t3").symlink_to(two)
    argv = ["study", "--dataset", str(folder), *FLAGS[1:], "--classes", "top,left"]
    argv += ["--arms", "batch", "--seeds", "1", "--epochs", "1", "--sweep", sweep]
    workdir = tmp_path / "study"
    assert main([*argv, "--workdir", str(workdir)]) == 0
    summary = json.loads((workdir / "summary.json").read_text())
    (row,) = summary["against_first_value"]
    assert (row["arm"], row["n"], row["ci_t"]) == ("batch", 1, None)
    assert "minus none is" in capsys.readouterr().out or row["differences"]
    digests = [
        json.loads(path.read_text()).get("init_from", {}).get("digest")
        for path in sorted(workdir.glob("*/seed3/results.json"))
    ]
    assert sorted(map(str, digests)) == sorted(["None", pretrained.open_source(two).digest])
    # Finished runs do not need what they began from.
    two.with_name("t3").unlink()
    assert main([*argv, "--workdir", str(workdir)]) == 0
    report = (workdir / "report.md").read_text()
    assert f"digest {pretrained.open_source(two).digest[:12]}" in report


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--init-from", "w.pth"], "pickled weights are not read"),
        (["--init-from", "w.h5"], "neither a run's directory nor a .safetensors file"),
        (["--init-from", "absent"], "neither a run's directory nor"),
        (["--init-from", "w.safetensors"], "w.safetensors: cannot be read (No such file"),
        (["--init-from", "."], "--init-from .: holds no checkpoint of a run"),
        (["--freeze", "conv9"], "'conv9' matches no parameter; allowed: conv1, "),
        (["--freeze", "*"], "--freeze *: freezes every parameter"),
        (["--lr-multipliers", "conv1=0"], "'0' is not a factor"),
        (["--lr-multipliers", "conv1=2,conv1 =3"], "a pattern is named twice"),
        (["--freeze", "conv1,norm1,conv1"], "a pattern is named twice"),
        (["--classes", "left,top,left"], "a class is named twice"),
        (["--classes", "left,up"], "'up' is not a class; allowed: left, right, top"),
        (["--zero-init-residual"], "--zero-init-residual: cnn with norm batch"),
        (["--model", "resnet20", "--norm-groups", "32"], None),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    folder, tmp_path, monkeypatch, capsys, flags, said
):
    monkeypatch.chdir(tmp_path)
    argv = ["--dataset", str(folder), "--workdir", "w", *FLAGS[1:]]
    argv += ["--norm", "batch" if said else "group", *flags]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert (said or "--norm-groups 32: must divide 16, the channels of the first layer") in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_a_checkpoint_of_another_network_is_refused_with_the_reason(two, folder, tmp_path, capsys):
    flags = ("--model", "resnet20", "--init-from", str(two))
    assert run(folder, tmp_path / "w", *flags) == 2
    error = capsys.readouterr().err
    assert "nothing in it fits resnet20 with norm batch" in error
    assert "(3, 3, 3, 32) in the source, (3, 3, 3, 16) here" in error
    assert error.count("\n") == 1


def test_a_norm_that_the_source_lacks_keeps_its_initial_values():
    own = {"conv1.kernel": (3, 3, 3, 4), "norm1.scale": (4,), "norm1.mean": (4,)}
    shapes = {"conv1.kernel": (3, 3, 3, 4), "norm1.scale": (4,), "old.bias": (1,)}
    taken = take(own, shapes, lambda name: np.zeros(shapes[name]), None)
    assert list(taken.values) == ["conv1.kernel", "norm1.scale"]
    assert taken.lines() == [
        "norm1.mean: initial values: not in the source",
        "old.bias: not in this network, not used",
    ]


# --- weight files --------------------------------------------------------------------------------


@functools.cache
def resnet18(classes: int = 10):
    """A config, and the shapes of a ResNet-18's state."""
    config = tables.override(Config(), "model", "name", "resnet18", "")
    config = tables.override(config, "model", "norm", "batch", "")
    config = tables.override(config, "model", "num_classes", classes, "")
    experiment = build_experiment(config)
    return config, jax.eval_shape(lambda: init_state(experiment, jax.random.key(0), (32, 32, 3)))


def torchvision_weights(classes: int, stem: int) -> dict[str, np.ndarray]:
    """Random weights with torchvision's names, in PyTorch's layout."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {"bn1.num_batches_tracked": np.array(7, np.int64)}
    _, state = resnet18()
    for name, shape in own_shapes(state.params, state.batch_stats).items():
        module, _, leaf = name.rpartition(".")
        head, _, last = module.rpartition(".")
        module = ".".join([*filter(None, [head]), last.replace("norm", "bn")])
        leaf = {"mean": "running_mean", "var": "running_var", "bias": "bias"}.get(leaf, "weight")
        shape = tuple(reversed(shape)) if len(shape) == 2 else shape
        if len(shape) == 4:
            shape = (shape[3], shape[2], shape[0], shape[1])
        found[f"{module}.{leaf}"] = rng.normal(size=shape).astype(np.float32)
    found["conv1.weight"] = rng.normal(size=(64, 3, stem, stem)).astype(np.float32)
    found["fc.weight"] = rng.normal(size=(classes, 512)).astype(np.float32)
    found["fc.bias"] = rng.normal(size=(classes,)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A file like torchvision's of ImageNet: a 7x7 stem, 1000 classes."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    weights = torchvision_weights(1000, 7)
    save_file(weights, path)
    return path, weights


@functools.cache
def zeros(classes: int):
    return jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), resnet18(classes)[1].replace(key=None)
    )


def start(path, classes=10):
    config, _ = resnet18(classes)
    source = pretrained.open_source(path)
    return pretrained.start_from(source, config, zeros(classes), tuple(map(str, range(classes))))


def test_weights_for_imagenet_are_taken_but_for_stem_and_head(imagenet):
    path, weights = imagenet
    state, record = start(path)
    params, stats = named_leaves(state.params), named_leaves(state.batch_stats)
    np.testing.assert_array_equal(
        params["layer3.0.downsample.0.kernel"],
        weights["layer3.0.downsample.0.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(params["layer4.1.norm2.scale"], weights["layer4.1.bn2.weight"])
    np.testing.assert_array_equal(stats["norm1.var"], weights["bn1.running_var"])
    assert not params["conv1.kernel"].any()
    assert not params["fc.kernel"].any()
    lines = record.left
    assert [line.partition(":")[0] for line in lines] == ["conv1.kernel", "fc.bias", "fc.kernel"]
    assert "the 7x7 stem of networks for ImageNet does not fit the 3x3 one" in lines[0]
    assert "(512, 1000) in the source, (512, 10) here" in lines[2]


def test_the_outputs_are_those_of_the_weights(tmp_path):
    """A stem of 3x3 and ten classes: everything is taken."""
    path = tmp_path / "w.safetensors"
    weights = torchvision_weights(10, 3)
    save_file(weights, path)
    state, record = start(path)
    assert record.left == ()
    taken = sum(w.size for name, w in weights.items() if "tracked" not in name)
    assert record.parameters_taken == taken
    np.testing.assert_array_equal(state.params["fc"]["kernel"], weights["fc.weight"].T)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fc.bias": np.zeros(10, np.int32)}, "fc.bias is of type I32, not a float"),
        ({"bn1.bias": np.full(64, np.nan, np.float32)}, "norm1.bias has values that are not"),
        ({"norm1.bias": np.zeros(64, np.float32)}, "bn1.bias and norm1.bias are both norm1.bias"),
        (
            {f"x{i}.bias": np.zeros(1, np.float32) for i in range(10_001)},
            "tensors, too many for a ResNet",
        ),
    ],
)
def test_weights_that_cannot_be_used_are_named(tmp_path, change, said):
    path = tmp_path / "w.safetensors"
    small = {"bn1.bias": np.zeros(64, np.float32), "bn1.weight": np.ones(64, np.float32)}
    save_file({**small, **change}, path)
    with pytest.raises(UserError, match=said):
        start(path)


def test_damaged_weight_files_are_one_line(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"bn1.bias": np.zeros(64, np.float32), "bn1.weight": np.ones(64, np.float32)}, path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    refused = []
    for trial in range(60):
        damaged = bytearray(content[: rng.integers(len(content))] if trial % 3 == 0 else content)
        for _ in range(rng.integers(1, 4) if trial % 3 else 0):
            damaged[rng.integers(header)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            start(path)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 40
    assert not [line for line in refused if "\n" in line or str(path) not in line]


def test_other_float_types_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    half = np.linspace(-1, 1, 64).astype(np.float16)
    brain = np.linspace(-1, 1, 64).astype(jnp.bfloat16)
    save_file({"bn1.bias": half, "bn1.weight": brain}, path)
    state, _ = start(path)
    np.testing.assert_array_equal(state.params["norm1"]["bias"], half.astype(np.float32))
    np.testing.assert_array_equal(state.params["norm1"]["scale"], brain.astype(np.float32))


def test_a_checkpoint_without_classes_is_refused(two, tmp_path):
    opened = Checkpoints(two / "checkpoints", create=False)
    record = opened.read_record()
    opened.close()
    del record["runs"][0]["dataset"]["classes"]
    config = tables.from_dict(record["runs"][0]["config"], "")
    state = init_state(build_experiment(config), jax.random.key(0), (32, 32, 3))
    written = Checkpoints(tmp_path / "checkpoints")
    written.save(Position(1), stack_runs([state]), record)
    written.close()
    with pytest.raises(UserError, match="missing required field `classes`"):
        pretrained.open_source(tmp_path)
