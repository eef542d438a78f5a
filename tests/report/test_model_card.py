"""Model cards: filled from results, whatever the results are."""

import re

import numpy as np
import pytest
from fake_study import CLASSES, write_study

from cifar_jax.report.model_card import OTHER_CLASSES, confusions, write_model_card
from cifar_jax.report.section import Analysed
from cifar_jax.study.collect import read_study
from cifar_jax.study.summary import summarise

SECTIONS = (
    "Model details",
    "Intended use",
    "Out-of-scope use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
)


def card(workdir, arm="batch", **options):
    write_study(workdir, **options)
    study = read_study(workdir)
    path = write_model_card(study, summarise(study), arm)
    assert path == workdir / arm / "model_card.md"
    return study, path.read_text(encoding="utf-8")


def test_card_has_every_section_and_the_results(tmp_path):
    study, text = card(tmp_path)
    assert tuple(re.findall(r"^## (.*)$", text, flags=re.MULTILINE)) == SECTIONS
    runs = study.runs["batch"]
    accuracy = 100 * np.array([run.results.test_accuracy for run in runs])
    assert f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f} %" in text
    for name in CLASSES:
        values = [100 * run.results.per_class_accuracy[name] for run in runs]
        row = re.search(rf"^\| accuracy, class {name} \| (\S+) ± \S+ % \| (.*) \|$", text, re.M)
        assert row
        assert float(row[1]) == pytest.approx(np.mean(values), abs=0.051)
        low, high = map(float, re.findall(r"[-\d.]+", row[2]))
        assert low <= np.mean(values) <= high
    assert "621,322 trainable parameters" in text
    assert "Seeds: 42, 43, 44." in text
    assert study.dataset.fingerprint in text
    assert "80 Million Tiny Images" in text
    assert not re.search(r"{{|{%|None|Undefined", text)


def test_card_says_what_training_cost_and_what_was_not_measured(tmp_path):
    study, text = card(tmp_path)
    seconds = round(sum(run.results.train_seconds for run in study.runs["batch"]))
    minutes = f"{seconds // 60}:{seconds % 60:02d}"
    assert f"3 runs trained for {minutes} (h:mm:ss) in all, without compilation, on cpu:" in text
    assert "Energy was not measured." in text
    assert "- Not measured: robustness to noise, blur and other corruptions, adversarial" in text
    analysed = Analysed((), {"batch": ["Worst class: cat."]}, frozenset({OTHER_CLASSES}))
    path = write_model_card(study, summarise(study), "batch", analysed)
    text = path.read_text(encoding="utf-8")
    assert "Measured by `analyse`:\n\n- Worst class: cat.\n" in text
    assert OTHER_CLASSES not in text


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("synthetic", "not trained on CIFAR-10", "80 Million"),
        ("folder-x", "source and licence are unknown", "80 Million"),
    ],
)
def test_provenance_is_that_of_the_dataset(name, there, absent, tmp_path):
    _, text = card(tmp_path, name=name, epochs=1)
    assert there in text
    assert absent not in text
    assert "Schedule: 1 epoch, " in text


def test_one_seed_has_no_interval(tmp_path):
    _, text = card(tmp_path, seeds=(1,), epochs=1)
    assert "no interval over seeds can be given" in text
    assert "±" not in text.split("## Quantitative analyses")[1].replace("mean ± standard", "")


def test_class_names_cannot_break_the_card(tmp_path):
    _, text = card(tmp_path, classes=("<script>x</script>", "a|b", "c"), epochs=1)
    assert "<script" not in text.replace("\\<", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_confusions_are_sorted_shares_of_the_true_class(tmp_path):
    study, _ = card(tmp_path, epochs=1)
    runs = study.runs["batch"]
    lines = confusions(runs, list(CLASSES))
    shares = []
    for line in lines:
        true, predicted, share = re.fullmatch(r"(\w+) taken for (\w+): (\S+) %", line).groups()
        t, p = CLASSES.index(true), CLASSES.index(predicted)
        expected = np.mean([np.mean(run.predicted[run.label == t] == p) for run in runs])
        assert float(share) == pytest.approx(100 * expected, abs=0.051)
        assert t != p
        shares.append(expected)
    assert len(lines) == 5
    assert shares == sorted(shares, reverse=True)
