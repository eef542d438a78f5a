"""Write the page of a comparison of scores: `report.html`, its numbers and its tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cifar_jax.errors import counted, listed
from cifar_jax.names import REPORT, SUMMARY
from cifar_jax.report.drawing import MOST_ROWS, arm_style, new_figure
from cifar_jax.report.estimation_plots import Arm, cumming, gardner_altman
from cifar_jax.report.exports import (
    Block,
    scores_block,
    scores_runs,
    signed_interval,
    write_tables,
)
from cifar_jax.report.labels import font_warning, short_name
from cifar_jax.report.page import render_page, to_stderr
from cifar_jax.report.page_figures import Warn, draw_each, embed
from cifar_jax.report.study_figures import StudyFigure
from cifar_jax.report.tables import Table
from cifar_jax.report.text import NONE, change, interval, mean_and_spread, probability, undecided
from cifar_jax.storage import check_inside, write_json, write_text
from cifar_jax.study.scores import Scores, notices
from cifar_jax.study.statistics import ALPHA

# A table of each run has a column for each arm. More do not fit a page.
_MOST_COLUMNS = 8
_MOST_NAMED = 3  # arms with their interval in the headline


def difference(row: dict[str, Any], block: Block) -> str:
    """Format a difference with interval and size: `+0.95 points (95 % interval ..., 5 pairs)`."""
    text = change(
        row["mean_difference"], block.scale, block.digits, "points" if block.percent else ""
    )
    size = counted(row["n"], "pair") if row["paired"] else "unpaired"
    if row["ci_t"] is None:
        return f"{text} ({size})"
    return f"{text} (95 % interval {_ends(row, block)}, {size})"


def _ends(row: dict[str, Any], block: Block) -> str:
    return signed_interval(row["ci_t"], block.scale, block.digits)


def answer(row: dict[str, Any], metric: str, block: Block) -> str:
    """Return the answer for one arm and the control as a sentence."""
    control, arm = row["arms"]
    found = difference(row, block)
    if why := undecided(row):
        return f"It is undecided whether {arm} and {control} differ in {metric}: {found}; {why}."
    verb = "higher" if row["mean_difference"] > 0 else "lower"
    return f"{arm} has a {verb} {metric} than {control}: {found}."


def headline(summary: dict[str, Any], block: Block) -> str:
    """Return the answer. Of several arms, name those that differ after Holm's correction."""
    rows, metric = summary["against_control"], summary["metric"]
    if len(rows) == 1:
        return answer(rows[0], metric, block)
    clear = [row for row in rows if row["p_t_holm"] is not None and row["p_t_holm"] < ALPHA]
    clear.sort(key=lambda row: -abs(row["mean_difference"]))
    names = [f"{row['arms'][1]} {difference(row, block)}" for row in clear[:_MOST_NAMED]]
    if len(clear) > _MOST_NAMED:
        names.append(counted(len(clear) - _MOST_NAMED, "other arm"))
    return (
        f"Of {counted(len(rows), 'arm')} compared with {summary['control']}, "
        f"{len(clear) or 'none'} differ{'s' * (len(clear) == 1)} in {metric} after Holm's "
        f"correction{': ' * bool(names)}{listed(names) if names else ''}."
    )


def answers(summary: dict[str, Any]) -> list[str]:
    """Return a line for each arm, for the terminal."""
    block = scores_block(summary)
    unit = "%" if block.percent else ""
    lines = [
        f"{arm}: {summary['metric']} {mean_and_spread(row, block.scale, block.digits, unit)}, "
        f"{counted(row['n'], 'run')}"
        for arm, row in summary["per_arm"].items()
    ]
    for row in summary["against_control"]:
        why = undecided(row)
        lines.append(
            f"{row['arms'][1]} minus {row['arms'][0]}: {difference(row, block)}"
            + (f": undecided, {why}" if why else ": a difference is shown")
        )
    return lines


