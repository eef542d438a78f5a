"""Which files of the project are pages of the site. MkDocs calls this module (see mkdocs.yml).

The site has the project's own paths, so that a link works on the site and beside the files. A
linked program becomes a page that shows it. Other linked files are copied.
"""

import ast
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cifar_jax import _HOMES  # noqa: E402

PATTERNS = ("*.md", "docs/*.md", "docs/assets/*", "configs/README.md", "benchmarks/README.md")
LINK = re.compile(r'(\]\(|src=")([^)\s"#]+)(?=[)\s"#])')
REFERENCE = "docs/reference.md"  # Made here, from the docstrings.
# A browser loads these by itself. Links that a reader must click are not among them.
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)[^>]*\ssrc=["']?(?:https?:)?//[^\s>]*"""
    r"""|<link[^>]*rel=["']?(?:stylesheet|preconnect|preload|icon)[^>]*href=["']?(?:https?:)?//[^>]*"""
    r"""|url\(["']?(?:https?:)?//[^)]*|@import[^;]*//[^;]*"""
)


def targets(page: Path) -> list[str]:
    """Return the files that a page links to, by their paths in the project."""
    named = (match[2] for match in LINK.finditer(page.read_text()) if "://" not in match[2])
    paths = [(page.parent / target).resolve() for target in named]
    return [str(path.relative_to(ROOT)) for path in paths if path.is_file()]


def shown(program: str) -> str:
    """Return a page that shows a program. Its title is the first line of the docstring."""
    text = (ROOT / program).read_text()
    title = (ast.get_docstring(ast.parse(text)) or program).splitlines()[0]
    return f'# {title}\n\n```python title="{program}"\n{text}```\n'


def reference() -> str:
    """Return the page of all public names, in the order of `import cifar_jax as cj`."""
    lines = [
        "# Python",
        "",
        "`import cifar_jax as cj` has these names, and `cj.nn`, which is `jax.nn`.",
        "[As a library](library.md) shows how to use them.",
    ]
    for home in _HOMES.values():
        if home.startswith("cifar_jax."):
            lines += ["", f"::: {home}"]
    return "\n".join(lines) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs/ by those of the whole project that are pages, or linked."""
    pages = sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})
    uris = {str(path.relative_to(ROOT)) for path in pages if path.is_file()}
    linked = {uri for path in pages if path.suffix == ".md" for uri in targets(path)}
    kept = Files([file for file in files if file.src_dir != config.docs_dir])
    for uri in sorted(uris | linked):
        if uri.endswith(".py"):
            made = File.generated(config, uri[:-3] + ".md", content=shown(uri))
        else:
            made = File.generated(config, uri, abs_src_path=str(ROOT / uri))
        kept.append(made)
    kept.append(File.generated(config, REFERENCE, content=reference()))
    return kept


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to programs lead to the pages that show them. Remove links to directories."""
    here = (ROOT / page.file.src_uri).parent

    def changed(link: re.Match[str]) -> str:
        text, target = link.groups()
        if "://" in target or not (here / target).is_dir():
            return f"[{text}]({re.sub(r'[.]py(?=#|$)', '.md', target)})"
        return text

    return re.sub(r"\[([^]]+)\]\(([^)\s]+)\)", changed, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would load anything from elsewhere."""
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css"):
            found = LOADED.search(path.read_text())
            if found:
                raise PluginError(f"{path}: loads {found[0]}")
