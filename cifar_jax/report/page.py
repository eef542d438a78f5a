"""Write the report of a study: an HTML page, its tables as Markdown, its numbers as JSON."""

import base64
import dataclasses
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from cifar_jax.data.dataset import Dataset
from cifar_jax.data.sources.cifar10_archive import CLASSES
from cifar_jax.data.subset import is_synthetic
from cifar_jax.errors import UserError, counted, one_line, printable
from cifar_jax.inputs import read_bytes
from cifar_jax.names import FIGURES, IN_PYTHON, REPORT, REPORT_TEXT, SOURCE, SUMMARY
from cifar_jax.report.drawing import write_figure
from cifar_jax.report.exports import study_block, study_runs, write_tables
from cifar_jax.report.figures import reason
from cifar_jax.report.labels import font_warning
from cifar_jax.report.naming import data_notes, dataset_name, listed, study_title
from cifar_jax.report.number_tables import (
    against_first_table,
    arms_table,
    convergence_table,
    mcnemar_table,
    paired_table,
    variance_table,
)
from cifar_jax.report.study_figures import StudyFigure, study_figures
from cifar_jax.report.tables import Table, claims_table, class_table, main_table, protocol_table
from cifar_jax.report.text import difference, interval, markdown, percent, undecided
from cifar_jax.storage import check_inside, write_json, write_text
from cifar_jax.study.cautions import cautions
from cifar_jax.study.collect import Study
from cifar_jax.study.comparable import computed_differently
from cifar_jax.study.statistics import ALPHA
from cifar_jax.study.summary import is_cifar10

LARGEST_SOURCE = 1 << 20  # bytes

Build = Callable[[], Figure]
Warn = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Print a warning on standard error."""
    print(printable(line), file=sys.stderr)


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page shows it. The defaults are of a figure that could not be drawn.

    Attributes:
        figure: its title and caption, or the reason why it is missing.
        png: path of its file, relative to the page; empty if it is only in the page.
        uri: the PNG as a `data:` URI.
        width, height: in pixels.
    """

    figure: StudyFigure
    png: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0


def escape_markdown(value: object) -> str:
    """Escape text for Markdown and its table cells. `Markup` stays unchanged."""
    if isinstance(value, Markup):
        return value
    return markdown(str(value))


