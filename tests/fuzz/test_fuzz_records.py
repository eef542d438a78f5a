"""Any study, run or checkpoint that others wrote is read, or refused in one line."""

import functools
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from fake_study import history, write_study
from fuzzing import damaged, edits, fuzz, harmless, run, texts
from hypothesis import event
from hypothesis import strategies as st
from msgspec import structs
from rich.console import Console

from cifar_jax.config import tables
from cifar_jax.config.settings import Config
from cifar_jax.core.model import CNN
from cifar_jax.core.train import Experiment, TrainState, init_state
from cifar_jax.errors import UserError
from cifar_jax.report import page
from cifar_jax.report.model_card import write_model_card
from cifar_jax.report.scripts import scripts
from cifar_jax.runner.checkpoint import FORMAT, Checkpoints
from cifar_jax.runner.checkpoint_files import Position, seal
from cifar_jax.runner.console import Display
from cifar_jax.runner.programs import stack_runs
from cifar_jax.runner.results import Damaged
from cifar_jax.study import collect
from cifar_jax.study.summary import summarise

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def study(place: Path) -> Iterator[Path]:
    """A study of two arms and two seeds, two epochs, three classes; reports without figures."""
    workdir = place / "study"
    options = {"classes": CLASSES, "n_train": 60, "n_test": 30, "epochs": 2, "seeds": (1, 2)}
    write_study(workdir, name="folder-x", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "study_figures", lambda *_: [])
        yield workdir


class _Tags(HTMLParser):
    """The names of all tags and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attributes)}


def _redraw(study: Path) -> None:
    """`report` without its images; what it writes is harmless."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifar_jax.runner.moved.open_dataset", _no_images)
        status, said = run(["report", "--workdir", str(study)], study)
    event(f"status {status}")
    if status:
        assert str(study) in said
        return
    html = (study / "report.html").read_text(encoding="utf-8")
    tags = _Tags(html.replace(str(scripts("page.js")), "")).found
    assert not {t for t in tags if t in ("script", "iframe", "img") or t.startswith("on")}
    for written in (*study.glob("*.html"), *study.rglob("*.md")):
        for line in written.read_text(encoding="utf-8").split("\n"):
            assert harmless(line), line
    for made in ("figures", "report.html", "report.md", "summary.json"):
        path = study / made
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for card in study.rglob("model_card.md"):
        card.unlink()


def _no_images(*_: object) -> None:
    raise UserError("the images are elsewhere")


def _made_up(name: str) -> Any:
    """One JSON file of the study, without a directory to read it from."""
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        options = {"classes": CLASSES, "n_train": 60, "n_test": 30, "epochs": 2, "seeds": (1, 2)}
        write_study(Path(root) / "s", name="folder-x", **options)
        return json.loads((Path(root) / "s" / name).read_text())


def _with_file(path: Path, content: bytes, study: Path) -> None:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        _redraw(study)
    finally:
        path.write_bytes(before)


def a_plan(study: Path, record: Any) -> None:
    _with_file(study / "study.json", json.dumps(record).encode(), study)


def some_results(study: Path, record: Any) -> None:
    _with_file(study / "none/seed1/results.json", json.dumps(record).encode(), study)


def all_results(study: Path, classes: list[str]) -> None:
    """Class names that every run agrees on, whatever they are."""
    files = sorted(study.glob("*/*/results.json"))
    before = {path: path.read_bytes() for path in files}
    try:
        for path, content in before.items():
            results = json.loads(content)
            results["dataset"]["classes"] = classes
            accuracy = results["per_class_accuracy"].values()
            results["per_class_accuracy"] = dict(zip(classes, accuracy, strict=True))
            path.write_text(json.dumps(results))
        _redraw(study)
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def _of_a_file() -> dict[str, Any]:
    """`study.json` as a study of an experiment file writes it. Its arms have the runs' names."""
    plan: dict[str, Any] = _made_up("study.json")
    settings = {"training.epochs": 2, "training.learning_rate": 0.01}
    return {
        **plan,
        "arms": [
            {"name": name, "label": name.upper(), "settings": {"model.norm": name, **settings}}
            for name in plan["arms"]
        ],
        "title": "Does it help?",
        "control": "none",
        "claims": [
            {"kind": "better", "arm": "batch", "than": "none", "by": 0.5, "text": "it helps"},
            {"kind": "equivalent", "arm": "batch", "than": "none", "within": 1.0},
            {"kind": "gains_most", "arm": "batch", "than": "none", "classes": ["a"]},
            {"kind": "faster", "arm": "batch", "than": "none", "early": 1, "late": 2},
            {"kind": "smoother", "arm": "batch", "than": "none", "curve": "val_loss"},
        ],
        "unshared": {"batch": ["Its batches have 8 instead of 16 images."]},
    }


