"""A study's directory is claimed by the study that it holds, and by no other."""

import json
import shutil

import pytest
from msgspec import structs

from cifar_jax.errors import UserError
from cifar_jax.names import STUDY
from cifar_jax.runner.console import Display
from cifar_jax.study.directory import begin_study
from cifar_jax.study.grid import Sweep
from cifar_jax.study.record import read_plan


def test_the_first_seed_may_be_lost_with_the_record(make_study):
    workdir = make_study(seeds=(1, 2, 3), n=50)
    whole = read_plan(workdir)
    (workdir / STUDY).unlink()
    for arm in whole.names:
        shutil.rmtree(workdir / arm / "seed1")
    asked = structs.replace(whole, arms=whole.arms[::-1])
    begin_study(workdir, asked, Display())
    found = read_plan(workdir)
    assert (found.arms, found.seeds) == (asked.arms, (1, 2, 3))
    assert found.config["training"]["seed"] == 1


@pytest.mark.parametrize("lost", [False, True])
def test_another_study_is_refused_in_the_right_order(make_study, lost):
    workdir = make_study(seeds=(1, 2), n=50)
    whole = read_plan(workdir)
    if lost:
        (workdir / STUDY).unlink()
    config = json.loads(json.dumps(whole.config))
    config["training"]["learning_rate"] = 0.5
    with pytest.raises(UserError, match=r"another study: training.learning_rate: 0.01 -> 0.5$"):
        begin_study(workdir, structs.replace(whole, config=config), Display())
    swept = structs.replace(whole, sweep=Sweep("training.momentum", (0.5, 0.9)))
    with pytest.raises(UserError, match=r"it sweeps nothing, not training\.momentum$"):
        begin_study(workdir, swept, Display())
    assert (workdir / STUDY).exists() != lost
