"""What results say about being repeatable."""

import pytest

from cifar_jax.device import cpu_count, fixed_threads
from cifar_jax.report.provenance import describe_computing, determinism

FLAG = "--xla_gpu_deterministic_ops=true"


@pytest.mark.parametrize(
    ("platform", "flags", "promised", "said"),
    [
        ("cpu", "", False, "--threads fixes it"),
        ("gpu", "", False, FLAG),
        ("gpu", "--xla_gpu_deterministic_ops=false", False, FLAG),
        ("gpu", f"--xla_x=1 {FLAG}", True, FLAG),
        ("METAL", "", False, "not verified"),
        ("tpu", FLAG, False, "not verified"),
    ],
)
def test_determinism_is_promised_only_where_it_holds(platform, flags, promised, said, monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    found = determinism(platform, ["a"], flags)
    assert found["deterministic"] is promised
    assert said in found["determinism_note"]
    assert found["computed_on"] == ["a"]


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
def test_the_number_of_threads_is_what_xla_takes(nproc, threads, monkeypatch):
    monkeypatch.setenv("NPROC", nproc)
    assert fixed_threads() == threads
    assert determinism("cpu", ["a"])["deterministic"] is (threads is not None)
    expected = threads or cpu_count()
    assert f"--threads {expected}, jax" in describe_computing("cpu", "cpu")
    assert describe_computing("NVIDIA H200", "gpu").startswith("gpu: NVIDIA H200, jax")
