"""Made-up runs: fields that all results have, and runs with other results."""

import dataclasses
from typing import Any

from msgspec import structs

from cifar_jax.config.settings import Config
from cifar_jax.config.tables import to_dict
from cifar_jax.runner.results import DatasetRecord, Training
from cifar_jax.study.collect import Run

MADE = {
    "compile_seconds": 12.5,
    "computed_on": ["cpu: Fake Processor, --threads 2, jax 0.10.2"],
    "compile_share": 0.1,
    "peak_memory_bytes": None,
    "peak_device_memory_bytes": None,
    "seed_parallelism": 1,
    "device": "cpu: Fake Processor, 2 cores",
    "variables": {},
    "deterministic": True,
    "determinism_note": "made up",
    "versions": {"python": "3.11.7", "cifar_jax": "0.1.0", "jax": "0.10.2"},
    "git_revision": "0123456789abcdef",
    "finished": "2030-01-01T00:00:00+00:00",
}


def training(config: Config) -> Training:
    """The record of a run that has not begun."""
    data = DatasetRecord(
        name="folder-x",
        fingerprint="f" * 64,
        n_train=20,
        n_val=5,
        n_test=5,
        classes=("cat", "dog"),
        notes=(),
    )
    return Training(
        config=to_dict(config), dataset=data, compile_seconds=1.0, computed_on=("cpu",), history=()
    )


def changed(run: Run, **fields: Any) -> Run:
    """A run with other fields in its results."""
    return dataclasses.replace(run, results=structs.replace(run.results, **fields))
