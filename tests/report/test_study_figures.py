"""Figures of a study: what is drawn is what the runs left."""

import numpy as np
import pytest
from fake_study import CLASSES, write_study
from matplotlib.backends.backend_agg import FigureCanvasAgg
from msgspec import structs
from PIL import Image
from scipy import stats

from cifar_jax.data.splits import train_val_split
from cifar_jax.report import class_plots, drawing, image_plots, study_figures, study_plots
from cifar_jax.study.collect import read_study
from cifar_jax.study.summary import is_cifar10, summarise


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
        png, svg = drawing.write_figure(drawing.render(figure.build, svg=True), tmp_path, stem)
        with Image.open(png) as image:
            assert image.width == pytest.approx(drawing.WIDTH * 160, abs=1)
            assert len(np.unique(np.asarray(image.convert("L")))) > 10
        assert svg.read_text().rstrip().endswith("</svg>")
    assert len(list(tmp_path.iterdir())) == 24


@pytest.mark.parametrize("title", ["Short", "A title of many words: " + "folder-with-a-name " * 6])
def test_titles_stay_within_the_figure(title):
    with drawing.styled():
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
        paths = drawing.write_figure(
            drawing.render(figure.build, svg=True), tmp_path / name, figure.stem
        )
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


@pytest.mark.parametrize(("made", "name"), [("full", "CIFAR-10"), ("single", "folder-x")])
def test_every_caption_names_the_dataset(made, name, request):
    for figure in entries(request.getfixturevalue(made)).values():
        assert figure.caption.startswith(f"{name}: ")
        if figure.build:
            assert name in figure.build().get_suptitle()


def test_bands_are_students_and_stay_where_accuracies_can_be():
    values = np.random.default_rng(0).normal(50, 1, size=(5, 4))
    _, ends = drawing.mean_and_interval(values)
    wanted = stats.t.interval(0.95, 4, values.mean(axis=0), stats.sem(values, axis=0))
    assert ends == pytest.approx(np.array(wanted), abs=1e-12)
    assert drawing.mean_and_interval(values[:1])[1] is None
    _, ends = drawing.mean_and_interval(np.array([[1.0, 99.0, 40.0], [20.0, 80.0, 40.0]]), 0, 100)
    assert ends[:, :2].tolist() == [[0.0, 0.0], [100.0, 100.0]]
    assert np.isnan(ends[:, 2]).all()


def test_curves_show_the_means_bands_and_drops(full):
    study = full[0]
    (axes,) = study_plots.curves(study, "loss", "t").axes
    lines = {line.get_label(): line for line in axes.lines}
    for arm, name in (("none", "baseline"), ("batch", "BatchNorm")):
        for split, word in (("train", "training"), ("val", "validation")):
            expected = np.mean([run.curve(f"{split}_loss") for run in study.runs[arm]], axis=0)
            assert lines[f"{name}, {word}"].get_ydata() == pytest.approx(expected)
    assert len(axes.collections) == 4
    assert list(axes.lines[-1].get_xdata()) == [10.5, 10.5]
    assert "learning rate drops" in [text.get_text() for text in axes.texts]


def test_one_seed_has_lines_without_bands(single):
    (axes,) = study_plots.curves(single[0], "accuracy", "t").axes
    assert len(axes.collections) == 0
    assert [line.get_marker() for line in axes.lines] == ["s", "s"]
    (axes,) = class_plots.per_class(single[0], single[1]["per_arm"], CLASSES, "t").axes
    assert len(axes.lines) == 0


def test_whiskers_of_classes_follow_the_rule_of_the_page(full):
    """Twenty test images a class, so their error counts; and no whisker leaves 0 to 100 %."""
    study, summary, _ = full
    (axes,) = class_plots.per_class(study, summary["per_arm"], CLASSES, "t").axes
    row = summary["per_arm"]["none"]["class:cat"]
    assert row["interval_rule"] == "seeds and test images"
    ends = [line.get_ydata() for line in axes.lines]
    assert ends[CLASSES.index("cat")] == pytest.approx([100 * end for end in row["ci_t"]])
    assert np.min(ends) >= 0
    assert np.max(ends) <= 100


