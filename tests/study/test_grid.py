"""The runs of a study: arms, swept settings, their directories."""

import itertools

import pytest

from cifar_jax.config import Config, StudyConfig
from cifar_jax.errors import UserError
from cifar_jax.study.grid import Arm, Sweep, grid, parse_sweep


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
    (arm,) = grid(["batch"], None)
    assert (arm.directory, arm.label) == ("batch", "batch")
    config = arm.config(Config(study=StudyConfig(seeds=7)), 5)
    assert (config.model.norm, config.training.seed, config.study) == ("batch", 5, StudyConfig())


def test_an_arm_with_a_sweep():
    arms = grid(["none", "batch"], Sweep("training.learning_rate", (0.01, 0.05)))
    assert [arm.directory for arm in arms] == [
        "none-learning_rate-0.01",
        "batch-learning_rate-0.01",
        "none-learning_rate-0.05",
        "batch-learning_rate-0.05",
    ]
    assert arms[3].label == "batch, learning rate 0.05"
    assert arms[3].config(Config(), 1).training.learning_rate == 0.05
    assert Arm("none", "data.augment", False).directory == "none-augment-false"


def test_networks_and_initial_values_can_be_swept():
    arms = grid(["batch"], sweep("model.name=plain20,resnet18"))
    assert arms[0].directory == "batch-model-plain20"
    assert arms[0].label == "batch, model plain20"
    assert arms[0].config(Config(), 1).model.name == "plain20"
    found = sweep("init_from=none,runs/a/seed{seed}")
    assert found == Sweep("transfer.init_from", ("none", "runs/a/seed{seed}"))
    assert grid(["batch"], found)[1].config(Config(), 1).transfer.init_from == found.values[1]
    with pytest.raises(UserError, match="'resnet21' is not known"):
        sweep("model.name=resnet20,resnet21")


def test_directories_are_path_safe_and_distinct():
    values = ("a/b", "a b", "../x", "a_b", "x" * 300, "x" * 301)
    names = [Arm("none", "model.name", value).directory for value in values]
    assert len(set(names)) == len(values)
    for name, letter in itertools.product(names, "/ "):
        assert letter not in name
        assert len(name) < 100
