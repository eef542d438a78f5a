"""The split into training and validation images."""

import numpy as np
import pytest

from cifar_jax.data.splits import train_val_split
from cifar_jax.errors import UserError


def test_split_is_disjoint_and_complete() -> None:
    train, val = train_val_split(50_000, 5_000, 42)
    assert (len(train), len(val)) == (45_000, 5_000)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(50_000))


def test_split_is_fixed() -> None:
    """It has the same images on every machine and in every version, so results compare."""
    train, val = train_val_split(50_000, 5_000, 42)
    assert train[:6].tolist() == [49650, 24511, 37607, 29170, 31438, 10488]
    assert val[:6].tolist() == [712, 24774, 45142, 27119, 21139, 19129]


def test_another_seed_is_another_split() -> None:
    _, val = train_val_split(50_000, 5_000, 42)
    _, other = train_val_split(50_000, 5_000, 43)
    # About 500 in common by chance.
    assert 350 < len(np.intersect1d(val, other)) < 650


def test_split_is_shuffled() -> None:
    """A prefix, as of --train-examples, has images from the whole dataset."""
    train, _ = train_val_split(50_000, 5_000, 42)
    assert 20_000 < train[:1000].mean() < 30_000


def test_nothing_to_validate_on_is_allowed() -> None:
    train, val = train_val_split(10, 0, 0)
    assert sorted(train) == list(range(10))
    assert val.size == 0


@pytest.mark.parametrize("n_val", [10, 11])
def test_nothing_to_train_on_is_refused(n_val: int) -> None:
    with pytest.raises(UserError, match=f"val-examples {n_val}.*10 images"):
        train_val_split(10, n_val, 0)
