"""Write the page of one run: `report.html` with curves, confusions, mistakes and origin."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tomli_w
from matplotlib.figure import Figure
from scipy import stats

from cifar_jax.data.dataset import Dataset
from cifar_jax.names import REPORT, SOURCE
from cifar_jax.report.class_plots import confusions, per_class, sorted_note
from cifar_jax.report.demo import Demo
from cifar_jax.report.headline import data_notices
from cifar_jax.report.image_plots import MOST_MISTAKES, mistake_images, mistakes
from cifar_jax.report.matrix import cells_note
from cifar_jax.report.naming import data_notes, dataset_name
from cifar_jax.report.page import portable_config, read_source, render_page
from cifar_jax.report.page_figures import PageFigure, Warn, draw_all, draw_each, embed
from cifar_jax.report.section import NOTHING, Analysed
from cifar_jax.report.study_figures import StudyFigure, missing_images, planned
from cifar_jax.report.study_plots import curves, reliability
from cifar_jax.report.tables import Table, protocol_table
from cifar_jax.report.text import NONE, interval, percent
from cifar_jax.report.times import time_table
from cifar_jax.runner.locate import study_of
from cifar_jax.runner.results import Diverged, Finished
from cifar_jax.storage import check_inside, write_text
from cifar_jax.study.collect import Run, Study
from cifar_jax.study.summary import summarise, time_spent

# Rows of a study's protocol that say nothing about one run.
_OF_STUDIES = ("seeds", "finished runs")


def as_study(run: Run) -> Study:
    """Return a study with only this run, for the figures and tables of studies."""
    return Study(
        workdir=run.directory,
        arms=(run.arm,),
        seeds=(run.seed,),
        runs={run.arm: [run]},
        missing=(),
        diverged=(),
        dataset=run.results.dataset,
        config=run.results.config,
    )


def run_figures(run: Run, images: Dataset | None) -> list[StudyFigure]:
    """Return the figures of a run. A run that diverged has no predictions, so only curves."""
    study = as_study(run)
    where, classes = dataset_name(study), study.dataset.classes

    def entry(
        title: str, caption: str, draw: Callable[[str], Figure], reason: str = ""
    ) -> StudyFigure:
        return planned(where, title.lower().replace(" ", "_"), title, caption, draw, reason)

    dropout = "The training values include augmentation and dropout."
    no_epoch = "" if run.results.history else "No epoch was finished."
    found = [
        entry(
            quantity.capitalize(),
            f"training and validation {quantity} over the epochs. {dropout}",
            lambda title, quantity=quantity: curves(study, quantity, title),  # type: ignore[misc]
            no_epoch,
        )
        for quantity in ("loss", "accuracy")
    ]
    if not len(run.label):
        return found
    per_arm = summarise(study)["per_arm"]
    wrong = len(mistakes(run)[0])
    return [
        *found,
        entry(
            "Confusion matrix",
            f"shares of each true class on the test set in per cent.{cells_note(classes)}",
            lambda title: confusions(study, classes, title),
        ),
        entry(
            "Accuracy of each class",
            f"test accuracy of each class.{sorted_note(classes)}",
            lambda title: per_class(study, per_arm, classes, title),
        ),
        entry(
            "Most confident mistakes",
            f"the {min(wrong, MOST_MISTAKES)} of {wrong:,} wrong test images with the highest "
            "probability of the predicted class.",
            lambda title: mistake_images(run, images, title),  # type: ignore[arg-type]
            missing_images(study, images),
        ),
        entry(
            "Calibration",
            "accuracy of the test predictions against their confidence. Below the diagonal the "
            "network is overconfident.",
            lambda title: reliability(study, per_arm, title),
        ),
    ]


def _counted(run: Run) -> str:
    right = int(run.correct.sum())
    return f"{percent(run.tested.test_accuracy)} ({right:,} of {len(run.label):,})"


def headline(run: Run) -> str:
    """Describe the run's result."""
    study = as_study(run)
    where, what = dataset_name(study), f"{run.results.model}, {study.label(run.arm)}"
    if isinstance(run.results, Diverged):
        ended = run.results.diverged
        at = f"epoch {ended.epoch}" + (f", step {ended.step}" if ended.step else "")
        cause = f" ({ended.operation})" if ended.operation else ""
        return (
            f"On {where}, {what} with seed {run.seed} diverged in {at}{cause}: the loss is not "
            "finite. It has no test accuracy; try a lower learning rate."
        )
    return (
        f"On {where}, {what} with seed {run.seed} reaches a test accuracy of {_counted(run)}. "
        "One run does not show how much another seed would change it."
    )


