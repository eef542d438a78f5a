"""Write the script of a Slurm job array that trains a study."""

import shlex
import sys
from pathlib import Path

from cifar_jax.errors import UserError
from cifar_jax.storage import write_text

NAME = "slurm.sh"

_SCRIPT = """\
#!/bin/bash
# Submit with: sbatch {path}
# Add what your cluster needs, for example: #SBATCH --gres=gpu:1 --time=2:00:00
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --requeue
#SBATCH --output={logs}/slurm-%A-%a.log
# A task that is requeued resumes. The last one to end writes the report.
cd {cwd} || exit 1
exec {command} --share "$SLURM_ARRAY_TASK_ID/{tasks}"
"""


def _without(argv: list[str], *flags: str) -> list[str]:
    """Return the words of a command line without some flags and their values."""
    kept, words = [], iter(argv)
    for word in words:
        if word in flags:
            next(words)
        elif word.partition("=")[0] not in flags:
            kept.append(word)
    return kept


def write_script(argv: list[str], workdir: Path | None, tasks: int) -> Path:
    """Write `slurm.sh` into the directory of a study. Return its path.

    Args:
        argv: words of the command line after `study`.
        workdir: of the study, on a file system that all machines share.
        tasks: of the array. Each trains every `tasks`-th seed.

    Raises:
        UserError: there is no directory, or it is used.
    """
    if workdir is None:
        raise UserError("--slurm: needs --workdir, a directory that all machines share")
    workdir = workdir.absolute()
    kept = _without(argv, "--slurm", "--workdir")
    command = [sys.executable, "-m", "cifar_jax.main", "study", *kept, "--workdir", str(workdir)]
    workdir.parent.mkdir(parents=True, exist_ok=True)
    path = workdir.parent / f"{workdir.name}-{NAME}"
    text = _SCRIPT.format(
        path=shlex.quote(str(path)),
        name=shlex.quote(workdir.name),
        last=tasks - 1,
        logs=shlex.quote(str(workdir.parent)),
        cwd=shlex.quote(str(Path.cwd())),
        command=shlex.join(command),
        tasks=tasks,
    )
    write_text(path, text)
    return path
