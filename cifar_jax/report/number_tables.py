"""Make the tables of all numbers of a study."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from cifar_jax.errors import counted
from cifar_jax.names import SUMMARY
from cifar_jax.report.naming import shared_draws
from cifar_jax.report.tables import Table
from cifar_jax.report.text import NONE, change, interval, mean_and_spread, probability
from cifar_jax.study.collect import Study
from cifar_jax.study.statistics import ALPHA, MANY_SEEDS

# Bootstrap, sign flips, Cohen's d_z and the number of seeds use only the seeds.
MANY_NOTE = f"With more than {MANY_SEEDS} seeds there are no bootstrap and no sign flips."
SEEDS_ALONE_NOTE = (
    "Statistics of only the seeds, such as the bootstrap, show a dash if the interval also "
    f"includes the error of the test images. {MANY_NOTE}"
)

METRICS = (
    ("test_accuracy", "test accuracy", 100, 2, "%"),
    ("test_loss", "test loss", 1, 4, "nats"),
    ("val_accuracy", "final validation accuracy", 100, 2, "%"),
    ("train_seconds", "training time", 1, 1, "s"),
)


def arms_table(summary: dict[str, Any]) -> Table:
    """Return a table of every arm: mean, standard deviation, both intervals."""
    rows = [
        (
            f"{words}, {summary['labels'][arm]}",
            str(row[key]["n"]),
            mean_and_spread(row[key], scale, digits, unit),
            interval(row[key]["ci_t"], scale, digits),
            interval(row[key]["ci_bootstrap"], scale, digits),
        )
        for key, words, scale, digits, unit in METRICS
        for arm, row in summary["per_arm"].items()
    ]
    head = ("", "seeds", "mean ± standard deviation", "95 % interval (t)", "95 % (bootstrap)")
    many = any(len(row["seeds"]) > MANY_SEEDS for row in summary["per_arm"].values())
    return Table("Each arm", MANY_NOTE * many, head, rows)


def paired_table(study: Study, summary: dict[str, Any]) -> Table:
    """Return a table of differences over seed pairs, with tests."""
    paired = summary["paired"]
    if not paired:
        return Table("Paired differences", "", ("",), [])
    first, second = (summary["labels"][arm] for arm in paired["arms"])
    rows = []
    for key, words, scale, digits, unit in METRICS:
        row = paired[key]
        dz, needed = row["cohens_dz"], row["seeds_for_power_80"]
        points = "points" if unit == "%" else unit
        rows.append(
            (
                words,
                change(row["mean_difference"], scale, digits, points),
                interval(row["ci_t"], scale, digits),
                interval(row["ci_bootstrap"], scale, digits),
                probability(row["p_t"]),
                probability(row["p_sign_flip"]),
                NONE if dz is None else f"{dz:.2f}",
                NONE if needed is None else str(needed),
            )
        )
    pairs = paired["test_accuracy"]["n"]
    least = (
        f"p (sign flips): permutation test, two sides; with {counted(pairs, 'pair')} it cannot be "
        f"below {probability(min(1.0, 2.0 ** (1 - pairs)))}. "
    )
    return Table(
        "Paired differences",
        f"{second} minus {first}, {counted(pairs, 'pair')} of runs. {shared_draws(study)} "
        "p (paired t) is below 0.05 exactly if the interval excludes 0. "
        f"{least * (pairs <= MANY_SEEDS)}Seeds: pairs that the paired t test needs to detect a "
        f"difference of this size with power 0.8. {SEEDS_ALONE_NOTE}",
        (
            "",
            "difference",
            "95 % (paired t)",
            "95 % (bootstrap)",
            "p (paired t)",
            "p (sign flips)",
            "Cohen's d_z",
            "seeds",
        ),
        rows,
    )


def against_first_table(summary: dict[str, Any]) -> Table:
    """Return a table of every other arm against the first, with adjusted p-values."""
    others = summary["against_first"]
    rows = [(summary["labels"][row["arms"][1]], *tested_cells(row)) for row in others]
    first = summary["labels"][others[0]["arms"][0]] if others else ""
    return Table(
        f"Every arm against {first}",
        f"Test accuracy of each arm minus that of {first} with the same seed. {HOLM_NOTE}",
        ("", *TESTED_HEAD),
        rows if len(rows) > 1 else [],
    )


# Heads of the columns of `tested_cells`.
TESTED_HEAD = (
    "difference",
    "95 % (paired t)",
    "95 % (bootstrap)",
    "p (paired t)",
    "Holm",
    "p (sign flips)",
    "Holm",
)
HOLM_NOTE = (
    "Each interval is for one difference. Of several differences one may look real by "
    "chance, so each p-value is also adjusted by Holm's method. "
    f"{SEEDS_ALONE_NOTE}"
)


def tested_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Format a difference of accuracies with intervals and p-values as cells of a table."""
    return (
        change(row["mean_difference"], 100, unit="points"),
        interval(row["ci_t"], 100),
        interval(row["ci_bootstrap"], 100),
        *(
            probability(row.get(key))
            for key in ("p_t", "p_t_holm", "p_sign_flip", "p_sign_flip_holm")
        ),
    )


