"""The search for known vulnerabilities, asking a server of advisories on this machine.

It speaks the protocol of osv.dev (https://google.github.io/osv.dev/post-v1-query/).
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KNOWN = ("jinja2", "2.10")
"""What `.ci/advisories` asks for."""


def advisory(name: str) -> dict[str, object]:
    """A made-up one."""
    affected = {"package": {"name": name, "ecosystem": "PyPI"}, "ranges": []}
    return {"id": "PYSEC-0000-1", "summary": "made up", "affected": [affected]}


@contextmanager
def osv(vulnerable: set[tuple[str, str]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Address of a server for which these (name, version) are vulnerable, and its requests.

    A version "*" is any.
    """
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, version = query["package"]["name"], query["version"]
            asked.append((name, version))
            found = {(name, version), (name, "*")} & vulnerable
            answer = json.dumps({"vulns": [advisory(name)]} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    finally:
        server.shutdown()
        server.server_close()


def run(command: list[str], url: str) -> subprocess.CompletedProcess[str]:
    # What `make test ARGS=...` hands down is not meant for the make below.
    inherited = {k: v for k, v in os.environ.items() if k not in ("ARGS", "MAKEFLAGS", "MFLAGS")}
    environment = {**inherited, "OSV_URL": url}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_advisories_are_there() -> None:
    with osv({KNOWN}) as (url, asked):
        assert run([".ci/advisories"], url).returncode == 0
    assert asked == [KNOWN]


def test_a_server_that_knows_no_vulnerability_gives_no_advisories() -> None:
    with osv(set()) as (url, _):
        assert run([".ci/advisories"], url).returncode == 1


def test_a_server_that_is_not_there_gives_no_advisories() -> None:
    with osv(set()) as (url, _):
        pass
    assert run([".ci/advisories"], url).returncode == 1


@pytest.mark.skipif(
    not (ROOT / ".venv-audit" / ".installed").exists(),
    reason="pip-audit is not installed (make audit installs it)",
)
class TestAudit:
    """`make audit`, with pip-audit itself."""

    def test_asks_for_every_dependency_and_passes(self) -> None:
        with osv({KNOWN}) as (url, asked):
            done = run(["make", "audit"], url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {"jax", "flax", "optax", "numpy"} <= {name for name, _ in asked}

    def test_fails_on_a_vulnerable_dependency_and_names_it(self) -> None:
        with osv({KNOWN, ("optax", "*")}) as (url, _):
            done = run(["make", "audit"], url)
        assert done.returncode != 0
        assert "optax" in done.stdout
        assert "PYSEC-0000-1" in done.stdout

    def test_says_so_where_there_are_no_advisories(self) -> None:
        with osv(set()) as (url, asked):
            done = run(["make", "audit"], url)
        assert done.returncode != 0
        assert "no advisories can be had" in done.stderr
        assert asked == [KNOWN]
