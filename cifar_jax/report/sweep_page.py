"""Write the report of a study with a swept setting."""

from pathlib import Path
from typing import Any

from cifar_jax.data.dataset import Dataset
from cifar_jax.errors import counted, listed
from cifar_jax.report.exports import study_runs, sweep_block, write_tables
from cifar_jax.report.headline import data_notices
from cifar_jax.report.model_card import write_model_card
from cifar_jax.report.naming import dataset_name, listed_runs, study_title
from cifar_jax.report.page import config_toml, to_stderr, write_pages
from cifar_jax.report.page_figures import Warn
from cifar_jax.report.sweep_figures import sweep_figures
from cifar_jax.report.sweep_tables import (
    against_first_value_table,
    chosen_table,
    finished_table,
    gain_table,
    interval_table,
    main_table,
    protocol,
)
from cifar_jax.report.tables import Table
from cifar_jax.report.text import difference, interval, percent, probability, undecided
from cifar_jax.storage import check_inside
from cifar_jax.study.cautions import run_cautions
from cifar_jax.study.collect import SweepStudy
from cifar_jax.study.comparable import computed_differently
from cifar_jax.study.grid import Sweep
from cifar_jax.study.statistics import ALPHA

CONVENTION = (
    "A run that diverged (its loss is not finite) has no test accuracy. Its arm would look too "
    "good without it, so it counts as chance, {chance}, also in the differences. No other number "
    "includes it."
)


def headline(study: SweepStudy, summary: dict[str, Any]) -> str:
    """Say whether the gain depends on the setting, or without a pair what the values change."""
    where, sweep, name = dataset_name(study.first), study.sweep, summary["sweep"]["name"]
    gains = [row for row in summary["gain"] if row["n"]]
    found = summary["interaction"]
    if not gains:
        return f"On {where}, {_one_arm(study, summary)}"
    a, b = (summary["labels"][arm] for arm in summary["compared"])
    if len(gains) < 2 or not found.get("n"):
        row = gains[0]
        return (
            f"On {where}, at {sweep.at(row['value'])} {b} minus {a} is {_verdict(row)}, "
            f"{counted(row['n'], 'seed')}."
        )
    low, high = sweep.at(found["low"]), sweep.value_name(found["high"])
    ends = (
        f"{b} minus {a} is {difference(summary['gain'][0])} of test accuracy at {low} and "
        f"{difference(summary['gain'][-1])} at {high}"
    )
    if why := undecided(found):
        verdict = (
            f"it is undecided whether that depends on {name}: the change is {difference(found)}, "
            f"and {why}"
        )
    else:
        verb = "larger" if found["mean_difference"] > 0 else "smaller"
        verdict = f"the gain is {verb} at {high}, a change of {difference(found)}"
    return f"On {where}, {ends}; {verdict}, {counted(found['n'], 'seed')}."


def _verdict(row: dict[str, Any]) -> str:
    """Describe a difference of test accuracy, and whether it is decided."""
    why = undecided(row)
    return f"{difference(row)} of test accuracy" + f" (undecided: {why})" * bool(why)


def _one_arm(study: SweepStudy, summary: dict[str, Any]) -> str:
    """Describe the effect of the setting in a study without a pair of arms."""
    sweep, name = study.sweep, summary["sweep"]["name"]
    changes = [row for row in summary["against_first_value"] if row["n"]]
    if len(changes) == 1:
        (row,) = changes
        values = (sweep.value_name(value) for value in (row["value"], sweep.values[0]))
        return (
            f"{summary['labels'][row['arm']]} at {name} {' minus '.join(values)} is "
            f"{_verdict(row)}, "
            f"{counted(row['n'], 'seed')}."
        )
    if not summary["chosen"]:
        return "no arm has a seed that is finished at every value, so nothing is compared."
    return listed([choice_text(sweep, row, summary["labels"]) for row in summary["chosen"]]) + "."


