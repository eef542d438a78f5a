"""The report of a study with a swept setting: the same page, told along the setting."""

from pathlib import Path
from typing import Any

from cifar_jax.data.dataset import Dataset
from cifar_jax.report import files
from cifar_jax.report.model_card import write_model_card
from cifar_jax.report.naming import arm_name, dataset_name, listed
from cifar_jax.report.page import Warn, config_toml, data_notices, to_stderr, write_pages
from cifar_jax.report.sweep_figures import sweep_figures
from cifar_jax.report.tables import (
    HOLM_NOTE,
    METRICS,
    TESTED_HEAD,
    Table,
    origins,
    protocol_table,
    tested_cells,
)
from cifar_jax.report.text import NONE, change, interval, mean_and_spread, percent, seeds_text
from cifar_jax.study.collect import SweepStudy
from cifar_jax.study.comparable import unlike
from cifar_jax.study.grid import Sweep, value_text

CONVENTION = (
    "A run that diverged (its loss is not finite) has no accuracy of its own. Left out it would "
    "flatter the arm that fails, so its test accuracy counts as chance, {chance}, here and in the "
    "differences; it has a place in no other number."
)


def _points(row: dict[str, Any]) -> str:
    """A difference with its interval, in words."""
    text = change(row["mean_difference"], 100, unit="points")
    if row["ci_t"] is None:
        return text
    low, high = (f"{100 * end:+.2f}" for end in row["ci_t"])
    return f"{text} (95 % interval {low} to {high})"


def headline(study: SweepStudy, summary: dict[str, Any]) -> str:
    """Whether the gain depends on the setting, or without a pair which value is best."""
    where, sweep, name = dataset_name(study.first), study.sweep, summary["sweep"]["name"]
    gains = [row for row in summary["gain"] if row["n"]]
    change_ = summary["interaction"]
    if not gains:
        cells = [cell for cell in summary["cells"] if cell["test_accuracy"]["n"]]
        best = max(cells, key=lambda cell: cell["test_accuracy"]["mean"])
        changes = [row for row in summary["against_first_value"] if row["n"]]
        if len(changes) == 1:
            (row,) = changes
            values = (sweep.value_name(value) for value in (row["value"], sweep.values[0]))
            return (
                f"On {where}, {arm_name(row['arm'])} at {name} {' minus '.join(values)} is "
                f"{_points(row)} of test accuracy, {seeds_text(row['n'])}."
            )
        return (
            f"On {where}, {arm_name(best['arm'])} reaches its highest mean test accuracy, "
            f"{percent(best['test_accuracy']['mean'])}, at {sweep.at(best['value'])} "
            f"({seeds_text(best['test_accuracy']['n'])}); no two norms are compared."
        )
    a, b = (arm_name(arm) for arm in summary["compared"])
    if len(gains) < 2 or not change_.get("n"):
        row = gains[0]
        return (
            f"On {where}, at {sweep.at(row['value'])} {b} minus {a} is {_points(row)} "
            f"of test accuracy, {seeds_text(row['n'])}."
        )
    low, high = sweep.at(change_["low"]), sweep.value_name(change_["high"])
    ends = (
        f"{b} minus {a} is {_points(summary['gain'][0])} of test accuracy at {low} and "
        f"{_points(summary['gain'][-1])} at {high}"
    )
    interval_ = change_["ci_t"]
    if interval_ is None:
        verdict = "one seed cannot tell whether that is a change"
    elif interval_[0] <= 0 <= interval_[1]:
        verdict = f"no dependence on {name} is shown: the change is {_points(change_)}"
    else:
        verb = "larger" if change_["mean_difference"] > 0 else "smaller"
        verdict = f"the gain is {verb} at {high}, a change of {_points(change_)}"
    return f"On {where}, {ends}; {verdict}, {seeds_text(change_['n'])}."


