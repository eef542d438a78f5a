"""What results say about being repeatable."""

import pytest

from cifar_jax.report.provenance import determinism

FLAG = "--xla_gpu_deterministic_ops=true"


@pytest.mark.parametrize(
    ("platform", "flags", "promised", "said"),
    [
        ("cpu", "", True, "threads"),
        ("gpu", "", False, FLAG),
        ("gpu", "--xla_gpu_deterministic_ops=false", False, FLAG),
        ("gpu", f"--xla_x=1 {FLAG}", True, FLAG),
        ("METAL", "", False, "not verified"),
        ("tpu", FLAG, False, "not verified"),
    ],
)
def test_determinism_is_promised_only_where_it_holds(platform, flags, promised, said):
    found = determinism(platform, flags)
    assert found["deterministic"] is promised
    assert said in found["determinism_note"]


def test_the_number_of_threads_is_said(monkeypatch):
    monkeypatch.setenv("NPROC", "7")
    assert "with 7 threads" in determinism("cpu", "")["determinism_note"]
    monkeypatch.setenv("XLA_FLAGS", FLAG)
    assert determinism("gpu")["deterministic"] is True