def _epochs(values: Sequence[int | None]) -> str:
    """Return the epochs of all seeds, or of more than `MANY_SEEDS` their median and range."""
    if len(values) <= MANY_SEEDS:
        return ", ".join(NONE if value is None else str(value) for value in values)
    found = [value for value in values if value is not None]
    if not found:
        return NONE
    never = f"; {len(values) - len(found):,} never" * (len(found) < len(values))
    return f"median {statistics.median(found):g} ({min(found)} to {max(found)}{never})"


def convergence_table(summary: dict[str, Any]) -> Table:
    """Return a table of how fast each arm learns, and how smooth its losses are."""
    arms = list(summary["per_arm"])
    tables = [summary["convergence"][arm] for arm in arms]
    saved = summary["convergence"]["epochs_saved"]
    rows = []
    for number, threshold in enumerate(tables[0]["thresholds"]):
        cells = [_epochs(table["first_epoch"][number]) for table in tables]
        if saved:
            statistic = saved["statistics"][number]
            text = change(statistic["mean"], digits=1)
            if statistic["ci_t"]:
                text += f" ({interval(statistic['ci_t'], digits=1)})"
            cells.append(text)
        rows.append((f"first epoch with {100 * threshold:.0f} % on validation", *cells))
    smooth = [
        ("area under the validation accuracy", "area_under_curve", None, 100, 2, "%"),
        ("oscillation of the training loss", "oscillation", "train_loss", 1, 4, "nats"),
        ("oscillation of the validation loss", "oscillation", "val_loss", 1, 4, "nats"),
    ]
    for words, key, curve, scale, digits, unit in smooth:
        found = [table[key] if curve is None else table[key][curve] for table in tables]
        cells = [mean_and_spread(row, scale, digits, unit) for row in found]
        rows.append((words, *cells, *([NONE] if saved else [])))
    heads = [summary["labels"][arm] for arm in arms]
    lengths = {row["epochs"] for row in summary["per_arm"].values()}
    seeds = "Epochs of each seed in order; a dash if it does not reach the threshold."
    if any(len(row["seeds"]) > MANY_SEEDS for row in summary["per_arm"].values()):
        seeds = (
            f"Epochs: of more than {MANY_SEEDS} seeds the median, the range, and how many seeds "
            f"never reach the threshold. {SUMMARY} has each."
        )
    differ = " The arms have different numbers of epochs, which changes these rows too."
    return Table(
        "Convergence and smoothness",
        f"{seeds} Other rows: means ± standard deviations.{differ * (len(lengths) > 1)}",
        ("", *heads, *(["epochs saved (95 % interval)"] if saved else [])),
        rows,
    )


def mcnemar_table(summary: dict[str, Any]) -> Table:
    """Return a table of McNemar's exact test of each seed pair."""
    rows = [
        (str(r["seed"]), f"{r['only_first']:,}", f"{r['only_second']:,}", probability(r["p"]))
        for r in summary["mcnemar"]
    ]
    first, second = (
        (summary["labels"][arm] for arm in summary["paired"]["arms"]) if rows else ("", "")
    )
    title = "The same test images, pair by pair"
    note = (
        "McNemar's exact test on the predictions of one seed: does one trained network get more "
        "of these images right than the other?"
    )
    if len(rows) > MANY_SEEDS:
        note += f" A table of more than {MANY_SEEDS} pairs counts them. {SUMMARY} has each."
        return Table(title, note, ("answer", "pairs"), _mcnemar_counts(summary, first, second))
    head = ("seed", f"right only with {first}", f"right only with {second}", "p")
    return Table(title, note, head, rows)


def _mcnemar_counts(summary: dict[str, Any], first: str, second: str) -> list[tuple[str, str]]:
    """Return rows on how many pairs have which answer."""
    clear = [row for row in summary["mcnemar"] if row["p"] < ALPHA]
    better = sum(row["only_second"] > row["only_first"] for row in clear)
    counts = {
        f"more right with {second}, p < {ALPHA}": better,
        f"more right with {first}, p < {ALPHA}": len(clear) - better,
        f"p at least {ALPHA}": len(summary["mcnemar"]) - len(clear),
    }
    return [(answer, f"{pairs:,}") for answer, pairs in counts.items()]


def _deviation(variance: float | None) -> str:
    if variance is None:
        return NONE
    return f"{100 * math.sqrt(variance):.3f} points" if variance > 0 else "none detectable"


def variance_table(summary: dict[str, Any]) -> Table:
    """Return a table of the sources of the spread between seeds (Jordan 2023), and calibration."""
    rows = [
        (
            summary["labels"][arm],
            _deviation(row["variance"]["total"]),
            _deviation(row["variance"]["finite_test_set"]),
            _deviation(row["variance"]["distribution"]),
            f"{100 * row['calibration']['ece']:.2f} points",
        )
        for arm, row in summary["per_arm"].items()
    ]
    return Table(
        "Spread between seeds, and calibration",
        "Standard deviations of the test accuracy between seeds. One part comes from the finite "
        "test set, the other from differences on the distribution itself (Jordan 2023, arXiv "
        "2304.01910). Calibration: expected calibration error, mean over the seeds.",
        ("", "observed", "finite test set", "distribution", "calibration error"),
        rows,
    )
