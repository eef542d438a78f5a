"""How a network was trained, in words."""

from dataclasses import asdict, replace
from types import SimpleNamespace

from cifar_jax.config.settings import TrainingConfig
from cifar_jax.report import recipe
from cifar_jax.report.figures import rate_drops


def table(**settings):
    return asdict(replace(TrainingConfig(), **settings))


def test_the_protocol():
    assert recipe.optimiser(table()) == (
        "SGD, learning rate 0.01, momentum 0.9, weight decay 0.0005, batches of 128"
    )
    assert recipe.schedule(table()) == "learning rate times 0.1 every 10 epochs"
    assert recipe.regularisers(table()) == []


def test_what_is_beyond_it():
    said = recipe.optimiser(table(optimizer="adamw", lr_scaling="linear", batch_size=64))
    assert said.startswith("AdamW, learning rate 0.01 for batches of 128, scaled with the batch")
    assert "beta1 0.9" in said
    assert recipe.schedule(table(schedule="multistep", milestones="82+123", warmup_epochs=1)) == (
        "learning rate times 0.1 after epochs 82, 123, after 1 epoch of warm-up"
    )
    for name in ("constant", "cosine", "onecycle"):
        assert recipe.schedule(table(schedule=name)) != recipe.schedule(table())
    chosen = table(label_smoothing=0.1, cutout=16, random_erasing=0.5, mixup=1.0)
    assert len(recipe.regularisers(chosen)) == 4


def history(*rates):
    return [SimpleNamespace(epoch=i, learning_rate=rate) for i, rate in enumerate(rates, start=1)]


def test_drops_are_marked_and_smooth_courses_are_not():
    assert rate_drops(history(0.1, 0.1, 0.01, 0.01)) == [2.5]
    assert rate_drops(history(0.1, 0.01)) == [1.5]
    assert rate_drops(history(0.02, 0.1, 0.1, 0.01)) == [3.5]
    assert rate_drops(history(0.1, 0.08, 0.05, 0.01)) == []
    assert rate_drops(history(0.1)) == []
