"""Settings of an experiment: frozen dataclasses, their validation, and TOML files.

A configuration has the tables `[data]`, `[model]`, `[training]`, `[transfer]` and `[study]`, all
optional, and an optional `name`. The defaults are the report's protocol.
The command line, the TOML reader and the validation use the help text and limits in each field's
metadata. This module imports nothing slow, so that `--help` and a wrong flag answer at once.
"""

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_jax.errors import UserError, shown
from cifar_jax.inputs import is_name, read_bytes

NORMS = ("none", "batch", "layer", "instance", "group")
MODELS = (
    "cnn", "resnet20", "resnet32", "resnet56", "resnet18", "plain20", "plain32", "plain56"
)  # fmt: skip
PIPELINES = ("device", "stream")
OPTIMIZERS = ("sgd", "nesterov", "adamw", "muon")
SCHEDULES = ("step", "constant", "multistep", "cosine", "onecycle")
LR_SCALINGS = ("none", "linear")
PRECISIONS = ("float32", "tf32", "bfloat16")
KERNELS = ("auto", "plain")

LARGEST_FILE = 64 << 10  # bytes; a configuration has about 1,000


class Fitted(int):
    """Default size that `sizes.fit_defaults` lowers for a small dataset."""


def _field(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    choices: tuple[str, ...] | None = None,
    flag: str | None = None,
) -> Any:
    """Make a dataclass field with its help text, closed or open limits, choices and flag name."""
    metadata = {
        "help": help,
        "low": low,
        "high": high,
        "low_open": low_open,
        "high_open": high_open,
        "choices": choices,
        "flag": flag,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataConfig:
    """Images, their split, and how they reach the device."""

    dataset: str = _field(
        "auto", "auto, cifar10, synthetic, or an image folder with train/<class>/ and test/<class>/"
    )
    data_dir: str | None = _field(
        None, "directory of CIFAR-10: a tfds directory, or one for its archive"
    )
    classes: str | None = _field(
        None,
        "use only these classes of the dataset, separated by commas (default: all); a name with "
        "a comma may be in double quotes",
    )
    train_examples: int | None = _field(
        None, "train on the first N images of the training split (default: all)", low=2
    )
    val_examples: int = _field(
        Fitted(5000),
        "training images to split off for validation; the default is at most a fifth of them",
        low=1,
        flag="val-examples",
    )
    split_seed: int = _field(
        42, "seed of the train/validation split, the same for every run", low=0, high=2**32 - 1
    )
    augment: bool = _field(True, "random flip and crop of the training images")
    folder_is_cifar10: bool = _field(
        False,
        "the image folder has CIFAR-10's images: reports compare with its published numbers",
    )
    resize: bool = _field(
        False,
        "in an image folder: crop other images to their centred square and resize it to 32x32",
    )
    test_split: str = _field(
        "test", "in an image folder: name of the folder with the test images, for example val"
    )
    white_level: float | None = _field(
        None,
        "grey value of white in files of more than 8 bits (default: the format's, for example "
        "65535)",
        low=1e-6,
        high=2**32 - 1,
    )
    drop_duplicates: bool = _field(
        False,
        "drop training images that are also in the test set, have two labels, or repeat another",
    )
    pipeline: str = _field(
        "device",
        "device: all images stay on the device; stream: the host sends the same batches",
        choices=PIPELINES,
    )


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = _field(
        "cnn",
        "network: cnn is the report's; resnet: a residual network; plain: it without shortcuts",
        choices=MODELS,
        flag="model",
    )
    norm: str = _field("none", "normalisation after each layer but the last", choices=NORMS)
    norm_groups: int = _field(
        8, "groups of --norm group; divides the channels of the first layer", low=1, high=64
    )
    norm_momentum: float = _field(
        0.9,
        "weight of the old running statistics of --norm batch; PyTorch's momentum is 1 minus this",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    dropout: float = _field(
        0.5,
        "dropout rate before the last layer; residual networks are usually trained with 0",
        low=0.0,
        high=1.0,
        high_open=True,
    )
    zero_init_residual: bool = _field(
        False, "the last norm of each residual block starts at scale 0"
    )
    num_classes: int | None = _field(
        None, "number of classes (default: the dataset's)", low=2, high=1000
    )


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained. The defaults are the report's."""

    seed: int = _field(
        42, "seed of initial values, order, augmentation, dropout", low=0, high=2**32 - 1
    )
    epochs: int = _field(30, "passes over the training images", low=1, high=100_000)
    batch_size: int = _field(
        Fitted(128),
        "images a step; the default is at most the number of training images",
        low=1,
        high=65_536,
    )
    learning_rate: float = _field(
        0.01,
        "initial learning rate; about 0.01 suits sgd, 0.001 adamw, 0.02 muon; the peak of onecycle",
        low=0.0,
        low_open=True,
        high=1e6,
        flag="lr",
    )
    momentum: float = _field(
        0.9, "momentum of SGD and of Muon, beta1 of AdamW", low=0.0, high=1.0, high_open=True
    )
    weight_decay: float = _field(
        5e-4,
        "weight decay on every parameter: coupled (L2) for SGD, decoupled for AdamW and Muon",
        low=0.0,
        high=1e3,
    )
    decay_every: int = _field(
        10, "epochs between two drops of --schedule step", low=1, high=100_000
    )
    decay_factor: float = _field(
        0.1,
        "factor of each drop of --schedule step and multistep",
        low=0.0,
        low_open=True,
        high=1.0,
    )
    optimizer: str = _field(
        "sgd",
        "sgd with momentum, nesterov (SGD with Nesterov's momentum), adamw, or muon (adamw for "
        "biases, norms and the last layer)",
        choices=OPTIMIZERS,
    )
    schedule: str = _field(
        "step",
        "learning rate schedule: step (drops every --decay-every epochs), multistep (drops at "
        "--milestones), constant; cosine and onecycle change it every step",
        choices=SCHEDULES,
    )
    milestones: str | None = _field(
        None,
        "epochs after which --schedule multistep drops the rate: 82,123 (in a sweep 82+123)",
    )
    final_fraction: float = _field(
        0.0, "final rate of --schedule cosine, as a fraction of --lr", low=0.0, high=1.0
    )
    warmup_epochs: float = _field(
        0.0, "epochs of linear warm-up of the learning rate, may be a fraction", low=0.0, high=1e5
    )
    lr_scaling: str = _field(
        "none", "linear: --lr is for batches of 128 and scales with the batch", choices=LR_SCALINGS
    )
    label_smoothing: float = _field(
        0.0, "share of each label spread over all classes", low=0.0, high=1.0, high_open=True
    )
    cutout: int = _field(
        0, "side in pixels of a square of the mean colour in every training image", low=0, high=32
    )
    random_erasing: float = _field(
        0.0, "probability that a rectangle of a training image becomes noise", low=0.0, high=1.0
    )
    erasing_area_low: float = _field(
        0.02, "smallest share that --random-erasing erases", low=0.0, low_open=True, high=1.0
    )
    erasing_area_high: float = _field(
        0.4, "largest share that --random-erasing erases", low=0.0, low_open=True, high=1.0
    )
    erasing_ratio: float = _field(
        0.3,
        "smallest height over width that --random-erasing erases; the largest is its inverse",
        low=0.0,
        low_open=True,
        high=1.0,
    )
    mixup: float = _field(
        0.0, "alpha of mixup, the blend of two training images; 0 is off", low=0.0, high=1000.0
    )
    precision: str = _field(
        "float32",
        "float32: full float32, on GPUs too; tf32: products of 10-bit mantissas, on NVIDIA GPUs; "
        "bfloat16: activations and products; parameters, statistics and loss stay float32",
        choices=PRECISIONS,
    )
    kernels: str = _field(
        "auto",
        "auto: faster code for the layers that have it; plain: Flax's own layers",
        choices=KERNELS,
    )


@dataclass(frozen=True)
class TransferConfig:
    """Initial values, and the learning rate of each layer."""

    init_from: str | None = _field(
        None,
        "initial values from a run's directory or from torchvision's names in a .safetensors file; "
        "{seed} in the path is the run's seed; none: from scratch",
    )
    freeze: str | None = _field(
        None, "parameters not to train, as patterns: 'conv*,norm1'; none: train all"
    )
    lr_multipliers: str | None = _field(
        None, "factors of the learning rate of some parameters: 'dense*=10,conv1=0.1'"
    )


@dataclass(frozen=True)
class StudyConfig:
    """Runs of a study: every arm with every seed. `training.seed` is the first seed.

    An arm is a norm, or with `sweep` a norm at one value of the swept setting.
    """

    arms: str = _field("none,batch", "norms to compare, separated by commas")
    sweep: str | None = _field(
        None,
        "another setting to vary, with its values: learning_rate=0.01,0.05,0.1; any of data, "
        "model, training or transfer; several together as "
        "optimizer+learning_rate=sgd:0.01,adamw:0.001",
    )
    seeds: int = _field(5, "number of seeds, counted up from --seed", low=1, high=1000)
    seed_parallelism: str = _field(
        "auto", "runs trained together in one program: a number, or auto (1 on the CPU)"
    )


@dataclass(frozen=True)
class Config:
    """Settings of one experiment. `name`, if not empty, prefixes the default run directory."""

    name: str = ""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    transfer: TransferConfig = TransferConfig()
    study: StudyConfig = StudyConfig()


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "transfer": TransferConfig,
    "study": StudyConfig,
}


def field_type(section: type, name: str) -> tuple[type, bool]:
    """Return the plain type of a field, and whether it may be None (`T | None`)."""
    hint = typing.get_type_hints(section)[name]
    if isinstance(hint, types.UnionType):
        (plain,) = [a for a in typing.get_args(hint) if a is not type(None)]
        return plain, True
    return hint, False


def _limits(meta: Any) -> str:
    low, high = meta["low"], meta["high"]
    parts = []
    if low is not None:
        parts.append(f"{'above' if meta['low_open'] else 'at least'} {low:g}")
    if high is not None:
        upper = high if isinstance(high, int) else f"{high:g}"
        parts.append(f"{'below' if meta['high_open'] else 'at most'} {upper}")
    return " and ".join(parts)


def check_value(section: type, name: str, value: Any, where: str) -> Any:
    """Check one value against its field's type, limits and choices.

    Args:
        section: the dataclass that owns the field.
        name: the field.
        value: from TOML or the command line.
        where: name of the value in messages, for example `--epochs` or `a.toml: data.dataset`.

    Returns:
        The value. A float field's int becomes a float.

    Raises:
        UserError: the value is not allowed.
    """
    plain, optional = field_type(section, name)
    meta = section.__dataclass_fields__[name].metadata  # type: ignore[attr-defined]
    if value is None and optional:
        return None
    if plain is float and type(value) is int:
        value = float(value) if abs(value) < 2**1000 else math.inf
    if type(value) is not plain:
        kind = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
        raise UserError(f"{where}: {shown(value)} is not {kind[plain]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value} is not a finite number; allowed: {_limits(meta)}")
    if meta["choices"] and value not in meta["choices"]:
        allowed = ", ".join(meta["choices"])
        raise UserError(f"{where}: {shown(value)} is not known; allowed: {allowed}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = meta["low"], meta["high"]
        too_low = low is not None and (value <= low if meta["low_open"] else value < low)
        too_high = high is not None and (value >= high if meta["high_open"] else value > high)
        if too_low or too_high:
            raise UserError(f"{where}: {shown(value)} is out of range; allowed: {_limits(meta)}")
    if isinstance(value, str) and not is_name(value):
        raise UserError(
            f"{where}: an empty or unprintable string is not allowed, nor one of more than 1000 "
            f"characters: {shown(value)}"
        )
    return value


def parse_value(section: type, name: str, text: str, where: str) -> Any:
    """Parse a field's value from the text of a flag or list, and check it by `check_value`."""
    plain, _ = field_type(section, name)
    kinds = {int: "an integer", float: "a number"}
    value: Any = text
    if plain in kinds:
        try:
            value = plain(text)
        except ValueError:
            raise UserError(f"{where}: {shown(text)} is not {kinds[plain]}") from None
    elif plain is bool:
        value = {"true": True, "false": False}.get(text, text)
    return check_value(section, name, value, where)


def _check_name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}|", value):
        raise UserError(
            f"{where}: {shown(value)} is not allowed; up to 64 letters, digits, '.', '_' and '-'"
        )
    return value


def unknown(key: str, known: list[str], where: str) -> UserError:
    """Return the error for an unknown key, with the known key most like it."""
    near = difflib.get_close_matches(key.rpartition(".")[2][:100], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"{where}: unknown key {shown(key)}{hint} (allowed: {', '.join(known)})")


def from_dict(tables: Any, where: str) -> Config:
    """Build a validated `Config` from nested tables.

    Args:
        tables: as `tomllib` returns them; absent keys keep the protocol's defaults.
        where: name of the source in messages.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or is out of range.
    """
    if not isinstance(tables, dict):
        raise UserError(f"{where}: {shown(tables)} is not a configuration")
    sections: dict[str, Any] = {}
    for key, table in tables.items():
        if key == "name":
            sections["name"] = _check_name(table, f"{where}: name")
            continue
        if key not in SECTIONS:
            raise unknown(key, ["name", *SECTIONS], where)
        if not isinstance(table, dict):
            raise UserError(f"{where}: {key!r} must be a table, [{key}]")
        fields = [f.name for f in dataclasses.fields(SECTIONS[key])]
        for name in table:
            if name not in fields:
                raise unknown(f"{key}.{name}", fields, where)
        values = {
            name: check_value(SECTIONS[key], name, value, f"{where}: {key}.{name}")
            for name, value in table.items()
        }
        sections[key] = SECTIONS[key](**values)
    return Config(**sections)


def load(path: str | Path) -> Config:
    """Read and validate a TOML configuration file.

    Raises:
        UserError: the file cannot be read, is not TOML, or has a setting that is not allowed.
    """
    path = Path(path)
    try:
        text = read_bytes(path, LARGEST_FILE).decode("utf-8-sig")  # With or without a BOM.
    except (OSError, ValueError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "not UTF-8 text; save it as UTF-8"
        )
        raise UserError(f"--config {path}: cannot be read ({reason})") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{path}: not valid TOML: nested too deeply") from None
    except ValueError:  # Python's limit of 4300 digits
        raise UserError(f"{path}: not valid TOML: a number with too many digits") from None
    return from_dict(tables, str(path))


def override(config: Config, section: str, name: str, value: Any, where: str) -> Config:
    """Return a copy of `config` with one field replaced, after validation."""
    checked = check_value(SECTIONS[section], name, value, where)
    table = dataclasses.replace(getattr(config, section), **{name: checked})
    return dataclasses.replace(config, **{section: table})


def to_dict(config: Config) -> dict[str, Any]:
    """Return nested plain tables for TOML.

    TOML has no null, so fields that are None are absent. So are `[study]` and `[transfer]` if all
    their fields have default values.
    """
    tables = dataclasses.asdict(config)
    if config.study == StudyConfig():
        del tables["study"]
    if config.transfer == TransferConfig():
        del tables["transfer"]
    written: dict[str, Any] = {"name": tables.pop("name")} if config.name else {}
    tables.pop("name", None)
    for section, table in tables.items():
        plain = {k: int(v) if isinstance(v, Fitted) else v for k, v in table.items()}
        written[section] = {k: v for k, v in plain.items() if v is not None}
    return written


def to_toml(config: Config) -> str:
    """Return TOML text that `load` reads back to an equal `Config`."""
    import tomli_w

    return tomli_w.dumps(to_dict(config))
