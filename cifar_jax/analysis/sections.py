"""Turn `analysis.json` into sections of the page, without images, checkpoints or user code."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from cifar_jax.analysis.part import Findings, Found, Part, all_parts
from cifar_jax.analysis.record import (
    Analysis,
    PartRecord,
    digest_of,
    from_plain,
    read_analysis,
)
from cifar_jax.data.dataset import Dataset
from cifar_jax.names import ANALYSIS
from cifar_jax.report.page_figures import Warn
from cifar_jax.report.section import NOTHING, Analysed, Section
from cifar_jax.runner.results import Damaged, validate
from cifar_jax.study.collect import Study


def findings_of(
    part: Part[Any], record: PartRecord, study: Study, images: Dataset | None
) -> Findings[Any]:
    """Return what a part measured in those runs of the study that have not changed since.

    Raises:
        Damaged: a record is wrong.
    """
    where = study.workdir / ANALYSIS
    runs = {(run.arm, run.seed): run for row in study.runs.values() for run in row}
    digests = {cell: digest_of(run) for cell, run in runs.items()}
    records = {
        (of.arm, of.seed): from_plain(part, of.record, where)
        for of in record.runs
        if digests.get((of.arm, of.seed)) == of.predictions
    }
    together = None
    of_all = record.together
    if of_all and part.together_record and of_all.predictions == tuple(digests.values()):
        together = validate(of_all.record, part.together_record, where)
    found = [Found(*cell, records[cell]) for cell in runs if cell in records]
    return Findings(study, images, found, part.numbers, together, record.options)


def _missing_section(part: Part[Any], lines: Sequence[str]) -> Section:
    return Section(part.title, tuple(f"Not measured: {line}." for line in lines))


def make_sections(analysis: Analysis, study: Study, images: Dataset | None) -> Analysed:
    """Return the sections and the model cards' lines of an analysis.

    Args:
        analysis: of the study.
        study: with its runs.
        images: of its dataset; None omits figures with images.

    Raises:
        Damaged: a record is wrong.
    """
    sections: list[Section] = []
    cards: dict[str, list[str]] = {arm: [] for arm in study.arms}
    covered = set()
    for part in all_parts():
        record = analysis.parts.get(part.name)
        if record is None or record.version != part.version:
            continue
        findings = findings_of(part, record, study, images)
        if not findings.runs:
            if record.missing:
                sections.append(_missing_section(part, record.missing))
            continue
        section = part.section(findings)
        missing = tuple(f"Not measured: {line}." for line in record.missing)
        total = sum(map(len, study.runs.values()))
        if not missing and len(findings.runs) < total:
            missing = (
                f"Measured: {len(findings.runs)} of {total} runs; the command `analyse` continues.",
            )
        sections.append(_with_lines(section, missing))
        covered.add(part.covers)
        for arm in findings.arms:
            cards[arm] += part.card(findings, arm)
    return Analysed(tuple(sections), cards, frozenset(covered))


def _with_lines(section: Section, lines: tuple[str, ...]) -> Section:
    return dataclasses.replace(section, sentences=(*section.sentences, *lines))


def read_sections(study: Study, images: Dataset | None, warn: Warn) -> Analysed:
    """Return what the analysis in a study's directory adds to its page.

    Args:
        study: with its runs.
        images: of its dataset; None omits figures with images.
        warn: called with a line if `analysis.json` cannot be used.
    """
    try:
        analysis = read_analysis(study.workdir, study.dataset.fingerprint)
        return NOTHING if analysis is None else make_sections(analysis, study, images)
    except Damaged as error:
        warn(f"warning: {error}; the page has no analysis; the command `analyse` measures it again")
        return NOTHING


def with_numbers(part: Part[Any], record: PartRecord, study: Study) -> PartRecord:
    """Return a part's record with the means and differences of its numbers."""
    rows = tuple(
        {
            "number": row.quantity.key,
            "label": row.quantity.label,
            "per_arm": row.per_arm,
            "control": row.control,
            "paired": row.paired,
        }
        for row in findings_of(part, record, study, None).compared
    )
    return structs.replace(record, numbers=rows)
