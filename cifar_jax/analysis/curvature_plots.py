"""Draw loss surfaces: as contours in a figure, and as a map whose values the pointer shows."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from cifar_jax.report.drawing import new_figure
from cifar_jax.report.labels import short_name
from cifar_jax.report.naming import dataset_name
from cifar_jax.report.section import Heatmap
from cifar_jax.report.study_figures import StudyFigure
from cifar_jax.study.collect import Study

if TYPE_CHECKING:
    from cifar_jax.analysis.curvature import Surface, Surfaces

MOST_ARMS = 4
LEVELS = 16
_TITLE = "Loss surface in two random directions"


def _limits(surfaces: "Surfaces") -> tuple[float, float]:
    """Return the smallest and largest finite loss, both above 0."""
    values = np.array([run.losses for run in surfaces.runs], float)
    finite = values[np.isfinite(values)]
    low = max(float(finite.min()), 1e-4)
    return low, max(float(finite.max()), 1.01 * low)


def draw_surfaces(study: Study, surfaces: "Surfaces", title: str) -> Figure:
    """Draw contours of the loss, one panel per arm, with one logarithmic scale."""
    runs = surfaces.runs[:MOST_ARMS]
    columns = min(len(runs), 2)
    rows = -(-len(runs) // columns)
    figure = new_figure(0.5 + (2.3 if columns > 1 else 4.0) * rows, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(runs) :]:
        axes.axis("off")
    low, high = _limits(surfaces)
    levels = np.geomspace(low, high, LEVELS)
    norm = LogNorm(low, high)
    shown: Any = None
    for axes, run in zip(grid.flat, runs, strict=False):
        losses = np.ma.masked_invalid(np.clip(np.array(run.losses, float), low, high))
        at = np.linspace(-surfaces.span, surfaces.span, len(losses))
        shown = axes.contourf(at, at, losses, levels, cmap="viridis", norm=norm)
        axes.contour(at, at, losses, levels, colors="white", linewidths=0.4)
        axes.plot([0], [0], "+", color="white", markersize=8)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_title(f"{short_name(study.label(run.arm), 24)}, seed {run.seed}")
    bar = figure.colorbar(shown, ax=grid, label="loss [nats]", format="%.3g")
    bar.set_ticks(levels[:: LEVELS // 5].tolist(), minor=False)
    bar.minorticks_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("second direction")
    for axes in grid[-1]:
        axes.set_xlabel("first direction")
    return figure


def surface_figures(study: Study, surfaces: "Surfaces") -> list[StudyFigure]:
    """Return the contour figure."""
    where = dataset_name(study)
    side = len(surfaces.runs[0].losses)
    caption = (
        f"{where}: loss of {surfaces.images:,} training images in evaluation mode, at {side} x "
        f"{side} points around the trained network (+), for one seed of each arm. Both directions "
        "are random and filter-normalised (Li et al. 2018). The scale is logarithmic, the same "
        "for all. One seed and two directions are a picture, not evidence."
    )
    left = len(surfaces.runs) - MOST_ARMS
    if left > 0:
        caption += f" {left} more arms are not drawn."
    title = f"{_TITLE}: {where}"
    return [
        StudyFigure(
            "31_loss_surface", _TITLE, caption, lambda: draw_surfaces(study, surfaces, title)
        )
    ]


def heatmap(study: Study, surfaces: "Surfaces", run: "Surface") -> Heatmap:
    """Return the interactive map of one run. All maps of a study have the same colours."""
    return Heatmap(
        title=f"Loss surface of {study.label(run.arm)}, seed {run.seed}",
        unit="nats",
        span=surfaces.span,
        limits=_limits(surfaces),
        values=run.losses,
    )