def notices(study: SweepStudy, summary: dict[str, Any]) -> list[str]:
    """What a reader must know before any number."""
    found = data_notices(study.first)
    lost = [
        f"{arm_name(cell['arm'])} at {study.sweep.at(cell['value'])}: "
        f"{cell['diverged']} of {seeds_text(cell['test_accuracy']['n'])}"
        for cell in summary["cells"]
        if cell["diverged"]
    ]
    if lost:
        convention = CONVENTION.format(chance=percent(summary["chance"], 1))
        found.append(f"Diverged: {'; '.join(lost)}. {convention}")
    if summary["missing"]:
        runs = ", ".join(
            f"{arm_name(arm)} at {study.sweep.value_name(value)} seed {seed}"
            for arm, value, seed in summary["missing"]
        )
        found.append(f"Runs that are missing, and in no number: {runs}.")
    found += unlike(study.studies)
    if max(cell["test_accuracy"]["n"] for cell in summary["cells"]) < 2:
        found.append(
            "No arm has two seeds: the spread between seeds, and with it an interval, cannot be "
            "told from one run."
        )
    return found


def main_table(study: SweepStudy, summary: dict[str, Any]) -> Table:
    """Test accuracy of every arm at every value, and the gain."""
    arms, name = summary["arms"], summary["sweep"]["name"]
    rows = []
    for number, value in enumerate(summary["sweep"]["values"]):
        cells = []
        for cell in (c for c in summary["cells"] if c["value"] == value):
            text = mean_and_spread(cell["test_accuracy"], 100, unit="%")
            if cell["diverged"]:
                text += f" ({cell['diverged']} of {cell['test_accuracy']['n']} diverged)"
            cells.append(text)
        if summary["gain"]:
            row = summary["gain"][number]
            cells += [
                change(row["mean_difference"], 100, unit="points"),
                interval(row["ci_t"], 100, unit="points"),
            ]
        rows.append((study.sweep.value_name(value), *cells))
    heads = [arm_name(arm) for arm in arms]
    if summary["gain"]:
        a, b = (arm_name(arm) for arm in summary["compared"])
        heads += [f"{b} minus {a}", "95 % interval (paired t)"]
    lengths = sorted({row["epochs"] for row in summary["per_value"] if row})
    note = (
        f"Test accuracy, mean ± standard deviation over the seeds, after "
        f"{listed([str(n) for n in lengths])} epochs of {study.dataset['n_train']:,} images"
    )
    if study.sweep.field == "data.train_examples":
        note = note.rpartition(" of ")[0]
    chance = percent(summary["chance"], 1)
    note += f", on {summary['device'] or 'an unknown device'}. Chance is {chance}. "
    note += "The published figures are of one protocol, so none is shown."
    return Table(f"Test accuracy by {name}", note, (name, *heads), rows)


def gain_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """The gain at each value, how it changes, and the gain with each arm at its own best."""
    rows = [
        (
            sweep.at(row["value"]),
            f"{row['n']}" + f" ({row['diverged_pairs']} diverged)" * bool(row["diverged_pairs"]),
            *tested_cells(row),
        )
        for row in summary["gain"]
        if row["n"]
    ]
    if not rows:
        return Table("Gain", "", ("",), [])
    a, b = (arm_name(arm) for arm in summary["compared"])
    found = summary["interaction"]
    if found.get("n"):
        low, high = (sweep.value_name(found[key]) for key in ("low", "high"))
        rows.append(
            (f"change: gain at {high} minus gain at {low}", f"{found['n']}", *tested_cells(found))
        )
    found = summary["at_best"]
    if found.get("n"):
        first, second = (sweep.value_name(value) for value in found["values"])
        rows.append(
            (f"each at its best: {b} {second}, {a} {first}", f"{found['n']}", *tested_cells(found))
        )
    return Table(
        "Gain",
        f"Test accuracy of {b} minus that of {a} with the same seed. {HOLM_NOTE} Rows without an "
        "adjusted p-value are single questions: whether the gain differs between the ends, seed by "
        "seed, and what it is with each arm at the value where its mean validation accuracy is "
        "best.",
        ("", "pairs", *TESTED_HEAD),
        rows,
    )


def against_first_value_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """What each value changes against the first, arm by arm."""
    first = sweep.value_name(sweep.values[0])
    rows = [
        (
            f"{arm_name(row['arm'])}: {sweep.value_name(row['value'])} minus {first}",
            f"{row['n']}",
            *tested_cells(row),
        )
        for row in summary["against_first_value"]
        if row["n"]
    ]
    return Table(
        f"Against {sweep.at(sweep.values[0])}",
        f"Test accuracy at one value minus that at {first}, same arm and seed. {HOLM_NOTE}",
        ("", "pairs", *TESTED_HEAD),
        rows,
    )