def main_table(summary: dict[str, Any], block: Block) -> Table:
    """Return a table of every arm, and of its difference to the control."""
    gains = {row["arms"][1]: row for row in summary["against_control"]}
    unit, points = (" [%]", " [points]") if block.percent else ("", "")
    rows = []
    for arm, found in summary["per_arm"].items():
        row, cells, p = gains.get(arm), (NONE, NONE), NONE
        if row:
            cells = (
                change(row["mean_difference"], block.scale, block.digits),
                _ends(row, block) + " (unpaired)" * (not row["paired"]),
            )
            p = probability(row["p_t_holm"])
        spread = mean_and_spread(found, block.scale, block.digits)
        rows.append((arm, *cells, p, spread, f"{found['n']}"))
    head = (
        "",
        f"difference to {summary['control']}{points}",
        "95 % interval",
        "p (Holm)",
        f"mean ± standard deviation{unit}",
        "runs",
    )
    note = (
        f"{summary['metric']}, as in the source: for some metrics lower is better. The interval of "
        "a difference is that of the paired t test, or Welch's where it says unpaired. Each "
        "interval is for one difference. P-values are adjusted by Holm's method for the number of "
        "differences."
    )
    return Table("Results", note, head, rows)


def arms_table(summary: dict[str, Any], block: Block) -> Table:
    """Return a table of every arm with the intervals of its mean."""
    rows = [
        (
            arm,
            f"{row['n']}",
            mean_and_spread(row, block.scale, block.digits, "%" if block.percent else ""),
            interval(row["ci_t"], block.scale, block.digits),
            interval(row["ci_bootstrap"], block.scale, block.digits),
        )
        for arm, row in summary["per_arm"].items()
    ]
    head = ("", "runs", "mean ± standard deviation", "95 % interval (t)", "95 % (bootstrap)")
    return Table("Each arm", "", head, rows)


def tests_table(summary: dict[str, Any], block: Block) -> Table:
    """Return a table of the differences with every test."""
    rows = []
    for row in summary["against_control"]:
        dz, needed = row["cohens_dz"], row["seeds_for_power_80"]
        rows.append(
            (
                row["arms"][1],
                f"{row['n']} pairs" if row["paired"] else "unpaired",
                change(row["mean_difference"], block.scale, block.digits),
                _ends(row, block),
                signed_interval(row["ci_bootstrap"], block.scale, block.digits),
                probability(row["p_t"]),
                probability(row["p_t_holm"]),
                probability(row["p_sign_flip"]),
                probability(row["p_sign_flip_holm"]),
                NONE if dz is None else f"{dz:.2f}",
                NONE if needed is None else f"{needed:,}",
            )
        )
    head = (
        f"minus {summary['control']}",
        "seeds",
        "difference",
        "95 % interval (t)",
        "95 % (bootstrap)",
        "p (t)",
        "Holm",
        "p (sign flips)",
        "Holm",
        "Cohen's d_z",
        "seeds for power 0.8",
    )
    note = (
        "p (t) is below 0.05 exactly if the interval excludes 0. Bootstrap, sign flips, Cohen's "
        "d_z and the number of seeds need pairs."
    )
    return Table("Differences", note, head, rows)


def runs_table(scores: Scores, summary: dict[str, Any], block: Block) -> Table:
    """Return a table of the score of each run: a row for each seed. Empty if it does not fit."""
    arms = summary["arms"]
    seeds = dict.fromkeys(seed for arm in arms for seed in scores.values[arm])
    rows = []
    numbers = all(seed.isdecimal() for seed in seeds)
    for seed in sorted(seeds, key=int) if numbers else seeds:
        found = [scores.values[arm].get(seed) for arm in arms]
        rows.append(
            (
                seed,
                *(NONE if x is None else f"{block.scale * x:z.{block.digits}f}" for x in found),
            )
        )
    fits = scores.seeded and len(arms) <= _MOST_COLUMNS
    unit = " In per cent." if block.percent else ""
    return Table("Each run", f"{scores.metric}.{unit}", ("seed", *arms), rows if fits else [])