def _visible(value: object) -> object:
    """Escape control characters in text. Markup and other values stay unchanged."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(map(printable, value.split("\n")))
    return value


def environment(markdown: bool) -> Environment:
    """Return templates that escape every value, for Markdown or for HTML."""
    return Environment(
        loader=PackageLoader("cifar_jax.report"),
        autoescape=not markdown,
        finalize=escape_markdown if markdown else _visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def headline(study: Study, summary: dict[str, Any]) -> str:
    """Return the answer with its interval. More than two arms add a sentence on all arms."""
    others = summary["against_first"]
    answer = pair_headline(study, summary)
    if len(others) < 2:
        return answer
    clear = [row for row in others if row["p_t_holm"] is not None and row["p_t_holm"] < ALPHA]
    names = [
        f"{study.label(row['arms'][1])} ({'higher' if row['mean_difference'] > 0 else 'lower'})"
        for row in clear
    ]
    found = f"these show a difference: {listed(names)}" if names else "none shows a difference"
    return (
        f"{answer} Of {counted(len(others), 'arm')} compared with "
        f"{study.label(others[0]['arms'][0])}, after Holm's correction {found}."
    )


def pair_headline(study: Study, summary: dict[str, Any]) -> str:
    """Return the answer of the two compared arms, or the accuracy of a single arm."""
    where = dataset_name(study)
    paired, arms = summary["paired"], summary["per_arm"]
    if not paired:
        parts = []
        for arm, row in arms.items():
            accuracy = row["test_accuracy"]
            spread = f", 95 % interval {interval(accuracy['ci_t'], 100)}" * bool(accuracy["ci_t"])
            parts.append(
                f"{study.label(arm)} reaches a test accuracy of {percent(accuracy['mean'])} "
                f"({counted(accuracy['n'], 'seed')}{spread})"
            )
        return f"On {where}, {listed(parts)}; nothing is compared."
    first, second = paired["arms"]
    row = paired["test_accuracy"]
    gain, ends, seeds = 100 * row["mean_difference"], row["ci_t"], paired["seeds"]
    a, b = study.label(first), study.label(second)
    if why := undecided(row):
        number = f"the one seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} paired seeds"
        needed = row["seeds_for_power_80"]
        more = needed is not None and needed > len(seeds)
        plan = (
            f" If that is the true difference, {needed:,} seeds show it with a probability of 80 %."
            if more
            else ""
        )
        return (
            f"On {where}, it is undecided whether {b} changes the test accuracy: {b} minus {a} is "
            f"{difference(row)} with {number}; {why}.{plan}"
        )
    verb = "raises" if gain > 0 else "lowers"
    text = f"95 % interval {100 * ends[0]:+z.2f} to {100 * ends[1]:+z.2f}, {row['n']} paired seeds"
    against = f"against {'the ' * (first == 'none')}{a}"
    return f"On {where}, {b} {verb} the test accuracy by {abs(gain):.2f} points {against} ({text})."


def data_notices(study: Study) -> list[str]:
    """Return the warnings about the images at the top of the page."""
    data = study.dataset
    if is_synthetic(data.name):
        return [
            "These are not CIFAR-10 results. All numbers are for the built-in synthetic images, "
            "and say nothing about CIFAR-10."
        ]
    if data.name == "cifar10":
        return []
    if is_cifar10(study):
        return [
            f"The images come from a folder, {data.name}. Its user says that they are "
            "CIFAR-10's (--folder-is-cifar10); only the names of the classes were checked."
        ]
    if data.classes == CLASSES:
        return [
            f"The classes of {data.name} have CIFAR-10's names. If its images are CIFAR-10's, "
            "the same command with --folder-is-cifar10 compares with the published numbers."
        ]
    return []


def notices(study: Study, summary: dict[str, Any]) -> list[str]:
    """Return the warnings at the top of the page."""
    found = data_notices(study)
    if summary["diverged"]:
        runs = ", ".join(f"{study.label(arm)} seed {seed}" for arm, seed in summary["diverged"])
        found.append(
            f"Runs that diverged, which no number includes: {runs}. The arm's numbers look too "
            "good without them."
        )
    absent = [run for run in summary["missing"] if run not in summary["diverged"]]
    if absent:
        runs = ", ".join(f"{study.label(arm)} seed {seed}" for arm, seed in absent)
        found.append(f"Missing runs, which no number includes: {runs}.")
    found += computed_differently([study])
    found += cautions(study)
    if summary["reason_no_intervals"]:
        found.append(summary["reason_no_intervals"])
    return found


def config_toml(study: Study, sweep: str = "") -> str:
    """Return TOML that repeats the study, or "" if it was trained in Python.

    Its user fills in the path of the images.

    Args:
        study: the study, or its part at one value of a sweep.
        sweep: the swept setting and values, in the form of `--sweep`.
    """
    if study.file == IN_PYTHON:
        return ""
    config = portable_config(study)
    config["training"]["seed"] = study.seeds[0]
    config["study"] = {"arms": ",".join(study.arms), "seeds": len(study.seeds)}
    config.pop("experiment", None)
    if sweep:
        config["study"]["sweep"] = sweep
    return tomli_w.dumps(config)


def portable_config(study: Study) -> dict[str, Any]:
    """Return the study's config without the paths of this machine."""
    config = {key: dict(v) if isinstance(v, dict) else v for key, v in study.config.items()}
    data = config["data"]
    data.pop("data_dir", None)
    if data["dataset"] not in ("auto", "cifar10", "synthetic"):
        data["dataset"] = f"path/to/{study.dataset.name.removeprefix('folder-')}"
    return config


def read_source(workdir: Path) -> str:
    """Return the experiment file of a study or run, or why it cannot be read."""
    try:
        return read_bytes(workdir / SOURCE, LARGEST_SOURCE).decode("utf-8")
    except (OSError, ValueError) as error:
        return f"# {SOURCE}: cannot be read ({one_line(error)})"


def embed(figure: StudyFigure, content: bytes, png: str = "") -> PageFigure:
    """Embed a figure in the page, from the bytes of its PNG file. `png` is that file's path."""
    width, height = struct.unpack(">II", content[16:24])  # in the header chunk
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    return PageFigure(figure, png, uri, width, height)