def test_confusions_are_mean_shares_of_the_true_class(full):
    study = full[0]
    drawn = class_plots.confusions(study, CLASSES, "t").axes[0].images[0].get_array()
    expected = np.mean(
        [[np.bincount(r.predicted[r.label == c], minlength=10) for c in range(10)]
         for r in study.runs["none"]],
        axis=0,
    )  # fmt: skip
    assert np.asarray(drawn) == pytest.approx(100 * expected / 20)
    change = class_plots.confusion_difference(study, CLASSES, "t").axes[0].images[0]
    assert np.asarray(change.get_array()).sum(axis=1) == pytest.approx(np.zeros(10), abs=1e-9)
    assert change.norm.vmin == -change.norm.vmax


def test_class_counts_add_up(full):
    _, _, images = full
    data = {"val_examples": 30, "split_seed": 42, "train_examples": 250}
    (axes,) = class_plots.class_counts(images, data, "t").axes
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    train, val = train_val_split(300, 30, 42)
    labels = images.train_labels
    assert heights[0] == np.bincount(labels[train[:250]], minlength=10).tolist()
    assert heights[1] == np.bincount(labels[val], minlength=10).tolist()
    assert heights[2] == [20] * 10


@pytest.mark.parametrize(("way", "right", "wrong"), [(0, "batch", "none"), (1, "none", "batch")])
def test_disagreements_are_right_with_one_arm_alone(full, way, right, wrong):
    study = full[0]
    rows = image_plots.disagreements(study)[way]
    right, wrong = study.runs[right], study.runs[wrong]
    expected = {i for i in range(200) if right[0].correct[i] and not wrong[0].correct[i]}
    assert set(rows.tolist()) == expected
    often = [sum(a.correct[i] and not b.correct[i] for a, b in zip(right, wrong, strict=True))
             for i in rows]  # fmt: skip
    assert often == sorted(often, reverse=True)


def test_disagreement_figure_shows_both_directions(full):
    study, _, images = full
    figure = image_plots.disagreement_images(study, images, "t")
    found = image_plots.disagreements(study)
    first, second = study.runs["none"][0], study.runs["batch"][0]
    names = ("BatchNorm", "baseline"), ("baseline", "BatchNorm")
    for part, rows, (right, wrong) in zip(figure.subfigs, found, names, strict=True):
        assert part.get_suptitle() == f"right with {right}, wrong with {wrong}: {len(rows)}"
        (axes,) = part.axes
        pictures = [image.get_array() for image in axes.images]
        texts = [t.get_text() for t in axes.texts]
        words = [texts[i : i + 3] for i in range(0, len(texts), 3)]
        assert len(pictures) == len(words) == 9
        row = rows[0]
        assert np.array_equal(pictures[0], images.test_images[row])
        assert words[0] == [
            f"true\n{CLASSES[first.label[row]]}",
            f"baseline\n{CLASSES[first.predicted[row]]}",
            f"BatchNorm\n{CLASSES[second.predicted[row]]}",
        ]
        said = [dict(text.split("\n") for text in three) for three in words]
        assert all(w["true"] == w[right] != w[wrong] for w in said)


def test_published_gain_is_drawn_for_cifar10_alone(full):
    study, summary, _ = full
    for published in (True, False):
        axes = study_plots.differences(study, summary["paired"], CLASSES, published, "t").axes[1]
        assert any(t.get_text() == "published" for t in axes.texts) == published


def test_what_cannot_be_drawn_says_why(full, single):
    without = entries(full, images=None)
    left_out = {stem for stem, figure in without.items() if figure.build is None}
    assert left_out == {"01_samples", "02_class_counts", "08_disagreements"}
    assert all("not found" in without[stem].reason for stem in left_out)
    alone = entries(single)
    left_out = {stem for stem, figure in alone.items() if figure.build is None}
    assert left_out == {"07_confusion_difference", "08_disagreements", "10_paired_differences"}
    assert all("common seed" in alone[stem].reason for stem in left_out)


def test_other_images_are_not_shown(full, tmp_path):
    images = write_study(tmp_path)
    other = type(images)(**{**vars(images), "fingerprint": "cd" * 32})
    assert "not those of the study" in entries(full, images=other)["01_samples"].reason


@pytest.mark.parametrize(
    ("name", "classes", "told", "expected"),
    [
        ("cifar10", CLASSES, False, True),
        ("cifar10-2of10", CLASSES[:2], False, False),
        ("folder-x", CLASSES, False, False),
        ("folder-x", CLASSES, True, True),
        ("folder-x", CLASSES[:9], True, False),
        ("synthetic", CLASSES, False, False),
        ("synthetic", CLASSES, True, False),
    ],
)
def test_is_cifar10(full, name, classes, told, expected):
    study = full[0]
    record = structs.replace(study.dataset, name=name, classes=tuple(classes))
    config = {**study.config, "data": {**study.config["data"], "folder_is_cifar10": told}}
    changed = type(study)(**{**vars(study), "dataset": record, "config": config})
    assert is_cifar10(changed) is expected


