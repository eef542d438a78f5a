"""The files around the package agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest

import cifar_jax
from cifar_jax.main import main

ROOT = Path(__file__).parents[1]
LOCKS = ["locked.lock", "oldest.lock"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def normalised(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement(text: str) -> tuple[str, str]:
    """("name", "1.2") of "name>=1.2,!=1.3"."""
    name, version = text.split(",")[0].split(">=")
    return normalised(name), version


def pins(lock: str) -> dict[str, set[str]]:
    """Name -> versions pinned in a lock; more than one where the Python version decides."""
    found: dict[str, set[str]] = {}
    text = (ROOT / "requirements" / lock).read_text()
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, flags=re.MULTILINE):
        found.setdefault(normalised(name), set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_pins_and_hashes_and_nothing_else(lock: str) -> None:
    """No index address, option, local file or machine path can hide in a line of this form."""
    line = re.compile(
        r"[\w.-]+==[\w.]+( ; [^:/\\]+)? \\" r"|    --hash=sha256:[0-9a-f]{64}( \\)?", re.ASCII
    )
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    assert [text for text in lines if not line.fullmatch(text)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_locked(lock: str) -> None:
    extras = PROJECT["optional-dependencies"]
    assert "cifar_jax[export]" in extras["test"]
    tests = [text for text in extras["test"] if text != "cifar_jax[export]"]
    wanted = {requirement(text)[0] for text in PROJECT["dependencies"] + tests + extras["export"]}
    assert wanted - pins(lock).keys() == set()


def test_development_tools_are_locked() -> None:
    tools = {"mypy", "pre-commit", "ruff"}
    assert tools <= pins("locked.lock").keys()


def test_oldest_lock_is_the_lower_bounds() -> None:
    """So every lower bound that is promised is one that `make test-oldest` runs."""
    locked = pins("oldest.lock")
    promised = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["export"]
    for name, bound in map(requirement, promised):
        release = [int(part) for part in bound.split(".")]
        versions = [[int(part) for part in text.split(".")] for text in locked[name]]
        oldest = min(versions)
        assert oldest[: len(release)] == release, name
        assert not any(oldest[len(release) :]), name


def test_torch_is_not_a_dependency() -> None:
    assert "torch" not in pins("locked.lock")
    assert "torch" not in pins("oldest.lock")


def test_version_has_one_source() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "cifar_jax.__version__"
    }
    assert re.fullmatch(r"\d+\.\d+\.\d+", cifar_jax.__version__)


def test_the_release_has_one_version_and_date() -> None:
    """In the package, in the file for citations and in the changelog."""
    citation = (ROOT / "CITATION.cff").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    (version,) = re.findall(r"^version: (.*)$", citation, flags=re.MULTILINE)
    (day,) = re.findall(r'^date-released: "(.*)"$', citation, flags=re.MULTILINE)
    newest = re.search(r"^## \[(\d.*)\] - (.*)$", changes, flags=re.MULTILINE)
    assert newest is not None
    assert (cifar_jax.__version__, *newest.groups()) == (version, version, day)


def test_package_is_typed() -> None:
    assert (ROOT / "cifar_jax" / "py.typed").is_file()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md", ".ci/run"])
def test_make_targets_that_are_named_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    text = (ROOT / page).read_text()
    named = set(re.findall(r"(?:`|^)make (?:[A-Z]+=\S+ )?([a-z-]+)", text, flags=re.MULTILINE))
    assert named, "the page names no target: the pattern is wrong"
    assert named - targets == set()


def test_init_copies_examples_and_configs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = tmp_path / "new" / "lab"
    assert main(["init", str(lab)]) == 0
    for name, kinds in (("examples", "*.py"), ("examples", "*.ipynb"), ("configs", "*.toml")):
        copied = {path.name: path.read_bytes() for path in (lab / name).glob(kinds)}
        assert copied == {path.name: path.read_bytes() for path in (ROOT / name).glob(kinds)}
        assert copied
    assert {path.name for path in lab.iterdir()} == {"examples", "configs"}
    assert "study examples/mish.py" in capsys.readouterr().out


def test_init_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "configs").mkdir()
    assert main(["init", str(tmp_path)]) == 2
    assert "has configs already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["init", str(file)]) == 2
    assert "is a file" in capsys.readouterr().err
    assert file.read_text() == "mine"
