"""Every setting of a config ends in the right value of the experiment."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from cifar_jax.config.build import (
    CPU_EVAL_BATCH,
    build_experiment,
    build_model,
    hyperparams,
    parameter_names,
)
from cifar_jax.config.checks import check_batches
from cifar_jax.config.settings import (
    MODELS,
    NORMS,
    Config,
    DataConfig,
    ModelConfig,
    TrainingConfig,
    TransferConfig,
)
from cifar_jax.core import optimizers, schedules
from cifar_jax.core.inputs import Inputs, random_crop_and_flip
from cifar_jax.core.model import CNN
from cifar_jax.core.optim import Optimizer, Schedule, StepDecay, sgd
from cifar_jax.core.resnet import ResNet
from cifar_jax.core.train import Experiment, cross_entropy
from cifar_jax.errors import UserError
from cifar_jax.kernels import FastModel, fast
from cifar_jax.methods.ghost import Ghost
from cifar_jax.methods.layer_rates import LayerRates
from cifar_jax.methods.muon import Muon
from cifar_jax.methods.regularise import Cutout, LabelSmoothing, Mixup, RandomErasing


def config(
    data: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    transfer: dict[str, Any] | None = None,
    **training: Any,
) -> Config:
    """The protocol's for ten classes, with some settings changed."""
    return Config(
        data=DataConfig(**data or {}),
        model=ModelConfig(**{"num_classes": 10, **(model or {})}),
        training=TrainingConfig(**training),
        transfer=TransferConfig(**transfer or {}),
    )


def built(**changes: Any) -> Experiment:
    return build_experiment(config(**changes))


def test_the_default_config_is_the_protocol_with_fast_kernels() -> None:
    protocol = Experiment(eval_batch_size=CPU_EVAL_BATCH, precision=None)
    assert built(kernels="plain") == protocol
    assert built() == dataclasses.replace(protocol, model=fast(CNN()))


def test_auto_kernels_change_the_model_alone() -> None:
    plain, auto = built(kernels="plain"), built(kernels="auto")
    assert isinstance(plain.model, CNN)
    assert isinstance(auto.model, FastModel)
    assert auto.model.model == plain.model
    assert dataclasses.replace(auto, model=plain.model) == plain


@pytest.mark.parametrize("norm", NORMS)
def test_the_model_has_the_configs_settings(norm: str) -> None:
    settings = {
        "norm": norm,
        "norm_parts": 3,
        "norm_groups": 4,
        "norm_momentum": 0.8,
        "dropout": 0.25,
        "num_classes": 7,
    }
    own = {key: value for key, value in settings.items() if key != "norm_parts"}
    own |= {"norm": Ghost(3)} if norm == "ghost" else {}
    assert build_model(config(model=settings)) == CNN(**own)
    residual = ResNet(blocks=(3, 3, 3), zero_init=True, **own)
    settings |= {"name": "resnet20", "zero_init_residual": True}
    assert build_model(config(model=settings)) == residual


@pytest.mark.parametrize("parts", [3, 128])
def test_parts_of_a_batch_are_equal_and_have_two_images(parts: int) -> None:
    ghost = config(model={"norm": "ghost", "norm_parts": parts})
    with pytest.raises(UserError, match=f"--norm-parts {parts}: must divide --batch-size 128 into"):
        check_batches(ghost, 1000)


# He et al. 2016: 6n + 2 layers, n blocks in each of three stages.
NETWORKS = {
    "cnn": CNN(),
    "resnet18": ResNet(
        blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), shortcut="project", dropout=0.5
    ),
    "resnet20": ResNet(blocks=(3, 3, 3), dropout=0.5),
    "resnet32": ResNet(blocks=(5, 5, 5), dropout=0.5),
    "resnet56": ResNet(blocks=(9, 9, 9), dropout=0.5),
    "plain20": ResNet(blocks=(3, 3, 3), shortcut="none", dropout=0.5),
    "plain32": ResNet(blocks=(5, 5, 5), shortcut="none", dropout=0.5),
    "plain56": ResNet(blocks=(9, 9, 9), shortcut="none", dropout=0.5),
}


