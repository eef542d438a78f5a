"""Patterns of parameters and their factors, as users write them."""

import pytest

from cifar_jax.config.layerwise import check_patterns, parse_patterns, parse_rates
from cifar_jax.errors import UserError


def test_texts():
    assert parse_patterns(None, "--freeze") == parse_patterns("none", "--freeze") == ()
    assert parse_patterns("conv*, norm1", "--freeze") == ("conv*", "norm1")
    assert parse_rates("dense*=10, conv1=0.1", "--x") == (("dense*", 10.0), ("conv1", 0.1))


@pytest.mark.parametrize("text", ["conv*,", ",", " "])
def test_empty_patterns_are_refused(text):
    with pytest.raises(UserError, match="a pattern is empty"):
        parse_patterns(text, "--freeze")


@pytest.mark.parametrize("text", ["dense", "=3", "a=0", "a=-1", "a=nan", "a=inf", "a=x", "a=1e7"])
def test_factors_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="--lr-multipliers"):
        parse_rates(text, "--lr-multipliers")


def test_a_pattern_without_a_parameter_is_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"'foo\*' matches no parameter; allowed: conv1, layer1"):
        check_patterns(["conv1", "foo*"], ["conv1.kernel", "layer1.0.conv1.kernel"], "--freeze")
