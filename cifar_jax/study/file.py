"""Load an experiment file: a Python file whose `arms` are experiments to compare.

Loading the file runs it. Its names:

- The docstring is the title of the report.
- `arms`, required: a dict from names to `Experiment`s, or to `FileArm`s with hyper-parameters.
- `labels`: a dict from names of arms to their text in the report.
- `control`: name of the arm to compare with; the first arm by default.
- `claims`: a list of `better(...)` and `equivalent(...)`.
- `data`: the file's own images, from `from_arrays` or `load`, or a function that returns them.
"""

import dataclasses
import hashlib
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cifar_jax.config import tables
from cifar_jax.config.build import for_device
from cifar_jax.config.settings import Config, FileConfig, TrainingConfig
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment
from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import UserError, one_line, shown
from cifar_jax.inputs import ARM, is_name, read_bytes
from cifar_jax.names import NOT_ARMS
from cifar_jax.study import grid
from cifar_jax.study.claims import Claim, check_claims
from cifar_jax.study.user_code import user_error
from cifar_jax.study.values import parse_hyper

LARGEST = 1 << 20  # bytes
LARGEST_NUMBER = 1e38  # of a hyper-parameter; fits float32
# Attributes of an experiment and of its hyper-parameters that are settings of a config.
_OF_EXPERIMENT = ("epochs", "batch_size")
OF_HYPER = tuple(field.name for field in dataclasses.fields(Hyper))


@runtime_checkable
class Images(Protocol):
    """Images with a split, such as `library.images.Images`."""

    @property
    def dataset(self) -> Dataset: ...

    @property
    def config(self) -> Config: ...


@dataclass(frozen=True)
class FileArm:
    """An arm of an experiment file.

    Attributes:
        experiment: what is compiled.
        hyper: traced hyper-parameters. A subclass of `Hyper` may add fields.
    """

    experiment: Experiment
    hyper: Hyper = field(default_factory=Hyper)


