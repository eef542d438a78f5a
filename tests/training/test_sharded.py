"""Several devices train what one device trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cifar_jax.errors import UserError
from cifar_jax.runner import devices

divides = pytest.mark.skipif(
    jax.__version_info__ < devices.DIVIDES, reason="--data-parallel refuses this version of jax"
)


@pytest.fixture(scope="module")
def output(ten: Path, cache: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of many_devices.py on 8 virtual devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(sys.path)}
    program = Path(__file__).with_name("many_devices.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path_factory.mktemp("sharded"), ten],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def differences(output: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(output.splitlines()[-1])
    return found


@divides
def test_programs_on_several_devices(differences: dict[str, dict[str, float]]) -> None:
    """Runs on devices of their own are equal bit by bit. Divided batches are, up to rounding."""
    found = differences["programs"]
    assert found["runs"] == 0
    assert 0 < found["float32"] < 1e-5
    assert 0 < found["float64"] < 1e-9
    assert found["convolutions"] == 0


@divides
def test_statistics_of_each_device(differences: dict[str, dict[str, float]]) -> None:
    """Ghost norm on 8 devices is that of 8 parts on one, and moves no statistics between them.

    LayerNorm has equal parameters and no statistics of a batch, so only gradients are added up.
    """
    found = differences["ghost"]
    assert found["float64"] < 1e-9
    assert found["ghost"] == found["layer"] < found["batch"]


@divides
def test_commands_on_several_devices(output: str, differences: dict[str, dict[str, float]]) -> None:
    found = differences["commands"]
    assert found["study"] == 0
    assert 0 < found["train"] < 1e-4
    assert "3 devices train different runs; each has all images, 0 MiB" in output
    assert "8 devices train one run and divide each batch" in output


def test_divided_batches_need_a_tested_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "DIVIDES", (99, 1))
    monkeypatch.setattr(devices, "local_devices", lambda: jax.devices() * 2)
    with pytest.raises(UserError, match=r"--data-parallel needs jax 99.1 or newer; this is \d"):
        devices.data_mesh(2)
