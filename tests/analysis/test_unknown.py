"""Scores and measures of unknown images, against scikit-learn and loops; where images come from."""

import json
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import cifar_jax as cj
from cifar_jax.analysis import detection, outputs, unknown_sets
from cifar_jax.analysis.trained import Request
from cifar_jax.config.build import for_device
from cifar_jax.core.train import init_state
from cifar_jax.data.dataset import load
from cifar_jax.main import main
from cifar_jax.runner.console import Display
from cifar_jax.runner.moved import Moved


@pytest.mark.parametrize("ties", [False, True])
def test_detection_agrees_with_scikit_learn(ties):
    """By the lines of OpenOOD 1.5: unknown images are the positives."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(1, 1, 300), rng.normal(0, 1.5, 170)
    if ties:
        known, unknown = known.round(1), unknown.round(1)
    scores = np.concatenate([known, unknown])
    is_unknown = np.arange(470) >= 300
    false, found, _ = metrics.roc_curve(is_unknown, -scores, drop_intermediate=False)
    precision, recall, _ = metrics.precision_recall_curve(~is_unknown, scores)
    precision_out, recall_out, _ = metrics.precision_recall_curve(is_unknown, -scores)
    measured = detection.detect(known, unknown)
    assert measured.auroc == pytest.approx(metrics.roc_auc_score(is_unknown, -scores), abs=1e-12)
    assert measured.aupr_in == pytest.approx(metrics.auc(recall, precision), abs=1e-12)
    assert measured.aupr_out == pytest.approx(metrics.auc(recall_out, precision_out), abs=1e-12)
    assert measured.fpr95 == pytest.approx(false[np.argmax(found >= 0.95)], abs=1e-12)


def test_detection_in_closed_form():
    known, unknown = np.array([3.0, 2.0, 1.0, 1.0]), np.array([1.0, 0.0])
    measured = detection.detect(known, unknown)
    assert measured.auroc == pytest.approx((4 + 2 + 2 * 0.5) / 8)  # pairs; a tie is half
    assert measured.fpr95 == 0.5  # finding the unknown 1 flags both known ones
    perfect = detection.detect(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    assert perfect == pytest.approx((1, 1, 1, 0))


def test_scores_of_logits_by_hand():
    logits = np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    sums = [sum(np.exp(x) for x in row) for row in logits]
    assert detection.maximum_softmax(logits) == pytest.approx([np.e**2 / sums[0], 1 / 3])
    assert detection.maximum_logit(logits) == pytest.approx([2, 0])
    assert detection.energy(logits) == pytest.approx(np.log(sums))


def test_neighbours_agree_with_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(0)
    train, others = rng.normal(size=(90, 5)), rng.normal(size=(40, 5))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, others)]
    distances, _ = neighbors.NearestNeighbors(n_neighbors=7).fit(unit[0]).kneighbors(unit[1])
    found = detection.nearest(train, others, k=7)
    assert found == pytest.approx(-distances[:, 6], abs=1e-5)  # float32


def test_mahalanobis_agrees_with_scikit_learn_and_loops():
    covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    train = rng.normal(size=(120, 4)) @ rng.normal(size=(4, 4)) + labels[:, None]
    train = np.hstack([train, np.zeros((120, 1))])  # a feature without variance
    others = np.hstack([rng.normal(size=(30, 4)), np.zeros((30, 1))])
    means = [train[labels == k].mean(axis=0) for k in range(3)]
    fitted = covariance.EmpiricalCovariance().fit(train - np.array(means)[labels])
    expected = [-min((x - mean) @ fitted.precision_ @ (x - mean) for mean in means) for x in others]
    assert detection.mahalanobis(train, labels, others) == pytest.approx(expected, rel=1e-8)


class Net(nn.Module):
    """Three dense layers; the one that is defined last is called first."""

    def setup(self):
        self.last = nn.Dense(3)
        self.hidden = nn.Sequential([nn.Dense(6), nn.relu, nn.Dense(5)])

    def __call__(self, x, train):
        return self.last(nn.relu(self.hidden(x.reshape(len(x), -1))))


class Pooled(nn.Module):
    """No dense layer."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Conv(3, (1, 1))(x).mean((1, 2))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)


