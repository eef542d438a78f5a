"""Curvature at the end of training: the Hessian's largest eigenvalues, and pictures of the loss.

The loss is the mean over stated training images in evaluation mode, without augmentation and
dropout. BatchNorm uses its running statistics, which do not change with the parameters.

- The largest eigenvalues of the Hessian, of every run (`loss_surface.largest_eigenvalues`).
- The loss in a plane of two random, filter-normalised directions, for one seed of each arm (Li et
  al. 2018, arXiv 1712.09913, section 4). As there, the parameters of BatchNorm and biases do not
  change, and its running statistics are kept.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import Struct

from cifar_jax.analysis.curvature_plots import heatmap, surface_figures
from cifar_jax.analysis.loss_surface import (
    along_plane,
    hessian_product,
    largest_eigenvalues,
    random_direction,
)
from cifar_jax.analysis.numbers import (
    Number,
    Quantity,
    means_sentence,
    numbers_table,
    verdict_sentence,
)
from cifar_jax.analysis.part import Findings, Part
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.core.inputs import call
from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Experiment
from cifar_jax.kernels import jit
from cifar_jax.report.section import Section

EIGENVALUES = 5
HESSIAN_IMAGES, BATCH = 512, 256
SURFACE_IMAGES = 256
SIDE, SPAN = 41, 1.0  # points along a direction, from -SPAN to SPAN
TYPICAL_PRODUCTS = 40  # of Hessian and vector, for the progress


class Curvature(Struct, frozen=True):
    """The curvature of one run.

    Attributes:
        images: number of training images.
        eigenvalues: the largest of the Hessian, largest first, in nats.
    """

    images: int
    eigenvalues: tuple[float, ...]


class Surface(Struct, frozen=True):
    """The loss of one run in a plane.

    Attributes:
        arm, seed: of the run.
        losses: in nats, by second and then first direction. None: not finite.
    """

    arm: str
    seed: int
    losses: tuple[tuple[float | None, ...], ...]


class Surfaces(Struct, frozen=True):
    """The surfaces of a study.

    Attributes:
        images: number of training images.
        span: the directions' factors go from -span to span.
        runs: one run of each arm.
    """

    images: int
    span: float
    runs: tuple[Surface, ...]


def evaluated_loss(
    experiment: Experiment, hyper: Hyper, batch_stats: Any, images: jax.Array, labels: jax.Array
) -> Callable[[Any], jax.Array]:
    """Return the loss in evaluation mode as a function of the parameters.

    It is the mean over images, uint8 (N, H, W, C), with labels, int32 (N,).
    """
    x = experiment.inputs.evaluate(images)

    def loss(params: Any) -> jax.Array:
        variables = {"params": params, "batch_stats": batch_stats}
        logits: Any = experiment.model.apply(variables, x, train=False)
        return call(experiment.loss, logits, labels, hyper=hyper)

    return loss


def _chosen(trained: TrainedRun, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `most` training images of a fixed permutation, and their labels."""
    images, labels = trained.train_images
    rows = np.random.default_rng(0).permutation(len(labels))[:most]
    return images[rows], labels[rows]


def _product_program(shared: Shared, experiment: Experiment) -> Any:
    """Return the jitted product of Hessian and vector, of one batch."""

    def product(
        hyper: Hyper, variables: Any, images: jax.Array, labels: jax.Array, vector: Any
    ) -> Any:
        params, batch_stats = variables
        loss = evaluated_loss(experiment, hyper, batch_stats, images, labels)
        with jax.default_matmul_precision(experiment.precision):
            return hessian_product(loss, params, vector)

    found: Any = shared.kept.setdefault(("hessian", experiment), jit(product))
    return found


def measure(trained: TrainedRun) -> Curvature:
    """Compute the Hessian's largest eigenvalues."""
    experiment, hyper = trained.experiment, jax.device_put(trained.hyper)
    images, labels = _chosen(trained, HESSIAN_IMAGES)
    program = _product_program(trained.shared, experiment)
    variables = experiment.evaluated(trained.state)
    starts = range(0, len(labels), BATCH)
    batches = [jax.device_put((images[i : i + BATCH], labels[i : i + BATCH])) for i in starts]
    products = 0

    def product(vector: Any) -> Any:
        nonlocal products
        products += 1
        trained.progress(min(products / TYPICAL_PRODUCTS, 0.99))
        parts = [program(hyper, variables, *batch, vector) for batch in batches]
        weights = [len(batch[1]) / len(labels) for batch in batches]
        return jax.tree.map(
            lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *parts
        )

    found = largest_eigenvalues(product, variables[0], EIGENVALUES)
    return Curvature(images=len(labels), eigenvalues=tuple(found.tolist()))


