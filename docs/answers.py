"""The figures of the first answer, drawn from the numbers that the project keeps.

    python docs/answers.py

configs/answers/ten-seeds has the study: runs.csv a row for each run, epochs.csv a row for each of
its epochs. Losses are in nats, accuracies are fractions. The columns with the name of a class have
its test accuracy. The script draws study-differences.png and study-accuracy.png beside it.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANSWERS = Path(__file__).parents[1] / "configs" / "answers"
ARMS = {"none": "baseline", "batch": "BatchNorm"}
IMAGES = "CIFAR-10 as JPEG"


@dataclass(frozen=True)
class Kept:
    """What the figures read of a run, under the names that a `Run` of a study has."""

    arm: str
    seed: int
    test_accuracy: float
    classes: dict[str, float]
    history: list[SimpleNamespace]

    @property
    def results(self) -> "Kept":
        return self

    tested = results

    def curve(self, name: str) -> list[float]:
        return [getattr(epoch, name) for epoch in self.history]


def rows(name: str) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Yield arm, seed and the numbers of each row of a file."""
    with (ANSWERS / "ten-seeds" / name).open(newline="") as file:
        for row in csv.DictReader(file):
            arm, seed = row.pop("arm"), int(row.pop("seed"))
            yield arm, seed, {key: float(value) for key, value in row.items()}


def kept() -> dict[str, list[Kept]]:
    """Return the runs of each arm, by increasing seed."""
    histories: dict[tuple[str, int], list[SimpleNamespace]] = {}
    for arm, seed, row in rows("epochs.csv"):
        histories.setdefault((arm, seed), []).append(SimpleNamespace(**row))
    runs: dict[str, list[Kept]] = {arm: [] for arm in ARMS}
    for arm, seed, row in rows("runs.csv"):
        accuracy, _, _ = (row.pop(name) for name in ("test_accuracy", "test_loss", "val_accuracy"))
        runs[arm].append(Kept(arm, seed, accuracy, row, histories[arm, seed]))
    return runs


def compared(runs: dict[str, list[Kept]]) -> dict[str, Any]:
    """Return the paired statistics of the test accuracy, and of that of each class."""
    from cifar_jax.study.samples import Sample, compare

    first, second = runs.values()

    def gain(values: Any) -> dict[str, Any]:
        pairs = zip(first, second, strict=True)
        return compare(Sample([values(b) - values(a) for a, b in pairs]))

    return {
        "arms": list(runs),
        "test_accuracy": gain(lambda run: run.test_accuracy),
        **{
            f"class:{name}": gain(lambda run, name=name: run.classes[name])
            for name in first[0].classes
        },
    }


def figures() -> dict[str, Callable[[], "Figure"]]:
    """Return what draws each figure, by the stem of its file."""
    from cifar_jax.report.study_plots import curves, differences
    from cifar_jax.study.collect import Study

    runs = kept()
    seeds = tuple(run.seed for run in runs["none"])
    none: Any = ()
    study = Study(ANSWERS, tuple(ARMS), seeds, runs, none, none, none, {}, ARMS)
    classes = list(runs["none"][0].classes)
    return {
        "study-differences": lambda: differences(
            study, compared(runs), classes, True, f"Paired differences: {IMAGES}"
        ),
        "study-accuracy": lambda: curves(study, "accuracy", f"Accuracy: {IMAGES}"),
    }


def main() -> None:
    from cifar_jax.report.drawing import render

    for name, build in figures().items():
        png = render(build).png()
        (ANSWERS / f"{name}.png").write_bytes(png)


if __name__ == "__main__":
    main()
