"""How many seeds: against numerical integration, simulation and published tables."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import integrate, stats

from cifar_jax.commands.seeds import seeds_run
from cifar_jax.errors import UserError
from cifar_jax.study.claims import equivalent
from cifar_jax.study.collect import read_study
from cifar_jax.study.planning import (
    equivalence_power,
    half_width,
    largest_likely_std,
    next_seeds,
    seeds_for_equivalence,
    seeds_for_half_width,
    seeds_needed,
    smallest_difference,
    stein_interval,
)
from cifar_jax.study.plans import plan_text


def power_by_integration(dz, n, alpha=0.05):
    """Probability that |mean| > t s / sqrt(n), averaged over s, without the noncentral t."""
    t = stats.t.ppf(1 - alpha / 2, n - 1)
    density = stats.chi(n - 1).pdf

    def part(chi):
        room = t * chi / math.sqrt(n - 1)
        shift = dz * math.sqrt(n)
        return density(chi) * (stats.norm.sf(room - shift) + stats.norm.cdf(-room - shift))

    return integrate.quad(part, 0, 40, limit=200)[0]


@pytest.mark.parametrize("dz", [0.4, 0.91, 2.0, 8.0])
def test_seeds_needed_is_the_first_number_with_that_power(dz):
    n = seeds_needed(dz * 0.55, 0.55)
    assert power_by_integration(dz, n) >= 0.8 > power_by_integration(dz, n - 1)


@pytest.mark.parametrize(("dz", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_has_the_numbers_of_cohens_and_gpowers_tables(dz, pairs):
    """G*Power 3: two-sided paired t test, alpha 0.05, power 0.8."""
    assert seeds_needed(dz, 1.0) == pairs


def test_a_difference_of_nothing_takes_more_than_a_million_seeds():
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_for_half_width(1.0, 1e-4) is None


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_smallest_difference_is_found_with_the_power(seeds):
    found = smallest_difference(0.55, seeds)
    assert power_by_integration(found / 0.55, seeds) == pytest.approx(0.8, abs=1e-4)


def test_half_width_is_that_of_the_paired_interval():
    values = np.array([0.1, 0.4, -0.2, 0.9])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert half_width(values.std(ddof=1), 4) == pytest.approx((high - low) / 2, rel=1e-12)
    n = seeds_for_half_width(0.55, 0.3)
    assert half_width(0.55, n) <= 0.3 < half_width(0.55, n - 1)


@pytest.mark.parametrize(
    ("within", "difference", "n"), [(1.0, 0.0, 6), (1.0, 0.3, 12), (3.0, 0, 3)]
)
def test_power_of_equivalence_is_that_of_simulated_studies(within, difference, n):
    rng = np.random.default_rng(0)
    draws = rng.normal(difference, 1.0, (100_000, n))
    low, high = stats.t.interval(
        0.90, n - 1, draws.mean(axis=1), draws.std(axis=1, ddof=1) / math.sqrt(n)
    )
    share = np.mean((low > -within) & (high < within))
    tolerance = 4 * math.sqrt(share * (1 - share) / 100_000)
    assert equivalence_power(within, 1.0, n, difference) == pytest.approx(share, abs=tolerance)


def test_seeds_for_equivalence_is_the_first_number_with_that_power():
    n = seeds_for_equivalence(0.3, 0.55)
    assert equivalence_power(0.3, 0.55, n) >= 0.8 > equivalence_power(0.3, 0.55, n - 1)
    assert seeds_for_equivalence(0.3, 0.55, difference=0.3) is None


def test_the_true_deviation_exceeds_its_upper_limit_as_often_as_promised():
    draws = np.random.default_rng(0).normal(0, 1, (20_000, 5)).std(axis=1, ddof=1)
    limits = draws * largest_likely_std(1.0, 5)
    assert np.mean(limits > 1.0) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 20_000))


def test_steins_number_of_seeds_by_hand():
    first = [0.0, 0.5, 1.0, 0.5, 0.0]
    t, s = stats.t.ppf(0.975, 4), np.std(first, ddof=1)
    wanted = math.ceil((t * s / 0.3) ** 2)
    assert wanted == 15
    assert next_seeds([], 5, 0.3) == next_seeds(first[:4], 5, 0.3) == 5
    assert next_seeds(first, 5, 0.3) == wanted
    # Later differences do not move the goal.
    assert next_seeds([*first, 9.0, -9.0], 5, 0.3) == wanted
    assert next_seeds(first, 5, 5.0) == next_seeds([0.1] * 5, 5, 0.3) == 5
    low, high = stein_interval([*first, *[0.4] * 10], 5)
    assert (low + high) / 2 == pytest.approx(np.mean([*first, *[0.4] * 10]))
    assert (high - low) / 2 == pytest.approx(t * s / math.sqrt(15))
    assert high - low <= 0.6
    assert stein_interval(first[:4], 5) is stein_interval([0.1] * 9, 5) is None


@pytest.mark.parametrize(
    ("first_stage", "half", "said"),
    [
        (1, 0.3, "first stage of 1 seeds"),
        (2, 0.0, "half-width 0.0: is not a number above 0"),
        (2, math.nan, "is not a number above 0"),
        (2, 1e-9, "takes more than 1,000,000 seeds"),
    ],
)
def test_an_impossible_plan_is_one_line(first_stage, half, said):
    with pytest.raises(UserError, match=said):
        next_seeds([0.0, 1.0], first_stage, half)


def said_by(**options):
    lines = []
    seeds_run(**options, say=lines.append)
    return "\n".join(lines)


def test_the_command_answers(make_study):
    assert said_by(difference=0.5, std=0.55).startswith("12 seeds in each arm: a true difference")
    assert said_by(half_width=0.3, std=0.55).startswith("16 seeds in each arm: the 95 % interval")
    assert "± 0.393" in said_by(std=0.55)
    workdir = make_study(n=1000, epochs=4)
    text = said_by(difference=1.0, study_dir=workdir)
    gains = [
        100 * (b.tested.test_accuracy - a.tested.test_accuracy)
        for a, b in read_study(workdir).pairs("none", "batch")
    ]
    std = float(np.std(gains, ddof=1))
    assert "BatchNorm minus baseline, test accuracy in points, 4 paired seeds:" in text
    assert f"\n{seeds_needed(1.0, std)} seeds in each arm" in text
    assert said_by(study_dir=workdir).splitlines() == plan_text(read_study(workdir))


@pytest.mark.parametrize("options", [{}, {"difference": 1.0}, {"std": 1.0, "study_dir": "x"}])
def test_the_command_needs_one_deviation(options):
    with pytest.raises(UserError, match="give either --std or --from"):
        said_by(**options)


def test_the_command_imports_no_jax():
    code = (
        "import sys, cifar_jax.study.plans; from cifar_jax.main import main; "
        "assert main(['seeds', '--difference', '0.5', '--std', '0.55']) == 0; "
        "assert not {'jax', 'flax', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_plan_says_how_many_seeds_decide_what(make_study):
    study = read_study(make_study(seeds=(1, 2, 3), n=1000, epochs=4))
    gains = [100 * (b.correct.mean() - a.correct.mean()) for a, b in study.pairs("none", "batch")]
    mean, std = np.mean(gains), np.std(gains, ddof=1)
    within = mean + 0.1
    lines = plan_text(study, [equivalent("batch", "none", within=within)])
    assert lines[0].endswith("undecided with 3 paired seeds.")
    numbers = [
        seeds_for_equivalence(within, deviation, mean)
        for deviation in (std, largest_likely_std(std, 3))
    ]
    assert lines[1].startswith(f"  {numbers[0]:,} seeds decide it (measured {mean:+.2f}")
    assert f"; {numbers[1]:,} if the deviation is" in lines[1]


def test_a_plan_from_one_seed_asks_for_more(make_study):
    lines = plan_text(read_study(make_study(seeds=(1,), n=200, epochs=4)))
    assert "  One seed shows no deviation. Train at least 3, better 5, and ask again." in lines
    assert any("needs 10 epochs, these runs have 4" in line for line in lines)
