"""Settings that contradict each other are an error of one line."""

from dataclasses import replace

import pytest

from cifar_jax.config.combinations import check_all, parse_milestones
from cifar_jax.config.settings import TrainingConfig
from cifar_jax.errors import UserError

PROTOCOL = TrainingConfig()


@pytest.mark.parametrize(
    ("text", "epochs"), [("82,123", (82, 123)), (" 1 , 2.5", (1, 2.5)), ("15+25", (15, 25))]
)
def test_milestones(text: str, epochs: tuple[float, ...]) -> None:
    assert parse_milestones(text) == epochs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"milestones": "10"}, "--milestones 10: needs --schedule multistep"),
        ({"schedule": "multistep"}, "--schedule multistep: needs --milestones"),
        ({"schedule": "multistep", "milestones": "2,1"}, "must be above the previous one"),
        ({"schedule": "multistep", "milestones": "2,2"}, "must be above the previous one"),
        ({"schedule": "multistep", "milestones": "0,2"}, "must be above 0 and at most 100000"),
        ({"schedule": "multistep", "milestones": "1,nan"}, "must be above 0 and at most 100000"),
        ({"schedule": "multistep", "milestones": "soon"}, "--milestones 'soon': must be epochs"),
        ({"warmup_epochs": 30.0}, "--warmup-epochs 30: must be below --epochs 30"),
        ({"final_fraction": 0.1}, "--final-fraction 0.1: needs --schedule cosine"),
        ({"optimizer": "nesterov", "momentum": 0.0}, "nesterov: needs --momentum above 0"),
        ({"erasing_ratio": 0.5}, "--erasing-ratio 0.5: needs --random-erasing above 0"),
        ({"random_erasing": 0.5, "erasing_area_low": 0.5}, "must be at most --erasing-area-high"),
    ],
)
def test_contradicting_settings_are_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as error:
        check_all([replace(PROTOCOL, **settings)])
    assert said in str(error.value)


def test_of_several_runs_one_must_use_a_setting() -> None:
    runs = [replace(PROTOCOL, milestones="10", schedule=name) for name in ("multistep", "step")]
    check_all(runs)
    with pytest.raises(UserError, match="needs --schedule multistep"):
        check_all(runs[1:])
    check_all([PROTOCOL, replace(PROTOCOL, schedule="cosine", final_fraction=0.1)])
