"""Checks of settings against the network, the device and the data."""

import jax

from cifar_jax.config.build import build_model, first_width, layer_rates, parameter_names
from cifar_jax.config.layerwise import check_patterns
from cifar_jax.config.settings import Config, ModelConfig, TrainingConfig
from cifar_jax.core.optim import sgd
from cifar_jax.errors import UserError
from cifar_jax.methods.ghost import equal_parts
from cifar_jax.methods.layer_rates import LayerRates


def check_norm(model: ModelConfig) -> None:
    """Check the settings of the norm.

    Raises:
        UserError: the groups do not divide the channels, or no residual block ends in a norm.
    """
    width = first_width(model.name)
    if model.norm == "group" and width % model.norm_groups:
        raise UserError(
            f"--norm-groups {model.norm_groups}: must divide {width}, the channels of the first "
            f"layer of {model.name}"
        )
    if model.zero_init_residual and (model.norm == "none" or not model.name.startswith("resnet")):
        raise UserError(
            f"--zero-init-residual: {model.name} with norm {model.norm} has no residual block that "
            "ends in a norm; allowed with resnet18, 20, 32 and 56 and any norm but none"
        )


def check_precision(training: TrainingConfig) -> None:
    """Check that the device supports the precision.

    Raises:
        UserError: it would compute in float32 instead.
    """
    platform = jax.default_backend()
    if training.precision == "tf32" and platform != "gpu":
        raise UserError(
            f"--precision tf32: needs an NVIDIA GPU, and the device is a {platform}; allowed: "
            "float32, bfloat16"
        )


def check_layers(config: Config, image_shape: tuple[int, ...]) -> None:
    """Check the patterns of --freeze and --lr-multipliers.

    Args:
        config: with its class count known.
        image_shape: (H, W, C).

    Raises:
        UserError: a pattern matches no parameter, or all parameters are frozen.
    """
    rates = layer_rates(config.transfer)
    if not rates:
        return
    names = parameter_names(build_model(config), image_shape)
    # A frozen parameter has the factor 0.
    check_patterns([pattern for pattern, factor in rates if factor], names, "--lr-multipliers")
    check_patterns([pattern for pattern, factor in rates if not factor], names, "--freeze")
    if not any(LayerRates(sgd, rates).factor(name) for name in names):
        raise UserError(f"--freeze {config.transfer.freeze}: freezes every parameter")


def check_batches(config: Config, n_train: int) -> None:
    """Check the batch size.

    Raises:
        UserError: the batch is larger than `n_train`, BatchNorm would have a batch of one, or
            `norm_parts` does not divide it.
    """
    batch = config.training.batch_size
    if batch > n_train:
        raise UserError(f"--batch-size {batch}: must be at most the {n_train} training images")
    if config.model.norm in ("batch", "ghost") and (batch == 1 or n_train % batch == 1):
        raise UserError(
            f"--batch-size {batch}: the last batch of {n_train} images would be a single one, "
            "which has no batch variance; change it or --train-examples"
            if batch > 1
            else f"--norm {config.model.norm}: a batch of one image has no variance; give "
            "--batch-size 2 or more"
        )
    parts = config.model.norm_parts
    if config.model.norm == "ghost" and equal_parts(batch, parts) != parts:
        raise UserError(
            f"--norm-parts {parts}: must divide --batch-size {batch} into parts of 2 images or more"
        )