def finished_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """Every arm at every value: the finished runs alone."""
    rows = []
    for cell in summary["cells"]:
        found = cell["finished"]
        cells = (
            [
                mean_and_spread(found[key], scale, digits, unit)
                for key, _, scale, digits, unit in METRICS
            ]
            if found
            else [NONE] * len(METRICS)
        )
        count = found["test_accuracy"]["n"] if found else 0
        rows.append(
            (f"{arm_name(cell['arm'])}, {sweep.value_name(cell['value'])}", f"{count}", *cells)
        )
    head = ("", "finished", *(words for _, words, *_ in METRICS))
    note = "Mean ± standard deviation of the finished runs."
    if summary["diverged"]:
        note += " Those that diverged are left out here."
    return Table("Finished runs", note, head, rows)


def interval_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """Test accuracy of every arm at every value, with intervals."""
    rows = [
        (
            f"{arm_name(cell['arm'])}, {sweep.value_name(cell['value'])}",
            f"{cell['test_accuracy']['n']}"
            + f" ({cell['diverged']} diverged)" * bool(cell["diverged"]),
            mean_and_spread(cell["test_accuracy"], 100, unit="%"),
            interval(cell["test_accuracy"]["ci_t"], 100),
            interval(cell["test_accuracy"]["ci_bootstrap"], 100),
        )
        for cell in summary["cells"]
    ]
    note = "Diverged runs count as chance." if summary["diverged"] else ""
    head = ("", "seeds", "mean ± standard deviation", "95 % interval (t)", "95 % (bootstrap)")
    return Table("Test accuracy with intervals", note, head, rows)


def protocol(study: SweepStudy, summary: dict[str, Any]) -> Table:
    """What was run; the swept setting first."""
    at = next(number for number, row in enumerate(summary["per_value"]) if row)
    lengths = summary["per_value"][at]["epochs"]
    found = protocol_table(study.first, {**summary, **summary["per_value"][at], "epochs": lengths})
    runs = sum(len(row) for one in study.studies for row in one.runs.values())
    rows = {row[0]: row[1] for row in found.rows}
    if text := origins(study.studies):
        rows["initial values"] = text
    rows["finished runs"] = f"{runs}; {len(summary['diverged'])} diverged"
    values = "; ".join(map(study.sweep.value_name, study.sweep.values))
    swept = (f"swept: {summary['sweep']['name']}", values)
    shown = study.sweep.value_name(study.sweep.values[at])
    note = f"Where a row names the swept setting it shows one value, {shown}."
    return Table(found.title, note, found.head, [swept, *rows.items()])


def sweep_text(study: SweepStudy) -> str:
    """The sweep as `--sweep` takes it."""
    return f"{study.sweep.field}={','.join(value_text(v) for v in study.sweep.values)}"


def write_sweep_report(
    study: SweepStudy, summary: dict[str, Any], images: Dataset | None, warn: Warn = to_stderr
) -> list[Path]:
    """Write figures, `report.html`, `report.md`, `summary.json` and a model card for each arm.

    Args:
        study: its runs.
        summary: what `cifar_jax.study.sweep.summarise_sweep` says about it.
        images: of the study's dataset; figures that show them are left out without.
        warn: called with a line for each figure that could not be drawn.

    Returns:
        What was written.

    Raises:
        UserError: if the study's directory cannot be written.
    """
    first, name = study.first, summary["sweep"]["name"]
    rows = [
        (one, row, arm)
        for one, row in zip(study.studies, summary["per_value"], strict=True)
        if row
        for arm in row["per_arm"]
    ]
    for one, _, arm in rows:
        files.check_inside(one.runs[arm][0].directory.parent, study.workdir)
    written = write_pages(
        first,
        summary,
        sweep_figures(study, summary, images),
        tables=[
            gain_table(study.sweep, summary),
            against_first_value_table(study.sweep, summary),
            interval_table(study.sweep, summary),
            finished_table(study.sweep, summary),
        ],
        toml=config_toml(first, sweep_text(study)),
        warn=warn,
        title=f"What normalisation changes, by {name}: {dataset_name(first)}",
        headline=headline(study, summary),
        notices=notices(study, summary),
        main=main_table(study, summary),
        claims=Table("Claims", "", ("",), []),
        protocol=protocol(study, summary),
    )
    cards = [write_model_card(one, {**summary, **row}, arm) for one, row, arm in rows]
    return [*written, *cards]
