"""Write the operations that a checkout of jax-mps implements into operations.json.

    git clone https://github.com/tillahoffmann/jax-mps
    python tests/apple/refresh_operations.py jax-mps

jax-mps registers each operation in C++, as `handlers.insert({"stablehlo.add", ...})`. It runs
CHLO's functions of one argument as composites, from the table `UnaryMlxOps`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(checkout: Path) -> None:
    """Read a checkout and write the list, with version and commit."""
    sources = sorted((checkout / "src/pjrt_plugin/ops").glob("*.cc"))
    text = "\n".join(source.read_text() for source in sources)
    registered = re.findall(r'handlers\.insert\(\s*\{\s*"([a-z]+\.\w+)"', text)
    table = text[text.index("& UnaryMlxOps() {") :]
    unary = re.findall(r'\{"(\w+)", mlx::core::\w+\}', table[: table.index("};")])
    composites = ["chlo.atan2", "chlo.top_k", *(f"chlo.{name}" for name in unary)]
    version = re.search(r'^version = "(.+)"', (checkout / "pyproject.toml").read_text(), re.M)
    commit = subprocess.run(
        ["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert version
    path = HERE / "operations.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found["jax-mps"] = {
        "version": version[1],
        "commit": commit.stdout.strip(),
        "operations": sorted({*registered, *composites}),
    }
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