def draw(figure, svg=False):
    """The figure, and what is drawn of it."""
    built = []
    drawn = drawing.render(lambda: built.append(figure.build()) or built[0], svg)
    return built[0], drawn


def test_many_arms_classes_and_an_empty_class(tmp_path):
    """Three arms, sixty classes, one without a test image."""
    classes = [f"$kind_{number}$ with a long name" for number in range(60)]
    images = write_study(
        tmp_path, arms=("none", "batch", "layer"), seeds=(1,), classes=classes, n_test=59, epochs=2
    )
    for arm in ("none", "batch", "layer"):
        path = tmp_path / arm / "seed1" / "results.json"
        path.write_text(path.read_text().replace("NaN", "null"))
    study = read_study(tmp_path)
    found = entries((study, summarise(study), images))
    assert len(found) == 13
    assert all(draw(figure)[1].picture.width > 800 for figure in found.values())


def test_a_thousand_classes_take_little_room(tmp_path):
    """Every figure is bounded in pixels and bytes, and names no more than can be read."""
    classes = [f"kind {number}" for number in range(1000)]
    images = write_study(tmp_path, seeds=(1,), classes=classes, n_train=1500, n_test=1000, epochs=1)
    study = read_study(tmp_path)
    for stem, entry in entries((study, summarise(study), images)).items():
        if stem in ("03_loss", "04_accuracy", "09_time", "11_reliability", "12_accuracy_over_time"):
            continue  # They do not know of classes.
        figure, drawn = draw(entry, svg=stem == "05_confusion")
        assert drawn.picture.width <= 840, stem
        assert drawn.picture.height <= 2000, stem
        assert len(drawn.svg) < 3_000_000, stem
        for axes in figure.axes:
            assert len(axes.get_xticklabels()) <= 41, stem
            assert len(axes.get_yticklabels()) <= 41, stem


@pytest.mark.parametrize("n", [2, 40])
def test_few_classes_are_named(n, tmp_path):
    classes = [f"kind {number}" for number in range(n)]
    images = write_study(tmp_path, seeds=(1, 2), classes=classes, epochs=1)
    study = read_study(tmp_path)
    figures = entries((study, summarise(study), images))
    for stem in ("02_class_counts", "05_confusion", "06_per_class", "07_confusion_difference"):
        axes = figures[stem].build().axes[0]
        assert [label.get_text() for label in axes.get_xticklabels()] == classes
    names = [
        label.get_text()
        for label in figures["10_paired_differences"].build().axes[2].get_yticklabels()
    ]
    assert sorted(names) == sorted(classes)


def test_the_classes_that_gain_and_lose_most_are_named(tmp_path):
    classes = [f"kind {number}" for number in range(50)]
    write_study(tmp_path, seeds=(1, 2), classes=classes, n_test=500, epochs=1)
    study = read_study(tmp_path)
    paired = summarise(study)["paired"]
    axes = study_plots.differences(study, paired, classes, False, "t").axes[2]
    names = [label.get_text() for label in axes.get_yticklabels()]
    gain = {name: paired[f"class:{name}"]["mean_difference"] for name in classes}
    assert len(set(names)) == 30
    least, most = min(gain[n] for n in names[:15]), max(gain[n] for n in names[15:])
    assert all(most <= gain[name] <= least for name in set(classes) - set(names))
    assert "20 classes" in axes.get_ylabel()


def test_bars_and_bands_stay_within_their_range(tmp_path):
    """Two seeds and few images: the t intervals would be far wider than 0 to 100 %."""
    images = write_study(tmp_path, seeds=(1, 2), n_test=40, epochs=2)
    study = read_study(tmp_path)
    for stem, figure in entries((study, summarise(study), images)).items():
        if stem not in ("04_accuracy", "06_per_class", "10_paired_differences"):
            continue
        for axes in figure.build().axes:
            low, high = axes.get_xlim() if stem.startswith("10") else axes.get_ylim()
            assert low >= -103.1, stem
            assert high <= 103.1, stem
            if stem == "04_accuracy":
                tops = [
                    path.vertices[:, 1].max() for c in axes.collections for path in c.get_paths()
                ]
                assert max(tops) <= 100
