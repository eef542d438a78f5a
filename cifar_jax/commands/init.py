"""The command `init`: copy the examples and configs that the package brings."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cifar_jax
from cifar_jax.errors import UserError
from cifar_jax.storage import temporary_directory

# In a clone these are links to the project's directories.
FILES = Path(cifar_jax.__file__).with_name("files")
NAMES = ("examples", "configs")
_SUFFIXES = (".py", ".ipynb", ".toml")


def _others(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(_SUFFIXES)]


def init_run(directory: Path, say: Callable[[str], None]) -> None:
    """Copy `examples` and `configs` into a directory, all or nothing, and say what to do next.

    Args:
        directory: made if it is missing.
        say: gets each line.

    Raises:
        UserError: it is a file, or has one of them already.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"init {directory}: is a file; must be a directory")
    for name in NAMES:
        if (directory / name).exists():
            raise UserError(
                f"init {directory}: has {name} already; name another directory, or move it"
            )
    directory.mkdir(parents=True, exist_ok=True)
    with temporary_directory(directory) as made:
        for name in NAMES:
            shutil.copytree(FILES / name, made / name, ignore=_others)
        for name in NAMES:
            (made / name).rename(directory / name)
    say(f"{directory} has {' and '.join(NAMES)} now. For example:")
    say(f"  cd {directory}")
    say("  python -m cifar_jax.main study examples/mish.py --epochs 3 --seeds 3 --workdir runs/try")
