"""Build the training core's `Experiment` and `Hyper` from a config."""

import dataclasses
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.config.combinations import milestones
from cifar_jax.config.layerwise import Rates, parse_patterns, parse_rates
from cifar_jax.config.normalisation import parse_channels
from cifar_jax.config.settings import Config, TrainingConfig, TransferConfig
from cifar_jax.core import optimizers, schedules
from cifar_jax.core.inputs import Inputs, random_crop_and_flip
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Hyper, Optimizer, Schedule, StepDecay, sgd
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import Experiment, cross_entropy
from cifar_jax.kernels import FastModel, fast
from cifar_jax.methods.ghost import Ghost
from cifar_jax.methods.layer_rates import LayerRates, matches, parameter_name
from cifar_jax.methods.muon import Muon
from cifar_jax.methods.regularise import Cutout, LabelSmoothing, Mixup, RandomErasing, random_crop

# Batch size at which linear scaling does not change the learning rate; the protocol's.
REFERENCE_BATCH = 128
# Images in a forward pass of evaluation: the activations of 64 images stay in a CPU's cache.
CPU_EVAL_BATCH = 64

_IMAGENET = {"blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512), "shortcut": "project"}
# 6n + 2 layers have weights: a stem, three stages of n blocks of two, and the last.
_BLOCKS = {"20": 3, "32": 5, "56": 9}
_RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": _IMAGENET,
    **{f"resnet{depth}": {"blocks": (n, n, n)} for depth, n in _BLOCKS.items()},
    **{f"plain{depth}": {"blocks": (n, n, n), "shortcut": "none"} for depth, n in _BLOCKS.items()},
}


def first_width(name: str) -> int:
    """Return the channels of a network's first convolution. All other widths are multiples."""
    if name == "cnn":
        return CNN.widths[0]
    widths: tuple[int, ...] = _RESNETS[name].get("widths", ResNet.widths)
    return widths[0]


def network(name: str, *, zero_init: bool = False, **options: Any) -> nn.Module:
    """Build a network by name, one of `settings.MODELS`.

    Args:
        zero_init: of residual networks, see `ResNet`.
        options: attributes that `CNN` and `ResNet` share.
    """
    if name == "cnn":
        return CNN(**options)
    return ResNet(**_RESNETS[name], zero_init=zero_init, **options)


