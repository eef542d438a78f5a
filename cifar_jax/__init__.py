"""Controlled experiments on CIFAR-10 in pure-functional JAX.

`import cifar_jax as cj` has all public names, and imports JAX when the first is used.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Where each public name is defined.
_HOMES = {
    "nn": "jax.nn",  # activations, such as `cj.nn.mish`
    "Experiment": "cifar_jax.core.train.Experiment",
    "Hyper": "cifar_jax.core.optim.Hyper",
    "Data": "cifar_jax.core.train.Data",
    "TrainState": "cifar_jax.core.train.TrainState",
    "train": "cifar_jax.core.train.train",
    "train_step": "cifar_jax.core.train.train_step",
    "run_epoch": "cifar_jax.core.train.run_epoch",
    "init_state": "cifar_jax.core.train.init_state",
    "predict": "cifar_jax.core.train.predict",
    "cross_entropy": "cifar_jax.core.train.cross_entropy",
    "CNN": "cifar_jax.core.model.CNN",
    "ResNet": "cifar_jax.core.resnet.ResNet",
    "BatchNorm": "cifar_jax.core.norms.BatchNorm",
    "Ghost": "cifar_jax.methods.ghost.Ghost",
    "Inputs": "cifar_jax.core.inputs.Inputs",
    "random_crop_and_flip": "cifar_jax.core.inputs.random_crop_and_flip",
    "Cutout": "cifar_jax.methods.regularise.Cutout",
    "LabelSmoothing": "cifar_jax.methods.regularise.LabelSmoothing",
    "Mixup": "cifar_jax.methods.regularise.Mixup",
    "RandomErasing": "cifar_jax.methods.regularise.RandomErasing",
    "sgd": "cifar_jax.core.optim.sgd",
    "nesterov": "cifar_jax.core.optimizers.nesterov",
    "adamw": "cifar_jax.core.optimizers.adamw",
    "Muon": "cifar_jax.methods.muon.Muon",
    "LayerRates": "cifar_jax.methods.layer_rates.LayerRates",
    "StepDecay": "cifar_jax.core.optim.StepDecay",
    "constant": "cifar_jax.core.schedules.constant",
    "Cosine": "cifar_jax.core.schedules.Cosine",
    "MultiStepDecay": "cifar_jax.core.schedules.MultiStepDecay",
    "OneCycle": "cifar_jax.core.schedules.OneCycle",
    "Warmup": "cifar_jax.core.schedules.Warmup",
    "fast": "cifar_jax.kernels.fast",
    "load": "cifar_jax.library.images.load",
    "from_arrays": "cifar_jax.library.images.from_arrays",
    "Images": "cifar_jax.library.images.Images",
    "run": "cifar_jax.library.training.run",
    "Runs": "cifar_jax.library.training.Runs",
    "compare": "cifar_jax.library.comparison.compare",
    "Comparison": "cifar_jax.library.comparison.Comparison",
    "load_predictor": "cifar_jax.library.predictor.load_predictor",
    "Predictor": "cifar_jax.library.predictor.Predictor",
    "Predictions": "cifar_jax.library.predictor.Predictions",
    "better": "cifar_jax.study.claims.better",
    "equivalent": "cifar_jax.study.claims.equivalent",
    "Scores": "cifar_jax.study.scores.Scores",
    "read_scores": "cifar_jax.study.score_files.read_scores",
    "Arm": "cifar_jax.study.file.FileArm",
    "UserError": "cifar_jax.errors.UserError",
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
    from cifar_jax.core.optimizers import adamw as adamw
    from cifar_jax.core.optimizers import nesterov as nesterov
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
    from cifar_jax.library.comparison import Comparison as Comparison
    from cifar_jax.library.comparison import compare as compare
    from cifar_jax.library.images import Images as Images
    from cifar_jax.library.images import from_arrays as from_arrays
    from cifar_jax.library.images import load as load
    from cifar_jax.library.predictor import Predictions as Predictions
    from cifar_jax.library.predictor import Predictor as Predictor
    from cifar_jax.library.predictor import load_predictor as load_predictor
    from cifar_jax.library.training import Runs as Runs
    from cifar_jax.library.training import run as run
    from cifar_jax.methods.ghost import Ghost as Ghost
    from cifar_jax.methods.layer_rates import LayerRates as LayerRates
    from cifar_jax.methods.muon import Muon as Muon
    from cifar_jax.methods.regularise import Cutout as Cutout
    from cifar_jax.methods.regularise import LabelSmoothing as LabelSmoothing
    from cifar_jax.methods.regularise import Mixup as Mixup
    from cifar_jax.methods.regularise import RandomErasing as RandomErasing
    from cifar_jax.study.claims import better as better
    from cifar_jax.study.claims import equivalent as equivalent
    from cifar_jax.study.file import FileArm
    from cifar_jax.study.score_files import read_scores as read_scores
    from cifar_jax.study.scores import Scores as Scores

    Arm = FileArm
else:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, defined = _HOMES[name].rpartition(".")
        value = getattr(importlib.import_module(module), defined)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
