"""Make the tables of a study's report."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cifar_jax.config.settings import ModelConfig, TrainingConfig
from cifar_jax.errors import counted, listed
from cifar_jax.report import recipe
from cifar_jax.report.naming import dataset_name, listed_seeds, study_config
from cifar_jax.report.text import NONE, change, interval, mean_and_spread
from cifar_jax.study.collect import Study
from cifar_jax.study.statistics import ENOUGH_IMAGES
from cifar_jax.study.summary import REPORT_MODEL, is_cifar10, is_reports_pair

# The course report: CIFAR-10, 30 epochs of 45,000 images, one seed, Apple-silicon GPU (MPS).
PUBLISHED_ACCURACY = {"none": "78.15 %", "batch": "81.62 %"}
PUBLISHED_SECONDS = {"none": "135.5 s", "batch": "150.8 s"}
PUBLISHED_PARAMETERS = {"none": "620,362", "batch": "621,322"}
PUBLISHED_EPOCHS, PUBLISHED_IMAGES = 30, 45_000
# Settings that `departures` ignores: the arm, the number of classes, the length and the seed.
LENGTH_AND_ARM = {
    "model.name",
    "model.norm",
    "model.num_classes",
    "training.epochs",
    "training.seed",
}


@dataclass(frozen=True)
class Table:
    """A table of text. The first column names the row.

    Attributes:
        note: text above the table, or "".
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


INTERVAL_NOTE = (
    "Intervals are Student's t intervals over the seeds, for these test images. With fewer than "
    f"{ENOUGH_IMAGES:,} test images, or if all seeds give the same value, they also include the "
    "error of the test images (Banerjee 1960). A dash means that there is no interval, and so no "
    "verdict."
)


def departures(study: Study) -> list[str]:
    """Return the model and training settings that differ from the published protocol.

    Settings in `LENGTH_AND_ARM` do not count. Of the data settings only augmentation does.
    """
    config, found = study_config(study), []
    for section, kind in (("model", ModelConfig), ("training", TrainingConfig)):
        for field in dataclasses.fields(kind):
            value = config.get(section, {}).get(field.name, field.default)
            named = f"{section}.{field.name}"
            if named not in LENGTH_AND_ARM and value != field.default:
                instead = "" if field.default is None else f" instead of {field.default}"
                found.append(f"{field.name.replace('_', ' ')} {value}{instead}")
    if not config.get("data", {}).get("augment", True):
        found.append("no augmentation")
    return found


Rows = list[tuple[str, str, str, str]]


class Published(NamedTuple):
    """Published numbers as text: of each arm by name, and of the difference."""

    arms: dict[str, str]
    difference: str


def _stage_rows(summary: dict[str, Any]) -> Rows:
    """Return a row on the difference by Stein's two stages, if the study has them."""
    stages = summary["two_stages"]
    if stages is None:
        return []
    found = summary["paired"]["test_accuracy"]["mean_difference"]
    return [
        (
            f"difference, two stages: {stages['first_stage']} seeds, then those that an interval "
            f"of ±{stages['half_width']:g} points takes (Stein 1945)",
            change(found, 100, unit="points"),
            interval(stages["interval"], 100, unit="points"),
            NONE,
        )
    ]


def epochs_text(arms: Iterable[dict[str, Any]]) -> str:
    """Return the number of epochs of arms: `30 epochs`, or `12 to 30 epochs`."""
    lengths = {row["epochs"] for row in arms}
    most = counted(max(lengths), "epoch")
    return most if len(lengths) == 1 else f"{min(lengths):,} to {most}"


def _accuracy_rows(summary: dict[str, Any], of_pair: str, published: Published) -> Rows:
    """Return rows on the test accuracy of each arm, and on the difference."""
    rows = [
        (
            f"test accuracy, {summary['labels'][arm]}",
            mean_and_spread(row["test_accuracy"], 100, unit="%"),
            interval(row["test_accuracy"]["ci_t"], 100, unit="%"),
            published.arms.get(arm, NONE),
        )
        for arm, row in summary["per_arm"].items()
    ]
    if summary["paired"]:
        gain = summary["paired"]["test_accuracy"]
        rows.append(
            (
                f"difference of accuracy{of_pair}",
                change(gain["mean_difference"], 100, unit="points"),
                interval(gain["ci_t"], 100, unit="points"),
                published.difference,
            )
        )
    return rows


