"""Every schedule at given steps, against PyTorch's schedulers: stored values, and run now."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.core.optim import Hyper, Schedule, StepDecay
from cifar_jax.core.schedules import Cosine, MultiStepDecay, OneCycle, Warmup, constant
from cifar_jax.core.train import Experiment

EPOCH, EPOCHS = 10, 4
RATE = 0.1
AT = (0, 1, 5, 11, 12, 20, 39)

SCHEDULES: dict[str, Schedule] = {
    "step": StepDecay(every=1),
    "constant": constant,
    "multistep": MultiStepDecay((1.2, 2.0)),
    "cosine": Cosine(0.05),
    "onecycle": OneCycle(),
    "warm cosine": Warmup(0.6, Cosine(), delay=True),
}
# Of PyTorch 2.13, made by `pytorch_rates` below.
STORED = {
    "step": (0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.0001),
    "constant": (0.1,) * 7,
    "multistep": (0.1, 0.1, 0.1, 0.1, 0.01, 0.001, 0.001),
    "cosine": (0.1, 0.0998535734, 0.0963842778, 0.0833487823, 0.0804197995, 0.0525, 0.00514642665),
    "onecycle": (0.004, 0.00594433727, 0.0451688878, 0.1, 0.0996856118, 0.0766016974, 4e-7),
    "warm cosine": (
        0.0166666667,
        0.0333333333,
        0.1,
        0.0947581646,
        0.0925108568,
        0.0636831495,
        0.000213291185,
    ),
}


def rates(schedule: Schedule, epochs: int = EPOCHS, epoch: int = EPOCH) -> np.ndarray:
    """The rate of every step, compiled."""
    experiment = Experiment(batch_size=1, epochs=epochs, schedule=schedule)
    rate = experiment.learning_rate(Hyper(learning_rate=RATE), epoch)
    steps = jnp.arange(epochs * epoch, dtype=jnp.int32)
    return np.asarray(jax.jit(jax.vmap(lambda step: jnp.asarray(rate(step))))(steps))


def pytorch_rates(name: str, steps: int = EPOCHS * EPOCH) -> np.ndarray:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; stored rates were used")
    known = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    makers: dict[str, Callable[[], Any]] = {
        "step": lambda: known.StepLR(optimizer, EPOCH),
        "constant": lambda: known.ConstantLR(optimizer, factor=1.0),
        "multistep": lambda: known.MultiStepLR(optimizer, [12, 20]),
        "cosine": lambda: known.CosineAnnealingLR(optimizer, T_max=steps, eta_min=0.05 * RATE),
        "onecycle": lambda: known.OneCycleLR(optimizer, RATE, steps, cycle_momentum=False),
        "warm cosine": lambda: known.SequentialLR(
            optimizer,
            [
                known.LinearLR(optimizer, start_factor=1 / 6, total_iters=5),
                known.CosineAnnealingLR(optimizer, T_max=steps - 6),
            ],
            [6],
        ),
    }
    scheduler = makers[name]()
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return np.array(found)


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_pytorchs_as_stored(name: str) -> None:
    np.testing.assert_allclose(rates(SCHEDULES[name])[list(AT)], STORED[name], rtol=2e-5)


@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_pytorch_run_now(name: str) -> None:
    expected = pytorch_rates(name)
    np.testing.assert_allclose(rates(SCHEDULES[name]), expected, rtol=2e-5, atol=1e-7 * RATE)


@pytest.mark.parametrize("steps", [2, 3, 4, 7])
def test_one_cycle_of_very_few_steps_is_pytorchs(steps: int) -> None:
    found = rates(SCHEDULES["onecycle"], epochs=1, epoch=steps)
    expected = pytorch_rates("onecycle", steps)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7 * RATE)


def test_two_milestones_in_one_step_drop_the_rate_twice() -> None:
    """As PyTorch's `MultiStepLR` does, which counts its milestones."""
    found = rates(MultiStepDecay((1.21, 1.19, 2.0)))
    expected = np.repeat([0.1, 0.001, 0.0001], [12, 8, 20])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_resnets_rates_drop_at_its_epochs() -> None:
    """He et al. 2016, section 4.2: after 32k and 48k of 64k steps of 128 of 50,000 images."""
    experiment = Experiment(epochs=164, schedule=MultiStepDecay((82.0, 123.0)))
    schedule = jax.jit(experiment.learning_rate(Hyper(learning_rate=RATE), 50_000))
    for drop, rate in ((82 * 391, 0.01), (123 * 391, 0.001)):
        assert float(schedule(drop - 1)) == pytest.approx(10 * rate, rel=1e-5)
        assert float(schedule(drop)) == pytest.approx(rate, rel=1e-5)
    assert abs(82 * 391 - 32_000) < 100
    assert abs(123 * 391 - 48_000) < 100


@pytest.mark.parametrize("name", ["step", "multistep", "constant", "onecycle"])
def test_warm_up_is_a_line_to_the_schedule(name: str) -> None:
    delay = name == "onecycle"
    found = rates(Warmup(0.5, SCHEDULES[name], delay))
    first = rates(SCHEDULES[name])[0]
    np.testing.assert_allclose(found[:5], first * np.arange(1, 6) / 5, rtol=1e-5)
    if not delay:  # Epochs are counted from the start of training.
        np.testing.assert_array_equal(found[5:], rates(SCHEDULES[name])[5:])
    else:
        alone = rates(SCHEDULES[name], epochs=5, epoch=7)  # The 35 steps that remain.
        np.testing.assert_allclose(found[5:], alone, rtol=1e-5)


def test_a_warm_up_of_no_step_is_its_schedule() -> None:
    np.testing.assert_array_equal(rates(Warmup(0.04, OneCycle(), True)), rates(OneCycle()))


def test_a_warm_up_longer_than_the_training_ends_within_it() -> None:
    found = rates(Warmup(5.0, Cosine(), delay=True))
    np.testing.assert_allclose(found, RATE * np.arange(1, 41) / 50, rtol=1e-5)


def test_one_program_has_every_rate() -> None:
    traces = 0

    @jax.jit
    def rate(hyper: Hyper, step: jax.Array) -> list[jax.Array]:
        nonlocal traces
        traces += 1
        experiments = [
            Experiment(batch_size=1, epochs=EPOCHS, schedule=schedule)
            for schedule in SCHEDULES.values()
        ]
        return [one.learning_rate(hyper, EPOCH)(step) for one in experiments]

    first, second = (rate(Hyper(learning_rate=jnp.float32(r)), 7) for r in (0.1, 0.3))
    np.testing.assert_allclose(second, 3 * np.array(first), rtol=1e-5)
    assert traces == 1
