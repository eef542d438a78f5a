"""Output of a run: bars on a terminal, plain lines elsewhere."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from cifar_jax.runner.console import Display, class_lines, duration, epoch_line
from cifar_jax.runner.results import EpochRow


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_epoch_line():
    row = EpochRow(
        epoch=3,
        train_loss=1.23456,
        train_accuracy=0.5,
        val_loss=1.1,
        val_accuracy=0.612,
        seconds=48.0,
        learning_rate=0.01,
        images_per_second=1041.4,
    )
    assert epoch_line(row, 30, 61) == (
        "epoch  3/30  train loss 1.2346 acc 50.00 %  val loss 1.1000 acc 61.20 %"
        "  lr 0.01  1,041 images/s  ETA 1:01"
    )


def test_banner_and_lines_are_printed_as_they_are():
    stream = io.StringIO()
    display = Display(Console(file=stream, width=60))
    display.banner("This is NOT CIFAR-10 [see the README].")
    display.say("runs/[a] 10 %")
    text = stream.getvalue()
    assert "NOT CIFAR-10 [see the README]" in text
    assert "ATTENTION" in text
    assert "runs/[a] 10 %\n" in text


def test_a_long_banner_is_whole_on_any_console(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    words = [f"word{i}" for i in range(40)]
    Display().banner(" ".join(words))
    lines = capsys.readouterr().out.splitlines()
    assert [w for line in lines for w in line.split() if w.startswith("word")] == words
    assert max(map(len, lines)) == 40


def test_progress_off_a_terminal_is_sparse():
    stream = io.StringIO()
    display = Display(Console(file=stream, width=60))
    for done in range(101):
        display.progress("decoding", done, 100)
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "decoding: 100 of 100"
    assert len(lines) <= 3


def test_progress_on_a_terminal_is_a_bar():
    stream = io.StringIO()
    display = Display(Console(file=stream, width=80, force_terminal=True))
    display.progress("decoding", 1.5, 2)
    display.end_progress()
    assert "1/2" in stream.getvalue()
    display.progress("decoding", 2, 2)
    assert "2/2" in stream.getvalue()


def test_class_names_of_any_script_are_aligned():
    lines = class_lines(["cat", "猫 ねこ"], [0.5, 1.0])
    assert lines == ["  cat       50.00 %", "  猫 ねこ  100.00 %"]
    assert len({cell_len(line) for line in lines}) == 1


def test_of_many_classes_those_at_either_end_are_shown():
    accuracy = [i / 1000 for i in range(1000)]
    accuracy[500] = float("nan")
    lines = class_lines([f"kind {i}" for i in range(1000)], accuracy)
    assert len(lines) == 21
    assert lines[0].split() == ["kind", "999", "99.90", "%"]
    assert "980 classes between" in lines[10]
    assert [line.split()[1] for line in lines[-3:]] == ["1", "0", "500"]
    assert len(class_lines([f"kind {i}" for i in range(40)], accuracy[:40])) == 40


def test_progress_says_when_it_ends():
    stream = io.StringIO()
    display = Display(Console(file=stream, width=60))
    display.progress("analysing", 1.5, 4, left=75.0)
    display.progress("analysing", 4, 4, left=0.0)
    assert stream.getvalue() == "analysing: 1 of 4, ETA 1:15\nanalysing: 4 of 4\n"


def test_a_bar_says_when_it_ends():
    stream = io.StringIO()
    display = Display(Console(file=stream, width=80, force_terminal=True))
    display.progress("analysing", 1, 4, left=75.0)
    display.end_progress()
    assert "ETA 1:15" in stream.getvalue()
