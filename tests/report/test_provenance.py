"""Entries of the results on repeatability."""

import pytest

from cifar_jax.device import cpu_count, fixed_threads
from cifar_jax.runner.provenance import describe_computing, determinism

FLAG = "--xla_gpu_deterministic_ops=true"


@pytest.fixture(autouse=True)
def clean_shell(monkeypatch):
    """Remove all variables that can change the numbers."""
    for name in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "NPROC"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("platform", "flags", "promised", "said"),
    [
        ("cpu", "", False, "unless --threads is given"),
        ("gpu", "", False, FLAG),
        ("gpu", "--xla_gpu_deterministic_ops=false", False, FLAG),
        ("gpu", f"--xla_dump_to=/x {FLAG}", True, FLAG),
        ("gpu", f"--xla_x=1 {FLAG}", False, "--xla_x=1"),
        ("METAL", "", False, "not verified"),
        ("tpu", FLAG, False, "not verified"),
    ],
)
def test_determinism_is_promised_only_where_it_holds(platform, flags, promised, said, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    found = determinism(platform, ["a"])
    assert found["deterministic"] is promised
    assert said in found["determinism_note"]
    assert found["computed_on"] == ["a"]


def test_a_flag_that_can_change_the_numbers_is_recorded(monkeypatch):
    monkeypatch.setenv("NPROC", "2")
    before = describe_computing("cpu", "cpu")
    assert determinism("cpu", [before])["variables"] == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true --xla_dump_to=/x")
    found = determinism("cpu", [describe_computing("cpu", "cpu")])
    assert found["computed_on"] == [f"{before}, XLA_FLAGS=--xla_cpu_enable_fast_math=true"]
    assert found["variables"] == {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}
    assert found["deterministic"] is False
    assert "XLA_FLAGS=--xla_cpu_enable_fast_math=true" in found["determinism_note"]


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_it_is_not_promised_for_a_run_that_changed_its_device(platform, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", FLAG)
    monkeypatch.setenv("NPROC", "2")
    assert determinism(platform, ["a"])["deterministic"] is True
    found = determinism(platform, ["a", "b"])
    assert found["deterministic"] is False
    assert "a; b" in found["determinism_note"]


@pytest.mark.parametrize(
    ("nproc", "threads"), [("7", 7), ("007", 7), ("", None), ("0", None), ("-1", None), ("x", None)]
)
def test_the_number_of_threads_is_xlas(nproc, threads, monkeypatch):
    monkeypatch.setenv("NPROC", nproc)
    assert fixed_threads() == threads
    assert determinism("cpu", ["a"])["deterministic"] is (threads is not None)
    expected = threads or cpu_count()
    assert f"--threads {expected}, jax" in describe_computing("cpu", "cpu")
    assert describe_computing("NVIDIA H200", "gpu").startswith("gpu: NVIDIA H200, jax")
