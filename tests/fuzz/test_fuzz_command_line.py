"""Any command line is accepted, or is an error of one line that names the cause."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz, harmless, run, texts
from hypothesis import event
from hypothesis import strategies as st

from cifar_jax import flags
from cifar_jax.config.settings import SECTIONS, WITHOUT_FLAGS
from cifar_jax.config.tables import field_type
from cifar_jax.device import DEVICES

pytestmark = pytest.mark.usefixtures("place")


FLAGGED = {name: kind for name, kind in SECTIONS.items() if name not in WITHOUT_FLAGS}


def _numbers(kind: type, meta: Any) -> tuple[Any, Any]:
    """Strategies for numbers within the limits of a field, and beyond them."""
    low, high = meta["low"], meta["high"]
    if kind is int:
        good = st.integers(int(low), min(int(high or 2**40), 2**40))
        bad = st.integers(max_value=int(low) - 1)
        if high is not None:
            bad |= st.integers(min_value=int(high) + 1)
        return good.map(str), bad.map(str) | st.sampled_from(
            ["1.5", "ten", "", "1e3", "nan", "0x1"]
        )
    good = st.floats(
        low, high or 1e300, exclude_min=meta["low_open"], exclude_max=meta["high_open"]
    )
    bad = st.floats(max_value=low, exclude_max=not meta["low_open"])
    bad |= st.floats(min_value=high, exclude_min=not meta["high_open"])
    bad |= st.floats(width=16).filter(lambda x: x != x)
    return good.map(repr), bad.map(repr) | st.sampled_from(["1,5", "", "1e400", "-inf", "0x1p3"])


def _fields() -> dict[str, tuple[Any, Any]]:
    """Good and bad texts of every flag that takes one."""
    found = {}
    for section, kind in FLAGGED.items():
        for field in dataclasses.fields(kind):
            plain, _ = field_type(kind, field.name)
            if plain is bool:
                continue
            choices = field.metadata["choices"]
            if choices:
                texts_of = st.sampled_from(choices), texts.filter(lambda t, c=choices: t not in c)
            elif plain is str:
                names = st.text("abcXYZ019._-/é ", min_size=1, max_size=30)
                texts_of = (
                    names,
                    st.sampled_from(["", "\0", "a\nb", "\x1b[0m", "\udc80", "x" * 1001]),
                )
            else:
                texts_of = _numbers(plain, field.metadata)
            found[flags.flag_of(section, field.name)] = texts_of
    # With the study's seeds counted up from it, none is beyond 2**32 - 1.
    found["--seed"] = st.integers(0, 2**31).map(str), found["--seed"][1]
    # What a study checks itself.
    norms = st.sampled_from(["none", "batch", "none,batch", " batch , none "])
    found["--arms"] = norms, st.sampled_from([",", "none,none", "batchnorm", "none,", "none;batch"])
    sweeps = st.sampled_from(["dropout=0.1,0.5", "learning_rate = 0.1", "training.epochs=1,2"])
    found["--sweep"] = sweeps, st.sampled_from(["dropout", "seed=1", "lr=0.1", "dropout=0.1,2"])
    together = st.sampled_from(["auto", "1", "7", "1000"])
    found["--seed-parallelism"] = (
        together,
        st.sampled_from(["0", "-1", "many", "²", "1001", "9" * 999]),
    )
    # What only goes together with other settings, see _NEEDS, or within their limits.
    epochs = st.sampled_from(["1", "82,123", "0.5+2"])
    found["--milestones"] = epochs, st.sampled_from(["2,1", "1,1", "0", "x", "nan", "1,", "", "-1"])
    shares = st.floats(0.0, 0.9).map(repr)
    found["--warmup-epochs"] = shares, found["--warmup-epochs"][1]
    found["--momentum"] = st.floats(1e-3, 0.99).map(repr), found["--momentum"][1]
    low, high = st.floats(0.01, 0.4).map(repr), st.floats(0.4, 1.0).map(repr)
    found["--erasing-area-low"] = low, found["--erasing-area-low"][1]
    found["--erasing-area-high"] = high, found["--erasing-area-high"][1]
    schedules = st.sampled_from(["step", "constant", "cosine", "onecycle"])
    found["--schedule"] = schedules, found["--schedule"][1]
    found["--device"] = st.sampled_from(DEVICES), texts.filter(lambda t: t not in DEVICES)
    found["--workdir"] = st.sampled_from(["new", "new/er", "./x y"]), _BAD_PATHS
    return found


_NEEDS = {
    "--milestones": "--schedule=multistep",
    "--final-fraction": "--schedule=cosine",
    "--erasing-area-low": "--random-erasing=0.5",
    "--erasing-area-high": "--random-erasing=0.5",
    "--erasing-ratio": "--random-erasing=0.5",
}

# By one of the sweeps, or not together with one.
_SWEPT = ("--dropout", "--lr", "--epochs", "--half-width")

_BAD_PATHS = st.sampled_from(
    ["", "\0", "a\nb", "\udcff", "x" * 300, "x" * 5000, "file", "file/x", "loop"]
)
_FIELDS = _fields()
_STUDY_ONLY = tuple(flags.flag_of("study", f.name) for f in dataclasses.fields(SECTIONS["study"]))


@st.composite
def command_lines(draw: Any) -> tuple[list[str], list[str]]:
    """Arguments, and the flags among them that are bad."""
    command = draw(st.sampled_from(["train", "study", None]))
    names = [f for f in _FIELDS if command == "study" or f not in _STUDY_ONLY]
    chosen = draw(st.lists(st.sampled_from(names), max_size=5, unique=True))
    if "--seed-parallelism" in chosen and "--pipeline" in chosen:
        chosen.remove("--pipeline")  # stream and several seeds exclude each other
    if "--milestones" in chosen and "--final-fraction" in chosen:
        chosen.remove("--final-fraction")  # each needs a schedule of its own
    if "--seeds" in chosen and "--half-width" in chosen:
        chosen.remove("--half-width")  # needs two seeds
    if command == "study":  # A study varies the norm, so the flag is an error.
        chosen = [flag for flag in chosen if flag != "--norm"]
    if "--sweep" in chosen:
        chosen = [flag for flag in chosen if flag not in _SWEPT]
    needed = list(dict.fromkeys(_NEEDS[flag] for flag in chosen if flag in _NEEDS))
    chosen = [flag for flag in chosen if not any(need.startswith(flag) for need in needed)]
    culprits = draw(st.lists(st.sampled_from(chosen), max_size=2, unique=True)) if chosen else []
    argv = [*([command] if command else []), *needed]
    for flag in chosen:
        good, bad = _FIELDS[flag]
        text = draw(bad if flag in culprits else good)
        if draw(st.booleans()) and not text.startswith("--"):
            argv += [flag, text]
        else:
            argv.append(f"{flag}={text}")
    switches = st.sampled_from(["--augment", "--no-augment", "--resize"])
    argv += draw(st.lists(switches, unique_by=lambda switch: switch.replace("no-", "")))
    return argv, culprits


@pytest.fixture(scope="module", autouse=True)
def in_the_way(place: Path) -> None:
    """A file, and a link to itself, instead of a directory."""
    (place / "file").write_text("x")
    (place / "loop").symlink_to("loop")


def each_flag(place: Path, line: tuple[list[str], list[str]]) -> None:
    argv, culprits = line
    status, said = run(argv, place)
    event("refused" if culprits else "accepted")
    assert status == (2 if culprits else 0), said
    if culprits:
        assert any(flag in said for flag in culprits), said


def any_words(place: Path, words: list[str]) -> None:
    status, _ = run(words, place)
    event(f"status {status}")


_WORDS = st.one_of(
    texts,
    st.sampled_from(
        [*_FIELDS, "--config", "--checkpoint", "--bn", "--resume", "--help", "-h", "--version"]
    ),
    st.sampled_from(["train", "study", "report", "evaluate", "file", "loop", "none", "0", "7"]),
    st.builds("{}={}".format, st.sampled_from(list(_FIELDS)), texts),
)

test_each_flag, test_each_flag_long = fuzz(each_flag, quick=60, long=3000, line=command_lines())
test_any_words, test_any_words_long = fuzz(
    any_words, quick=40, long=1500, words=st.lists(_WORDS, max_size=6)
)


def shown_text(text: str) -> None:
    """`printable` and `shown` keep their promises for any text."""
    from cifar_jax.errors import UserError, printable, shown

    assert harmless(printable(text))
    assert harmless(str(UserError(f"{text}: is wrong")))
    assert len(shown(text)) < 100
    if text.isprintable():
        assert printable(text) == text


test_shown_text, test_shown_text_long = fuzz(shown_text, quick=40, long=500, text=texts)
