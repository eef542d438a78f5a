"""Types of a run's records: `results.json`, and the metadata of a checkpoint.

Only `read_results` and `validate` check the content of a file. They ignore unknown fields, which a
newer version may have written.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from cifar_jax.config import tables
from cifar_jax.config.settings import Config
from cifar_jax.errors import UserError
from cifar_jax.failures import is_lack
from cifar_jax.inputs import LINE
from cifar_jax.names import RESULTS
from cifar_jax.storage import read_sealed, write_sealed

Line = Annotated[str, Meta(pattern=rf"\A{LINE}{{1,1000}}\Z")]
# Long, because it can contain environment variables and paths.
Text = Annotated[str, Meta(pattern=rf"\A{LINE}{{1,100000}}\Z")]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Number = Annotated[float, Meta(ge=-1e40, le=1e40)]  # finite, and all of float32
Share = Annotated[float, Meta(ge=0, le=1)]


class Damaged(UserError):
    """A file is damaged or has wrong content. The message says where and why."""


class DatasetRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The images of a run.

    Attributes:
        name: for example "cifar10".
        fingerprint: SHA-256 of images and labels, in hex.
        n_train, n_val, n_test: numbers of images.
        classes: names of the classes, by label.
        notes: lines on skipped, changed and repeated images.
        image_shape: (H, W, C); files leave out (32, 32, 3).
    """

    name: Line
    fingerprint: Line
    n_train: Count
    n_val: Count
    n_test: Count
    classes: Annotated[tuple[Line, ...], Meta(min_length=2)]
    notes: tuple[Line, ...]
    image_shape: tuple[Count, Count, Count] = (32, 32, 3)

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")


class EpochRow(Struct, frozen=True, kw_only=True):
    """One epoch, counted from 1: losses in nats, accuracies as fractions, wall-clock seconds."""

    epoch: Count
    train_loss: Number
    train_accuracy: Number
    val_loss: Number
    val_accuracy: Number
    seconds: Number
    learning_rate: Number
    images_per_second: Number


class Origin(Struct, frozen=True, kw_only=True):
    """The network that gave initial values.

    Attributes:
        source: its path, and for a checkpoint its epoch.
        digest: SHA-256 in hex, see `pretrained.Source`.
        tensors_taken: number of tensors taken from it.
        parameters_taken: number of values in these tensors.
        left: a line for each tensor that was not taken.
    """

    source: Text
    digest: Line
    tensors_taken: Count
    parameters_taken: Count
    left: tuple[str, ...]


class Unfinished(Struct, frozen=True, kw_only=True):
    """The finished steps of an unfinished epoch, and their seconds."""

    steps: Count
    seconds: Number


class Spent(Struct, frozen=True, kw_only=True):
    """Seconds of a run. Runs that train together, or share images, have equal shares.

    Attributes:
        data: loading of the images, once a command.
        compiling: start of the run, with its first state and its programs.
        training: compiled programs.
        writing: between the programs: rows, lines, waiting for a checkpoint.
        evaluation: of the test images, beside the last checkpoint.
    """

    data: Number = 0.0
    compiling: Number = 0.0
    training: Number = 0.0
    writing: Number = 0.0
    evaluation: Number = 0.0