def parameter_names(model: nn.Module, image_shape: tuple[int, ...] = (32, 32, 3)) -> list[str]:
    """Return the names of all parameters, such as "conv1.kernel", without computing them."""
    example = jnp.zeros((1, *image_shape))
    variables = jax.eval_shape(lambda key: model.init(key, example, train=False), jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return [parameter_name(path) for path, _ in leaves]


def _frozen_norms(model: nn.Module, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the norm layers with frozen scale and bias."""
    frozen = {
        name for name in parameter_names(model) if any(matches(name, part) for part in patterns)
    }
    layers = [name.removesuffix(".scale") for name in frozen if name.endswith(".scale")]
    return tuple(sorted(layer for layer in layers if f"{layer}.bias" in frozen))


def frozen_patterns(transfer: TransferConfig) -> tuple[str, ...]:
    """Return the patterns of the parameters that are not trained."""
    return parse_patterns(transfer.freeze, "--freeze")


def layer_rates(transfer: TransferConfig) -> Rates:
    """Return the learning rate's factors. Freezing overrides a factor."""
    frozen = tuple((pattern, 0.0) for pattern in frozen_patterns(transfer))
    return parse_rates(transfer.lr_multipliers, "--lr-multipliers") + frozen


def build_model(config: Config) -> nn.Module:
    """Build the network of a config whose class count is known."""
    settings = config.model
    model = network(
        settings.name,
        num_classes=settings.num_classes,
        norm=Ghost(settings.norm_parts) if settings.norm == "ghost" else settings.norm,
        dropout=settings.dropout,
        norm_groups=settings.norm_groups,
        norm_momentum=settings.norm_momentum,
        zero_init=settings.zero_init_residual,
    )
    patterns = frozen_patterns(config.transfer)
    return model.clone(frozen_norms=_frozen_norms(model, patterns)) if patterns else model


def _inputs(config: Config) -> Inputs:
    """Build augmentation, mixing and normalisation."""
    training = config.training
    data = config.data
    crop = random_crop if data.flip is False else random_crop_and_flip
    augment: list[Any] = [crop] if data.augment else []
    if training.random_erasing:
        area = (training.erasing_area_low, training.erasing_area_high)
        augment.append(RandomErasing(training.random_erasing, area, training.erasing_ratio))
    mix: list[Any] = [Cutout(training.cutout)] if training.cutout else []
    if training.mixup:
        assert config.model.num_classes is not None
        mix.append(Mixup(config.model.num_classes, training.mixup))
    dtype = "bfloat16" if training.precision == "bfloat16" else "float32"
    mean = parse_channels(data.mean, "--mean") if data.mean else Inputs.mean
    std = parse_channels(data.std, "--std") if data.std else Inputs.std
    return Inputs(tuple(augment), tuple(mix), mean, std, dtype)


def _optimizer(config: Config) -> Optimizer:
    """Build the optimiser, with the learning rates of single layers."""
    named: dict[str, Optimizer] = {
        "sgd": sgd,
        "nesterov": optimizers.nesterov,
        "adamw": optimizers.adamw,
        "muon": Muon(config.model.num_classes),
    }
    rates = layer_rates(config.transfer)
    base = named[config.training.optimizer]
    return LayerRates(base, rates) if rates else base


def _schedule(training: TrainingConfig) -> Schedule:
    """Build the schedule of the learning rate, with its warm-up."""
    named: dict[str, Schedule] = {
        "step": StepDecay(training.decay_every, training.decay_factor),
        "constant": schedules.constant,
        "multistep": schedules.MultiStepDecay(milestones(training), training.decay_factor),
        "cosine": schedules.Cosine(training.final_fraction),
        "onecycle": schedules.OneCycle(),
    }
    schedule = named[training.schedule]
    if not training.warmup_epochs:
        return schedule
    delay = training.schedule in ("cosine", "onecycle")
    return schedules.Warmup(training.warmup_epochs, schedule, delay)


def build_experiment(config: Config) -> Experiment:
    """Build the experiment of a config whose class count is known, for JAX's default backend."""
    training = config.training
    smoothing = training.label_smoothing
    # Products of bfloat16 are exact.
    precisions = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}
    experiment = Experiment(
        model=build_model(config),
        inputs=_inputs(config),
        loss=LabelSmoothing(smoothing) if smoothing else cross_entropy,
        optimizer=_optimizer(config),
        schedule=_schedule(training),
        batch_size=training.batch_size,
        epochs=training.epochs,
        precision=precisions[training.precision],
    )
    return for_device(experiment, training.kernels)


def initial_learning_rate(training: TrainingConfig) -> float:
    """Return the initial or peak learning rate, after linear scaling.

    Goyal et al. 2017, arXiv 1706.02677, section 2.1.
    """
    if training.lr_scaling == "linear":
        return training.learning_rate * training.batch_size / REFERENCE_BATCH
    return training.learning_rate


def hyperparams(config: Config) -> Hyper:
    """Return the traced hyper-parameters of a config, as float32 scalars."""
    training = config.training
    return Hyper(
        learning_rate=np.float32(initial_learning_rate(training)),
        momentum=np.float32(training.momentum),
        weight_decay=np.float32(training.weight_decay),
    )


def for_device(experiment: Experiment, kernels: str = "auto") -> Experiment:
    """Return an experiment as commands train it on JAX's default backend: as fast as possible.

    Its layers get the faster code of the package `kernels`, unless the argument is "plain". A CPU
    always computes full float32, so there the precision becomes None. The default size of
    evaluation batches becomes the CPU's.
    """
    changed: dict[str, Any] = {}
    if kernels == "auto" and not isinstance(experiment.model, FastModel):
        changed["model"] = cast(nn.Module, fast(experiment.model))
    if jax.default_backend() == "cpu":
        changed["precision"] = None
        if experiment.eval_batch_size == Experiment.eval_batch_size:
            changed["eval_batch_size"] = CPU_EVAL_BATCH
    return dataclasses.replace(experiment, **changed)
