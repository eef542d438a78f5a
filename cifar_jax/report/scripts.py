"""Scripts of a page, and its Content-Security-Policy, which allows these alone."""

import base64
import functools
import hashlib
from pathlib import Path

from markupsafe import Markup

SCRIPTS = ("page.js", "heatmap.js", "network.js", "operators.js", "picture.js", "demo.js")


@functools.cache
def _source(name: str) -> str:
    path = Path(__file__).parent / "templates" / name
    return f"\n{path.read_text(encoding='utf-8')}"


def scripts(*names: str) -> Markup:
    """Return files of `SCRIPTS` as elements of a page."""
    return Markup("\n".join(f"<script>{_source(name)}</script>" for name in names))


@functools.cache
def policy() -> str:
    """Return the Content-Security-Policy of every page.

    The page loads nothing and connects to nothing. Only the scripts of this package run, by their
    SHA-256. Styles and pictures are those in the page.
    """
    digests = (hashlib.sha256(_source(name).encode()).digest() for name in SCRIPTS)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        "default-src 'none'; connect-src 'none'; form-action 'none'; base-uri 'none'; "
        f"img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"
    )