class Training(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields that checkpoints and results share.

    Attributes:
        config: tables as in `config.toml`, with all fields.
        dataset: images of the run.
        compile_seconds: time that training waited for the compiler, also before resumptions.
        computed_on: devices and versions, see `provenance.describe_computing`, without repeats.
        history: one row for each epoch.
        init_from: origin of the initial values; None for random ones.
        described: the experiment in words, by field, if it is of an experiment file.
        spent: where time went, also before resumptions; None in earlier records.
    """

    config: dict[str, Any]
    dataset: DatasetRecord
    compile_seconds: Number
    computed_on: tuple[Text, ...]
    history: tuple[EpochRow, ...]
    init_from: Origin | None = None
    described: dict[Line, Text] | None = None
    spent: Spent | None = None

    def __post_init__(self) -> None:
        complete = tables.to_dict(self.settings)
        msgspec.structs.force_setattr(self, "config", complete)

    @property
    def settings(self) -> Config:
        """The config as an object."""
        return tables.from_dict(self.config, "config")

    @property
    def origin_digest(self) -> str | None:
        """Digest of the network that gave initial values; None for random ones."""
        return self.init_from.digest if self.init_from else None


class RunRecord(Training, frozen=True, kw_only=True, omit_defaults=True):
    """One run in the metadata of a checkpoint. `name` is its name in its group."""

    name: Line


class GroupRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The metadata of a checkpoint. `unfinished` is None at the end of an epoch."""

    runs: Annotated[tuple[RunRecord, ...], Meta(min_length=1)]
    unfinished: Unfinished | None = None


class _Ended(Training, frozen=True, kw_only=True, omit_defaults=True, tag_field="status"):
    """The fields that all results share.

    Attributes:
        model, norm, seed: as in the config. With an experiment file, the class of the network, and
            None.
        num_params: number of trainable parameters.
        train_seconds: sum over the epochs.
        compile_share: compilation's share of the time of compilation and training.
        seed_parallelism: number of runs that trained together.
        peak_memory_bytes, peak_device_memory_bytes: None if unknown.
        device: one line; None if unknown.
        variables: environment variables that can change the numbers.
        deterministic, determinism_note: see `provenance.determinism`.
        versions: of Python and packages.
        git_revision: of the code; None outside a checkout.
        finished: time of the end, ISO 8601.
    """

    model: Line
    norm: Line | None
    seed: Count
    num_params: Annotated[int, Meta(gt=0, lt=2**53)]
    train_seconds: Number
    compile_share: Number
    seed_parallelism: Count
    peak_memory_bytes: Count | None
    peak_device_memory_bytes: Count | None
    device: Line | None
    variables: dict[Line, Text]
    deterministic: bool
    determinism_note: Text
    versions: dict[Line, Line]
    git_revision: Line | None
    finished: Line


class Finished(_Ended, frozen=True, kw_only=True, omit_defaults=True, tag="finished"):
    """`results.json` of a run that trained all its epochs.

    Attributes:
        test_loss: in nats.
        test_accuracy: a fraction.
        per_class_accuracy: fractions by name; None for a class without test images.
        confusion_matrix: counts, rows are true classes; None for more than 200 classes.
        predictions: name of the file with logits, predicted and true classes.
        predictions_sha256: digest of that file in hex; None in a record without digests.
    """

    history: Annotated[tuple[EpochRow, ...], Meta(min_length=1)]
    train_seconds: Annotated[float, Meta(gt=1e-9, lt=1e12)]  # studies divide by it
    test_loss: Number
    test_accuracy: Share
    per_class_accuracy: dict[Line, Share | None]
    confusion_matrix: tuple[tuple[Count, ...], ...] | None
    predictions: Line
    predictions_sha256: Line | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        classes, matrix = self.dataset.classes, self.confusion_matrix
        if set(self.per_class_accuracy) != set(classes):
            raise ValueError("per_class_accuracy and dataset.classes name different classes")
        if matrix is not None and [len(row) for row in matrix] != [len(classes)] * len(classes):
            raise ValueError(f"confusion_matrix is not {len(classes)} x {len(classes)}")


class DivergedAt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the loss stopped being finite.

    Attributes:
        epoch: counted from 1.
        step: within the epoch, from 1. None if only the validation loss or the mean is not finite.
        operation: the first with a non-finite value, with `--debug-nans`.
    """

    epoch: Count
    step: Count | None
    operation: Text | None = None


class Diverged(_Ended, frozen=True, kw_only=True, omit_defaults=True, tag="diverged"):
    """`results.json` of a run that diverged. It has no test accuracy."""

    diverged: DivergedAt


Results = Finished | Diverged


def validate(value: Any, kind: Any, where: Path) -> Any:
    """Convert plain data to a record.

    Args:
        value: as `json` returns it.
        kind: the type of the record.
        where: the file, for the message.

    Raises:
        Damaged: a field is wrong; the message says which, and what it must be.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        what = re.sub("matching regex .*", "of one printable line", what).removeprefix("Object ")
        field = re.sub(r"[`$]|(?<=\$)\.", "", path)
        raise Damaged(f"{where}: cannot be used: {field}{': ' if field else ''}{what}") from None
    except (UserError, ValueError) as error:  # A wrong config, or undecodable text.
        raise Damaged(f"{where}: cannot be used: {error}") from None


def read_plain(path: Path) -> Any:
    """Read a JSON file with a digest of its content.

    Raises:
        FileNotFoundError: there is no file.
        Damaged: it cannot be read, or differs from what was written.
    """
    try:
        return read_sealed(path)
    except OSError as error:
        if is_lack(error) or isinstance(error, FileNotFoundError):
            raise
        raise Damaged(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise Damaged(f"{path}: cannot be used: {error}") from None


def read_results(workdir: Path) -> Results | None:
    """Read `results.json` in a run's directory. Return None for an unfinished run.

    Raises:
        Damaged: it cannot be read, or its content is wrong.
    """
    path = workdir / RESULTS
    try:
        value = read_plain(path)
    except FileNotFoundError:
        return None
    results: Results = validate(value, Results, path)
    if isinstance(results, Finished) and ("sha256" in value) != bool(results.predictions_sha256):
        raise Damaged(f"{path}: cannot be used: one of its two digests is missing")
    return results


def write_results(workdir: Path, results: Results) -> None:
    """Write `results.json` atomically, with the digest of its content. NaN becomes null."""
    write_sealed(workdir / RESULTS, msgspec.to_builtins(results))
