"""The gallery of examples, made from what their studies left.

    python docs/gallery.py STUDY --images "CIFAR-10 re-encoded as JPEG"

reads a finished study of an example, and keeps a few numbers as docs/gallery/NAME.json. Every call,
also one without a study, draws each NAME.png and writes docs/gallery.md anew. If the study ran a
copy of the example, such as a narrower network, `--changed` has the line that differs.
"""

import argparse
import ast
import json
import math
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
MOST_IN_A_LINE = 4  # accuracies

HEAD = """# Gallery

[First page](../README.md) · [Your own idea](your-own-idea.md) · [Studies](studies.md)

Each example is one idea in one file. The figures and numbers are from **short** studies, which only
show what an answer looks like. They have few images and epochs, so accuracies are low, and most
verdicts are "undecided". Without the flags after the file's name, a command runs the full study.

A small mark is the difference of one seed, in points of test accuracy. A diamond is the mean over
the seeds, and the line its 95 % interval. With several claims, a verdict uses
[adjusted p-values](statistics.md#several-comparisons-holm). So it can be "undecided" although the
interval is above zero.

`python docs/gallery.py` wrote this page from the files in [gallery](gallery).
"""


def kept(study: Path, told: dict[str, str]) -> dict[str, Any]:
    """Return what the gallery keeps of a study, and of what the command told about it."""
    ran = (study / "experiment.py").read_text().splitlines()
    if told["changed"] and told["changed"] not in ran:
        raise SystemExit(f"--changed {told['changed']}: {study}/experiment.py has no such line")
    summary = json.loads((study / "summary.json").read_text())
    config = json.loads((study / "study.json").read_text())["config"]
    runs = [json.loads(path.read_text()) for path in study.glob("*/seed*/results.json")]
    epochs = {len(run["history"]) for run in runs}
    first, *_ = summary["arms"]
    control = summary["against_first"][0]["arms"][0] if summary["against_first"] else first
    return {
        "title": summary["title"],
        "flags": {name: config["data"][name] for name in ("train_examples", "val_examples")}
        # Arms of different lengths define their epochs in the file.
        | {"epochs": epochs.pop() if len(epochs) == 1 else None, "seeds": len(summary["seeds"])},
        **told,
        "device": summary["device"],
        "jax": summary["versions"]["jax"],
        "revision": summary["git_revision"][:7],
        "date": max(run["finished"] for run in runs)[:10],
        "minutes": sum(sum(run["spent"].values()) for run in runs) / 60,
        "control": summary["labels"][control],
        "accuracy": {
            summary["labels"][arm]: {key: row["test_accuracy"][key] for key in ("mean", "std", "n")}
            for arm, row in summary["per_arm"].items()
        },
        "differences": {
            summary["labels"][row["arms"][1]]: {
                key: row[key] for key in ("mean_difference", "ci_t", "differences")
            }
            for row in summary["against_first"]
        },
        "claims": [
            {key: claim[key] for key in ("claim", "measured", "interval", "unit", "verdict")}
            for claim in summary["claims"]
        ],
    }


def draw(found: dict[str, Any]) -> "Figure":
    """Draw the differences of each arm from the control: seeds, mean and interval."""
    from matplotlib.figure import Figure

    from cifar_jax.report.drawing import GREY, WIDTH, arm_style
    from cifar_jax.report.estimation_plots import LONGEST_ARM, seeds_and_mean
    from cifar_jax.report.labels import wrapped

    rows, control = list(found["differences"].items()), found["control"]
    arms = [control, *(name for name, _ in rows)]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.5 * len(rows)))
    axes = figure.subplots()
    for y, (name, row) in enumerate(rows):
        numbers = row["differences"], row["mean_difference"], row["ci_t"]
        seeds_and_mean(axes, y, numbers, arm_style(arms, name))
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(rows)), [wrapped(name, LONGEST_ARM) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"difference of test accuracy\nto {control} [points]")
    axes.grid(axis="y", visible=False)
    return figure


def answer(found: dict[str, Any]) -> list[str]:
    """Return a line for each claim, with verdict, number and interval."""
    lines = []
    for claim in found["claims"]:
        interval = ""
        if claim["interval"] and "interval" not in claim["measured"]:
            low, high = claim["interval"]
            interval = f" (95 % interval {low:+.2f} to {high:+.2f} {claim['unit']})"
        lines.append(f"- {claim['claim']}: **{claim['verdict']}**, {claim['measured']}{interval}")
    return lines


def section(path: Path) -> str:
    """Return the part of the page about one example."""
    title, *_ = (ast.get_docstring(ast.parse(path.read_text())) or path.stem).splitlines()
    lines = [f"## {title}", "", f"[examples/{path.name}](../examples/{path.name})", ""]
    record = KEPT / f"{path.stem}.json"
    if not record.exists():
        return "\n".join([*lines, "Not run for this page.", ""])
    found = json.loads(record.read_text())
    accuracies = [
        f"{name} {100 * row['mean']:.2f} ± {100 * row['std']:.2f} %"
        for name, row in found["accuracy"].items()
    ]
    few = len(accuracies) <= MOST_IN_A_LINE
    flags = {name: value for name, value in found["flags"].items() if value is not None}
    short = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in flags.items())
    if more := found.get("flags_besides"):
        short += f" \\\n    {more}"
    form = []
    if line := found.get("changed"):
        form = [
            f"- Short form: set `{line}` in the file before this command. The full study needs a "
            "GPU. It was not run."
        ]
    images = "" if found["images"] == "its own" else "--dataset FOLDER "
    lines += [
        f"![Differences of each seed, their mean and its interval](gallery/{path.stem}.png)",
        "",
        *answer(found),
        "- Test accuracy, mean ± standard deviation:"
        + (f" {', '.join(accuracies)}" if few else "\n    - " + "\n    - ".join(accuracies)),
        f"- Cost: {found['minutes']:.0f} minutes{found['note']}",
        f"- Images: {found['images']}. {found['device']}, jax {found['jax']}, {found['date']}, "
        f"revision {found['revision']}",
        *form,
        "",
        "```sh",
        f"python -m cifar_jax.main study examples/{path.name} \\",
        f"    {images}{short}",
        "```",
        "",
    ]
    return "\n".join(lines)


def place(path: Path) -> tuple[bool, float]:
    """Return a key to sort by: changed examples after the others, then by the number of arms.

    An example that was not run has infinitely many.
    """
    record = KEPT / f"{path.stem}.json"
    if not record.exists():
        return True, math.inf
    found = json.loads(record.read_text())
    return bool(found.get("changed")), len(found["accuracy"])


def page() -> str:
    """Return the page, in the order of `place`."""
    studies = [
        path
        for path in sorted((ROOT / "examples").glob("*.py"))
        if re.search(r"^arms\b", path.read_text(), re.M)
    ]
    return "\n".join([HEAD, *map(section, sorted(studies, key=place))])


def main() -> None:
    from cifar_jax.report.drawing import render

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="directory of a study")
    parser.add_argument("--images", default="its own", help="what the images are, in words")
    parser.add_argument("--note", default="", help="about the cost, such as ', beside other work'")
    parser.add_argument("--changed", default="", metavar="LINE", help="of a copy of the example")
    parser.add_argument("--flags-besides", default="", help="other flags of the study")
    told = vars(parser.parse_args())
    for study in map(Path, told.pop("studies")):
        found = kept(study, told)
        name = study.resolve().name
        (KEPT / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    for record in KEPT.glob("*.json"):
        png = render(partial(draw, json.loads(record.read_text()))).png()
        record.with_suffix(".png").write_bytes(png)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