def choice_text(sweep: Sweep, row: dict[str, Any], labels: dict[str, str]) -> str:
    """Describe the value that the validation accuracy chooses for an arm, and its test accuracy.

    Args:
        sweep: the swept setting.
        row: of `summary["chosen"]`.
        labels: names of the arms.
    """
    accuracy = row["test_accuracy"]
    chosen = f"of {counted(row['among'], 'value')} the validation accuracy chooses "
    if row["among"] == 1:
        chosen = "there is only one value to choose, "
    tied = f" (it ties with {listed(list(map(sweep.value_name, row['tied'])))})"
    ends = f", 95 % interval {interval(accuracy['ci_t'], 100)}" * bool(accuracy["ci_t"])
    text = (
        f"{chosen}{sweep.at(row['value'])}{tied * bool(row['tied'])} for {labels[row['arm']]}; "
        f"the test accuracy there is {percent(accuracy['mean'])} "
        f"({counted(accuracy['n'], 'seed')}{ends})"
    )
    against = row["against_first_value"]
    if row["value"] == sweep.values[0]:
        return f"{text}; this is the first value, and the others are compared with it"
    if against is None:
        return text
    p = against["p_t_holm"]
    if p is not None and p < ALPHA:
        verdict = "higher" if against["mean_difference"] > 0 else "lower"
    else:
        verdict = "undecided" if against["ci_t"] else f"undecided ({against['no_interval']})"
    tests = counted(row["adjusted_for"], "difference")
    holm = f", p {probability(p)} after Holm's correction for {tests}"
    return (
        f"{text}; the difference to {sweep.value_name(sweep.values[0])} is {difference(against)}"
        f"{holm * (p is not None)}: {verdict}"
    )


def notices(study: SweepStudy, summary: dict[str, Any]) -> list[str]:
    """Return the warnings at the top of the page."""
    found = data_notices(study.first)
    lost = [
        f"{summary['labels'][cell['arm']]} at {study.sweep.at(cell['value'])}: "
        f"{cell['diverged']} of {counted(cell['test_accuracy']['n'], 'seed')}"
        for cell in summary["cells"]
        if cell["diverged"]
    ]
    if lost:
        convention = CONVENTION.format(chance=percent(summary["chance"], 1))
        found.append(f"Diverged: {'; '.join(lost)}. {convention}")
    if summary["missing"]:
        runs = listed_runs(
            [
                f"{summary['labels'][arm]} at {study.sweep.value_name(value)} seed {seed}"
                for arm, value, seed in summary["missing"]
            ]
        )
        found.append(f"Missing runs, which no number includes: {runs}.")
    found += computed_differently(study.studies)
    for value, at in zip(study.sweep.values, study.studies, strict=True):
        found += run_cautions(at, f" at {study.sweep.value_name(value)}")
    if max(cell["test_accuracy"]["n"] for cell in summary["cells"]) < 2:
        found.append(
            "No arm has two seeds. One run shows neither the spread between seeds nor an interval."
        )
    return found


def write_sweep_report(
    study: SweepStudy, summary: dict[str, Any], images: Dataset | None, warn: Warn = to_stderr
) -> list[Path]:
    """Write the report of a sweep: the same files as for a study.

    Args:
        study: with its runs.
        summary: from `cifar_jax.study.sweep.summarise_sweep`.
        images: of the study's dataset; None omits the figures with images.
        warn: called with a line for each figure that could not be drawn.

    Returns:
        The written files.

    Raises:
        UserError: the study's directory cannot be written.
    """
    first, name = study.first, summary["sweep"]["name"]
    rows = [
        (one, row, arm)
        for one, row in zip(study.studies, summary["per_value"], strict=True)
        if row
        for arm in row["per_arm"]
    ]
    for one, _, arm in rows:
        check_inside(one.runs[arm][0].directory.parent, study.workdir)
    written = write_pages(
        first,
        summary,
        sweep_figures(study, summary, images),
        tables=[
            chosen_table(study.sweep, summary),
            gain_table(study.sweep, summary),
            against_first_value_table(study.sweep, summary),
            interval_table(study.sweep, summary),
            finished_table(study.sweep, summary),
        ],
        toml=config_toml(first, study.sweep.text),
        warn=warn,
        title=f"{study_title(first)} By {name} ({dataset_name(first)})",
        headline=headline(study, summary),
        notices=notices(study, summary),
        main=main_table(study, summary),
        claims=Table("Claims", "", ("",), []),
        protocol=protocol(study, summary),
    )
    written += write_tables(study.workdir, [sweep_block(study, summary)], study_runs(study))
    cards = [write_model_card(one, {**summary, **row}, arm) for one, row, arm in rows]
    return [*written, *cards]
