"""Check the arms of an experiment file before training, and what they share."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.core.optim import Hyper
from cifar_jax.core.optimizers import parameter_name
from cifar_jax.core.train import Experiment, init_state, predict, train_step
from cifar_jax.errors import UserError, counted
from cifar_jax.study.file import ExperimentFile
from cifar_jax.study.user_code import line_of, text_of, user_error


def check_arms(
    file: ExperimentFile, names: Sequence[str], image_shape: tuple[int, ...], classes: int
) -> None:
    """Trace a step of each arm, and check the shapes. Nothing is computed.

    Args:
        file: the experiment file.
        names: of its arms.
        image_shape: (H, W, C).
        classes: number of classes of the dataset.

    Raises:
        UserError: an arm cannot be trained. The message has the line of the file.
    """
    for name in names:
        try:
            _check(file, name, image_shape, classes)
        except UserError:
            raise
        except Exception as error:
            raise user_error(error, file.path, f"arm {name}") from error


def _check(file: ExperimentFile, name: str, image_shape: tuple[int, ...], classes: int) -> None:
    def wrong(function: Any, message: str) -> UserError:
        line = line_of(function)
        where = f"{file.path}:{line}" if line else str(file.path)
        return UserError(f"{where}: arm {name}: {message}")

    arm = file.arms[name]
    check_experiment(arm.experiment, arm.hyper, image_shape, classes, wrong)


def check_experiment(
    experiment: Experiment,
    hyper: Hyper,
    image_shape: tuple[int, ...],
    classes: int,
    wrong: Callable[[Any, str], UserError],
) -> None:
    """Trace a step of an experiment, and check the shapes. Nothing is computed.

    Args:
        experiment, hyper: to train.
        image_shape: (H, W, C).
        classes: number of classes of the dataset.
        wrong: makes the error, of the function that is wrong and of what is wrong with it.

    Raises:
        UserError: it cannot be trained.
    """
    key = jax.random.key(0)
    state = jax.eval_shape(partial(init_state, experiment, image_shape=image_shape), key)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    logits = jax.eval_shape(partial(predict, experiment), state, images)
    if logits.shape != (2, classes):
        raise wrong(
            type(experiment.model).__call__,
            f"the model returns logits {_shape(logits)} of 2 images; must be (2, {classes}), since "
            f"the dataset has {classes} classes",
        )
    loss = jax.eval_shape(experiment.loss_of, logits, labels, hyper)
    if not hasattr(loss, "shape") or loss.shape != ():
        raise wrong(
            experiment.loss,
            f"the loss of 2 images is {_shape(loss)}; must be one number, such as a mean",
        )
    step = partial(train_step, experiment, hyper, 2)
    after = jax.eval_shape(step, state, images, labels)
    _check_same(state, after, partial(wrong, experiment.optimizer))


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if hasattr(value, "shape") else f"a {type(value).__name__}"


def _check_same(before: Any, after: Any, wrong: Any) -> None:
    """Check that a step keeps the shapes and dtypes of the state, as a compiled loop needs."""
    structures = [str(jax.tree.structure(tree)) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise wrong("a step changes the structure of the optimiser's state or of the statistics")
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, old), new in pairs:
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            what = jax.tree_util.keystr(path)
            raise wrong(
                f"a step changes {what} from {old.dtype} {old.shape} to {new.dtype} {new.shape}"
            )


def unshared(
    file: ExperimentFile, names: Sequence[str], control: str, image_shape: tuple[int, ...]
) -> dict[str, list[str]]:
    """Return `unshared_draws` of some arms of a file."""
    arms = {name: file.arms[name].experiment for name in names}
    return unshared_draws(arms, file.arms[control].experiment, image_shape)


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
    listed = ", ".join(own[:3]) + (", ..." if len(own) > 3 else "")
    of = counted(len(second), "parameter")
    return [f"{len(own)} of {of} have other initial values: {listed}."]
