"""The answer and the warnings at the top of a study's page."""

from typing import Any

from cifar_jax.data.sources.published import CIFAR10, PUBLISHED
from cifar_jax.data.subset import is_synthetic
from cifar_jax.errors import counted, listed
from cifar_jax.report.naming import dataset_name, listed_runs
from cifar_jax.report.text import difference, interval, percent, undecided
from cifar_jax.study.cautions import cautions
from cifar_jax.study.collect import Study
from cifar_jax.study.comparable import computed_differently
from cifar_jax.study.statistics import ALPHA
from cifar_jax.study.summary import is_cifar10


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
    if data.name in PUBLISHED:
        return []
    if is_cifar10(study):
        return [
            f"The images come from a folder, {data.name}. Its user says that they are "
            "CIFAR-10's (--folder-is-cifar10); only the names of the classes were checked."
        ]
    if data.classes == CIFAR10.classes:
        return [
            f"The classes of {data.name} have CIFAR-10's names. If its images are CIFAR-10's, "
            "the same command with --folder-is-cifar10 compares with the published numbers."
        ]
    return []


def notices(study: Study, summary: dict[str, Any]) -> list[str]:
    """Return the warnings at the top of the page."""
    found = data_notices(study)
    if summary["diverged"]:
        runs = listed_runs([f"{study.label(arm)} seed {seed}" for arm, seed in summary["diverged"]])
        found.append(
            f"Runs that diverged, which no number includes: {runs}. The arm's numbers look too "
            "good without them."
        )
    absent = [run for run in summary["missing"] if run not in summary["diverged"]]
    if absent:
        runs = listed_runs([f"{study.label(arm)} seed {seed}" for arm, seed in absent])
        found.append(f"Missing runs, which no number includes: {runs}.")
    found += computed_differently([study])
    found += cautions(study)
    if summary["reason_no_intervals"]:
        found.append(summary["reason_no_intervals"])
    return found
