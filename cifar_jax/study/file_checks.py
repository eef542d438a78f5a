"""Check the arms of an experiment file before training, and what they share."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cifar_jax.config.settings import NORMS, Config
from cifar_jax.core.inputs import call
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import Experiment, init_state, predict, train_step
from cifar_jax.errors import UserError, counted
from cifar_jax.methods.layer_rates import parameter_name
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.user_code import place_of, text_of, user_error

Wrong = Callable[[Any, str], UserError]


class Problem(NamedTuple):
    """The images to train on.

    Attributes:
        image_shape: (H, W, C).
        classes: number of classes.
        n_train: number of training images.
    """

    image_shape: tuple[int, ...]
    classes: int
    n_train: int


def check_arm(file: ExperimentFile, config: Config, problem: Problem) -> None:
    """Trace a step of an arm, and check the shapes. Nothing is computed.

    Args:
        file: the experiment file.
        config: of a run of the arm.
        problem: its images.

    Raises:
        UserError: the arm cannot be trained. The message has the line of the file.
    """
    name = config.experiment.arm or ""
    experiment, hyper = file.build(config)
    # As in the file: an error in faster code for the layers would say less.
    own = file.arms[name].experiment
    experiment = replace(experiment, model=own.model, precision=own.precision)

    def wrong(function: Any, message: str) -> UserError:
        return UserError(f"{place_of(function, file.path)}: arm {name}: {message}")

    @contextlib.contextmanager
    def calls(function: Any, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise user_error(error, file.path, f"arm {name}: {what}", function) from error

    check_experiment(experiment, hyper, problem, wrong, calls)


def _any_error(function: Any, what: str) -> contextlib.AbstractContextManager[None]:
    """Let the errors of a call pass."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class _Checks:
    """Checks of an experiment, see `check_experiment`."""

    experiment: Experiment
    hyper: Hyper
    problem: Problem
    wrong: Wrong
    calls: Callable[[Any, str], contextlib.AbstractContextManager[None]]

    @property
    def images(self) -> jax.ShapeDtypeStruct:
        """A batch of two images."""
        return jax.ShapeDtypeStruct((2, *self.problem.image_shape), jnp.uint8)

    @property
    def labels(self) -> jax.ShapeDtypeStruct:
        """Their labels."""
        return jax.ShapeDtypeStruct((2,), jnp.int32)

    def inputs(self) -> tuple[Any, Any, Any]:
        """Check `inputs`. Return what they make of a batch: x in evaluation, x and targets."""
        inputs, key = self.experiment.inputs, jax.random.key(0)
        function = inputs.function or inputs
        for name in ("augment", "mix"):
            if not isinstance(getattr(inputs, name), tuple):
                raise self.wrong(inputs, f"Inputs: {name} must be a tuple, such as (function,)")
        for augment in inputs.augment:
            with self.calls(augment, "augment(key, images)"):
                found = jax.eval_shape(partial(call, augment, epoch=0), key, self.images)
            if (_shape(found), str(found.dtype)) != (_shape(self.images), "uint8"):
                raise self.wrong(
                    augment,
                    f"augment returns {found.dtype} {_shape(found)} for images uint8 "
                    f"{_shape(self.images)}; must be like them, from 0 to 255",
                )
        with self.calls(function, "inputs(None, images), as in evaluation"):
            plain = jax.eval_shape(inputs.evaluate, self.images)
        with self.calls(function, "inputs(key, images)"):
            x, targets = jax.eval_shape(inputs.train, key, self.images, self.labels)
        for found in (plain, x):
            if not hasattr(found, "shape"):
                raise self.wrong(function, f"inputs return {_shape(found)}; must be an array")
        return plain, x, targets

    def model(self, plain: Any, x: Any) -> Any:
        """Check the model. Return its logits in training."""
        model, key = self.experiment.model, jax.random.key(0)
        if isinstance(model, type) or not hasattr(model, "apply"):
            what = "the class" if isinstance(model, type) else "a"
            name = getattr(model, "__name__", type(model).__name__)
            raise self.wrong(model, f"model: is {what} {name}; must be a Flax module, as cj.CNN()")
        forward = type(getattr(model, "model", model)).__call__
        norm = getattr(model, "norm", None)
        if isinstance(model, CNN | ResNet) and norm not in NORMS:
            raise self.wrong(forward, f"norm={norm!r} is not known; allowed: {', '.join(NORMS)}")
        taken = inspect.signature(forward).parameters.values()
        if not any(one.name == "train" or one.kind is one.VAR_KEYWORD for one in taken):
            raise self.wrong(forward, "the model has no `train`; write __call__(self, x, train)")
        with self.calls(forward, "model(x, train=False)"):
            variables = jax.eval_shape(partial(model.init, train=False), key, plain)
            logits = jax.eval_shape(partial(model.apply, train=False), variables, plain)
        if "params" not in variables:
            raise self.wrong(forward, "the model has no parameters")
        kept = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
        train = partial(model.apply, train=True, mutable=["batch_stats"])
        with self.calls(forward, "model(x, train=True)"):
            in_training, new = jax.eval_shape(
                lambda variables, x, key: train(variables, x, rngs={"dropout": key}), kept, x, key
            )
        for found in (logits, in_training):
            if _shape(found) != str((2, self.problem.classes)):
                raise self.wrong(
                    forward,
                    f"the model returns {_shape(found)} for 2 images; must be logits "
                    f"(2, {self.problem.classes}), since there are {self.problem.classes} classes",
                )
        _check_same(kept["batch_stats"], new.get("batch_stats", {}), partial(self.wrong, forward))
        return in_training

    def loss(self, logits: Any, targets: Any) -> None:
        """Check the loss."""
        function = self.experiment.loss
        with self.calls(function, "loss(logits, targets)"):
            loss = jax.eval_shape(
                lambda hyper, *given: call(function, *given, hyper=hyper),
                *(self.hyper, logits, targets),
            )
        if not hasattr(loss, "shape") or loss.shape != ():
            raise self.wrong(
                function, f"the loss of 2 images is {_shape(loss)}; must be one number, as a mean"
            )
        if not jnp.issubdtype(loss.dtype, jnp.floating):
            raise self.wrong(function, f"the loss is {loss.dtype}; must be a float")

    def schedule(self) -> None:
        """Check the schedule."""
        function, n = self.experiment.schedule, self.problem.n_train

        def rate(hyper: Hyper, step: jax.Array) -> Any:
            return self.experiment.learning_rate(hyper, n)(step)

        what = "schedule(learning_rate, steps_per_epoch, steps), and what it returns of a step"
        with self.calls(function, what):
            found = jax.eval_shape(rate, self.hyper, jnp.int32(0))
        if _shape(found) != "()":
            raise self.wrong(function, f"the learning rate is {_shape(found)}; must be a number")

    def step(self) -> None:
        """Check the optimiser, and `evaluated`."""
        experiment, function = self.experiment, self.experiment.optimizer
        if isinstance(function, optax.GradientTransformation):
            raise self.wrong(
                function, "optimizer: must be a function (hyper, schedule) that returns this"
            )
        with self.calls(None, "precision"), jax.default_matmul_precision(experiment.precision):
            pass
        start = partial(init_state, experiment, image_shape=self.problem.image_shape)
        with self.calls(function, "optimizer(hyper, schedule)"):
            state = jax.eval_shape(start, jax.random.key(0))
            after = jax.eval_shape(
                lambda hyper, *batch: train_step(experiment, hyper, self.problem.n_train, *batch),
                self.hyper,
                *(state, self.images, self.labels),
            )
        _check_same(state, after, partial(self.wrong, function))
        with self.calls(experiment.evaluated, "evaluated(state)"):
            jax.eval_shape(partial(predict, experiment), state, self.images)


