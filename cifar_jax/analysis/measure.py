"""Measure every run of a study by every part, and keep each result at once."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import structs

from cifar_jax.analysis.lacking import Lacking
from cifar_jax.analysis.part import Part
from cifar_jax.analysis.record import (
    Analysis,
    Measured,
    PartRecord,
    Together,
    digest_of,
    read_analysis,
    to_plain,
    write_analysis,
)
from cifar_jax.analysis.sections import with_numbers
from cifar_jax.analysis.trained import Shared, TrainedRun
from cifar_jax.runner.console import Display
from cifar_jax.runner.provenance import versions
from cifar_jax.runner.results import Damaged
from cifar_jax.study.collect import Run


class Clock:
    """Shows how many measurements are done, and estimates the time that is left.

    A part takes as long in a run as in earlier runs. A part without an earlier run takes as long
    as the average.
    """

    def __init__(self, display: Display, todo: Sequence[str]) -> None:
        self.display = display
        self.todo = list(todo)
        self.total = len(todo)
        self.seconds: dict[str, list[float]] = {}
        self.started = 0.0

    def _expected(self, part: str) -> float | None:
        every = [x for spent in self.seconds.values() for x in spent]
        known = self.seconds.get(part, every)
        return sum(known) / len(known) if known else None

    def left(self, fraction: float) -> float | None:
        """Return the seconds left; None before the first estimate. `fraction` is of this part."""
        now = time.perf_counter() - self.started
        first = self._expected(self.todo[0]) if self.todo else 0.0
        if fraction > 0:
            first = now / fraction
        if first is None:
            return None
        others = [self._expected(part) or first for part in self.todo[1:]]
        return max(first - now, 0.0) + sum(others)

    def show(self, fraction: float = 0.0) -> None:
        """Show the progress. `fraction` is of the current measurement."""
        done = self.total - len(self.todo) + fraction
        self.display.progress("analysing", done, self.total, left=self.left(fraction))

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Time the next measurement."""
        self.started = time.perf_counter()
        self.show()
        yield
        spent = time.perf_counter() - self.started
        self.seconds.setdefault(self.todo.pop(0), []).append(spent)
        self.started = time.perf_counter()
        self.show()


def _known(shared: Shared, display: Display) -> Analysis:
    """Read the analysis so far. A damaged one is replaced."""
    fingerprint = shared.study.dataset.fingerprint
    try:
        found = read_analysis(shared.study.workdir, fingerprint)
    except Damaged as error:
        display.say(f"{error}; all is measured again")
        found = None
    return found or Analysis(fingerprint=fingerprint)


def measure_study(shared: Shared, parts: Sequence[Part[Any]]) -> Analysis:
    """Measure all runs of a study that are not measured yet, and write `analysis.json`.

    It is written after each measurement. So an interrupted analysis loses at most one.

    Args:
        shared: the study.
        parts: to measure. The results of other parts are kept.

    Raises:
        UserError: the options of a part are wrong. Nothing is written.
    """
    study, display = shared.study, shared.display
    analysis = _known(shared, display)
    begun = {part.name: _begin(part, analysis.parts.get(part.name), shared) for part in parts}
    analysis = structs.replace(analysis, versions=versions(), parts={**analysis.parts, **begun})

    def keep(record: PartRecord, part: Part[Any]) -> None:
        nonlocal analysis
        analysis = structs.replace(analysis, parts={**analysis.parts, part.name: record})
        write_analysis(study.workdir, analysis)

    runs = [run for row in study.runs.values() for run in row]
    todo = [
        (run, [part for part in parts if not begun[part.name].has(run, digest_of(run))])
        for run in runs
    ]
    clock = Clock(display, [part.name for _, missing in todo for part in missing])
    for run, missing in todo:
        trained = TrainedRun(shared, run, clock.show)
        for part in missing:
            with clock.measuring():
                keep(_measure(part, trained, analysis.parts[part.name]), part)
    display.end_progress()
    for part in parts:
        record = _together(part, shared, analysis.parts[part.name], runs)
        keep(with_numbers(part, _in_order(record, runs), study), part)
        for line in record.missing:
            display.say(f"{part.name}: not measured: {line}")
    return analysis


def _begin(part: Part[Any], known: PartRecord | None, shared: Shared) -> PartRecord:
    """Return the record so far, or an empty one if version or options have changed."""
    options = part.options(shared)
    if known is not None and (known.version, known.options) == (part.version, options):
        return structs.replace(known, missing=())
    return PartRecord(version=part.version, options=options)


def _add_missing(record: PartRecord, line: str) -> PartRecord:
    if line in record.missing:
        return record
    return structs.replace(record, missing=(*record.missing, line))


def _measure(part: Part[Any], trained: TrainedRun, record: PartRecord) -> PartRecord:
    """Measure one run. Return the part's record with the result, or with the reason for none."""
    run, start = trained.run, time.perf_counter()
    try:
        found = to_plain(part.measure(trained))
    except Lacking as error:
        return _add_missing(record, str(error))
    new = Measured(
        arm=run.arm,
        seed=run.seed,
        predictions=digest_of(run),
        seconds=time.perf_counter() - start,
        record=found,
    )
    others = (of for of in record.runs if (of.arm, of.seed) != (run.arm, run.seed))
    return structs.replace(record, runs=(*others, new))


def _together(
    part: Part[Any], shared: Shared, record: PartRecord, runs: Sequence[Run]
) -> PartRecord:
    """Measure all runs at once, if the part does so and the runs have changed."""
    digests = tuple(digest_of(run) for run in runs)
    if part.together is None or (record.together and record.together.predictions == digests):
        return record
    try:
        found = to_plain(part.together(shared))
    except Lacking as error:
        return _add_missing(record, str(error))
    return structs.replace(record, together=Together(predictions=digests, record=found))


def _in_order(record: PartRecord, runs: Sequence[Run]) -> PartRecord:
    """Return a record of only these runs, in this order."""
    found = {(of.arm, of.seed): of for of in record.runs}
    cells = [(run.arm, run.seed) for run in runs]
    return structs.replace(record, runs=tuple(found[cell] for cell in cells if cell in found))
