"""`predict`: answers, calibration and verdicts, against the runs' own predictions and NumPy."""

import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import special

import cifar_jax as cj
from cifar_jax.analysis import fitted
from cifar_jax.analysis.calibration import fit_temperature
from cifar_jax.main import main

pytestmark = pytest.mark.usefixtures("cache", "blank_figures")


@pytest.fixture
def study(trained, tmp_path):
    return trained.copy(tmp_path / "study")


def asked(study, *words: object) -> list[str]:
    return ["predict", *map(str, words), "--file", str(study.file)]


def answers(capsys, argv: list[str], status: int = 0) -> dict:
    capsys.readouterr()
    assert main([*argv, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def logits_of(run: Path) -> np.ndarray:
    with np.load(run / "predictions.npz") as found:
        return found["logits"]


def test_a_run_answers_as_it_did_in_its_test(study, capsys):
    run = study.directory / "wide" / "seed3"
    found = answers(capsys, asked(study, study.images / "test", "--run", run, "--top", 2))
    assert found["classes"] == ["left", "right", "top"]
    logits = logits_of(run)
    assert len(found["images"]) == len(logits) == 15
    scaled = special.softmax(logits.astype(float) / found["temperature"], axis=1)
    for picture, row, own in zip(found["images"], scaled, logits, strict=True):
        assert picture["answer"] == found["classes"][row.argmax()]
        np.testing.assert_allclose(picture["probabilities"], row, atol=1e-5)
        assert picture["confidence"] == max(picture["probabilities"])
        assert [of["class"] for of in picture["top"]] == [
            found["classes"][label] for label in np.argsort(-row)[:2]
        ]
        energy = np.log(np.exp(own.astype(float)).sum())
        assert picture["energy"] == pytest.approx(energy, abs=1e-5)
        assert picture["unlike_training"] == (picture["energy"] < found["energy_threshold"])
        assert picture["disagreement_nats"] == pytest.approx(0, abs=1e-9)


def test_the_seeds_of_an_arm_are_an_ensemble(study, capsys):
    argv = asked(study, study.images / "test", "--run", study.directory, "--arm", "narrow")
    found = answers(capsys, argv)
    assert found["seeds"] == [3, 4]
    each = [logits_of(study.directory / "narrow" / f"seed{seed}").astype(float) for seed in (3, 4)]
    mean = np.mean([special.softmax(of, axis=1) for of in each], axis=0)
    power = mean ** (1 / found["temperature"])
    expected = power / power.sum(axis=1, keepdims=True)
    for row, picture in enumerate(found["images"]):
        np.testing.assert_allclose(picture["probabilities"], expected[row], atol=1e-5)
        votes = [found["classes"][of[row].argmax()] for of in each]
        assert picture["answer_of_each_network"] == votes
        assert picture["networks_that_agree"] == votes.count(picture["answer"])
    assert any(picture["disagreement_nats"] > 1e-4 for picture in found["images"])


def test_the_table_names_answers_and_agreement(study, capsys):
    one = study.images / "test" / "top" / "00.png"
    argv = asked(study, one, "--run", study.directory, "--arm", "wide")
    assert main(argv) == 0
    head, row, *notes = capsys.readouterr().out.splitlines()
    assert head.split() == ["image", "answer", "next", "next", "seeds", "that", "agree"]
    assert row.startswith(f"{one}  ")
    assert row.count("%") == 3
    assert " of 2" in row
    assert any("temperature" in line and "27 validation images" in line for line in notes)


def test_the_temperature_and_the_threshold_are_of_the_validation_images():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 41, 5)), rng.integers(0, 5, 41)
    pooled = np.log(np.mean([special.softmax(of, axis=1) for of in logits], axis=0))
    np.testing.assert_allclose(fitted.pool(logits), pooled, atol=1e-12)
    energies = np.mean([np.log(np.exp(of).sum(axis=1)) for of in logits], axis=0)
    own = fitted.energy(logits)
    np.testing.assert_allclose(own, energies, atol=1e-12)
    found = fitted.fit(("a", "b", "c"), logits, labels)
    assert found.temperature == fit_temperature(pooled, labels)
    assert (own >= found.threshold).mean() >= 0.95 > (own > found.threshold).mean()
    one = fitted.fit(("a",), logits[:1], labels)
    assert one.temperature == pytest.approx(fit_temperature(logits[0], labels), rel=1e-4)


def test_the_temperature_of_an_analysis_is_taken(analysed, tmp_path, capsys):
    study = analysed.copy(tmp_path / "study")
    run = study.directory / "narrow" / "seed4"
    picture = study.images / "test" / "left" / "01.png"
    found = answers(capsys, asked(study, picture, "--run", run))
    parts = json.loads((study.directory / "analysis.json").read_text())["parts"]
    (measured,) = (
        of["record"]["temperature"]
        for of in parts["calibration"]["runs"]
        if (of["arm"], of["seed"]) == ("narrow", 4)
    )
    assert (found["temperature"], found["temperature_from"]) == (measured, "analysis.json")
    (run / "predict.json").unlink()
    (study.directory / "analysis.json").unlink()
    again = answers(capsys, asked(study, picture, "--run", run))
    assert again["temperature"] == pytest.approx(measured, rel=1e-4)
    assert again["temperature_from"] == "validation images"


