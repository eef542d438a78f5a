"""Write a model card for each arm of a study, after Mitchell et al. 2019 (arXiv 1810.03993)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.data.subset import is_synthetic
from cifar_jax.errors import counted, listed
from cifar_jax.names import IN_PYTHON, MODEL_CARD
from cifar_jax.report import recipe
from cifar_jax.report.class_plots import confusion_shares
from cifar_jax.report.naming import dataset_name, listed_seeds
from cifar_jax.report.page import environment
from cifar_jax.report.section import NOTHING, Analysed
from cifar_jax.report.tables import INTERVAL_NOTE, Table
from cifar_jax.report.text import NONE, interval, mean_and_spread
from cifar_jax.runner.console import duration
from cifar_jax.storage import write_text
from cifar_jax.study.collect import Run, Study
from cifar_jax.study.summary import is_cifar10

MOST_CONFUSED = 5
OTHER_CLASSES = "images of other classes"
CORRUPTIONS = "robustness to noise, blur and other corruptions"
# What a study does not measure. An analysis can cover some of it.
UNMEASURED = (CORRUPTIONS, "adversarial changes", OTHER_CLASSES, "fairness")


def confusions(runs: list[Run], classes: Sequence[str]) -> list[str]:
    """Describe the most frequent confusions: share of the true class, mean over the seeds."""
    share = np.nan_to_num(confusion_shares(runs))
    np.fill_diagonal(share, 0)
    order = np.argsort(-share, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = (divmod(int(at), len(classes)) for at in order)
    return [
        f"{classes[true]} taken for {classes[predicted]}: {100 * share[true, predicted]:.1f} %"
        for true, predicted in pairs
        if share[true, predicted] > 0
    ]


def metrics_table(row: dict[str, Any], classes: Sequence[str]) -> Table:
    """Return a table of test accuracy, test loss and class accuracies, with intervals."""
    rows = [
        (
            "test accuracy",
            mean_and_spread(row["test_accuracy"], 100, unit="%"),
            interval(row["test_accuracy"]["ci_t"], 100, unit="%"),
        ),
        (
            "test loss",
            mean_and_spread(row["test_loss"], digits=4, unit="nats"),
            interval(row["test_loss"]["ci_t"], digits=4, unit="nats"),
        ),
        (
            "expected calibration error",
            f"{100 * row['calibration']['ece']:.2f} points",
            NONE,
        ),
    ]
    for name in classes:
        found = row.get(f"class:{name}")
        cells = (NONE, NONE)
        if found:
            cells = (
                mean_and_spread(found, 100, 1, "%"),
                interval(found["ci_t"], 100, 1, "%"),
            )
        rows.append((f"accuracy, class {name}", *cells))
    return Table("Metrics", "", ("", "mean ± standard deviation", "95 % interval (t)"), rows)


def cost(runs: Sequence[Run]) -> str:
    """Describe the time that training took. No energy is measured."""
    trained = sum(run.results.train_seconds for run in runs)
    devices = listed(list(dict.fromkeys(run.results.device or "an unknown device" for run in runs)))
    return (
        f"{counted(len(runs), 'run')} trained for {duration(trained)} (h:mm:ss) in all, without "
        f"compilation, on {devices}. Energy was not measured."
    )


def write_model_card(
    study: Study, summary: dict[str, Any], arm: str, analysed: Analysed = NOTHING
) -> Path:
    """Write `model_card.md` into the directory of an arm. Return its path.

    Args:
        study: with at least one run of the arm.
        summary: from `cifar_jax.study.summary.summarise`.
        arm: name of the arm.
        analysed: lines of an analysis.
    """
    runs, row = study.runs[arm], summary["per_arm"][arm]
    results = runs[0].results
    classes = study.dataset.classes
    text = (
        environment(markdown=True)
        .get_template("model_card.md")
        .render(
            name=study.label(arm),
            model=results.model,
            num_params=f"{row['num_params']:,}",
            data=study.dataset,
            dataset=dataset_name(study),
            cifar10=is_cifar10(study),
            exact=study.dataset.name == "cifar10",
            synthetic=is_synthetic(study.dataset.name),
            classes=", ".join(classes),
            runs=counted(len(runs), "seed"),
            seeds=listed_seeds([run.seed for run in runs]),
            several=len(runs) > 1,
            checkpoints=study.file != IN_PYTHON,
            recipe=recipe.rows(results),
            device=summary["device"] or "an unknown device",
            versions=", ".join(f"{k} {v}" for k, v in summary["versions"].items()),
            revision=summary["git_revision"] or "unknown",
            finished=max(run.results.finished[:10] for run in runs),
            metrics=metrics_table(row, classes),
            interval_note=INTERVAL_NOTE,
            confusions=confusions(runs, classes),
            measured=analysed.cards.get(arm, ()),
            cost=cost(runs),
            unmeasured=[what for what in UNMEASURED if what not in analysed.covered],
        )
    )
    path = runs[0].directory.parent / MODEL_CARD
    write_text(path, text)
    return path