@st.composite
def plans_of_files(draw: Any) -> Any:
    """Hostile words in each place of a plan that takes words, and other damage."""
    plan = _of_a_file()
    for path in draw(st.lists(st.sampled_from(_WORDS), max_size=3, unique=True)):
        part = functools.reduce(lambda part, key: part[key], path[:-1], plan)
        part[path[-1]] = draw(texts)
    return draw(edits(plan)) if draw(st.booleans()) else plan


_WORDS: list[tuple[Any, ...]] = [
    ("title",),
    ("control",),
    ("arms", 0, "name"),
    ("arms", 1, "label"),
    ("claims", 0, "arm"),
    ("claims", 0, "text"),
    ("claims", 1, "published"),
    ("claims", 2, "name"),
    ("claims", 2, "classes", 0),
    ("unshared", "batch", 0),
    ("arms", 0, "settings", "model.norm"),
    ("arms", 0, "settings", "experiment.arm"),
    ("config", "experiment"),
    ("config", "name"),
]


test_a_plan, test_a_plan_long = fuzz(
    a_plan, quick=12, long=700, record=edits(_made_up("study.json"))
)
test_a_plan_of_a_file, test_a_plan_of_a_file_long = fuzz(
    a_plan, quick=14, long=1000, record=plans_of_files()
)
test_some_results, test_some_results_long = fuzz(
    some_results, quick=16, long=1000, record=edits(_made_up("none/seed1/results.json"))
)
test_all_results, test_all_results_long = fuzz(
    all_results, quick=6, long=300, classes=st.lists(texts, min_size=3, max_size=3, unique=True)
)


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 3)).astype(np.float32)
    label = np.arange(30, dtype=np.int32) % 3
    return {"predicted": logits.argmax(axis=1).astype(np.int32), "label": label, "logits": logits}


@st.composite
def predictions(draw: Any) -> bytes:
    """A damaged file of predictions, or one with arrays of another kind."""
    arrays: dict[str, Any] = _arrays()
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(arrays)))
        kind = draw(st.sampled_from(["f8", "i8", "u1", "U5", "S3", "O", "c8", "?", "M8[s]"]))
        change = draw(st.integers(0, 4))
        array = arrays[name]
        if change == 0:
            array = array.astype(kind)
        elif change == 1:
            array = array[: draw(st.integers(0, 29))]
        elif change == 2:
            array = array * draw(st.sampled_from([-1, 99, 10**6]))
        elif change == 3:
            array = array.reshape(-1, 1, 1)
        else:
            array = array * np.float32("nan")
        arrays[name] = array
        if draw(st.integers(0, 9)) == 0:
            del arrays[name]
    stream = io.BytesIO()
    (np.savez if draw(st.booleans()) else np.savez_compressed)(stream, **arrays)
    content = stream.getvalue()
    return draw(damaged(content)) if draw(st.booleans()) else content


def some_predictions(study: Path, content: bytes) -> None:
    path = study / "none/seed1/predictions.npz"
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        found = collect.read_ended(study / "none/seed1")
        assert found is not None
        logits = found.logits
    except Damaged:
        event("damaged")
        return
    finally:
        path.write_bytes(before)
    event("read")
    assert logits.shape == (30, 3)
    assert found.label.max() < 3
    assert np.isfinite(logits).all()


test_some_predictions, test_some_predictions_long = fuzz(
    some_predictions, quick=60, long=1000, content=predictions()
)


