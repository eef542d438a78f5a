"""`compare`: its table, its numbers, its page."""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import cifar_jax as cj
from cifar_jax.library.comparison import Comparison

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(0, 256, (1100, 8, 8, 3), np.uint8), np.arange(1100) % 3
SMALL = cj.Experiment(cj.CNN(3, "batch", widths=(), hidden=8), batch_size=16, epochs=2)
MISH = dataclasses.replace(SMALL, model=SMALL.model.clone(activation=cj.nn.mish))


@pytest.fixture(scope="module")
def data() -> cj.Images:
    """68 + 12 + 1,020 images of noise: enough that an interval is of the seeds alone."""
    return cj.from_arrays((PIXELS[:80], LABELS[:80]), (PIXELS[80:], LABELS[80:]), val=12)


@pytest.fixture(scope="module")
def arms(data: cj.Images) -> dict[str, cj.Runs]:
    """Three seeds of one arm, and four of the other."""
    return {"relu": cj.run(SMALL, data, range(3)), "mish": cj.run(MISH, data, range(1, 5))}


@pytest.fixture(scope="module")
def comparison(arms: dict[str, cj.Runs]) -> Comparison:
    return cj.compare(arms, labels={"mish": "Mish"})


def test_differences_are_over_pairs_of_seeds(
    arms: dict[str, cj.Runs], comparison: Comparison
) -> None:
    """Against SciPy's paired t interval of the two common seeds."""
    (row,) = comparison.summary["against_first"]
    paired = arms["mish"].test_accuracy[:2] - arms["relu"].test_accuracy[1:]
    wanted = stats.ttest_1samp(paired, 0).confidence_interval(0.95)
    assert row["arms"] == ["relu", "mish"]
    np.testing.assert_allclose(row["differences"], paired, rtol=1e-12)
    np.testing.assert_allclose(row["ci_t"], wanted, rtol=1e-9)


def test_repr_is_a_table(arms: dict[str, cj.Runs], comparison: Comparison) -> None:
    head, relu, mish, note, *notices = repr(comparison).splitlines()
    assert head.split()[:3] == ["n", "mean", "[%]"]
    accuracy = 100 * arms["relu"].test_accuracy
    assert relu.split()[:4] == [
        "relu",
        "3",
        f"{accuracy.mean():.2f}",
        f"{accuracy.std(ddof=1):.2f}",
    ]
    assert mish.split()[:2] == ["Mish", "4"]
    assert re.search(r"[+-]\d+\.\d\d +[+-]\d+\.\d\d to [+-]\d+\.\d\d$", mish)
    assert note.endswith("difference to relu over pairs of seeds.")
    assert notices == [
        "Missing runs, which no number includes: relu seed 3, relu seed 4, Mish seed 0."
    ]


def test_html_and_latex_have_the_same_numbers(comparison: Comparison) -> None:
    html, latex = comparison._repr_html_(), comparison.latex()
    mean = f"{100 * comparison.summary['per_arm']['mish']['test_accuracy']['mean']:.2f}"
    assert html.startswith("<table>")
    assert f"<td>{mean}</td>" in html
    assert f"Mish & $4$ & ${mean}$" in latex


def test_a_frame_needs_pandas(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(cj.UserError, match="needs pandas"):
        comparison.frame()


def test_a_frame_has_a_row_for_each_run(arms: dict[str, cj.Runs], comparison: Comparison) -> None:
    pytest.importorskip("pandas")
    frame = comparison.frame().query("arm == 'relu' and status == 'finished'")
    np.testing.assert_allclose(frame["test_accuracy"], arms["relu"].test_accuracy)


@pytest.mark.usefixtures("blank_figures")
def test_the_page_is_that_of_a_study(comparison: Comparison, tmp_path: Path) -> None:
    page = comparison.report(tmp_path / "new" / "out").read_text()
    out = tmp_path / "new" / "out"
    for name in ("summary.json", "report.md", "runs.csv", "table.tex", "mish/model_card.md"):
        assert (out / name).is_file()
    for part in ("Mish", "arrays-images", "relu seed 3", "activation=mish", "cifar_jax.run"):
        assert part in page
    assert "study.toml" not in page
    assert "checkpoints" not in (out / "mish" / "model_card.md").read_text()
    assert "One image a class" in page
    assert "The images were not found" not in page


def test_the_directory_of_a_study_is_not_overwritten(
    comparison: Comparison, tmp_path: Path
) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(cj.UserError, match="is the directory of a study"):
        comparison.report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_the_control_is_chosen_and_a_diverged_seed_is_said(
    arms: dict[str, cj.Runs], data: cj.Images
) -> None:
    wild = cj.run(SMALL, data, range(3), hyper=cj.Hyper(learning_rate=1e6))
    text = repr(cj.compare({**arms, "wild": wild}, control="mish"))
    assert "difference to mish" in text
    assert "Runs that diverged, which no number includes: wild seed 0, wild seed 1" in text
    with pytest.raises(cj.UserError, match="every run diverged"):
        cj.compare({"wild": wild})


def test_scores_are_compared_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("arm,seed,accuracy\na,0,0.5\na,1,0.6\nb,0,0.6\nb,1,0.8\n")
    found = cj.compare(cj.read_scores(str(path)))
    assert found.summary["against_control"][0]["mean_difference"] == pytest.approx(0.15)
    assert repr(found).splitlines()[2].startswith("b  2  70.00")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "arms: there is none"),
        (["a b"], {}, "arms: 'a b': a name is up to 64 letters, digits and '_'"),
        (["figures"], {}, "none of groups, figures, lock"),
        (["relu"], {"control": "mish"}, "control: 'mish' is not an arm; allowed: relu"),
        (["relu"], {"labels": {"x": "y"}}, "labels: 'x' is not an arm"),
    ],
)
def test_wrong_arms(
    names: list[str], options: dict, message: str, arms: dict[str, cj.Runs]
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        cj.compare(dict.fromkeys(names, arms["relu"]), **options)


def test_arms_need_the_same_images(arms: dict[str, cj.Runs]) -> None:
    other = cj.from_arrays((PIXELS[:90], LABELS[:90]), (PIXELS[80:], LABELS[80:]), val=12)
    runs = cj.run(SMALL, other, range(2))
    with pytest.raises(ValueError, match="must be the same images"):
        cj.compare({"relu": arms["relu"], "other": runs})
