"""The runs of a study: arms, swept settings, their directories."""

import itertools
import re

import pytest

from cifar_jax.config.settings import Config, StudyConfig
from cifar_jax.errors import UserError
from cifar_jax.study.grid import Sweep, arm_directory, grid, norm_arm, parse_sweep
from cifar_jax.study.values import setting_name

BATCH, NONE = norm_arm("batch"), norm_arm("none")


def sweep(text):
    return parse_sweep(Config(study=StudyConfig(sweep=text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("learning_rate=0.1, 0.01", Sweep("training.learning_rate", (0.01, 0.1))),
        ("training.batch_size=64,8", Sweep("training.batch_size", (8, 64))),
        ("weight_decay=0,1e-4", Sweep("training.weight_decay", (0.0, 1e-4))),
        ("augment=true,false", Sweep("data.augment", (True, False))),
        ("model.name=cnn", Sweep("model.name", ("cnn",))),
        (
            "optimizer + lr_scaling+training.learning_rate=sgd:none:1e-2, muon : linear : 0.02",
            Sweep(
                "training.optimizer+training.lr_scaling+training.learning_rate",
                ("sgd:none:0.01", "muon:linear:0.02"),
            ),
        ),
        ("milestones=15+25,10+20", Sweep("training.milestones", ("15+25", "10+20"))),
    ],
)
def test_parse_sweep(text, expected):
    assert sweep(text) == expected


def test_values_are_those_of_the_field():
    with pytest.raises(UserError, match=r"batch_size: '8\.5' is not an integer"):
        sweep("batch_size=8.5")
    with pytest.raises(UserError, match="augment: 'yes' is not true or false"):
        sweep("augment=yes")
    with pytest.raises(UserError, match="'dataset' is the same in all runs"):
        sweep("dataset=synthetic,cifar10")


def test_an_arm_without_a_sweep_is_its_norm():
    (arm,) = grid([BATCH], None)
    assert (arm.directory, arm.label) == ("batch", "batch")
    config = arm.config(Config(study=StudyConfig(seeds=7)), 5)
    assert (config.model.norm, config.training.seed, config.study) == ("batch", 5, StudyConfig())


def test_an_arm_with_a_sweep():
    arms = grid(
        [norm_arm("none"), norm_arm("batch")], Sweep("training.learning_rate", (0.01, 0.05))
    )
    assert [arm.directory for arm in arms] == [
        "none-learning_rate-0.01",
        "batch-learning_rate-0.01",
        "none-learning_rate-0.05",
        "batch-learning_rate-0.05",
    ]
    assert arms[3].label == "batch, learning rate 0.05"
    assert arms[3].config(Config(), 1).training.learning_rate == 0.05
    assert arm_directory("none", "data.augment", False) == "none-augment-false"


def test_an_arm_with_several_settings_swept_as_one():
    found = sweep("optimizer+learning_rate=sgd:0.01,adamw:0.001")
    assert found.name == "optimizer-learning_rate"
    arm = grid([BATCH], found)[1]
    assert arm.directory == "batch-optimizer-learning_rate-adamw_0.001"
    assert arm.label == "batch, optimizer adamw, learning rate 0.001"
    assert setting_name(arm.field) == "optimizer and learning rate"
    training = arm.config(Config(), 1).training
    assert (training.optimizer, training.learning_rate) == ("adamw", 0.001)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimizer+learning_rate=sgd", "'sgd' must be 2 values joined by ':'"),
        ("optimizer+learning_rate=sgd:0.1:2", "must be 2 values joined by ':'"),
        ("optimizer+learning_rate=sgd:fast", "--sweep learning_rate: 'fast' is not a number"),
        ("optimizer+optimizer=sgd:adamw", "a setting is named twice"),
        ("optimizer+seed=sgd:1", "'seed' is the same in all runs"),
        ("optimizer+=sgd:1", "unknown key"),
    ],
)
def test_bad_sweep_of_several_settings(text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        sweep(text)


def test_networks_and_initial_values_can_be_swept():
    arms = grid([BATCH], sweep("model.name=plain20,resnet18"))
    assert arms[0].directory == "batch-model-plain20"
    assert arms[0].label == "batch, model plain20"
    assert arms[0].config(Config(), 1).model.name == "plain20"
    found = sweep("init_from=none,runs/a/seed{seed}")
    assert found == Sweep("transfer.init_from", ("none", "runs/a/seed{seed}"))
    assert grid([BATCH], found)[1].config(Config(), 1).transfer.init_from == found.values[1]
    with pytest.raises(UserError, match="'resnet21' is not known"):
        sweep("model.name=resnet20,resnet21")


def test_precision_can_be_swept():
    configs = [arm.config(Config(), 0) for arm in grid([NONE], sweep("precision=tf32,bfloat16"))]
    assert [config.training.precision for config in configs] == ["tf32", "bfloat16"]


def test_directories_are_path_safe_and_distinct():
    values = ("a/b", "a b", "../x", "a_b", "x" * 300, "x" * 301)
    names = [arm_directory("none", "model.name", value) for value in values]
    assert len(set(names)) == len(values)
    for name, letter in itertools.product(names, "/ "):
        assert letter not in name
        assert len(name) < 100


@pytest.mark.parametrize(
    ("text", "names", "places"),
    [
        ("learning_rate=0.01,0.1", ["0.01", "0.1"], ["learning rate 0.01", "learning rate 0.1"]),
        ("cutout=0,8", ["0", "8"], ["cutout 0", "cutout 8"]),
        (
            "optimizer+learning_rate=sgd:0.01,adamw:0.001",
            ["sgd, 0.01", "adamw, 0.001"],
            ["optimizer sgd, learning rate 0.01", "optimizer adamw, learning rate 0.001"],
        ),
        (
            "cutout+mixup=0:0,16:0,0:1,8:0.5",
            ["none of them", "cutout 16", "mixup 1.0", "cutout 8, mixup 0.5"],
            ["none of cutout and mixup", "cutout 16", "mixup 1.0", "cutout 8, mixup 0.5"],
        ),
        # Not off at first: a value that is 0 is named.
        (
            "cutout+mixup=8:0,0:0",
            ["8, 0.0", "0, 0.0"],
            ["cutout 8, mixup 0.0", "cutout 0, mixup 0.0"],
        ),
    ],
)
def test_values_for_people(text, names, places):
    found = sweep(text)
    assert [found.value_name(value) for value in found.values] == names
    assert [found.at(value) for value in found.values] == places