def _time_rows(summary: dict[str, Any], of_pair: str, published: Published) -> Rows:
    """Return rows on the training time of each arm, and on the difference."""
    rows = [
        (
            f"training time, {summary['labels'][arm]}",
            mean_and_spread(row["train_seconds"], digits=1, unit="s"),
            interval(row["train_seconds"]["ci_t"], digits=1, unit="s"),
            published.arms.get(arm, NONE),
        )
        for arm, row in summary["per_arm"].items()
    ]
    if summary["paired"]:
        relative = summary["paired"]["train_seconds"]["relative"]
        rows.append(
            (
                f"difference of time{of_pair}",
                change(relative["mean_difference"], 100, 1, "%"),
                interval(relative["ci_t"], 100, 1, "%"),
                published.difference,
            )
        )
    return rows


def _size_rows(summary: dict[str, Any], of_pair: str, published: Published) -> Rows:
    """Return rows on the number of parameters of each arm, and on the difference."""
    arms, paired = summary["per_arm"], summary["paired"]
    rows = [
        (
            f"trainable parameters, {summary['labels'][arm]}",
            f"{row['num_params']:,}",
            NONE,
            published.arms.get(arm, NONE),
        )
        for arm, row in arms.items()
    ]
    if paired:
        first, second = (arms[arm]["num_params"] for arm in paired["arms"])
        more = change(second / first - 1, 100, unit="%")
        last = published.difference
        rows.append((f"difference of parameters{of_pair}", more, NONE, last))
    return rows


def _published_note(study: Study, summary: dict[str, Any], own: bool) -> str:
    """Say what the published numbers are of, and how the study differs from it."""
    note = (
        f"Published: one seed, {PUBLISHED_EPOCHS} epochs of {PUBLISHED_IMAGES:,} images of "
        "CIFAR-10, PyTorch on an Apple-silicon GPU (MPS)."
    )
    if not own:
        return f"{note} The network is not the published one, so no published figure is shown."
    if changed := departures(study):
        note += f" The protocol is not the published one: {listed(changed)}."
    published = (PUBLISHED_EPOCHS, PUBLISHED_IMAGES)
    if (summary["epochs"], study.dataset.n_train) != published:
        note += " The lengths differ, so the two columns are not the same experiment."
    return note


def main_table(study: Study, summary: dict[str, Any]) -> Table:
    """Return a table of accuracy, time and size of every arm, for CIFAR-10 with those published."""
    arms, paired = summary["per_arm"], summary["paired"]
    # A file may call any network "none".
    cifar10 = is_cifar10(study) and (not study.file or is_reports_pair(study))
    own = study_config(study).get("model", {}).get("name", REPORT_MODEL) == REPORT_MODEL
    both = [summary["labels"][arm] for arm in paired["arms"][::-1]] if paired else []
    of_pair = f", {' minus '.join(both)}" if both and len(arms) > 2 else ""
    reported = bool(paired) and is_reports_pair(study)

    def published(table: dict[str, str], difference: str) -> Published:
        return Published(table if own else {}, difference if reported else NONE)

    rows = [
        *_accuracy_rows(summary, of_pair, published(PUBLISHED_ACCURACY, "+3.47 points")),
        *_stage_rows(summary),
        *_time_rows(summary, of_pair, published(PUBLISHED_SECONDS, "+11.3 %")),
        *_size_rows(summary, of_pair, published(PUBLISHED_PARAMETERS, "+0.15 %")),
    ]
    sizes = [row["test_accuracy"]["n"] for row in arms.values()]
    count = counted(sizes[0], "seed") if len(set(sizes)) == 1 else "the finished seeds"
    note = (
        f"{'Ours: mean' if cifar10 else 'Mean'} ± standard deviation over {count} per arm, "
        f"{epochs_text(arms.values())} of {study.dataset.n_train:,} images, without "
        f"compilation, on {summary['device'] or 'an unknown device'}."
    )
    head = ("", "ours" if cifar10 else "mean ± standard deviation", "95 % interval (t)")
    if not cifar10:
        return Table("Results", f"{note} {INTERVAL_NOTE}", head, [row[:-1] for row in rows])
    note += f" {_published_note(study, summary, own)} {INTERVAL_NOTE}"
    return Table("Ours and published", note, (*head, "published"), rows)


