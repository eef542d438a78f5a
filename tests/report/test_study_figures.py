"""Figures of a study: what is drawn is what the runs left."""

import matplotlib.style
import numpy as np
import pytest
from fake_study import CLASSES, write_study
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from scipy import stats

from cifar_jax.data.splits import train_val_split
from cifar_jax.report import drawing, naming, study_figures, study_plots
from cifar_jax.study.collect import read_study
from cifar_jax.study.summary import summarise


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Both arms, three seeds, twelve epochs: workdir's study, its summary and images."""
    workdir = tmp_path_factory.mktemp("full")
    images = write_study(workdir)
    study = read_study(workdir)
    return study, summarise(study), images


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """BatchNorm alone, one seed, one epoch, on a folder."""
    workdir = tmp_path_factory.mktemp("single")
    images = write_study(workdir, arms=("batch",), seeds=(7,), name="folder-x", epochs=1)
    study = read_study(workdir)
    return study, summarise(study), images


def entries(made, images="own"):
    study, summary, own = made
    return {
        f.stem: f
        for f in study_figures.study_figures(study, summary, own if images == "own" else images)
    }


def test_all_figures_are_written(full, tmp_path):
    found = entries(full)
    assert len(found) == 12
    for stem, figure in found.items():
        assert figure.reason == ""
        png, svg = drawing.write_figure(figure.build, tmp_path, stem)
        with Image.open(png) as image:
            assert image.width == pytest.approx(drawing.WIDTH * 160, abs=1)
            assert len(np.unique(np.asarray(image.convert("L")))) > 10
        assert svg.read_text().rstrip().endswith("</svg>")
    assert len(list(tmp_path.iterdir())) == 24


@pytest.mark.parametrize("title", ["Short", "A title of many words: " + "folder-with-a-name " * 6])
def test_titles_stay_within_the_figure(title):
    with matplotlib.style.context(["default", drawing.STYLE]):
        figure = drawing.new_figure(3, title)
        FigureCanvasAgg(figure).draw()
    extent = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 <= extent.x0
    assert extent.x1 <= figure.bbox.x1


def test_the_same_study_gives_the_same_bytes(full, tmp_path):
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        figure = entries(full)["10_paired_differences"]
        paths = drawing.write_figure(figure.build, tmp_path / name, figure.stem)
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


@pytest.mark.parametrize(("made", "name"), [("full", "CIFAR-10"), ("single", "folder-x")])
def test_every_caption_names_the_dataset(made, name, request):
    for figure in entries(request.getfixturevalue(made)).values():
        assert figure.caption.startswith(f"{name}: ")
        if figure.build:
            assert name in figure.build().get_suptitle()


def test_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=(5, 4))
    mean, half = drawing.mean_and_half_width(values)
    low, high = stats.t.interval(0.95, 4, values.mean(axis=0), stats.sem(values, axis=0))
    assert mean - half == pytest.approx(low, abs=1e-12)
    assert mean + half == pytest.approx(high, abs=1e-12)
    assert drawing.mean_and_half_width(values[:1])[1] is None


def test_curves_show_the_means_bands_and_drops(full):
    study = full[0]
    (axes,) = study_plots.curves(study, "loss", "t").axes
    lines = {line.get_label(): line for line in axes.lines}
    for arm, name in (("none", "baseline"), ("batch", "BatchNorm")):
        for split, word in (("train", "training"), ("val", "validation")):
            expected = np.mean([run.curve(f"{split}_loss") for run in study.runs[arm]], axis=0)
            assert lines[f"{name}, {word}"].get_ydata() == pytest.approx(expected)
    assert len(axes.collections) == 4
    assert list(lines["learning rate drops"].get_xdata()) == [10.5, 10.5]


def test_one_seed_has_lines_without_bands(single):
    (axes,) = study_plots.curves(single[0], "accuracy", "t").axes
    assert len(axes.collections) == 0
    assert [line.get_marker() for line in axes.lines] == ["o", "o"]
    (axes,) = study_plots.per_class(single[0], CLASSES, "t").axes
    assert axes.containers[0].errorbar is None


def test_confusions_are_mean_shares_of_the_true_class(full):
    study = full[0]
    drawn = study_plots.confusions(study, CLASSES, "t").axes[0].collections[0].get_array()
    expected = np.mean(
        [[np.bincount(r.predicted[r.label == c], minlength=10) for c in range(10)]
         for r in study.runs["none"]],
        axis=0,
    )  # fmt: skip
    assert np.asarray(drawn) == pytest.approx(100 * expected / 20)
    change = study_plots.confusion_difference(study, CLASSES, "t").axes[0].collections[0]
    assert np.asarray(change.get_array()).sum(axis=1) == pytest.approx(np.zeros(10), abs=1e-9)
    assert change.norm.vmin == -change.norm.vmax


