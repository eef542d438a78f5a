"""Docstrings, comments, messages and pages use the field's words, not riddles."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Say instead: checkpoint, step, locked, separate process, continue, the others, writes, has, fix.
RIDDLES = re.compile(
    r"\b(behind|apart|held|gone on|go(es)? on with|formulation|the rest|what (it|they) leaves?|"
    r"stands?|at hand|lies?|lay|where there (is|are) none|mend(s|ed)?|whoever|nobody)\b",
    re.IGNORECASE,
)
FILES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/*.py")),
    *sorted(ROOT.glob("configs/*")),
    *sorted(ROOT.glob("benchmarks/*.md")),
    *sorted(ROOT.glob("benchmarks/*.py")),
    *sorted(ROOT.glob("cifar_jax/**/*.py")),
    *sorted(ROOT.glob("examples/*.py")),
    *sorted(ROOT.glob("cifar_jax/report/templates/*")),
]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a document; comments and strings of a program, f-strings included."""
    source = path.read_text()
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.is_file()], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_riddles(path: Path) -> None:
    found = [(line, m[0]) for line, text in texts(path) for m in RIDDLES.finditer(text)]
    assert found == []
