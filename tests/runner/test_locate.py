"""Where the checkpoints of runs are found: their own, and those of groups."""

from pathlib import Path

import jax
import made_up
import pytest
from msgspec import structs

from cifar_jax.config.settings import Config
from cifar_jax.core.train import TrainState
from cifar_jax.errors import UserError
from cifar_jax.runner.checkpoint import Checkpoints
from cifar_jax.runner.checkpoint_files import Position
from cifar_jax.runner.locate import (
    find_checkpoints,
    locate,
    new_group,
    newest_position,
    remove_finished_groups,
)
from cifar_jax.runner.programs import stack_runs
from cifar_jax.runner.results import GroupRecord, RunRecord

NAMES = ("batch/seed1", "batch/seed2")


def record(*names: str) -> GroupRecord:
    fields = structs.asdict(made_up.training(Config()))
    return GroupRecord(runs=tuple(RunRecord(name=name, **fields) for name in names))


def save(directory: Path, state: TrainState, position: Position, *names: str) -> None:
    checkpoints = Checkpoints(directory)
    checkpoints.save(position, stack_runs([state] * len(names)), record(*names))
    checkpoints.close()


@pytest.fixture
def study(tmp_path: Path, tiny_state: TrainState) -> Path:
    """Two runs in a group after one epoch and two steps; one of them has an own checkpoint too."""
    root = tmp_path / "study"
    for name in NAMES:
        (root / name).mkdir(parents=True)
    save(root / NAMES[0] / "checkpoints", tiny_state, Position(1), NAMES[0])
    save(new_group(root), tiny_state, Position(1, 2), *NAMES)
    return root


def test_a_run_resumes_from_the_newest_whole_one(study: Path, tiny_state: TrainState) -> None:
    group = study / "groups" / "1"
    assert [locate(study / name) for name in NAMES] == [(group, 0), (group, 1)]
    assert newest_position(study / NAMES[0]) == (1, 2)
    assert locate(study / "batch" / "seed3") is None
    assert newest_position(study / "batch" / "seed3") == (0, 0)
    (group / "1+2" / "SHA256SUMS").write_text("")
    assert locate(study / NAMES[0]) == (study / NAMES[0] / "checkpoints", 0)
    # Damaged as it is, it is the only one, so that its damage is said.
    assert find_checkpoints(study / NAMES[1]) == (group, 1)
    save(new_group(study), tiny_state, Position(2), NAMES[1])
    assert locate(study / NAMES[1]) == (study / "groups" / "2", 0)
    assert locate(study.parent / "elsewhere" / "batch" / "seed1") is None


def test_a_run_right_below_the_root_has_no_study() -> None:
    assert locate(Path("/cifar_jax-no-such-run")) is None


def test_the_state_of_a_run_is_its_part(study: Path, tiny_state: TrainState) -> None:
    other = jax.tree.map(lambda leaf: leaf + leaf.dtype.type(1), tiny_state.replace(key=None))
    other = other.replace(key=tiny_state.key)
    directory = new_group(study)
    checkpoints = Checkpoints(directory)
    checkpoints.save(Position(3), stack_runs([tiny_state, other]), record(*NAMES))
    found, index = find_checkpoints(study / NAMES[1])
    assert (found, index) == (directory, 1)
    assert int(checkpoints.read_state(tiny_state, index).step) == int(tiny_state.step) + 1
    checkpoints.close()


def test_a_group_is_removed_when_all_its_runs_have_results(study: Path) -> None:
    for name in NAMES:
        remove_finished_groups(study)
        assert (study / "groups" / "1").exists()
        (study / name / "results.json").write_text("{}")
    remove_finished_groups(study)
    assert not (study / "groups").exists()


def test_a_directory_of_several_runs_is_not_one(study: Path) -> None:
    with pytest.raises(UserError, match="holds several runs; name the directory of one"):
        find_checkpoints(study / "groups" / "1")
    own = study / NAMES[0] / "checkpoints"
    assert find_checkpoints(own) == (own, 0)
    with pytest.raises(UserError, match=r"--init-from .*: holds no checkpoint of a run"):
        find_checkpoints(study, "--init-from")
