"""Agreement of runs against loops, the variance of a calibrated ensemble in closed form."""

import json
from itertools import combinations

import numpy as np
import pytest
from scipy import special, stats

from cifar_jax.analysis import agreement
from cifar_jax.analysis.label_noise import label_issues
from cifar_jax.analysis.lacking import Lacking


@pytest.fixture(scope="module")
def predictions():
    """Predictions of four runs on 50 images of three classes, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    noisy = rng.random((4, 50)) < 0.4
    return np.where(noisy, rng.integers(0, 3, (4, 50)), labels), labels


def test_agreement_and_common_errors_by_loops(predictions):
    predicted, labels = predictions
    wrong = predicted != labels
    same, common = [], []
    for a, b in combinations(range(4), 2):
        same.append(sum(predicted[a][i] == predicted[b][i] for i in range(50)) / 50)
        sets = [{i for i in range(50) if wrong[run][i]} for run in (a, b)]
        common.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    assert agreement.over_pairs(agreement.agreement(predicted)) == pytest.approx(np.mean(same))
    found = agreement.over_pairs(agreement.common_errors(wrong))
    assert found == pytest.approx(np.mean(common))
    counts = [sum(sum(wrong[:, i]) == n for i in range(50)) for n in range(5)]
    assert agreement.wrong_counts(wrong) == counts


def test_runs_without_errors_have_none_in_common():
    right = np.zeros((2, 5), bool)
    assert agreement.over_pairs(agreement.common_errors(right)) is None
    assert agreement.over_pairs(agreement.agreement(np.zeros((1, 5)))) is None


@pytest.mark.parametrize(("chance", "seeds"), [(0.3, 3), (0.5, 4), (0.9, 7)])
def test_variance_of_a_calibrated_pair_of_classes(chance, seeds):
    """Its expectation over the seeds is p (1 - p) / N: the error rate 2 p (1 - p), over 2 N."""
    expected = 0.0
    for n in range(seeds + 1):
        predicted = (np.arange(seeds) < n).astype(int)[:, None]  # one image
        weight = stats.binom.pmf(n, seeds, chance)
        expected += weight * agreement.calibrated_variance(predicted, 2)
    error_rate = 2 * chance * (1 - chance)
    assert expected == pytest.approx(error_rate / 2, abs=1e-12)


def test_a_simulated_calibrated_ensemble_has_this_variance():
    """200 runs that draw from the chances from which the labels are drawn."""
    rng = np.random.default_rng(0)
    chances = special.softmax(2 * rng.normal(size=(2000, 4)), axis=1).cumsum(axis=1)

    def draw(runs):
        found = (rng.random((runs, 2000, 1)) > chances).sum(axis=2)
        return np.minimum(found, 3)

    labels, predicted = draw(1)[0], draw(200)
    measured = (predicted == labels).mean(axis=1).var(ddof=1)
    # The variance of 200 values is known to about 10 %.
    assert agreement.calibrated_variance(predicted, 4) == pytest.approx(measured, rel=0.3)
    assert agreement.calibrated_variance(predicted[:2], 4) is None


def test_confident_learning_finds_wrong_labels():
    pytest.importorskip("cleanlab")
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3
    probabilities = special.softmax(6 * np.eye(3)[truth] + rng.normal(size=(300, 3)), axis=1)
    labels = truth.copy()
    labels[0:30:3] = 1  # ten images of class 0
    found = label_issues(labels, probabilities)
    assert len(found) >= 3
    assert set(found) <= set(range(0, 30, 3))
    assert found == sorted(found, key=lambda row: probabilities[row, labels[row]])
    with pytest.raises(Lacking, match="every class"):
        label_issues(labels[:2], probabilities[:2])


def test_the_record_agrees_with_the_predictions(analysed):
    record = json.loads((analysed.directory / "analysis.json").read_text())
    found = record["parts"]["errors"]["together"]["record"]
    wrong, predicted = {}, {}
    for arm in ("narrow", "wide"):
        for seed in (3, 4):
            path = analysed.directory / arm / f"seed{seed}" / "predictions.npz"
            with np.load(path) as arrays:
                predicted[arm, seed] = arrays["predicted"]
                wrong[arm, seed] = arrays["predicted"] != arrays["label"]
    assert found["always_wrong"] == np.all(list(wrong.values()), axis=0).sum()
    same = [np.mean(predicted["narrow", seed] == predicted["wide", seed]) for seed in (3, 4)]
    assert found["between"][0]["agreement"] == pytest.approx(np.mean(same))
    for picture in found["hardest"]:
        assert all(of[picture["row"]] for of in wrong.values())
