"""The style of the figures: colours that everybody can tell apart, and readable letters."""

import itertools

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pytest
from colorspacious import cspace_convert
from matplotlib.colors import to_rgb

from cifar_jax.report import drawing

ARMS = [str(number) for number in range(7)]


def seen(colours, deficiency):
    """Return sRGB colours as seen with a deficiency of severity 1 (Machado et al. 2009)."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    if deficiency is None:
        return rgb
    space = {"name": "sRGB1+CVD", "cvd_type": deficiency, "severity": 100}
    return np.clip(cspace_convert(rgb, space, "sRGB1"), 0, 1)


def least_difference(colours, deficiency):
    """Return the smallest CAM02-UCS difference (Luo et al. 2006) of two colours."""
    points = cspace_convert(seen(colours, deficiency), "sRGB1", "CAM02-UCS")
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2))


DEFICIENCIES = ("deuteranomaly", "protanomaly", "tritanomaly")


@pytest.mark.parametrize("deficiency", [None, *DEFICIENCIES])
def test_everybody_can_tell_the_colours_of_arms_apart(deficiency):
    """A difference of 1 is just noticeable side by side."""
    colours = [drawing.arm_style(ARMS, arm)[0] for arm in ARMS]
    assert len(set(colours)) == len(ARMS)
    assert least_difference(colours, deficiency) >= 14
    assert least_difference(colours[:2], deficiency) >= 45


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_simulation_finds_colours_that_look_alike(deficiency):
    alike = ("royalblue", "teal") if deficiency == "tritanomaly" else ("tab:blue", "tab:purple")
    assert least_difference(alike, deficiency) < 14 < least_difference(alike, None)


def test_colours_stand_out_from_paper():
    for colour in drawing.PALETTE:
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        contrast = 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)  # WCAG 2
        assert contrast > 2.5, colour


def test_a_colour_that_comes_again_has_another_marker():
    arms = [str(number) for number in range(40)]
    assert len({drawing.arm_style(arms, arm) for arm in arms}) == 40
    assert len({drawing.arm_style(arms, arm)[1] for arm in arms[:7]}) == 7


def test_anybody_can_use_the_style():
    """It is a part of the package, under a name that Matplotlib finds."""
    with matplotlib.style.context("cifar_jax.report.figures"):
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(drawing.PALETTE)
        assert mpl.rcParams["font.size"] >= 9
    with drawing.styled():
        assert not mpl.rcParams["text.parse_math"]
