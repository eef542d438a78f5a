"""Controlled experiments on CIFAR-10 in pure-functional JAX.

`import cifar_jax as cj` has all public names, and imports JAX when the first is used.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Module of each public name.
_HOMES = {
    "Experiment": "cifar_jax.core.train",
    "Hyper": "cifar_jax.core.optim",
    "Data": "cifar_jax.core.train",
    "TrainState": "cifar_jax.core.train",
    "train": "cifar_jax.core.train",
    "train_step": "cifar_jax.core.train",
    "run_epoch": "cifar_jax.core.train",
    "init_state": "cifar_jax.core.train",
    "predict": "cifar_jax.core.train",
    "cross_entropy": "cifar_jax.core.train",
    "CNN": "cifar_jax.core.model",
    "ResNet": "cifar_jax.core.resnet",
    "BatchNorm": "cifar_jax.core.norms",
    "Inputs": "cifar_jax.core.inputs",
    "random_crop_and_flip": "cifar_jax.core.inputs",
    "Cutout": "cifar_jax.core.regularise",
    "LabelSmoothing": "cifar_jax.core.regularise",
    "Mixup": "cifar_jax.core.regularise",
    "RandomErasing": "cifar_jax.core.regularise",
    "sgd": "cifar_jax.core.optim",
    "nesterov": "cifar_jax.core.optimizers",
    "adamw": "cifar_jax.core.optimizers",
    "Muon": "cifar_jax.core.optimizers",
    "LayerRates": "cifar_jax.core.optimizers",
    "StepDecay": "cifar_jax.core.optim",
    "constant": "cifar_jax.core.schedules",
    "Cosine": "cifar_jax.core.schedules",
    "MultiStepDecay": "cifar_jax.core.schedules",
    "OneCycle": "cifar_jax.core.schedules",
    "Warmup": "cifar_jax.core.schedules",
    "fast": "cifar_jax.kernels",
    "load": "cifar_jax.library.images",
    "from_arrays": "cifar_jax.library.images",
    "Images": "cifar_jax.library.images",
    "run": "cifar_jax.library.training",
    "Runs": "cifar_jax.library.training",
    "UserError": "cifar_jax.errors",
}

if TYPE_CHECKING:
    from jax import nn as nn

    from cifar_jax.core.inputs import Inputs as Inputs
    from cifar_jax.core.inputs import random_crop_and_flip as random_crop_and_flip
    from cifar_jax.core.model import CNN as CNN
    from cifar_jax.core.norms import BatchNorm as BatchNorm
    from cifar_jax.core.optim import Hyper as Hyper
    from cifar_jax.core.optim import StepDecay as StepDecay
    from cifar_jax.core.optim import sgd as sgd
    from cifar_jax.core.optimizers import LayerRates as LayerRates
    from cifar_jax.core.optimizers import Muon as Muon
    from cifar_jax.core.optimizers import adamw as adamw
    from cifar_jax.core.optimizers import nesterov as nesterov
    from cifar_jax.core.regularise import Cutout as Cutout
    from cifar_jax.core.regularise import LabelSmoothing as LabelSmoothing
    from cifar_jax.core.regularise import Mixup as Mixup
    from cifar_jax.core.regularise import RandomErasing as RandomErasing
    from cifar_jax.core.resnet import ResNet as ResNet
    from cifar_jax.core.schedules import Cosine as Cosine
    from cifar_jax.core.schedules import MultiStepDecay as MultiStepDecay
    from cifar_jax.core.schedules import OneCycle as OneCycle
    from cifar_jax.core.schedules import Warmup as Warmup
    from cifar_jax.core.schedules import constant as constant
    from cifar_jax.core.train import Data as Data
    from cifar_jax.core.train import Experiment as Experiment
    from cifar_jax.core.train import TrainState as TrainState
    from cifar_jax.core.train import cross_entropy as cross_entropy
    from cifar_jax.core.train import init_state as init_state
    from cifar_jax.core.train import predict as predict
    from cifar_jax.core.train import run_epoch as run_epoch
    from cifar_jax.core.train import train as train
    from cifar_jax.core.train import train_step as train_step
    from cifar_jax.errors import UserError as UserError
    from cifar_jax.kernels import fast as fast
    from cifar_jax.library.images import Images as Images
    from cifar_jax.library.images import from_arrays as from_arrays
    from cifar_jax.library.images import load as load
    from cifar_jax.library.training import Runs as Runs
    from cifar_jax.library.training import run as run
else:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name == "nn":  # activations such as `cj.nn.mish`
            value = importlib.import_module("jax.nn")
        elif name in _HOMES:
            value = getattr(importlib.import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "nn"})