def check_experiment(
    experiment: Experiment,
    hyper: Hyper,
    problem: Problem,
    wrong: Wrong,
    calls: Callable[[Any, str], contextlib.AbstractContextManager[None]] = _any_error,
) -> None:
    """Trace a step of an experiment, and check the shapes. Nothing is computed.

    Args:
        experiment, hyper: to train.
        problem: its images.
        wrong: makes the error, of the function that is wrong and of what is wrong with it.
        calls: a context in which a function is called, of the function and the call in words.

    Raises:
        UserError: it cannot be trained.
    """
    checks = _Checks(experiment, hyper, problem, wrong, calls)
    plain, x, targets = checks.inputs()
    logits = checks.model(plain, x)
    checks.loss(logits, targets)
    checks.schedule()
    checks.step()


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if hasattr(value, "shape") else f"a {type(value).__name__}"


def _check_same(before: Any, after: Any, wrong: Callable[[str], UserError]) -> None:
    """Check that a step keeps the shapes and dtypes of a state, as a compiled loop needs."""
    first, second = (
        {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (before, after)
    )
    for what in {**first, **second}:
        if what not in first or what not in second:
            verb = "adds" if what in second else "removes"
            raise wrong(f"a step {verb} {what}; a state must keep its form")
        old, new = first[what], second[what]
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise wrong(
                f"a step changes {what} from {old.dtype} {old.shape} to {new.dtype} {new.shape}"
            )


def unshared_draws(
    arms: Mapping[str, Experiment], control: Experiment, image_shape: tuple[int, ...]
) -> dict[str, list[str]]:
    """Return for each arm which random draws it does not share with the control, in sentences.

    Runs of one seed have the same split and the same order of images. They share augmentation if
    their inputs and batch sizes are equal. They share the initial values of parameters with the
    same path and shape.
    """
    found = {}
    for name, other in arms.items():
        lines = [*_batches(control, other), *_initial_values(control, other, image_shape)]
        if lines:
            found[name] = lines
    return found


def _batches(control: Experiment, other: Experiment) -> list[str]:
    if other.batch_size != control.batch_size:
        sizes = f"{other.batch_size} instead of {control.batch_size}"
        return [f"Its batches have {sizes} images, so augmentation and dropout differ."]
    if other.inputs != control.inputs:
        return [f"Its augmentation may differ: the inputs are {text_of(other.inputs)}."]
    return []


def _initial_values(
    control: Experiment, other: Experiment, image_shape: tuple[int, ...]
) -> list[str]:
    if other.model == control.model:
        return []

    @partial(jax.jit, static_argnums=(0,))
    def initial(experiment: Experiment) -> Any:
        return init_state(experiment, jax.random.key(0), image_shape).params

    first, second = (
        {
            parameter_name(path): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(initial(experiment))
        }
        for experiment in (control, other)
    )
    none = np.zeros(0)
    own = [name for name in second if not np.array_equal(first.get(name, none), second[name])]
    if not own:
        return []
    new = len(set(second) - set(first))
    listed = (", such as " if len(own) > 3 else ": ") + ", ".join(own[:3])
    of = counted(len(second), "parameter")
    if new == len(own):
        return [f"{new} of {of} exist only in this arm{listed}."]
    only = f", {new} of them only in this arm" if new else ""
    return [f"{len(own)} of {of} have other initial values{only}{listed}."]
