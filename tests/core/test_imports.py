"""People copy `core` into their projects, so it imports only JAX, Flax and optax."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import cifar_jax.core

CORE = Path(cifar_jax.core.__file__).parent
ALLOWED = {"flax", "jax", "optax", *sys.stdlib_module_names}
TEXTBOOK = ("model.py", "norms.py", "inputs.py", "optim.py", "train.py")


def imported(path: Path) -> Iterator[str]:
    """Return the full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_core_imports_jax_flax_optax_and_nothing_of_ours_outside_core() -> None:
    files = sorted(CORE.glob("**/*.py"))
    assert len(files) > 5
    for path in files:
        for module in imported(path):
            is_core = module.startswith("cifar_jax.core.")
            assert is_core or module.partition(".")[0] in ALLOWED, (path.name, module)


def test_train_and_the_cnn_are_read_in_five_files() -> None:
    """Their direct and indirect imports."""
    left, seen = ["train", "model"], set()
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            modules = imported(CORE / f"{name}.py")
            left += [m.split(".")[2] for m in modules if m.startswith("cifar_jax.core.")]
    assert sorted(f"{name}.py" for name in seen) == sorted(TEXTBOOK)
    lines = {name: len((CORE / name).read_text().splitlines()) for name in TEXTBOOK}
    assert sum(lines.values()) < 600, lines