def test_features_are_the_input_of_the_last_dense_layer(images):
    experiment = for_device(cj.Experiment(Net(), batch_size=4))
    state = init_state(experiment, jax.random.key(0), (4, 4, 3))
    program = outputs.compile_outputs(experiment, state, (4, 4, 3), features=True)
    found = outputs.compute(program, state, images)
    x = experiment.inputs.evaluate(images)
    bound = Net().bind({"params": state.params})
    features = nn.relu(bound.hidden(x.reshape(len(x), -1)))
    assert found.features == pytest.approx(np.asarray(features), abs=1e-5)
    assert found.logits == pytest.approx(np.asarray(bound.last(features)), abs=1e-5)
    plain = outputs.compile_outputs(experiment, state, (4, 4, 3), features=False)
    assert outputs.compute(plain, state, images).logits == pytest.approx(found.logits, abs=1e-6)


def test_a_network_without_a_dense_layer_has_no_features(images):
    experiment = cj.Experiment(Pooled(), batch_size=4)
    state = init_state(experiment, jax.random.key(0), (4, 4, 3))
    with pytest.raises(outputs.NoFeatures, match="no dense layer"):
        outputs.compile_outputs(experiment, state, (4, 4, 3), features=True)


def shared_of(folder, classes=None, unknown=()):
    """What `find_sets` needs of a study on an image folder."""
    dataset = load(str(folder), classes=classes)
    config = {"data": {"dataset": str(folder), **({"classes": classes} if classes else {})}}
    return SimpleNamespace(
        study=SimpleNamespace(dataset=dataset, config=config),
        images=dataset,
        request=Request(unknown=tuple(unknown)),
        moved=Moved(),
        display=Display(),
    )


@pytest.mark.usefixtures("cache")
def test_classes_that_are_left_out_are_unknown(folder):
    sets = unknown_sets.find_sets(shared_of(folder, "top,left"))
    assert [of.name for of in sets] == ["other classes", "synthetic"]
    whole = load(str(folder))
    assert np.array_equal(sets[0].images, whole.test_images[whole.test_labels == 1])  # right


@pytest.mark.usefixtures("cache")
def test_any_folder_of_images_can_be_unknown(folder, tmp_path):
    nested = tmp_path / "textures" / "a" / "b"
    nested.mkdir(parents=True)
    for number, size in enumerate(((40, 50), (32, 32)), 1):
        Image.new("RGB", size, (10 * number, 0, 0)).save(nested / f"{number}.png")
    (nested / "notes.txt").write_text("no image")
    given = [str(tmp_path / "textures"), str(folder), str(tmp_path / "textures")]
    sets = unknown_sets.find_sets(shared_of(folder, unknown=given))
    assert [of.name for of in sets] == ["textures 1", "halves", "textures 2", "synthetic"]
    assert sets[0].images.shape == (2, 32, 32, 3)
    assert sets[0].images[:, 0, 0, 0].tolist() == [10, 20]
    assert len(sets[1].images) == 15  # of its folder test


def test_a_study_is_analysed_with_given_images(trained, tmp_path, cache, blank_figures, capsys):
    copy = trained.copy(tmp_path / "study")
    other = tmp_path / "flat"
    other.mkdir()
    for grey in range(4):
        Image.new("RGB", (32, 32), (60 * grey,) * 3).save(other / f"{grey}.png")
    assert copy.analyse("--only", "unknown", "--unknown", str(other)) == 0
    part = json.loads((copy.directory / "analysis.json").read_text())["parts"]["unknown"]
    assert [of["name"] for of in part["options"]["sets"]] == ["flat", "synthetic"]
    record = part["runs"][0]["record"]
    (flat, _) = record["sets"]
    above = flat["confidence"]["above"]
    assert above == sorted(above, reverse=True)
    assert flat["confidence"]["confident"] == above[45]  # 90 %
    cards = [(copy.directory / arm / "model_card.md").read_text() for arm in ("narrow", "wide")]
    assert all("Pictures of none of the classes (flat):" in card for card in cards)
    capsys.readouterr()
    assert main(["analyse", str(copy.directory), "--unknown", str(tmp_path / "none")]) == 2
    assert "--unknown" in capsys.readouterr().err
