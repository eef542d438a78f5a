"""Copy code of the project into the pages: `python docs/snippets.py` rewrites all pages of docs/.

A block whose first line is ```python title="FILE: NAME, NAME" gets the definitions of these names
in that file. So a page shows the code itself. A test finds a page that is out of date.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'^```python title="([\w./]+\.py): ([\w, ]+)"\n(.*?)^```$', re.M | re.S)


def definitions(file: str, names: str) -> str:
    """Return the source of top-level functions, classes or assignments of a file.

    Raises:
        KeyError: the file does not define a name.
    """
    text = (ROOT / file).read_text()
    found = {}
    for node in ast.parse(text).body:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(line.lineno for line in decorators)])
        lines = text.splitlines()[first - 1 : node.end_lineno]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = "\n".join(lines) + "\n"
        elif isinstance(node, ast.Assign):
            found.update(
                {
                    n.id: "\n".join(lines) + "\n"
                    for n in ast.walk(node.targets[0])
                    if isinstance(n, ast.Name)
                }
            )
    return "\n\n".join(found[name] for name in names.split(", "))


def refreshed(page: str) -> str:
    """Return the text of a page with the present code in its blocks."""
    return BLOCK.sub(
        lambda block: (
            f'```python title="{block[1]}: {block[2]}"\n{definitions(block[1], block[2])}```'
        ),
        page,
    )


if __name__ == "__main__":
    for path in sorted((ROOT / "docs").glob("*.md")):
        path.write_text(refreshed(path.read_text()))
