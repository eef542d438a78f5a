"""Write the report of a study: an HTML page, its tables as Markdown, its numbers as JSON."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cifar_jax.data.dataset import NAMES, Dataset
from cifar_jax.errors import UserError, one_line, printable
from cifar_jax.inputs import read_bytes
from cifar_jax.names import FIGURES, IN_PYTHON, REPORT, REPORT_TEXT, SOURCE, SUMMARY
from cifar_jax.report.contents import Contents
from cifar_jax.report.demo import Demo
from cifar_jax.report.drawing import Drawn, write_figure
from cifar_jax.report.exports import study_block, study_runs, write_tables
from cifar_jax.report.headline import headline, notices
from cifar_jax.report.labels import font_warning
from cifar_jax.report.naming import data_notes, dataset_name, study_title
from cifar_jax.report.number_tables import (
    against_first_table,
    arms_table,
    convergence_table,
    mcnemar_table,
    paired_table,
    variance_table,
)
from cifar_jax.report.page_figures import PageFigure, Warn, draw_all, draw_each, embed
from cifar_jax.report.scripts import policy, scripts
from cifar_jax.report.section import NOTHING, Analysed
from cifar_jax.report.study_figures import StudyFigure, study_figures
from cifar_jax.report.tables import Table, claims_table, class_table, main_table, protocol_table
from cifar_jax.report.text import markdown
from cifar_jax.report.times import time_table
from cifar_jax.storage import check_inside, write_json, write_text
from cifar_jax.study.collect import Study

LARGEST_SOURCE = 1 << 20  # bytes
LARGEST_PAGE = 6_000_000  # bytes, with its networks


def to_stderr(line: str) -> None:
    """Print a warning on standard error."""
    print(printable(line), file=sys.stderr)


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


@functools.cache
def environment(*, markdown: bool) -> Environment:
    """Return templates that escape every value, for Markdown or for HTML."""
    found = Environment(
        loader=PackageLoader("cifar_jax.report"),
        autoescape=not markdown,
        finalize=escape_markdown if markdown else _visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(scripts=scripts, policy=policy)
    return found


def render_page(template: str, values: dict[str, Any]) -> str:
    """Return a page. If its networks make it too large, it says so instead of having them."""
    page = environment(markdown=False).get_template(template)
    html = page.render(values, contents=Contents())
    if values.get("demo") and (size := len(html.encode())) > LARGEST_PAGE:
        reason = f"with the networks it would have {size / 1e6:.1f} MB, and 6 MB are allowed"
        html = page.render({**values, "demo": Demo(reason=reason)}, contents=Contents())
    return html


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
    if data["dataset"] not in NAMES:
        data["dataset"] = f"path/to/{study.dataset.name.removeprefix('folder-')}"
    return config


def read_source(workdir: Path) -> str:
    """Return the experiment file of a study or run, or why it cannot be read."""
    try:
        return read_bytes(workdir / SOURCE, LARGEST_SOURCE).decode("utf-8")
    except (OSError, ValueError) as error:
        return f"# {SOURCE}: cannot be read ({one_line(error)})"


def _prepare_figures(directory: Path, study: Study, warn: Warn) -> None:
    """Make the directory of the figures. Warn of names that the font cannot draw."""
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made ({error.strerror})") from None
    missing = font_warning([dataset_name(study), *study.dataset.classes])
    if missing:
        warn(f"warning: {missing}")


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
        values: other values of the templates. The figures of `sections` are drawn. `demo` is
            optional.

    Returns:
        The written files.

    Raises:
        UserError: the study's directory cannot be written.
    """
    directory = study.workdir / FIGURES
    check_inside(directory, study.workdir)
    numbers = study.workdir / SUMMARY
    write_json(numbers, summary)  # First, so that no figure can cost it.
    _prepare_figures(directory, study, warn)

    def finish(figure: StudyFigure, drawn: Drawn) -> PageFigure:
        png, _ = write_figure(drawn, directory, figure.stem)
        return embed(figure, drawn.picture, f"{FIGURES}/{png.name}")

    shown, added, drawing = draw_all(
        figures,
        values.get("sections", ()),
        lambda found: draw_each(found, finish, warn, svg=True),
    )
    shares = "Sum over the finished runs. Runs that train together have equal shares of the time."
    first, last = study.seeds[0], study.seeds[-1]
    values = {
        "demo": None,
        **values,
        "data_notes": data_notes(study),
        "figures": shown,
        "sections": added,
        "tables": [
            table
            for table in (*tables, time_table(summary["spent"], drawing, shares))
            if table.rows
        ],
        "seeds_are_a_range": list(study.seeds) == list(range(first, last + 1)),
        "toml": Markup(_visible(toml)),
        "file": study.file,
        "source": Markup(_visible(read_source(study.workdir))) if study.file and toml else "",
    }
    page = study.workdir / REPORT
    values_html = {**values, **{key: str(values[key]) for key in ("toml", "source")}}
    write_text(page, render_page("report.html", values_html))
    text = study.workdir / REPORT_TEXT
    write_text(text, environment(markdown=True).get_template("report.md").render(values))
    entries = [*shown, *(entry for of in added for entry in of.figures)]
    drawn = [study.workdir / entry.png for entry in entries if entry.png]
    return [*drawn, *(path.with_suffix(".svg") for path in drawn), page, text, numbers]


def write_report(
    study: Study,
    summary: dict[str, Any],
    images: Dataset | None,
    warn: Warn = to_stderr,
    analysed: Analysed = NOTHING,
    demo: Demo | None = None,
) -> list[Path]:
    """Write the report of a study.

    That is figures, `report.html`, `report.md`, `summary.json`, the tables of
    `cifar_jax.report.exports`, and a model card for each arm.

    Args:
        study: with its runs.
        summary: from `cifar_jax.study.summary.summarise`.
        images: of the study's dataset; None omits the figures with images.
        warn: called with a line for each figure that could not be drawn.
        analysed: sections and lines of an analysis.
        demo: the section in which the networks answer; None omits it.

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
        sections=analysed.sections,
        demo=demo,
        title=f"{study_title(study)} ({dataset_name(study)})",
        headline=headline(study, summary),
        notices=notices(study, summary),
        main=main_table(study, summary),
        claims=claims_table(study, summary),
        protocol=protocol_table(study, summary),
    )
    written += write_tables(study.workdir, [study_block(study, summary)], study_runs(study))
    cards = [write_model_card(study, summary, arm, analysed) for arm in summary["per_arm"]]
    return [*written, *cards]