def attempt(figure: StudyFigure, draw: Callable[[Build], PageFigure], warn: Warn) -> PageFigure:
    """Draw a figure. If that fails, put the reason into the page and warn."""
    if figure.build is None:
        return PageFigure(figure)
    try:
        return draw(figure.build)
    except Exception as error:
        why = reason(error)
        warn(f"warning: figure {figure.stem} could not be drawn ({why}); the numbers are complete")
        failed = f"It could not be drawn: {why}."
        return PageFigure(dataclasses.replace(figure, build=None, reason=failed))


def _show(figure: StudyFigure, directory: Path, warn: Warn) -> PageFigure:
    def draw(build: Build) -> PageFigure:
        png, _ = write_figure(build, directory, figure.stem)
        return embed(figure, png.read_bytes(), f"{FIGURES}/{png.name}")

    return attempt(figure, draw, warn)


def write_pages(
    study: Study,
    summary: dict[str, Any],
    figures: Sequence[StudyFigure],
    *,
    tables: Sequence[Table],
    toml: str,
    warn: Warn,
    **values: Any,
) -> list[Path]:
    """Write `summary.json`, draw the figures, and write `report.html` and `report.md`.

    Args:
        study: its directory and seeds.
        summary: contents of `summary.json`.
        figures: in the page's order.
        tables: of all numbers; empty ones are omitted.
        toml: config that repeats the study.
        warn: called with a line for each figure that could not be drawn.
        values: other values of the templates.

    Returns:
        The written files.

    Raises:
        UserError: the study's directory cannot be written.
    """
    directory = study.workdir / FIGURES
    check_inside(directory, study.workdir)
    numbers = study.workdir / SUMMARY
    write_json(numbers, summary)  # First, so that no figure can cost it.
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made ({error.strerror})") from None
    missing = font_warning([dataset_name(study), *study.dataset.classes])
    if missing:
        warn(f"warning: {missing}")
    shown = [_show(figure, directory, warn) for figure in figures]
    first, last = study.seeds[0], study.seeds[-1]
    values = {
        **values,
        "data_notes": data_notes(study),
        "figures": shown,
        "tables": [table for table in tables if table.rows],
        "seeds_are_a_range": list(study.seeds) == list(range(first, last + 1)),
        "toml": Markup(_visible(toml)),
        "file": study.file,
        "source": Markup(_visible(read_source(study.workdir))) if study.file and toml else "",
    }
    page = study.workdir / REPORT
    values_html = {**values, **{key: str(values[key]) for key in ("toml", "source")}}
    write_text(page, environment(False).get_template("report.html").render(values_html))
    text = study.workdir / REPORT_TEXT
    write_text(text, environment(True).get_template("report.md").render(values))
    drawn = [study.workdir / entry.png for entry in shown if entry.png]
    return [*drawn, *(path.with_suffix(".svg") for path in drawn), page, text, numbers]


def write_report(
    study: Study, summary: dict[str, Any], images: Dataset | None, warn: Warn = to_stderr
) -> list[Path]:
    """Write the report of a study.

    That is figures, `report.html`, `report.md`, `summary.json`, the tables of
    `cifar_jax.report.exports`, and a model card for each arm.

    Args:
        study: with its runs.
        summary: from `cifar_jax.study.summary.summarise`.
        images: of the study's dataset; None omits the figures with images.
        warn: called with a line for each figure that could not be drawn.

    Returns:
        The written files.

    Raises:
        UserError: the study's directory cannot be written.
    """
    from cifar_jax.report.model_card import write_model_card

    for arm in summary["per_arm"]:
        check_inside(study.workdir / arm, study.workdir)
    tables = [
        against_first_table(summary),
        class_table(study, summary),
        arms_table(summary),
        paired_table(study, summary),
        convergence_table(summary),
        mcnemar_table(summary),
        variance_table(summary),
    ]
    written = write_pages(
        study,
        summary,
        study_figures(study, summary, images),
        tables=tables,
        toml=config_toml(study),
        warn=warn,
        title=f"{study_title(study)} ({dataset_name(study)})",
        headline=headline(study, summary),
        notices=notices(study, summary),
        main=main_table(study, summary),
        claims=claims_table(study, summary),
        protocol=protocol_table(study, summary),
    )
    written += write_tables(study.workdir, [study_block(study, summary)], study_runs(study))
    return [*written, *(write_model_card(study, summary, arm) for arm in summary["per_arm"])]
