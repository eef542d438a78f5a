"""Estimation plots, and names at the ends of lines."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from cifar_jax.report import direct_labels, drawing
from cifar_jax.report.estimation_plots import Arm, cumming, curve, gardner_altman

BEFORE, AFTER = np.array([0.70, 0.72, 0.71, 0.69]), np.array([0.75, 0.74, 0.77, 0.73])
STYLES = [(drawing.PALETTE[i], drawing.MARKERS[i]) for i in range(3)]


def compared(first, second):
    """Statistics of a paired t test, by scipy."""
    gains = second - first
    ends = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    return {
        "differences": gains.tolist(),
        "mean_difference": float(gains.mean()),
        "ci_t": [float(end) for end in ends],
        "interval_rule": "seeds",
    }


def arm(number, values, difference=None):
    interval = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    row = {"values": values.tolist(), "mean": float(values.mean()), "ci_t": list(interval)}
    return Arm(f"arm {number}", STYLES[number], row, difference)


def drawn(build):
    """A figure with its layout, as it is written."""
    made = []
    drawing.render(lambda: made.append(build()) or made[0])
    return made[0]


def pair(seeds=("1", "2", "3", "4"), **options):
    def build():
        figure = Figure(figsize=(5, 3))
        left, right = figure.subplots(1, 2)
        arms = arm(0, BEFORE), arm(1, AFTER, compared(BEFORE, AFTER))
        gardner_altman(left, right, arms, seeds, **options)
        return figure

    return drawn(build)


def height(axes, value):
    return axes.transData.transform((0, value))[1]


def test_the_mean_difference_is_as_high_as_the_mean_of_the_second_arm():
    left, right = pair().axes
    zero, mean = 100 * BEFORE.mean(), 100 * AFTER.mean()
    assert height(right, 0) == pytest.approx(height(left, zero))
    assert height(right, mean - zero) == pytest.approx(height(left, mean))
    (diamond,) = (line for line in right.lines if line.get_marker() == "D")
    assert diamond.get_ydata() == pytest.approx([mean - zero])
    bar = next(line for line in right.lines if len(line.get_ydata()) == 2)
    assert bar.get_ydata() == pytest.approx(100 * np.array(compared(BEFORE, AFTER)["ci_t"]))
    assert min(*bar.get_ydata(), 0) >= right.get_ylim()[0]
    assert max(bar.get_ydata()) <= right.get_ylim()[1]


def test_lines_join_the_values_of_a_seed():
    slopes = [line.get_ydata() for line in pair().axes[0].lines if len(line.get_xdata()) == 2]
    assert np.array(slopes) == pytest.approx(100 * np.stack([BEFORE, AFTER], axis=1))
    unpaired = [line for line in pair(seeds=()).axes[0].lines if len(line.get_xdata()) == 2]
    assert unpaired == []


def test_the_curve_is_the_t_distribution_of_the_interval():
    found = compared(BEFORE, AFTER)
    at, density = curve(found, 100)
    gains = 100 * (AFTER - BEFORE)
    wanted = stats.t(3, gains.mean(), stats.sem(gains))
    assert density == pytest.approx(wanted.pdf(at) / wanted.pdf(gains.mean()), abs=1e-12)
    assert at[0] < 100 * found["ci_t"][0] < 100 * found["ci_t"][1] < at[-1]


def test_no_curve_without_an_interval_of_pairs():
    found = compared(BEFORE, AFTER)
    others = ({"ci_t": None}, {"interval_rule": "seeds and test images"}, {"paired": False})
    assert all(curve({**found, **other}, 1) is None for other in others)


def test_a_cumming_plot_has_a_row_for_each_arm():
    third = np.array([0.71, 0.73, 0.70, 0.72])
    arms = [
        arm(0, BEFORE),
        arm(1, AFTER, compared(BEFORE, AFTER)),
        arm(2, third, {**compared(BEFORE, third), "paired": False, "differences": []}),
    ]

    def build():
        figure = Figure(figsize=(5, 3))
        cumming(figure, arms, 100, ("accuracy", "difference"))
        return figure

    left, right = drawn(build).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["arm 0", "arm 1", "arm 2 *"]
    of_means = [line.get_xdata()[0] for line in right.lines if line.get_marker() == "D"]
    assert of_means == pytest.approx([100 * (x - BEFORE).mean() for x in (AFTER, third)])
    assert len(right.collections) == 1  # only a paired difference has a curve


@pytest.mark.parametrize("ends", [(1.0, 1.0, 1.0), (0.0, 0.01, 2.0), (0.0, 0.0, 0.0)])
def test_names_at_the_ends_of_lines_do_not_overlap(ends):
    def build():
        figure = Figure(figsize=(5, 3))
        axes = figure.subplots()
        for number, end in enumerate(ends):
            axes.plot([0, 1], [3 * number, end], color=STYLES[number][0], label=f"arm {number}")
        assert direct_labels.name_lines(axes)
        return figure

    figure = drawn(build)
    FigureCanvasAgg(figure).draw()
    boxes = {t.get_text(): t.get_window_extent() for t in figure.axes[0].texts}
    assert len(boxes) == 3
    for one, other in itertools.combinations(boxes.values(), 2):
        assert min(one.y1, other.y1) - max(one.y0, other.y0) <= 1e-6
    frame = figure.axes[0].get_window_extent()
    assert all(frame.x1 < box.x0 < box.x1 < figure.bbox.x1 for box in boxes.values())
    assert all(frame.y0 - 1 <= box.y0 < box.y1 <= frame.y1 + 1 for box in boxes.values())
    if max(ends) - min(ends) > 1.9:
        middle = {name: (box.y0 + box.y1) / 2 for name, box in boxes.items()}
        top = f"arm {int(np.argmax(ends))}"
        assert middle[top] == pytest.approx(height(figure.axes[0], 2.0), abs=2)


def test_four_lines_have_a_legend():
    axes = Figure().subplots()
    for number in range(4):
        axes.plot([0, 1], [0, number], label=f"arm {number}")
    assert not direct_labels.name_lines(axes)


def test_letters_are_dark_enough_to_read():
    for colour in drawing.PALETTE:
        rgb = np.array(direct_labels.ink(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5