def test_class_counts_add_up(full):
    _, _, images = full
    data = {"val_examples": 30, "split_seed": 42, "train_examples": 250}
    (axes,) = study_plots.class_counts(images, data, "t").axes
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    train, val = train_val_split(300, 30, 42)
    labels = images.train_labels
    assert heights[0] == np.bincount(labels[train[:250]], minlength=10).tolist()
    assert heights[1] == np.bincount(labels[val], minlength=10).tolist()
    assert heights[2] == [20] * 10


def test_rescued_images_are_right_with_the_second_arm_alone(full):
    study = full[0]
    rows, others = study_plots.rescued(study)
    first, second = study.runs["none"], study.runs["batch"]
    expected = {i for i in range(200) if second[0].correct[i] and not first[0].correct[i]}
    assert set(rows.tolist()) == expected
    assert others == int(np.sum(first[0].correct & ~second[0].correct))
    often = [sum(b.correct[i] and not a.correct[i] for a, b in zip(first, second, strict=True))
             for i in rows]  # fmt: skip
    assert often == sorted(often, reverse=True)


def test_rescued_figure_names_true_label_and_both_predictions(full):
    study, _, images = full
    figure = study_plots.rescued_images(study, images, "t")
    rows, _ = study_plots.rescued(study)
    pictures = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    words = [[t.get_text() for t in axes.texts] for axes in figure.axes if axes.texts]
    assert len(pictures) == len(words) == 15
    row = rows[0]
    assert np.array_equal(pictures[0], images.test_images[row])
    first, second = study.runs["none"][0], study.runs["batch"][0]
    assert words[0] == [
        f"true\n{CLASSES[first.label[row]]}",
        f"baseline\n{CLASSES[first.predicted[row]]}",
        f"BatchNorm\n{CLASSES[second.predicted[row]]}",
    ]
    assert all(true.split("\n")[1] == right.split("\n")[1] for true, _, right in words)


def test_published_gain_is_drawn_for_cifar10_alone(full):
    study, summary, _ = full
    for published in (True, False):
        axes = study_plots.differences(study, summary["paired"], CLASSES, published, "t").axes[0]
        assert any(t.get_text() == "published" for t in axes.texts) == published
        dots = 100 * np.array(summary["paired"]["test_accuracy"]["differences"])
        assert axes.lines[0].get_xdata() == pytest.approx(dots)


def test_what_cannot_be_drawn_says_why(full, single):
    without = entries(full, images=None)
    left_out = {stem for stem, figure in without.items() if figure.build is None}
    assert left_out == {"01_samples", "02_class_counts", "08_rescued"}
    assert all("not at hand" in without[stem].reason for stem in left_out)
    alone = entries(single)
    left_out = {stem for stem, figure in alone.items() if figure.build is None}
    assert left_out == {"07_confusion_difference", "08_rescued", "10_paired_differences"}
    assert all("share a seed" in alone[stem].reason for stem in left_out)


def test_other_images_are_not_shown(full, tmp_path):
    images = write_study(tmp_path)
    other = type(images)(**{**vars(images), "fingerprint": "cd" * 32})
    assert "not those of the study" in entries(full, images=other)["01_samples"].reason


@pytest.mark.parametrize(
    ("name", "classes", "n_test", "expected"),
    [
        ("cifar10", CLASSES, 10_000, True),
        ("folder-x", CLASSES, 10_000, True),
        ("folder-x", CLASSES, 9_999, False),
        ("folder-x", CLASSES[::-1], 10_000, False),
        ("synthetic", CLASSES, 10_000, False),
    ],
)
def test_is_cifar10(full, name, classes, n_test, expected):
    study = full[0]
    record = {**study.dataset, "name": name, "classes": list(classes), "n_test": n_test}
    changed = type(study)(**{**vars(study), "dataset": record})
    assert naming.is_cifar10(changed) is expected


def test_many_arms_classes_and_an_empty_class(tmp_path):
    """Three arms, sixty classes, one without a test image."""
    classes = [f"$kind_{number}$ with a long name" for number in range(60)]
    images = write_study(
        tmp_path, arms=("none", "batch", "other"), seeds=(1,), classes=classes, n_test=59, epochs=2
    )
    for arm in ("none", "batch", "other"):
        path = tmp_path / arm / "seed1" / "results.json"
        path.write_text(path.read_text().replace("NaN", "null"))
    study = read_study(tmp_path)
    for figure in entries((study, summarise(study), images)).values():
        drawing.write_figure(figure.build, tmp_path, figure.stem)
    assert len(list(tmp_path.glob("*.png"))) == 13