def claims_table(study: Study, summary: dict[str, Any]) -> Table:
    """Return a table of the report's claims, with verdicts by fixed rules."""
    digits = {"points": 2, "nats": 4, "%": 1}
    published = any(row["published"] for row in summary["claims"])
    rows = []
    for row in summary["claims"]:
        unit = row["unit"]
        ends = interval(row["interval"], digits=digits.get(unit, 2), unit=unit)
        cells = (row["measured"], ends, row["verdict"], row["rule"])
        rows.append((row["claim"], *([row["published"] or NONE] if published else []), *cells))
    note = "Each claim is decided by a rule that was fixed before the runs."
    if len(summary["per_arm"]) > 2 and not study.file:
        note += " The claims are only about BatchNorm and the baseline."
    if not rows and study.file:
        note = "No claim has a finished pair of runs."
    elif not rows:
        note = (
            "The report's claims compare its CNN with and without BatchNorm. This study does not "
            "have that pair, so it does not decide them."
        )
    head = ("claim", *(["published", "ours"] if published else ["measured"]), "95 % interval")
    return Table("Claims", note, (*head, "verdict", "rule"), rows)


def class_table(study: Study, summary: dict[str, Any]) -> Table:
    """Return a table of the test accuracy of each class."""
    arms, paired = summary["per_arm"], summary["paired"]
    rows = []
    for name in study.dataset.classes:
        key = f"class:{name}"
        cells = []
        for row in arms.values():
            found = row.get(key)
            cells += (
                [mean_and_spread(found, 100, 1, "%"), interval(found["ci_t"], 100, 1)]
                if found
                else [NONE, NONE]
            )
        if paired:
            found = paired.get(key)
            cells += (
                [
                    change(found["mean_difference"], 100, 1, "points"),
                    interval(found["ci_t"], 100, 1),
                ]
                if found
                else [NONE, NONE]
            )
        rows.append((name, *cells))
    heads = [word for arm in arms for word in (summary["labels"][arm], "95 % interval")]
    if paired:
        heads += ["difference", "95 % interval"]
    return Table("Test accuracy of each class", "", ("class", *heads), rows)


def origins(studies: Sequence[Study]) -> str:
    """Return the sources of initial values of transferred runs."""
    runs = [run for study in studies for row in study.runs.values() for run in row]
    given = [run.results.init_from for run in runs]
    found = {f"{origin.source}, digest {origin.digest[:12]}" for origin in given if origin}
    return "; ".join(sorted(found))


def _recipe_rows(study: Study) -> list[tuple[str, str]]:
    """Return rows on the network and training of all arms. Arms that differ have a row each."""
    arms = {arm: recipe.rows(runs[0].results) for arm, runs in study.runs.items() if runs}
    rows = []
    for topic in dict.fromkeys(topic for found in arms.values() for topic in found):
        texts = {arm: found.get(topic, NONE) for arm, found in arms.items()}
        first, *others = texts.values()
        if set(others) <= {first} or "experiment" not in study.config:
            rows.append((topic, first))
        else:
            rows += [(f"{topic}, {study.label(arm)}", text) for arm, text in texts.items()]
    if "experiment" in study.config:
        shared = "split, order, augmentation and common initial values of a seed"
        rows.append(("the same in all arms", f"{shared}, except:" if study.unshared else shared))
    rows += [
        (f"not shared, {study.label(arm)}", " ".join(lines))
        for arm, lines in study.unshared.items()
    ]
    return rows


def protocol_table(study: Study, summary: dict[str, Any]) -> Table:
    """Return a table of the settings, data and environment of the runs."""
    config, data = study_config(study), study.dataset
    counts = ", ".join(
        f"{summary['labels'][arm]} {row['test_accuracy']['n']}"
        for arm, row in summary["per_arm"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    transfer = config.get("transfer", {})
    layers = "; ".join(
        f"{key.replace('_', ' ')} {transfer[key]}" for key in transfer if key != "init_from"
    )
    rows = [
        ("dataset", f"{dataset_name(study)}; fingerprint {data.fingerprint[:16]}"),
        (
            "images",
            f"{data.n_train:,} training, {data.n_val:,} validation, {data.n_test:,} test",
        ),
        *_recipe_rows(study),
        *(row for row in (("initial values", origins([study])), ("layers", layers)) if row[1]),
        ("evaluation", "after the last epoch; test images used once, at the end"),
        ("seeds", listed_seeds(summary["seeds"])),
        ("finished runs", counts),
        ("device", summary["device"] or "unknown"),
        ("versions", versions),
        ("code", summary["git_revision"] or "unknown revision"),
    ]
    return Table("Protocol", "", ("", ""), rows)