def test_what_was_fitted_is_kept_for_the_same_networks(study, capsys):
    run = study.directory / "wide" / "seed4"
    picture, gone = study.images / "test" / "left" / "01.png", ("--dataset", "no_such_folder")
    lacking = answers(capsys, asked(study, picture, "--run", run, *gone))
    assert lacking["temperature"] is None
    assert lacking["images"][0]["unlike_training"] is None
    assert "not calibrated" in lacking["notes"][0]
    first = answers(capsys, asked(study, picture, "--run", run))
    assert answers(capsys, asked(study, picture, "--run", run, *gone)) == first
    kept = run / "predict.json"
    other = json.loads(kept.read_text())["networks"]
    (run / "checkpoints").rename(run / "old")
    shutil.copytree(study.directory / "wide" / "seed3" / "checkpoints", run / "checkpoints")
    answers(capsys, asked(study, picture, "--run", run))
    assert json.loads(kept.read_text())["networks"] != other
    kept.write_text("{")
    answers(capsys, asked(study, picture, "--run", run))
    assert json.loads(kept.read_text())["images"] == 27


def test_a_photograph_is_turned_cropped_and_resized(study, tmp_path, capsys):
    run, side = study.directory / "wide" / "seed3", Image.Resampling.LANCZOS
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    whole = Image.fromarray(pixels)
    seen = whole.crop((20, 0, 80, 60)).resize((32, 32), side)
    exif = Image.Exif()
    exif[0x0112] = 6  # To show it, turn it clockwise.
    whole.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photo.png", exif=exif)
    seen.save(tmp_path / "seen.png")
    argv = asked(study, tmp_path / "photo.png", tmp_path / "seen.png", "--run", run)
    photo, same = answers(capsys, argv)["images"]
    assert (photo["width"], photo["height"]) == (100, 60)
    assert photo["changes"] == ["cropped", "resized", "turned"]
    np.testing.assert_allclose(photo["probabilities"], same["probabilities"], atol=0.02)


def test_a_broken_file_is_a_line_and_the_others_are_answered(study, tmp_path, capsys, monkeypatch):
    run, good = study.directory / "wide" / "seed3", study.images / "test" / "left" / "01.png"
    broken, empty = tmp_path / "broken.png", tmp_path / "empty"
    broken.write_bytes(good.read_bytes()[:100])
    empty.mkdir()
    piped = SimpleNamespace(buffer=io.BytesIO(good.read_bytes()))
    monkeypatch.setattr(sys, "stdin", piped)
    names = [broken, good, "-", tmp_path / "absent.png", empty]
    found = answers(capsys, asked(study, *names, "--run", run), status=1)["images"]
    assert ["error" in picture for picture in found] == [True, False, False, True, True]
    assert found[1]["probabilities"] == found[2]["probabilities"]
    assert main(asked(study, broken, good, "--run", run)) == 1
    written = capsys.readouterr()
    assert "cannot be read" in written.out.splitlines()[1]
    assert written.err.splitlines()[-1] == "cifar_jax: 1 image could not be read"


def test_a_montage_has_a_cell_for_each_picture(study, tmp_path):
    run, pictures = study.directory / "wide" / "seed3", study.images / "test" / "left"
    path = tmp_path / "answers.png"
    assert main(asked(study, pictures, "--run", run, "--montage", path)) == 0
    assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["https://host/cat.png", "--run", "{study}"], "addresses are not fetched"),
        (["-", "-", "--run", "{study}"], "given twice"),
        (["a.png", "--run", "{study}"], "--arm narrow or wide"),
        (["a.png", "--run", "{study}", "--arm", "deep"], "no such arm; allowed: narrow, wide"),
        (["a.png", "--run", "{study}/wide/seed3", "--arm", "wide"], "which has no arms"),
        (["a.png", "--run", "{study}/none"], "neither a run nor a study"),
        (["a.png", "--run", "{study}", "--arm", "wide", "--montage", "m.jpg"], "end in .png"),
        (["a.png", "--run", "{study}/wide/seed3", "--montage", "no/m.png"], "that exists"),
        (["a.png", "--run", "{study}", "--top", "0"], "--top"),
    ],
)
def test_wrong_input_is_one_line(trained, capsys, flags, said):
    given = [flag.format(study=trained.directory) for flag in flags]
    assert main(asked(trained, *given)) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    assert said in written.err


def test_an_experiment_file_must_be_given(trained, capsys):
    run = trained.directory / "wide" / "seed3"
    assert main(["predict", "a.png", "--run", str(run)]) == 2
    assert "needs the experiment file width.py; give it by --file" in capsys.readouterr().err


def test_from_python(study):
    run = study.directory / "wide" / "seed3"
    predictor = cj.load_predictor(run, file=study.file)
    assert predictor.seeds == (3,)
    paths = sorted((study.images / "test" / "top").iterdir())
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    from_files, from_array = predictor.predict(paths), predictor.predict(pixels)
    np.testing.assert_array_equal(from_files.logits, from_array.logits)
    expected = logits_of(run)[-5:]
    np.testing.assert_allclose(from_array.logits[0], expected, atol=1e-5)
    assert from_array.names == [predictor.classes[label] for label in expected.argmax(axis=1)]
    assert len(predictor.predict(pixels[0])) == len(predictor.predict(str(paths[0]))) == 1
    assert repr(from_array).startswith(f"<5 predictions: {from_array.names[0]} ")
    with pytest.raises(ValueError, match=r"allowed: uint8 \(N, 32, 32, 3\)"):
        predictor.predict(pixels[:, :8])
    with pytest.raises(cj.UserError, match=r"absent\.png: cannot be read"):
        predictor.predict(["absent.png"])
