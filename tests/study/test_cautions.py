"""What averages hide is said: equal runs, one answer for all images, few seeds."""

import dataclasses

import numpy as np
import pytest

from cifar_jax.report import page
from cifar_jax.study.cautions import cautions
from cifar_jax.study.collect import read_study
from cifar_jax.study.summary import summarise


@pytest.fixture
def study(make_study):
    return read_study(make_study(seeds=(1, 2, 3), n=50, epochs=2))


def with_runs(study, arm, change):
    """The study with other runs of an arm: `change(run)` gives the fields to replace."""
    runs = [dataclasses.replace(run, **change(run)) for run in study.runs[arm]]
    return dataclasses.replace(study, runs={**study.runs, arm: runs})


def test_nothing_is_said_of_a_sound_study(study):
    assert cautions(study) == []


def test_an_arm_that_answers_one_class(study):
    def ship(run):
        return {"predicted": np.full(50, 4)} if run.seed > 1 else {}

    (line,) = cautions(with_runs(study, "batch", ship))
    assert "BatchNorm gives one answer for every test image (ship with seeds 2 and 3)" in line


def test_equal_predictions_with_two_seeds(study):
    first, second, _ = study.runs["batch"]

    def copied(run):
        return {"predicted": first.predicted} if run.seed == 2 else {}

    (line,) = cautions(with_runs(study, "batch", copied))
    assert "BatchNorm gives the same predictions for all 50 test images with seeds 1 and 2" in line
    assert "Their logits differ" in line

    def equal(run):
        fields = {"predicted": first.predicted, "read_logits": first.read_logits}
        return fields if run.seed == second.seed else {}

    (line,) = cautions(with_runs(study, "batch", equal))
    assert "Count them as one run." in line


def test_two_arms_with_equal_logits(study):
    base = {run.seed: run for run in study.runs["none"]}

    def same(run):
        other = base[run.seed]
        return {"predicted": other.predicted, "read_logits": other.read_logits}

    (line,) = cautions(with_runs(study, "batch", same))
    assert line.startswith("BatchNorm and baseline give equal logits with every seed")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ((1,), "Only one seed of none and of batch has finished"),
        ((1, 2), "Only two seeds of baseline and of BatchNorm have finished"),
    ],
)
def test_few_seeds_are_said_once_on_the_page(make_study, seeds, said):
    study = read_study(make_study(seeds=seeds, n=50, epochs=2))
    notices = page.notices(study, summarise(study))
    assert sum("seed" in line for line in notices) == 1
    assert sum(said in line for line in notices) == 1
