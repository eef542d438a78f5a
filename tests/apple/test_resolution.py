"""Both extras for Apple silicon can be installed there, by what the package index says.

No Mac is needed: uv resolves for one on any machine.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = str(Path(__file__).parents[2] / "pyproject.toml")
# uv's words if it does not reach the index.
OFFLINE = re.compile("Failed to fetch|error sending request|network was disabled")


def resolve(extra: str) -> dict[str, str]:
    """Return the packages of an extra for a Mac, and their versions."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    target = ["--python-platform", "aarch64-apple-darwin", "--python-version", "3.12"]
    try:
        done = subprocess.run(
            [uv, "pip", "compile", "--no-annotate", *target, "--extra", extra, PROJECT],
            env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"},
            capture_output=True,
            text=True,
            timeout=100,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index does not answer")
    if done.returncode and OFFLINE.search(done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", done.stdout, flags=re.MULTILINE))


def test_jax_mps_comes_with_the_jax_of_its_minor_version() -> None:
    found = resolve("metal")
    minors = {found[name].rsplit(".", 1)[0] for name in ("jax-mps", "jax", "jaxlib")}
    assert len(minors) == 1, found


def test_jax_metal_comes_with_the_last_jax_that_it_loads_with() -> None:
    found = resolve("jax-metal")
    versions = {name: found[name] for name in ("jax-metal", "jax", "jaxlib")}
    assert versions == {"jax-metal": "0.1.1", "jax": "0.5.0", "jaxlib": "0.5.0"}