def _draw(summary: dict[str, Any], block: Block, title: str) -> Figure:
    """Draw an estimation plot: Gardner-Altman for two arms, Cumming for more."""
    gains = {row["arms"][1]: row for row in summary["against_control"]}
    arms = [
        Arm(arm, arm_style(summary["arms"], arm), summary["per_arm"][arm], gains.get(arm))
        for arm in summary["arms"]
    ]
    percent, points = (" [%]", " [points]") if block.percent else ("", "")
    metric = f"{short_name(summary['metric'])}{percent}"
    if len(arms) > 2:
        figure = new_figure(1.0 + 0.42 * len(arms), title)
        against = f"difference{points}\nto {short_name(summary['control'])}"
        cumming(figure, arms, block.scale, (metric, against))
        return figure
    seeds = gains[arms[1].name]["seeds"]
    if seeds:
        arms = [arm._replace(row=_of_seeds(arm.row, seeds)) for arm in arms]
    figure = new_figure(3.6, title)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    gardner_altman(left, right, (arms[0], arms[1]), seeds, block.scale)
    left.set_ylabel(metric)
    right.set_ylabel(f"difference{points}")
    return figure


def _of_seeds(row: dict[str, Any], seeds: Sequence[str]) -> dict[str, Any]:
    """Return values and mean of some of an arm's seeds."""
    found = dict(zip(row["seeds"], row["values"], strict=True))
    values = [found[seed] for seed in seeds]
    return {"values": values, "mean": sum(values) / len(values)}


def figure_of(summary: dict[str, Any], block: Block) -> StudyFigure:
    """Return the figure of all arms."""
    title = f"{summary['metric']} of every arm"
    caption = (
        "left, every arm, a small mark a run. Right, the difference to "
        f"{summary['control']}. Diamonds are means, bars 95 % intervals as in the tables, not "
        "adjusted for the number of arms. A grey curve is the t distribution of a mean difference."
    )
    if len(summary["arms"]) > 2 and not all(row["paired"] for row in summary["against_control"]):
        caption += " A star marks an unpaired difference. It has no curve and no marks for pairs."
    many = len(summary["arms"]) > MOST_ROWS
    return StudyFigure(
        "arms",
        title,
        f"{summary['source']}: {caption}",
        None if many else lambda: _draw(summary, block, f"{title}: {summary['source']}"),
        f"It has more than {MOST_ROWS} arms." if many else "",
    )


def facts_table(summary: dict[str, Any]) -> Table:
    """Return a table of the source and of what was taken from it."""
    rows = [
        ("source", summary["source"]),
        ("taken", (*summary["notes"], "")[0]),
        ("control", summary["control"]),
        (
            "pairs",
            "Runs of two arms with the same seed are a pair, if the arms share at least half of "
            "the seeds of each. This rule does not look at the scores.",
        ),
    ]
    return Table("What was compared", "", ("", ""), [row for row in rows if row[1]])


def write_scores_report(
    workdir: Path, scores: Scores, summary: dict[str, Any], command: str, warn: Warn = to_stderr
) -> list[Path]:
    """Write `report.html`, `summary.json`, `runs.csv`, `table.tex` and `table.md`.

    Args:
        workdir: existing directory.
        scores: that were compared.
        summary: from `cifar_jax.study.scores.compare_scores`; may have more keys.
        command: that writes the page again.
        warn: called with a line for a figure that could not be drawn.

    Returns:
        The written files, the page first.

    Raises:
        UserError: a file is a link out of the directory.
    """
    block, page = scores_block(summary), workdir / REPORT
    for name in (REPORT, SUMMARY):
        check_inside(workdir / name, workdir)
    write_json(workdir / SUMMARY, summary)  # First, so that no figure can cost it.
    written = write_tables(workdir, [block], scores_runs(scores))
    if problem := font_warning([*summary["arms"], summary["metric"], summary["source"]]):
        warn(f"warning: {problem}")

    values = {
        "title": f"{summary['metric']}: {listed(summary['arms'][1:])} against {summary['control']}"
        if len(summary["arms"]) <= _MOST_COLUMNS
        else f"{summary['metric']} of {len(summary['arms'])} arms against {summary['control']}",
        "headline": headline(summary, block),
        "notices": [*summary["notes"][1:], *notices(summary)],
        "main": main_table(summary, block),
        "figures": draw_each(
            [figure_of(summary, block)],
            lambda figure, drawn: embed(figure, drawn.picture),
            warn,
        ),
        "tables": [
            tests_table(summary, block),
            arms_table(summary, block),
            runs_table(scores, summary, block),
        ],
        "facts": facts_table(summary),
        "command": command,
    }
    write_text(page, render_page("scores.html", values))
    return [page, workdir / SUMMARY, *written]
