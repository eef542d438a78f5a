"""The commands and numbers of the documents agree with the program and with each other."""

import ast
import dataclasses
import re
import shlex
from pathlib import Path

import flax.linen
import pytest

import cifar_jax
from cifar_jax import configure, flags, parsers
from cifar_jax.config.settings import SECTIONS, FileConfig
from cifar_jax.data.dataset import NAMES
from cifar_jax.study.grid import norm_arms, parse_sweep

ROOT = Path(__file__).parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))
DOCUMENTS = ("README.md", "configs/README.md", "benchmarks/README.md", *PAGES)
PLACEHOLDERS = ("FOLDER", "DIR")
PARSERS = {
    "train": parsers.train_parser,
    "study": parsers.study_parser,
    "report": parsers.report_parser,
    "evaluate": parsers.evaluate_parser,
    "predict": parsers.predict_parser,
    "analyse": parsers.analyse_parser,
    "export": parsers.export_parser,
    "seeds": parsers.seeds_parser,
    "compare": parsers.compare_parser,
    "init": parsers.init_parser,
}


def written(document: str) -> list[str]:
    """Return the commands of a document, in blocks and between backticks, each on one line."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)
    shell = [block for language, block in blocks if language in ("", "sh")]
    lines = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [*lines, *(" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))]


def commands() -> list[str]:
    """Return the arguments of `python -m cifar_jax.main` in documents and examples."""
    found = []
    examples = [path.read_text().splitlines() for path in ROOT.glob("examples/*.py")]
    shown = [line[line.find("python -m") :] for lines in examples for line in lines]
    for lines in (shown, *map(written, DOCUMENTS)):
        for line in lines:
            words = re.match(
                r"(?:python -m cifar_jax\.main\b|(?=(?:study|train|report|seeds) --))(.*)", line
            )
            if words and not re.search(r"\[-|\.\.\.|\|", line):
                found.append(words[1].partition("#")[0].strip())
    return sorted(set(found))


def saved() -> list[str]:
    """Return the study files that a page tells its reader to write."""
    pages = [(ROOT / page).read_text() for page in PAGES]
    return [name for page in pages for name in re.findall(r"Save this as `(.*?)`", page)]


@pytest.mark.parametrize("command", commands())
def test_commands_can_be_parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    name = words.pop(0) if words and not words[0].startswith("-") else "train"
    arguments = PARSERS[name]().parse_args(words)
    if name in ("report", "evaluate", "predict", "analyse", "export", "seeds", "compare", "init"):
        return
    config = configure.parse_config(arguments)
    assert config.data.dataset in (*NAMES, *PLACEHOLDERS)
    if name == "study":
        if arguments.file:
            assert (ROOT / arguments.file).exists() or str(arguments.file) in saved()
            config = dataclasses.replace(config, experiment=FileConfig(file=str(arguments.file)))
        else:
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


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[str]:
    """Return every link and picture within the project, as `page -> target`."""
    found = []
    for page in (*DOCUMENTS, "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text()
        targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
        found += [f"{page} -> {target}" for target in targets if "://" not in target]
    return sorted(set(found))


@pytest.mark.parametrize("link", links())
def test_links_resolve(link: str) -> None:
    page, _, target = link.partition(" -> ")
    path, _, anchor = target.partition("#")
    found = (ROOT / page).parent / path if path else ROOT / page
    assert found.exists()
    assert not anchor or anchor in anchors(found.read_text())


def test_every_page_can_be_reached_from_the_first() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        targets = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text())
        new |= {(page.parent / target).resolve() for target in targets} - reached
    assert [page for page in PAGES if ROOT / page not in reached] == []


def test_every_page_is_in_the_contents_of_the_site() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    assert [page for page in PAGES if f": {page}\n" not in contents] == []


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize(
    ("section", "name"),
    [
        action.dest.split(".")
        for action in parsers.study_parser()._actions
        if "." in action.dest and "--bn" not in action.option_strings
    ],
)
def test_every_setting_is_listed_with_its_default(section: str, name: str) -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    flag = re.escape(flags.flag_of(section, name))
    rows = re.findall(rf"^\| `{flag}`(?:, `[^`]+`)? \| ([^|]*) \|", text, flags=re.M)
    default = getattr(SECTIONS[section](), name)
    said = {True: "on", False: "off"}.get(default) if isinstance(default, bool) else str(default)
    assert any(default is None or re.match(rf"`?{re.escape(said)}`?(,|$)", row) for row in rows)


@pytest.mark.parametrize("command", PARSERS)
def test_every_flag_is_listed(command: str) -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    flags = {flag for action in PARSERS[command]()._actions for flag in action.option_strings}
    assert [flag for flag in flags - {"-h", "--help"} if f"`{flag}`" not in text] == []


def number(document: str, pattern: str) -> str:
    found = re.search(pattern, " ".join((ROOT / document).read_text().split()))
    assert found, f"{document}: {pattern}"
    return found[1]


@pytest.mark.parametrize(
    "said",
    [
        [
            ("README.md", r"shortened: about (\d+) minutes on 2 CPU cores"),
            ("Makefile", r"shortened: about (\d+) minutes on 2 CPU cores"),
            ("configs/README.md", r"`make run` \| about (\d+) min"),
        ],
        [
            ("README.md", r"about (\d+) MB to download"),
            ("docs/devices.md", r"about (\d+) MB to download"),
            ("Makefile", r"\((\d+) MB to download"),
        ],
        [
            ("docs/batchnorm.md", r"training time, 30 epochs, 2 CPU cores \| (\d+ min \d+ s)"),
            ("configs/README.md", r"\((\d+ min \d+ s) without BatchNorm"),
        ],
        [
            ("docs/batchnorm.md", r"one seed \(42\), JPEG images \| ([\d.]+ %)"),
            ("docs/devices.md", r"\| baseline \| [\d.]+ % \| ([\d.]+ %)"),
            ("configs/README.md", r"one seed\)\[\^one\] ([\d.]+ %) without"),
        ],
        [
            ("README.md", r"by (\+[\d.]+ points, 95 % interval [\d.]+ to [\d.]+)"),
            ("docs/batchnorm.md", r"by (\+[\d.]+ points, 95 % interval [\d.]+ to [\d.]+)"),
        ],
        [
            ("README.md", r"by (\+[\d.]+ points), 95 %"),
            ("configs/README.md", r"with BatchNorm: (\+2[\d.]+ points) \(95 %"),
        ],
        [
            ("README.md", r"train (1[\d.]+) to"),
            ("docs/devices.md", r"\| ratio \| [\d.]+ \| ([\d.]+) \|"),
            ("benchmarks/README.md", r"\| epoch \(.*?\| ([\d.]+) \| \| step"),
        ],
        [
            ("README.md", r"train [\d.]+ to ([\d.]+) times"),
            ("docs/devices.md", r"\| ratio \| ([\d.]+) \|"),
            ("benchmarks/README.md", r"\| epoch \([^|]*\|[^|]*\|[^|]*\| ([\d.]+) \|"),
        ],
        [
            ("README.md", r"BatchNorm network trains ([\d,]+) images/s"),
            ("docs/devices.md", r"BatchNorm run trains ([\d,]+) images/s"),
            ("benchmarks/README.md", r"images/s \| \|---\|---\| \| epoch \| ([\d,]+) \|"),
        ],
        [
            ("docs/kernels.md", r"(convolution, ReLU, pooling 1 \|.*?3\.29)"),
            ("benchmarks/README.md", r"(convolution, ReLU, pooling 1 \|.*?3\.29)"),
        ],
        [
            ("docs/kernels.md", r"XLA's convolution, grouped \| ([\d.]+)"),
            ("benchmarks/README.md", r"several runs \|[^|]*\|[^|]*\|[^|]*\| ([\d.]+)"),
        ],
        [
            ("docs/kernels.md", r"im2col \(patches\) \| ([\d.]+)"),
            ("benchmarks/README.md", r"\(im2col\) \|[^|]*\|[^|]*\|[^|]*\| ([\d.]+)"),
        ],
        [
            ("docs/kernels.md", r"(?<!pooling 1 )\| blocks \| ([\d.]+)"),
            ("benchmarks/README.md", r"2x2 outputs \|[^|]*\|[^|]*\|[^|]*\| \*\*([\d.]+)"),
        ],
        [
            ("README.md", r"on these images in (\d+ %) or more"),
            ("docs/statistics.md", r"on these images in (\d+ %) or more"),
            ("docs/statistics-simulations.md", r"on these images in (\d+ %) or more"),
        ],
    ],
)
def test_numbers_agree(said: list[tuple[str, str]]) -> None:
    assert len({number(document, pattern) for document, pattern in said}) == 1


# Smaller below; and those that need trained networks, which tests/export and tests/analysis have.
OTHERWISE = ("docs/code.md", "docs/export.md", "docs/predict.md")


@pytest.mark.parametrize("page", [page for page in DOCUMENTS if page not in OTHERWISE])
def test_python_blocks_run(page: str) -> None:
    """Doctests and copied code have tests of their own."""
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S):
        if ">>> " not in block:
            exec(block, {"cj": cifar_jax, "nn": flax.linen})


@pytest.mark.usefixtures("cache")
def test_the_python_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer images and seeds, and a smaller network."""
    (block,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/code.md").read_text(), re.M | re.S
    )
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


@pytest.mark.parametrize("page", ["README.md", "docs/studies.md"])
def test_the_study_that_is_shown_is_an_example(page: str) -> None:
    block, *_ = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    shown, written = (
        [ast.dump(node) for node in ast.parse(text).body[1:]]
        for text in (block, (ROOT / "examples" / "mish.py").read_text())
    )
    assert shown == written
