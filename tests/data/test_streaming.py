"""Streamed batches are those that the device pipeline takes."""

import sys

import jax
import numpy as np
import pytest

from cifar_jax.core.train import epoch_order
from cifar_jax.data.streaming import stream_batches
from cifar_jax.errors import UserError
from cifar_jax.runner.streamed import compile_stream_epoch


def test_stream_gives_the_batches_of_the_device_pipeline():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (45, 4, 4, 3), np.uint8)
    labels = rng.integers(0, 10, 45).astype(np.int32)
    order = epoch_order(jax.random.key(1), 3, 45)
    batches = list(stream_batches(images, labels, np.asarray(order), 8))
    assert [len(y) for _, y in batches] == [8, 8, 8, 8, 8, 5]
    device_images, device_labels = jax.device_put((images, labels))
    for step, (x, y) in enumerate(batches):
        rows = order[8 * step : 8 * step + 8]
        assert np.array_equal(x, device_images[rows])
        assert np.array_equal(y, device_labels[rows])
        assert x.dtype == np.uint8
        assert y.dtype == np.int32


def test_without_grain_streaming_is_refused_before_it_compiles(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match="--pipeline stream: Grain cannot be imported"):
        compile_stream_epoch(None, None, None, None, None)
