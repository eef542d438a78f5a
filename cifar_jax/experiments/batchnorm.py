"""What does Batch Normalization change in the course report's CNN?

The study of the report as an experiment file: both CNNs, and its claims with the published
numbers. `study` without a file is this study, with norms as arms.
"""

from cifar_jax.core.model import CNN
from cifar_jax.core.train import Experiment
from cifar_jax.experiments.published import BASELINE, BATCHNORM
from cifar_jax.experiments.published import claims as claims

arms = {BASELINE: Experiment(), BATCHNORM: Experiment(model=CNN(norm="batch"))}
labels = {BASELINE: "baseline", BATCHNORM: "BatchNorm"}