def a_model_card(study: Path, name: str) -> None:
    found = collect.read_study(study)
    data = structs.replace(found.dataset, name=f"folder-{name}", classes=(name, "b", "c"))
    changed = type(found)(**{**vars(found), "dataset": data})
    summary = summarise(found)
    text = write_model_card(changed, summary, "none").read_text(encoding="utf-8")
    assert all(harmless(line) for line in text.split("\n"))
    assert "<script" not in text.replace("\\<", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {4}


def the_terminal(text: str) -> None:
    """Nothing that a name holds reaches a terminal as a command to it."""
    stream = io.StringIO()
    display = Display(Console(file=stream, width=80, highlight=False, soft_wrap=True))
    display.say(text)
    display.banner(text)
    assert all(harmless(line) for line in stream.getvalue().split("\n"))
    if text.isprintable() and text.isascii():
        assert stream.getvalue().startswith(text)


test_a_model_card, test_a_model_card_long = fuzz(a_model_card, quick=15, long=200, name=texts)
test_the_terminal, test_the_terminal_long = fuzz(the_terminal, quick=40, long=500, text=texts)

# --- checkpoints ---------------------------------------------------------------------------------

ARMS = ("none", "batch")


@functools.cache
def _state(norm: str, classes: int, width: int) -> TrainState:
    model = CNN(num_classes=classes, norm=norm, widths=(width,), hidden=8)
    make = jax.jit(lambda key: init_state(Experiment(model), key, (8, 8, 3)))
    return make(jax.random.key(0))


def _record(norm: str) -> dict[str, Any]:
    config = tables.to_dict(Config())
    config["model"] |= {"norm": norm, "num_classes": 3}
    sizes = {"n_train": 60, "n_val": 6, "n_test": 30}
    data = {"name": "folder-x", "fingerprint": "f" * 64, **sizes}
    run = {
        "name": f"x/{norm}",
        "config": config,
        "dataset": {**data, "classes": list(CLASSES), "notes": []},
        "history": history(1, False, 1, 60),
        "compile_seconds": 1.0,
        "computed_on": ["cpu"],
    }
    found: dict[str, Any] = json.loads(json.dumps({"runs": [run]}))
    return found


@pytest.fixture(scope="module")
def checkpoints(place: Path) -> Path:
    """A directory with a checkpoint of a tiny model of each norm, `<norm>/checkpoints/1`."""
    for norm in ARMS:
        opened = Checkpoints(place / norm / "checkpoints")
        opened.save(Position(1), stack_runs([_state(norm, 3, 4)]), _record(norm))
        opened.close()
    return place


def a_record(checkpoints: Path, record: Any) -> None:
    """Another record in a whole checkpoint."""
    checkpoint = checkpoints / "batch/checkpoints/1"
    (path,) = (checkpoint / "record").glob("metadata*")
    before = path.read_bytes()
    path.write_text(json.dumps(record))
    seal(checkpoint)
    try:
        status, said = run(["evaluate", "--checkpoint", "batch"], checkpoints)
    finally:
        path.write_bytes(before)
        seal(checkpoint)
    event(f"status {status}")
    assert not status or "batch/checkpoints" in said


test_a_record, test_a_record_long = fuzz(
    a_record, quick=8, long=300, record=edits({"format": FORMAT, **_record("batch")})
)


def another_model(checkpoints: Path, holds: str, wanted: str, classes: int, width: int) -> None:
    """A checkpoint is restored into its own model only, and the reason names it."""
    opened = Checkpoints(checkpoints / holds / "checkpoints", create=False)
    same = (holds, 3, 4) == (wanted, classes, width)
    event("same" if same else "another")
    try:
        if same:
            state = opened.read_state(_state(wanted, classes, width))
            jax.tree.map(np.testing.assert_array_equal, state.params, _state(holds, 3, 4).params)
            return
        with pytest.raises(UserError, match=f"{holds}/checkpoints") as caught:
            opened.read_state(_state(wanted, classes, width))
        assert harmless(str(caught.value))
    finally:
        opened.close()


test_another_model, test_another_model_long = fuzz(
    another_model,
    quick=4,
    long=100,
    holds=st.sampled_from(ARMS),
    wanted=st.sampled_from(ARMS),
    classes=st.sampled_from([3, 3, 2, 10]),
    width=st.sampled_from([4, 4, 8]),
)