def classes_table(run: Run) -> Table:
    """Return a table of each class's accuracy and most frequent wrong prediction."""
    names, matrix = run.results.dataset.classes, run.confusion
    rows = []
    for number, name in enumerate(names):
        row = matrix[number].copy()
        total, right, row[number] = int(row.sum()), int(row[number]), 0
        other = int(row.argmax())
        taken = f"{names[other]} ({int(row[other]):,})" if row[other] else NONE
        accuracy = percent(right / total, 1) if total else NONE
        rows.append((name, f"{total:,}", accuracy, taken))
    head = ("class", "test images", "accuracy", "most often predicted as")
    return Table("Each class", "", head, rows)


def _measured(run: Run) -> list[tuple[str, str]]:
    """Return rows of the run's accuracy, loss, time and memory."""
    results = run.results
    rows = [("seed", str(run.seed)), ("parameters", f"{results.num_params:,}")]
    if isinstance(results, Finished):
        ends = stats.binomtest(int(run.correct.sum()), len(run.label)).proportion_ci(
            method="wilson"
        )
        words = interval((ends.low, ends.high), 100, unit="%")
        rows += [
            ("test accuracy", f"{_counted(run)}; 95 % interval for these images: {words} (Wilson)"),
            ("test loss", f"{results.test_loss:.4f} nats"),
        ]
    rows.append(("training time", f"{results.train_seconds:.1f} s, without compilation"))
    rows.append(("compilation", f"{results.compile_seconds:.1f} s"))
    if results.peak_memory_bytes:
        rows.append(("peak memory", f"{results.peak_memory_bytes / 2**20:,.0f} MiB"))
    promised = "yes" if results.deterministic else "no"
    rows.append(("repeats bitwise", f"{promised}: {results.determinism_note}"))
    return [*rows, ("finished", results.finished)]


def facts_table(run: Run) -> Table:
    """Return a table of the run's results, settings, data and environment."""
    results, study = run.results, as_study(run)
    summary = {
        "per_arm": {run.arm: {"test_accuracy": {"n": 1}}},
        "labels": {run.arm: study.label(run.arm)},
        "seeds": [run.seed],
        "epochs": results.config["training"]["epochs"],
        **{key: getattr(results, key) for key in ("device", "versions", "git_revision")},
    }
    protocol = protocol_table(study, summary)
    unfit = _OF_STUDIES if len(run.label) else (*_OF_STUDIES, "evaluation")
    rows = [row for row in protocol.rows if row[0] not in unfit]
    return Table("What made it", "", protocol.head, [*_measured(run), *rows])


def write_run_page(
    run: Run,
    images: Dataset | None,
    warn: Warn,
    analysed: Analysed = NOTHING,
    demo: Demo | None = None,
) -> Path:
    """Write `report.html` of a run.

    Args:
        run: finished or diverged.
        images: of its dataset; without them the page has no pictures, and says why.
        warn: called with a line for each figure that could not be drawn.
        analysed: sections of an analysis.
        demo: the section in which the network answers; None omits it.

    Returns:
        Path of the page.

    Raises:
        UserError: the page is a link out of the run's directory.
    """
    study, path = as_study(run), run.directory / REPORT
    check_inside(path, run.directory)

    def draw(figures: Iterable[StudyFigure]) -> list[PageFigure]:
        return draw_each(figures, lambda figure, drawn: embed(figure, drawn.picture), warn)

    config = portable_config(study)
    config.pop("experiment", None)
    # A run of a study has its file in the study's directory.
    source = run.directory if (run.directory / SOURCE).exists() else study_of(run.directory)
    figures, sections, drawing = draw_all(run_figures(run, images), analysed.sections, draw)
    values: dict[str, Any] = {
        "title": f"{dataset_name(study)}, {run.results.model}, {study.label(run.arm)}, "
        f"seed {run.seed}",
        "headline": headline(run),
        "notices": data_notices(study),
        "data_notes": data_notes(study),
        "figures": figures,
        "sections": sections,
        "demo": demo,
        "classes": classes_table(run) if len(run.label) else Table("", "", (), []),
        "facts": facts_table(run),
        "times": time_table(time_spent([run]), drawing),
        "toml": tomli_w.dumps(config),
        "file": study.file,
        "arm": run.arm,
        "source": read_source(source) if study.file else "",
    }
    write_text(path, render_page("run.html", values))
    return path
