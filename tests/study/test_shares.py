"""Processes with a share each train the study that one process trains."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cifar_jax.main import main

DATA = ["--val-examples", "15", "--batch-size", "20", "--epochs", "1"]


def logits(workdir: Path) -> dict[str, np.ndarray]:
    return {
        str(path.parent.relative_to(workdir)): np.load(path)["logits"]
        for path in workdir.rglob("predictions.npz")
    }


@pytest.mark.usefixtures("cache", "blank_figures", "small_cnn")
def test_two_shares(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = ["study", "--dataset", str(folder), *DATA, "--arms", "batch", "--seeds", "3"]
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    assert main([*study, "--workdir", str(shared), "--share", "1/2"]) == 0
    assert "2 runs left to the other shares" in capsys.readouterr().out
    assert not (shared / "report.html").exists()
    assert main([*study, "--workdir", str(shared), "--share", "0/2"]) == 0
    assert (shared / "report.html").exists()
    assert main([*study, "--workdir", str(alone)]) == 0
    expected, found = logits(alone), logits(shared)
    assert found.keys() == expected.keys()
    assert len(found) == 3
    assert all(np.array_equal(found[run], expected[run]) for run in expected)
    assert main([*study, "--workdir", str(tmp_path / "more"), "--share", "0/4"]) == 2
    assert "--share 0/4: needs at least 4 --seeds" in capsys.readouterr().err


def test_a_slurm_script_passes_each_task_its_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell runs the script with another program in place of Python."""
    words = ["study", "--seeds", "8", "--workdir", str(tmp_path / "s t")]
    assert main([*words, "--slurm", "4"]) == 0
    script = tmp_path / "s t-slurm.sh"
    assert str(script) in capsys.readouterr().out
    text = script.read_text()
    assert "#SBATCH --array=0-3\n" in text
    text = text.replace(sys.executable, "printf '%s\\n'")
    done = subprocess.run(
        ["bash", "-c", text],
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["-m", "cifar_jax.main", *words, "--share", "2/4"]
    assert main(["study", "--slurm", "4"]) == 2
    assert "--slurm: needs --workdir" in capsys.readouterr().err
    assert main(["study", "--share", "4/4"]) == 2
