"""Make the tables of a study with a swept setting."""

from typing import Any

from cifar_jax.errors import listed
from cifar_jax.report.number_tables import HOLM_NOTE, METRICS, TESTED_HEAD, tested_cells
from cifar_jax.report.tables import INTERVAL_NOTE, Table, origins, protocol_table
from cifar_jax.report.text import NONE, change, interval, mean_and_spread, percent, probability
from cifar_jax.study.collect import SweepStudy
from cifar_jax.study.grid import Sweep
from cifar_jax.study.summary import is_cifar10


def main_table(study: SweepStudy, summary: dict[str, Any]) -> Table:
    """Return a table of the test accuracy of every arm at every value, and the gain."""
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
    heads = [summary["labels"][arm] for arm in arms]
    if summary["gain"]:
        a, b = (summary["labels"][arm] for arm in summary["compared"])
        heads += [f"{b} minus {a}", "95 % interval (paired t)"]
    found = [arm for row in summary["per_value"] if row for arm in row["per_arm"].values()]
    lengths = sorted({arm["epochs"] for arm in found})
    note = (
        f"Test accuracy, mean ± standard deviation over the seeds, after "
        f"{listed([str(n) for n in lengths])} epoch{'s' * (lengths != [1])} of "
        f"{study.dataset.n_train:,} images"
    )
    if study.sweep.field == "data.train_examples":
        note = note.rpartition(" of ")[0]
    chance = percent(summary["chance"], 1)
    note += f", on {summary['device'] or 'an unknown device'}. Chance is {chance}. "
    if is_cifar10(study.first):
        note += "The published figures are of one protocol, so none is shown. "
    note += INTERVAL_NOTE
    return Table(f"Test accuracy by {name}", note, (name, *heads), rows)


def gain_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """Return a table of the gain at each value, its change, and that at the chosen values."""
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
    a, b = (summary["labels"][arm] for arm in summary["compared"])
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
            (
                f"each at its chosen value: {b} {second}, {a} {first}",
                f"{found['n']}",
                *tested_cells(found),
            )
        )
    return Table(
        "Gain",
        f"Test accuracy of {b} minus that of {a} with the same seed. {HOLM_NOTE} Rows without an "
        "adjusted p-value test one hypothesis each. The row of the change compares the gains at "
        "both ends, seed by seed. The row of the chosen values takes each arm at the value that "
        "its validation accuracy chooses among "
        f"{summary['chosen'][0]['among'] if summary['chosen'] else len(rows)}.",
        ("", "pairs", *TESTED_HEAD),
        rows,
    )


def against_first_value_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """Return a table of each value's difference to the first, for each arm."""
    first = sweep.value_name(sweep.values[0])
    rows = [
        (
            f"{summary['labels'][row['arm']]}: {sweep.value_name(row['value'])} minus {first}",
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


def chosen_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """Return a table of the value that the validation accuracy chooses for each arm."""
    rows = []
    for row in summary["chosen"]:
        accuracy, against = row["test_accuracy"], row["against_first_value"]
        cells = tested_cells(against)[:4] if against else (NONE,) * 4
        rows.append(
            (
                summary["labels"][row["arm"]],
                sweep.value_name(row["value"]),
                f"{row['among']}",
                ", ".join(map(sweep.value_name, row["tied"])) or "none",
                percent(row["val_accuracy"]),
                f"{accuracy['n']}",
                mean_and_spread(accuracy, 100, unit="%"),
                interval(accuracy["ci_t"], 100),
                cells[0],
                cells[1],
                probability(against["p_t_holm"]) if against else NONE,
            )
        )
    first = sweep.value_name(sweep.values[0])
    return Table(
        "Chosen values",
        "For each arm: the value with the highest mean validation accuracy, or the first of those "
        "that tie. The choice does not use the test images. The difference is the test accuracy "
        f"at that value minus that at {first}. Its p-value is adjusted for all differences to "
        f"{first}, by Holm's method.",
        (
            "",
            "chosen",
            "of values",
            "ties with",
            "validation accuracy",
            "seeds",
            "test accuracy",
            "95 % interval (t)",
            "difference",
            "95 % (paired t)",
            "p (Holm)",
        ),
        rows,
    )


def finished_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """Return a table of the finished runs of every arm at every value."""
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
            (
                f"{summary['labels'][cell['arm']]}, {sweep.value_name(cell['value'])}",
                f"{count}",
                *cells,
            )
        )
    head = ("", "finished", *(words for _, words, *_ in METRICS))
    note = "Mean ± standard deviation of the finished runs."
    if summary["diverged"]:
        note += " Runs that diverged are not included here."
    return Table("Finished runs", note, head, rows)


def interval_table(sweep: Sweep, summary: dict[str, Any]) -> Table:
    """Return a table of the test accuracy of every arm at every value, with intervals."""
    rows = [
        (
            f"{summary['labels'][cell['arm']]}, {sweep.value_name(cell['value'])}",
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
    """Return a table of the protocol, with the swept setting first."""
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
    note = f"A row that names the swept setting shows one of its values, {shown}."
    return Table(found.title, note, found.head, [swept, *rows.items()])
