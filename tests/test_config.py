"""The configuration: TOML round trip, and errors that name the field."""

import dataclasses
from pathlib import Path

import pytest

from cifar_jax.config import settings, tables
from cifar_jax.config.changes import changes
from cifar_jax.config.settings import Config, DataConfig, ModelConfig, TrainingConfig
from cifar_jax.errors import UserError
from cifar_jax.study.grid import parse_sweep

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_are_the_protocol():
    training = Config().training
    assert training == TrainingConfig(
        seed=42,
        epochs=30,
        batch_size=128,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        decay_every=10,
        decay_factor=0.1,
        optimizer="sgd",
        schedule="step",
        milestones=None,
        final_fraction=0.0,
        warmup_epochs=0.0,
        lr_scaling="none",
        label_smoothing=0.0,
        cutout=0,
        random_erasing=0.0,
        erasing_area_low=0.02,
        erasing_area_high=0.4,
        erasing_ratio=0.3,
        mixup=0.0,
        precision="float32",
    )
    assert Config().data.val_examples == 5000
    assert Config().model == ModelConfig(
        name="cnn",
        norm="none",
        norm_groups=8,
        norm_parts=8,
        norm_momentum=0.9,
        dropout=0.5,
        num_classes=None,
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_are_listed(path):
    config = tables.load(path)
    assert config.training.epochs >= 1
    parse_sweep(config)
    assert f"| `{path.name}` |" in (path.parent / "README.md").read_text()


def test_report_configs_differ_in_the_norm_alone():
    baseline, batchnorm = (
        tables.load(CONFIGS[0].parent / f"{name}.toml") for name in ("baseline", "batchnorm")
    )
    assert list(map(str, changes(baseline, batchnorm))) == ["model.norm: none -> batch"]
    # The files spell the defaults out; only the dataset is not the default.
    assert changes(Config(), baseline) == [("data.dataset", "auto", "cifar10")]


def test_toml_round_trip(tmp_path):
    config = Config(
        name="odd-name_1.0",
        data=DataConfig(dataset="/a folder/with \"quotes\" and 'more'", train_examples=7),
        model=ModelConfig(norm="batch", num_classes=3),
        training=TrainingConfig(seed=2**32 - 1, learning_rate=1e-7, weight_decay=0.0),
    )
    path = write(tmp_path / "c.toml", tables.to_toml(config))
    assert tables.load(path) == config


def test_integers_are_accepted_where_a_float_is_wanted(tmp_path):
    path = write(tmp_path / "c.toml", "[training]\nlearning_rate = 1\n")
    rate = tables.load(path).training.learning_rate
    assert rate == 1.0
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[training]\nepochs = 0", "training.epochs: 0 is out of range; allowed: at least 1"),
        ("[training]\nepochs = 2.5", "training.epochs: 2.5 is not an integer"),
        ("[training]\nepochs = true", "training.epochs: True is not an integer"),
        ("[training]\nlearning_rate = nan", "training.learning_rate: nan is not a finite number"),
        ("[training]\nlearning_rate = 0", "out of range; allowed: above 0"),
        ("[training]\nmomentum = 1.0", "training.momentum: 1.0 is out of range"),
        ("[training]\nepoch = 3", "unknown key 'training.epoch'; did you mean 'epochs'?"),
        ("[trainin]\nepochs = 3", "unknown key 'trainin'; did you mean 'training'?"),
        ("training = 3", "'training' must be a table"),
        ("[data]\naugment = 1", "data.augment: 1 is not true or false"),
        ('[data]\ndataset = ""', "data.dataset: an empty"),
        ('[model]\nnorm = "batchnorm"', "model.norm: 'batchnorm' is not known; allowed: none"),
        ("[model]\nnum_classes = 1", "model.num_classes: 1 is out of range"),
        ('name = "../up"', "name: '../up' is not allowed"),
        ("[training\n", "not valid TOML"),
    ],
)
def test_bad_file_is_one_line_that_names_file_and_field(tmp_path, text, said):
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(UserError) as error:
        tables.load(path)
    message = str(error.value)
    assert said in message
    assert "bad.toml" in message
    assert "\n" not in message


def test_other_ends_of_line_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "c.toml"
    path.write_bytes("\ufeff[training]\r\nepochs = 3\r\n".encode())
    assert tables.load(path).training.epochs == 3


@pytest.mark.parametrize(
    "content",
    [None, b"\xff\xfe\x00", "# \xe9".encode("latin-1"), "epochs = 3".encode("utf-16")],
    ids=["missing", "binary", "latin-1", "utf-16"],
)
def test_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"c\.toml.*cannot be read"):
        tables.load(path)


def test_every_field_has_help_and_limits_where_it_is_a_number():
    for section in settings.SECTIONS.values():
        for field in dataclasses.fields(section):
            plain, _ = tables.field_type(section, field.name)
            assert field.metadata["help"]
            if plain in (int, float):
                assert field.metadata["low"] is not None, field.name