def _row_program(shared: Shared, experiment: Experiment) -> Any:
    """Return the jitted loss of the points of one row of the surface."""

    def row(
        hyper: Hyper, variables: Any, batch: tuple[jax.Array, jax.Array], at: jax.Array
    ) -> jax.Array:
        """Return the losses, float (P,), at the points `at`, float (P, 2); see `along_plane`."""
        params, batch_stats = variables
        first, second = (random_direction(jax.random.key(i), params) for i in (0, 1))
        loss = evaluated_loss(experiment, hyper, batch_stats, *batch)
        with jax.default_matmul_precision(experiment.precision):
            return along_plane(loss, params, (first, second), at)

    found: Any = shared.kept.setdefault(("surface", experiment), jit(row))
    return found


def _surface(trained: TrainedRun, show: Callable[[int], None]) -> Surface:
    """Measure one run. Call `show` with the number of finished rows."""
    experiment, hyper = trained.experiment, jax.device_put(trained.hyper)
    program = _row_program(trained.shared, experiment)
    variables, batch = experiment.evaluated(trained.state), _chosen(trained, SURFACE_IMAGES)
    factors = np.linspace(-SPAN, SPAN, SIDE)
    rows = []
    for number, second in enumerate(factors, 1):
        at = jnp.asarray(np.stack([factors, np.full(SIDE, second)], axis=1), jnp.float32)
        losses = np.asarray(program(hyper, variables, jax.device_put(batch), at), np.float64)
        rows.append(tuple(float(f"{x:.5g}") if np.isfinite(x) else None for x in losses))
        show(number)
    return Surface(trained.run.arm, trained.run.seed, tuple(rows))


def together(shared: Shared) -> Surfaces:
    """Measure the surface of the first seed of each arm."""
    study = shared.study
    first = [study.runs[arm][0] for arm in study.arms if study.runs[arm]]
    total, started = SIDE * len(first), time.perf_counter()
    found: list[Surface] = []
    images = 0

    def show(row: int) -> None:
        done = SIDE * len(found) + row
        left = (time.perf_counter() - started) / done * (total - done)
        shared.display.progress("loss surfaces, rows", done, total, left=left)

    try:
        for run in first:
            trained = TrainedRun(shared, run)
            found.append(_surface(trained, show))
            images = min(SURFACE_IMAGES, len(trained.train_images[1]))
    finally:
        shared.display.end_progress()
    return Surfaces(images, SPAN, tuple(found))


LARGEST = Quantity("largest_eigenvalue", "largest eigenvalue of the Hessian", 1, 2, "nats")
OTHERS = [Quantity(f"eigenvalue_{i}", f"eigenvalue {i}", 1, 2, "nats") for i in range(2, 6)]


def numbers(record: Curvature) -> list[Number]:
    """Return the eigenvalues."""
    quantities = [LARGEST, *OTHERS]
    return [Number(*pair) for pair in zip(quantities, record.eigenvalues, strict=True)]


def section(findings: Findings[Curvature]) -> Section:
    """Return the section: eigenvalues of every arm, and pictures of the loss."""
    study, images = findings.study, findings.runs[0].record.images
    largest = findings.compared[0]
    words = "ends where the loss is less curved", "ends where the loss is more curved"
    sentences = [
        means_sentence(study, largest),
        verdict_sentence(study, largest, *words),
        f"The loss is the mean over {images:,} training images, in evaluation mode. Eigenvalues "
        "depend on the scale of the parameters, so between networks with other layers, such as "
        "normalisation, they do not say which one generalises.",
    ]
    surfaces: Surfaces | None = findings.together
    return Section(
        PART.title,
        tuple(sentence for sentence in sentences if sentence),
        tuple(surface_figures(study, surfaces)) if surfaces else (),
        (numbers_table(study, findings.compared, "Largest eigenvalues of the Hessian"),),
        tuple(heatmap(study, surfaces, run) for run in surfaces.runs) if surfaces else (),
    )


PART = Part(
    name="curvature",
    title="Curvature and loss surface at the end of training",
    record=Curvature,
    measure=measure,
    numbers=numbers,
    section=section,
    together=together,
    together_record=Surfaces,
)
