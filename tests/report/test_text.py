"""Numbers as the text of a report."""

import pytest

from cifar_jax.errors import counted
from cifar_jax.report import text


@pytest.mark.parametrize(
    ("p", "shown"),
    [
        (None, text.NONE),
        (1.0, "1.000"),
        (0.0625, "0.062"),
        (0.001, "0.001"),
        (0.00052, "0.0005"),
        (0.0001, "0.0001"),
        (9.9e-5, "< 0.0001"),
        (0.0, "< 0.0001"),
    ],
)
def test_p_values_are_never_zero(p, shown):
    assert text.probability(p) == shown


@pytest.mark.parametrize(
    ("n", "noun", "shown"),
    [
        (1, "epoch", "1 epoch"),
        (2, "epoch", "2 epochs"),
        (0, "seed", "0 seeds"),
        (1, "class", "1 class"),
        (1000, "class", "1,000 classes"),
    ],
)
def test_counts_have_their_plural(n, noun, shown):
    assert counted(n, noun) == shown


def row(ends, reason=None):
    return {"mean_difference": 0.1515, "ci_t": ends, "no_interval": reason}


def test_a_difference_is_shown_only_if_its_interval_excludes_zero():
    assert text.undecided(row([0.02, 0.28])) == ""
    assert text.undecided(row([-0.28, -0.02])) == ""
    assert text.undecided(row([-0.02, 0.323])) == "the interval includes zero"
    assert text.undecided(row([0.0, 0.3])) == "the interval includes zero"
    assert text.undecided(row(None, "one seed gives no interval")) == "one seed gives no interval"
    shown = text.difference(row([-0.02, 0.323]))
    assert shown == "+15.15 points (95 % interval -2.00 to +32.30)"


def test_a_difference_that_rounds_to_zero_has_one_sign():
    assert text.change(-1e-9, 100, unit="points") == text.change(0.0, 100, unit="points")
    row = {"mean_difference": -1e-9, "ci_t": (-0.5, -1e-9)}
    assert text.difference(row) == "+0.00 points (95 % interval -50.00 to +0.00)"