def test_every_network_has_its_depth_and_widths() -> None:
    assert NETWORKS.keys() == set(MODELS)
    for name, expected in NETWORKS.items():
        assert build_model(config(model={"name": name, "norm": expected.norm})) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", sgd),
        ("nesterov", optimizers.nesterov),
        ("adamw", optimizers.adamw),
        ("muon", Muon(10)),
    ],
)
def test_optimizer(name: str, expected: Optimizer) -> None:
    assert built(optimizer=name).optimizer == expected
    rates = {"lr_multipliers": "dense*=10", "freeze": "conv1"}
    factors = (("dense*", 10.0), ("conv1", 0.0))
    assert built(optimizer=name, transfer=rates).optimizer == LayerRates(expected, factors)


SCHEDULES = [
    ({"schedule": "step", "decay_every": 7, "decay_factor": 0.3}, StepDecay(7, 0.3), False),
    ({"schedule": "constant"}, schedules.constant, False),
    (
        {"schedule": "multistep", "milestones": "3,9.5", "decay_factor": 0.2},
        schedules.MultiStepDecay((3.0, 9.5), 0.2),
        False,
    ),
    ({"schedule": "cosine", "final_fraction": 0.1}, schedules.Cosine(0.1), True),
    ({"schedule": "onecycle"}, schedules.OneCycle(), True),
]


@pytest.mark.parametrize(("settings", "expected", "delay"), SCHEDULES)
def test_schedule(settings: dict[str, Any], expected: Schedule, delay: bool) -> None:
    """One that depends on the length of training begins after the warm-up."""
    assert built(**settings).schedule == expected
    warm = built(**settings, warmup_epochs=1.5).schedule
    assert warm == schedules.Warmup(1.5, expected, delay)


@pytest.mark.parametrize(
    ("settings", "inputs"),
    [
        ({}, Inputs()),
        ({"data": {"augment": False}}, Inputs(augment=())),
        (
            {"random_erasing": 0.5, "erasing_area_low": 0.1, "erasing_ratio": 0.5},
            Inputs((random_crop_and_flip, RandomErasing(0.5, (0.1, 0.4), 0.5))),
        ),
        (
            {"data": {"augment": False}, "random_erasing": 0.2, "erasing_area_high": 0.3},
            Inputs((RandomErasing(0.2, (0.02, 0.3), 0.3),)),
        ),
        ({"cutout": 8}, Inputs(mix=(Cutout(8),))),
        ({"mixup": 0.2, "model": {"num_classes": 3}}, Inputs(mix=(Mixup(3, 0.2),))),
        ({"cutout": 4, "mixup": 1.0}, Inputs(mix=(Cutout(4), Mixup(10, 1.0)))),
    ],
)
def test_regularisers_of_images(settings: dict[str, Any], inputs: Inputs) -> None:
    found = built(**settings)
    assert found.inputs == inputs
    assert found.loss is cross_entropy


def test_label_smoothing_is_the_loss() -> None:
    found = built(label_smoothing=0.1)
    assert found.loss == LabelSmoothing(0.1)
    assert found.inputs == Inputs()


