"""Runs of one seed that were computed in different ways are named, on the page too."""

import json
from pathlib import Path

import pytest
from fake_study import write_study

from cifar_jax.report import headline, sweep_page
from cifar_jax.study.collect import read_study, read_sweep, run_path
from cifar_jax.study.comparable import computed_differently, others_computed_on
from cifar_jax.study.grid import Sweep
from cifar_jax.study.summary import summarise
from cifar_jax.study.sweep import summarise_sweep

PLAIN, FAST = "cpu: A, --threads 2, jax 1", "cpu: A, --threads 2, jax 1, XLA_FLAGS=--fast"


def computed(workdir: Path, ways: dict[tuple[str, int], list[str]]) -> None:
    """Have runs say on what they were computed."""
    for (arm, seed), way in ways.items():
        path = run_path(workdir, arm, seed) / "results.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "computed_on": way}))


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        ({42: [PLAIN], 43: [FAST]}, ("seed 43 ",)),
        ({42: [FAST], 43: [FAST]}, ("seeds 42, 43 ",)),
        ({42: [PLAIN], 43: [PLAIN, FAST]}, ("seed 43 ", f"{PLAIN}, then {FAST}")),
        ({42: [PLAIN], 43: [PLAIN]}, ()),
    ],
)
def test_a_pair_that_was_computed_in_two_ways_is_named(
    tmp_path: Path, batch: dict[int, list[str]], named: tuple[str, ...]
) -> None:
    write_study(tmp_path, seeds=(42, 43), n_test=40, epochs=2)
    ways = {("none", seed): [PLAIN] for seed in (42, 43)}
    computed(tmp_path, {**ways, **{("batch", seed): way for seed, way in batch.items()}})
    study = read_study(tmp_path)
    found = computed_differently([study])
    assert len(found) == bool(named)
    for part in named:
        assert part in found[0]
    assert set(found) <= set(headline.notices(study, summarise(study)))


def test_whole_seeds_may_be_computed_elsewhere(tmp_path: Path) -> None:
    """Both runs of a pair on the same device: the difference is of the arms alone."""
    write_study(tmp_path, seeds=(42, 43), n_test=40, epochs=2)
    computed(tmp_path, {(arm, s): [f"{PLAIN} {s}"] for arm in ("none", "batch") for s in (42, 43)})
    assert computed_differently([read_study(tmp_path)]) == []


def test_the_values_of_a_sweep_are_compared_too(tmp_path: Path) -> None:
    sweep = Sweep("training.learning_rate", (0.1, 0.2))
    write_study(tmp_path, seeds=(42,), arms=("none",), n_test=40, epochs=2, sweep=sweep)
    arms = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    computed(tmp_path, {(arms[0], 42): [PLAIN], (arms[1], 42): [FAST]})
    study = read_sweep(tmp_path)
    notices = sweep_page.notices(study, summarise_sweep(study))
    assert any(PLAIN in line and FAST in line for line in notices)


def test_other_ways_of_finished_runs(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=(42, 43), n_test=40, epochs=2)
    computed(tmp_path, {("none", 42): [PLAIN], ("none", 43): [FAST]})
    runs = [run_path(tmp_path, arm, seed) for arm in ("none", "other") for seed in (42, 43)]
    assert others_computed_on(runs, PLAIN) == [FAST]
    assert others_computed_on(runs[:1], PLAIN) == []