@dataclass(frozen=True)
class ExperimentFile:
    """A loaded experiment file.

    Attributes:
        path: of the file.
        source: its text.
        title: first paragraph of its docstring; empty without one.
        arms: by name.
        labels: of the arms, by name.
        control: name of the arm to compare with.
        claims: to decide.
        images: its own images, or None.
    """

    path: Path
    source: str
    title: str
    arms: dict[str, FileArm]
    labels: dict[str, str]
    control: str
    claims: tuple[Claim, ...]
    images: Images | None

    @property
    def dataset(self) -> Dataset | None:
        """All images of the file, without their split."""
        return self.images.dataset if self.images else None

    @property
    def sha256(self) -> str:
        """Digest of the source, in hex."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def table(self) -> FileConfig:
        """The file in a config."""
        return FileConfig(file=self.path.name, sha256=self.sha256)

    def arm(self, name: str, given: Collection[str] = ()) -> grid.Arm:
        """Return an arm with its settings.

        Args:
            name: of the arm.
            given: settings, `section.name`, that the config has instead of the file.
        """
        found = self.arms[name]
        values = {key: getattr(found.experiment, key) for key in _OF_EXPERIMENT}
        values |= {key: float(getattr(found.hyper, key)) for key in OF_HYPER}
        settings = ((f"training.{key}", value) for key, value in values.items())
        kept = (pair for pair in settings if pair[0] not in given)
        return grid.Arm(name, (("experiment.arm", name), *kept))

    def build(self, config: Config) -> tuple[Experiment, Hyper]:
        """Build the experiment and hyper-parameters of a run, for JAX's default backend.

        Raises:
            UserError: the arm or a swept hyper-parameter is not the file's.
        """
        name = config.experiment.arm
        if name is None or name not in self.arms:
            raise UserError(f"{self.path}: has no arm {shown(name)}; {_allowed(self.arms)}")
        arm, training = self.arms[name], config.training
        changed: dict[str, Any] = {key: getattr(training, key) for key in _OF_EXPERIMENT}
        experiment = dataclasses.replace(arm.experiment, **changed)
        own = parse_hyper(config.experiment.hyper)
        known = [field.name for field in dataclasses.fields(arm.hyper)]
        for key in own:
            if key not in known:
                raise UserError(
                    f"--sweep hyper.{key}: arm {name} of {self.path} has no such "
                    f"hyper-parameter; {_allowed(known)}; --arms chooses arms"
                )
        values = {key: getattr(arm.hyper, key) for key in known}
        values |= {key: getattr(training, key) for key in OF_HYPER} | own
        hyper = type(arm.hyper)(**{key: np.float32(value) for key, value in values.items()})
        return for_device(experiment, training.kernels), hyper


def load_file(path: Path) -> ExperimentFile:
    """Run an experiment file, and check its names.

    Raises:
        UserError: it cannot be read or run, or a name has a wrong value. The message has its line.
    """
    try:
        source = read_bytes(path, LARGEST).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    module = _run(path, source)
    arms = _arms(path, getattr(module, "arms", None))
    control = getattr(module, "control", next(iter(arms)))
    if control not in list(arms):
        raise UserError(f"{path}: control: {shown(control)} is not an arm; {_allowed(arms)}")
    return ExperimentFile(
        path=path,
        source=source,
        title=" ".join(str(module.__doc__ or "").strip().split("\n\n")[0].split())[:1000],
        arms=arms,
        labels=_labels(path, getattr(module, "labels", {}), arms),
        control=control,
        claims=_claims(path, getattr(module, "claims", ()), list(arms)),
        images=_images(path, getattr(module, "data", None)),
    )


def _run(path: Path, source: str) -> ModuleType:
    """Run the source as a module. Modules beside it can be imported."""
    name = f"experiment_file_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # Dataclasses and pickles look it up.
    if (directory := str(path.absolute().parent)) not in sys.path:
        sys.path.append(directory)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise user_error(error, path) from error
    return module


def _allowed(arms: Collection[str]) -> str:
    return f"allowed: {', '.join(arms)}"


def _arms(path: Path, arms: Any) -> dict[str, FileArm]:
    """Check `arms`, and return them as `FileArm`s."""
    if not isinstance(arms, dict) or not arms:
        raise UserError(f'{path}: needs arms, such as arms = {{"relu": cj.Experiment(...)}}')
    found: dict[str, FileArm] = {}
    for name, arm in arms.items():
        where = f"{path}: arms[{shown(name)}]"
        if not isinstance(name, str) or not re.fullmatch(ARM, name):
            raise UserError(f"{where}: a name has 1 to 64 letters, digits and '_'")
        if name in NOT_ARMS:
            raise UserError(f"{where}: no arm can be called {', '.join(NOT_ARMS)}")
        found[name] = _arm(arm, where)
    return found


def _arm(arm: Any, where: str) -> FileArm:
    """Check an arm, and return it as a `FileArm`."""
    if isinstance(arm, Experiment):
        arm = FileArm(arm)
    if not isinstance(arm, FileArm) or not isinstance(arm.experiment, Experiment):
        raise UserError(f"{where}: is a {type(arm).__name__}; allowed: Experiment or Arm")
    if not isinstance(arm.hyper, Hyper):
        kind = type(arm.hyper).__name__
        raise UserError(f"{where}: hyper is a {kind}; allowed: Hyper or a subclass")
    try:
        hash(arm.experiment)
    except TypeError as error:
        raise UserError(
            f"{where}: must be hashable, so use tuples and frozen dataclasses ({one_line(error)})"
        ) from error
    for key in _OF_EXPERIMENT:
        value = getattr(arm.experiment, key)
        tables.check_value(TrainingConfig, key, value, f"{where}: {key}")
    size = arm.experiment.eval_batch_size
    tables.check_value(TrainingConfig, "batch_size", size, f"{where}: eval_batch_size")
    for key in (f.name for f in dataclasses.fields(arm.hyper)):
        _check_hyper(key, getattr(arm.hyper, key), f"{where}: {key}")
    return arm


def _check_hyper(key: str, value: Any, where: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < LARGEST_NUMBER:
        raise UserError(f"{where}: {shown(value)} is not a finite number")
    if key in OF_HYPER:
        tables.check_value(TrainingConfig, key, value, where)


def _labels(path: Path, labels: Any, arms: Collection[str]) -> dict[str, str]:
    if not isinstance(labels, dict):
        raise UserError(f"{path}: labels: is a {type(labels).__name__}; allowed: a dict")
    for name, label in labels.items():
        if name not in arms:
            raise UserError(f"{path}: labels: {shown(name)} is not an arm; {_allowed(arms)}")
        if not is_name(label):
            raise UserError(f"{path}: labels[{shown(name)}]: {shown(label)} is not a line of text")
    return {name: labels.get(name, name) for name in arms}


def _claims(path: Path, claims: Any, arms: Sequence[str]) -> tuple[Claim, ...]:
    if not isinstance(claims, Sequence):
        raise UserError(f"{path}: claims: is a {type(claims).__name__}; allowed: a list")
    try:
        return check_claims(claims, arms)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _images(path: Path, data: Images | Callable[[], Images] | None) -> Images | None:
    if callable(data):
        try:
            data = data()
        except (Exception, SystemExit) as error:
            raise user_error(error, path, "data()", data) from error
    if data is not None and not isinstance(data, Images):
        what = type(data).__name__
        raise UserError(f"{path}: data: is a {what}; allowed: what from_arrays or load returns")
    return data