@pytest.mark.parametrize(
    ("backend", "precision", "expected"),
    [
        ("gpu", "float32", ("highest", "float32")),
        ("gpu", "tf32", ("tensorfloat32", "float32")),
        ("gpu", "bfloat16", (None, "bfloat16")),
        ("tpu", "float32", ("highest", "float32")),
        ("cpu", "float32", (None, "float32")),
        ("cpu", "bfloat16", (None, "bfloat16")),
    ],
)
def test_precision_of_products_and_of_activations(
    backend: str, precision: str, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    found = built(precision=precision)
    assert (found.precision, found.inputs.dtype) == expected
    assert found.eval_batch_size == (
        CPU_EVAL_BATCH if backend == "cpu" else Experiment.eval_batch_size
    )


def test_sizes() -> None:
    found = built(batch_size=32, epochs=3)
    assert (found.batch_size, found.epochs) == (32, 3)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 0.02),
        ({"lr_scaling": "linear"}, 0.04),
        ({"lr_scaling": "linear", "batch_size": 64}, 0.01),
    ],
)
def test_hyper_parameters_are_float32_scalars(settings: dict[str, Any], rate: float) -> None:
    fixed = {"batch_size": 256, "learning_rate": 0.02, "momentum": 0.8, "weight_decay": 1e-3}
    found = dataclasses.astuple(hyperparams(config(**fixed | settings)))
    assert [value.dtype for value in found] == [np.float32] * 3
    np.testing.assert_allclose(found, (rate, 0.8, 1e-3), rtol=1e-6)


def frozen_norms(patterns: str, **model: Any) -> tuple[str, ...]:
    found = built(model={"norm": "batch", **model}, transfer={"freeze": patterns})
    assert build_model(config(model=model)).frozen_norms == ()
    return found.model.frozen_norms


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("norm1", ("norm1",)),
        ("norm[13]", ("norm1", "norm3")),
        ("conv*", ()),
        ("*.scale", ()),
        ("*.scale,*.bias", ("norm1", "norm2", "norm3", "norm4")),
        ("norm2.scale,norm2.bias,norm3.bias", ("norm2",)),
    ],
)
def test_a_norm_is_frozen_only_as_a_whole(patterns: str, expected: tuple[str, ...]) -> None:
    assert frozen_norms(patterns) == expected


def test_frozen_norms_of_a_residual_network_have_full_names() -> None:
    norms = ("layer1.0.norm1", "layer1.0.norm2")
    assert frozen_norms("layer1.0", name="resnet20") == norms
    shortcut = frozen_norms("layer2.*.downsample", name="resnet18")
    assert shortcut == ("layer2.0.downsample.1",)
    assert frozen_norms("layer1", name="resnet20", norm="none") == ()


def test_parameters_have_torchvisions_names_with_our_leaves() -> None:
    names = parameter_names(build_model(config(model={"name": "resnet18", "norm": "batch"})))
    assert len(names) == 62  # torchvision's resnet18
    assert {"conv1.kernel", "norm1.scale", "layer2.0.downsample.0.kernel", "fc.bias"} <= set(names)


EVERYTHING: dict[str, Any] = {
    "model": {"norm": "group", "name": "resnet20"},
    "transfer": {"freeze": "layer1,norm1", "lr_multipliers": "fc=10"},
    "optimizer": "muon",
    "schedule": "multistep",
    "milestones": "2,4",
    "warmup_epochs": 1.0,
    "label_smoothing": 0.1,
    "cutout": 4,
    "mixup": 0.2,
    "random_erasing": 0.5,
    "precision": "bfloat16",
}


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_equal_configs_give_equal_experiments(settings: dict[str, Any]) -> None:
    """Each is the key of a compiled program."""
    one, other = built(**settings), built(**settings)
    assert one == other
    assert hash(one) == hash(other)


def test_traced_settings_do_not_change_the_experiment() -> None:
    """Runs that differ in these alone share a program."""
    traced = {"seed": 1, "learning_rate": 1.0, "momentum": 0.5, "weight_decay": 0.1}
    assert built(**traced) == built()


CHANGES: list[dict[str, Any]] = [
    *(
        {name: value}
        for name, value in EVERYTHING.items()
        if name not in ("schedule", "milestones")
    ),
    {"model": {"norm": "batch"}},
    {"model": {"dropout": 0.0}},
    {"transfer": {"freeze": "conv1"}},
    {"schedule": "cosine"},
    {"batch_size": 64},
    {"epochs": 3},
    {"kernels": "plain"},
]


def test_a_setting_that_changes_the_program_makes_another_experiment() -> None:
    found = [built(**change) for change in [{}, *CHANGES]]
    assert len(set(found)) == len(found)
