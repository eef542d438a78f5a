"""Environment variables: results are independent of them or record them; no tracebacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cifar_jax import variables
from cifar_jax.errors import UserError
from cifar_jax.main import main

WRONG = {
    "JAX_DEBUG_NANS": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "nonsense",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_DISABLE_JIT": "1",
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_TRANSFER_GUARD": "disallow",
}
START = """
import json
from cifar_jax import libraries
unused = libraries.start()
import jax, matplotlib
from cifar_jax.report import figures
settings = {name: getattr(jax.config, name, None) for name in json.loads(input())}
print(json.dumps([unused, settings, jax.numpy.zeros(1).dtype.name]))
"""


def test_variables_that_change_results_have_jaxs_default_in_any_shell() -> None:
    """And Matplotlib starts with the backend that Jupyter sets for its children."""
    jupyter = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    names = [name.lower() for name in WRONG]
    done = subprocess.run(
        [sys.executable, "-c", START],
        input=json.dumps(names),
        env={**os.environ, **WRONG, **jupyter},
        capture_output=True,
        text=True,
        check=True,
    )
    unused, settings, dtype = json.loads(done.stdout)
    assert unused == [f"{name}={value}" for name, value in WRONG.items()]
    assert settings == {name: getattr(jax.config, name, None) for name in names}
    assert dtype == "float32"
    assert done.stderr == ""


def test_a_removed_variable_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    assert main(["report", "--workdir", str(tmp_path)]) == 2
    warning = "cifar_jax: warning: ignored, so that results do not depend on it: JAX_ENABLE_X64=1\n"
    assert capsys.readouterr().err.startswith(warning)
    assert "JAX_ENABLE_X64" not in os.environ


@pytest.mark.parametrize(
    ("name", "value"),
    [("JAX_ENABLE_X64", "false"), ("JAX_THREEFRY_PARTITIONABLE", "1"), ("JAX_DEBUG_NANS", "")],
)
def test_jaxs_default_is_not_reported(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert variables.drop_fixed() == []


def test_a_wrong_value_of_another_variable_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jax.py").write_text("raise ValueError('invalid truth value')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("JAX_LOG_COMPILES", "maybe")
    with pytest.raises(UserError, match=r"truth value.*unset.* JAX_LOG_COMPILES='maybe'"):
        variables.import_jax()


@pytest.mark.parametrize(
    ("platform", "shell", "found"),
    [
        ("cpu", {"XLA_FLAGS": "--xla_dump_to=/x --xla_gpu_deterministic_ops=true"}, {}),
        ("cpu", {"XLA_FLAGS": "--b=1 --a --b=2"}, {"XLA_FLAGS": "--a --b=2"}),
        ("cpu", {"JAX_PLATFORMS": "cpu", "JAX_LOG_COMPILES": "1", "JAXTYPING_DISABLE": "1"}, {}),
        ("cpu", {"JAX_COMPILATION_CACHE_DIR": "/x", "JAX_CUDA_VISIBLE_DEVICES": "0"}, {}),
        ("cpu", {"JAX_NUM_CPU_DEVICES": "2"}, {"JAX_NUM_CPU_DEVICES": "2"}),
        ("cpu", {"JAX_NEW_IN_2030": "a\nb"}, {"JAX_NEW_IN_2030": "a\\nb"}),
        ("cpu", {"NVIDIA_TF32_OVERRIDE": "1", "LIBTPU_INIT_ARGS": "--x"}, {}),
        ("gpu", {"NVIDIA_TF32_OVERRIDE": "1"}, {"NVIDIA_TF32_OVERRIDE": "1"}),
        ("tpu", {"LIBTPU_INIT_ARGS": "--x"}, {"LIBTPU_INIT_ARGS": "--x"}),
    ],
)
def test_variables_that_can_change_the_numbers_are_recorded(
    platform: str, shell: dict[str, str], found: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("JAX_", "XLA_FLAGS"))]:
        monkeypatch.delenv(name)
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    assert variables.recorded(platform) == found


def test_flags_in_a_file_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flags").write_text("--xla_cpu_enable_fast_math=true\n--xla_dump_to=x\n")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    assert variables.recorded("cpu")["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "none"))
    assert "XLA_FLAGS" not in variables.recorded("cpu")


def test_a_long_value_fits_a_checkpoints_record_and_keeps_its_identity() -> None:
    texts = {variables.in_words({"XLA_FLAGS": "--x" * 900 + end}) for end in "ab"}
    assert len(texts) == 2
    assert all(len(text) < 300 for text in texts)
