"""The commands and numbers of the documents agree with the program and with each other."""

import re
import shlex
from pathlib import Path

import pytest

from cifar_jax import main, parsers
from cifar_jax.data.dataset import NAMES
from cifar_jax.study.grid import norm_arms, parse_sweep

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "configs/README.md", "benchmarks/README.md")
PLACEHOLDERS = ("FOLDER", "DIR")
PARSERS = {
    "train": parsers.train_parser,
    "study": parsers.study_parser,
    "report": parsers.report_parser,
    "evaluate": parsers.evaluate_parser,
    "seeds": parsers.seeds_parser,
}


def written(document: str) -> list[str]:
    """Return the commands of a document, in blocks and between backticks, each on one line."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [*lines, *(" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))]


def commands() -> list[str]:
    """Return the arguments of `python -m cifar_jax.main` in all documents, without the synopsis."""
    found = []
    for document in DOCUMENTS:
        for line in written(document):
            words = re.match(
                r"(?:python -m cifar_jax\.main\b|(?=(?:study|train|report) --))(.*)", line
            )
            if words and not re.search(r"\[-|\.\.\.|\|", line):
                found.append(words[1].partition("#")[0].strip())
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_commands_can_be_parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    name = words.pop(0) if words and not words[0].startswith("-") else "train"
    arguments = PARSERS[name]().parse_args(words)
    if name in ("report", "evaluate", "seeds"):
        return
    config = main.parse_config(arguments)
    assert config.data.dataset in (*NAMES, *PLACEHOLDERS)
    if name == "study":
        assert norm_arms(config)
        parse_sweep(config)


def test_the_commands_are_found() -> None:
    found = commands()
    assert len(found) > 25
    assert "--dataset FOLDER" in found
    assert "study --seeds 10 --epochs 5 --workdir runs/short" in found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_datasets_that_are_named_can_be_read(document: str) -> None:
    text = " ".join((ROOT / document).read_text().split())
    named = set(re.findall(r"--dataset ([\w./-]+)", text))
    assert named <= {*NAMES, *PLACEHOLDERS, "NAME"}


def test_every_config_is_listed_with_its_cost() -> None:
    text = (ROOT / "configs" / "README.md").read_text()
    rows = re.findall(r"^\| `(\w[\w-]*\.toml)` \|.*\| ([^|]+) \| [^|]+ \|$", text, flags=re.M)
    assert {name for name, _ in rows} == {path.name for path in (ROOT / "configs").glob("*.toml")}
    assert all(re.search(r"\d+ (?:min|h)\b", cost) for _, cost in rows)


def number(document: str, pattern: str) -> str:
    found = re.search(pattern, " ".join((ROOT / document).read_text().split()))
    assert found, f"{document}: {pattern}"
    return found[1]


@pytest.mark.parametrize(
    "said",
    [
        [
            ("README.md", r"takes about (\d+) minutes on 2 CPU cores"),
            ("Makefile", r"about (\d+) minutes on 2 CPU cores"),
            ("configs/README.md", r"`make run` \| about (\d+) min"),
        ],
        [("README.md", r"about (\d+) MB to download"), ("Makefile", r"\((\d+) MB to download")],
        [
            ("README.md", r"training time, 30 epochs, 2 CPU cores \| (\d+ min \d+ s)"),
            ("configs/README.md", r"\((\d+ min \d+ s) without BatchNorm"),
        ],
        [
            ("README.md", r"one seed \(42\), JPEG images \| ([\d.]+ %)"),
            ("configs/README.md", r"one seed\)\[\^one\] ([\d.]+ %) without"),
        ],
        [
            ("README.md", r"the gain is (\+[\d.]+ points)"),
            ("configs/README.md", r"with BatchNorm: (\+3[\d.]+ points) \(95 %"),
        ],
    ],
)
def test_numbers_agree(said: list[tuple[str, str]]) -> None:
    assert len({number(document, pattern) for document, pattern in said}) == 1


def test_the_python_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer images and seeds, and a smaller network."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    for written, small in (
        ("arange(3)", "arange(2)"),
        (":2000", ":256"),
        ("2000:3000", "2000:2050"),
        ('norm="batch"', 'norm="batch", widths=(4,), hidden=8'),
    ):
        assert written in block
        block = block.replace(written, small)
    exec(block, {})
    assert len(capsys.readouterr().out.splitlines()) == 2
