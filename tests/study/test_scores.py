"""Scores of other people: reading their tables, and the statistics of a comparison."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cifar_jax.errors import UserError
from cifar_jax.study.score_files import read_scores
from cifar_jax.study.scores import Scores, compare_scores, notices, table_rows

DATA = Path(__file__).parents[1] / "data" / "scores"
PLAIN = "model,seed,test_accuracy\nrelu,0,0.80\nrelu,1,0.82\nmish,0,0.81\nmish,1,0.85\n"
WANTED = {"relu": {"0": 0.80, "1": 0.82}, "mish": {"0": 0.81, "1": 0.85}}


def read(tmp_path, content, **columns):
    path = tmp_path / "table"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_scores(path, **columns)


JSON_LINES = "".join(
    json.dumps({"config": {"model": arm, "seed": int(seed)}, "summary": {"test_accuracy": value}})
    + "\n"
    for arm, row in WANTED.items()
    for seed, value in row.items()
)
WANDB = (
    '"Name","State","Runtime","config.model","seed","test_accuracy","val_accuracy"\n'
    '"sun-1","finished","10","relu","0.0","0.80","0.7"\n'
    '"sky-2","crashed","3","relu","1.0","","0.3"\n'
    '"sea-3","finished","11","relu","1.0","0.82","0.7"\n'
    '"fog-4","crashed","9","mish","0.0","0.40","0.4"\n'
    '"dew-5","finished","12","mish","0.0","0.81","0.7"\n'
    '"ice-6","finished","12","mish","1.0","0.85","0.7"\n'
)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t") + "\n\n",
        PLAIN.encode("utf-16"),
        PLAIN.replace("relu", '"relu"'),
        JSON_LINES,
        WANDB,
    ],
    ids=["plain", "bom", "semicolon", "tab", "utf-16", "quoted", "json", "wandb"],
)
def test_forms_of_one_table(tmp_path, content):
    scores = read(tmp_path, content)
    assert scores.values == WANTED
    assert scores.unit == "%"


def test_quoted_cells_and_named_columns(tmp_path):
    content = 'run,who,"accuracy, test",acc\n1,"a, b\n",2,0\n2,"c ""d""",3,0\n'
    scores = read(tmp_path, content, arm_column="who", metric="accuracy, test")
    assert scores.values == {"a, b": {"1": 2.0}, 'c "d"': {"2": 3.0}}
    assert "column of the arm: who; of the seed: run" in scores.notes[0]


def test_thousands_of_columns(tmp_path):
    names = [f"hparams/layer_{n}/std" for n in range(5_000)]
    rows = [["model", "seed", "score", *names]]
    rows += [[arm, seed, seed + 1, *[0] * 5_000] for arm in "ab" for seed in (0, 1)]
    content = "\n".join(",".join(map(str, row)) for row in rows)
    assert read(tmp_path, content).values == {arm: {"0": 1.0, "1": 2.0} for arm in "ab"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("model,seed,acc\n", "has a header line, but no row"),
        ("model,seed,acc\na,0,1\na,1,nan\nb,0,1", "row 3: acc is nan, not a finite number"),
        ("model,seed,acc\na,0,inf\nb,0,1", "row 2: acc is inf, not a finite number"),
        ("model,seed,acc\na,0,0.5\nb,0,91 %", "row 3: acc is '91 %', not a number"),
        ("model,seed,acc\na,0,1e400\nb,0,1", "row 2: acc is '1e400', beyond"),
        (
            "model,seed,acc,game\na,0,1,x\nb,0,1,x\n\na,0,2,y",
            "row 5: arm 'a' with seed '0' is also in row 2; a table has one row per run; the rows "
            "differ in 'acc', 'game'",
        ),
        ("model,seed,acc\na,0,1,7\nb,0,1", "row 2: has 4 cells, but the head in row 1 has 3"),
        ('model,seed,acc\n"a,0,1\n', "row 2: is not CSV"),
        ("model,seed,acc\n,0,1\nb,0,2", "row 2: has no arm in column 'model'"),
        ("model,seed,acc\na,,1\nb,0,2", "row 2: has no seed in column 'seed'"),
        ("model,seed,acc\na,0,\nb,0,", "no row can be used: 1 row of a without acc, 1 row of b"),
        ("model,method,seed,acc\na,x,0,1\nb,y,0,2", "several columns fit --arm-column: 'model', "),
        ("model,seed,f1,auc\na,0,1,2\nb,0,2,3", "several columns have numbers: 'f1', 'auc'"),
        ("who,seed,acc\na,0,1\nb,0,2", "name it with --arm-column (columns of text: 'who')"),
        (b"model,acc\na,1\ncaf\xe9,2\n", "row 3: is not UTF-8 text"),
        ("model,acc\na,1\n\0,2\n", "row 3: has a null character"),
        ('{"model": "a"}\n[1]', "row 2: is not a line of JSON with one object"),
        ('{"acc": 1, "acc": 2}', "row 1: is not a line of JSON with one object: the key 'acc'"),
        ('{"model": "a", "acc": NaN}\n{"model": "b", "acc": 1}', "row 1: acc is NaN"),
        ("[{}]", "is a JSON array; allowed: JSON lines"),
        ("Step,sun-1 - acc,sun-1 - acc__MIN\n0,1,1\n", "is a chart of Weights & Biases"),
        (",".join(map(str, range(20_001))), "has 20,001 columns; at most 20,000"),
        ("model,acc\n" + "a,1\n" * 100_001, "has more than 100,000 rows"),
        ("model,acc\n" + "".join(f"m{n},1\n" for n in range(101)), "has more than 100 arms"),
    ],
)
def test_wrong_tables_end_in_one_line(tmp_path, content, said):
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_columns_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"--metric f1: .* has no such column; it has 'model', "):
        read(tmp_path, PLAIN, metric="f1")
    with pytest.raises(UserError, match="need three different columns"):
        read(tmp_path, PLAIN, arm_column="seed", seed_column="seed")


def test_arms_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="control 'gelu': is not an arm; arms: relu, mish"):
        compare_scores(read(tmp_path, PLAIN), "gelu")
    with pytest.raises(UserError, match="has only one arm, relu"):
        compare_scores(Scores("acc", {"relu": {"0": 1.0}}))


def test_large_and_strange_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_scores(tmp_path / "missing")
    with pytest.raises(UserError, match="Is a directory"):
        read_scores(tmp_path)
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(UserError, match="larger than"):
        read_scores(path)


def made_up(seeds, arms=3):
    rng = np.random.default_rng(7)
    shared = rng.normal(size=20)
    return Scores(
        "score",
        {
            f"arm{k}": {str(s): k * 0.8 + shared[s] + 0.3 * rng.normal() for s in seeds(k)}
            for k in range(arms)
        },
    )


def values(scores, arm, seeds=None):
    found = scores.values[arm]
    return np.array([found[seed] for seed in (found if seeds is None else seeds)])


def test_pairs_have_the_paired_test_and_holm():
    scores = made_up(lambda k: range(6))
    rows = compare_scores(scores)["against_control"]
    p_values = []
    for row in rows:
        assert row["paired"]
        test = stats.ttest_rel(values(scores, row["arms"][1]), values(scores, "arm0"))
        p_values.append(test.pvalue)
        np.testing.assert_allclose(row["ci_t"], test.confidence_interval(), rtol=1e-9)
        np.testing.assert_allclose(row["p_t"], test.pvalue, rtol=1e-9)
    first, second = sorted(p_values)
    adjusted = sorted(row["p_t_holm"] for row in rows)
    np.testing.assert_allclose(adjusted, [2 * first, max(2 * first, second)], rtol=1e-9)


@pytest.mark.parametrize("unseeded", [False, True])
def test_without_pairs_it_is_welch(unseeded):
    scores = made_up(lambda k: range(5 * k, 5 * k + 4 + k), 2)
    if unseeded:
        scores = Scores("score", scores.values, seeded=False)
    summary = compare_scores(scores)
    (row,) = summary["against_control"]
    test = stats.ttest_ind(values(scores, "arm1"), values(scores, "arm0"), equal_var=False)
    assert not row["paired"]
    np.testing.assert_allclose(row["ci_t"], test.confidence_interval(), rtol=1e-9)
    np.testing.assert_allclose(row["p_t"], test.pvalue, rtol=1e-9)
    (notice,) = notices(summary)
    assert "unpaired" in notice
    assert ("no seed column" if unseeded else "share no seed") in notice


def test_half_of_the_seeds_make_pairs():
    """The rule is about seeds only: 3 of 6 pair, 2 of 5 do not."""
    half = compare_scores(made_up(lambda k: range(3 * k, 3 * k + 6), 2))
    (row,) = half["against_control"]
    assert (row["paired"], row["n"], row["seeds"]) == (True, 3, ["3", "4", "5"])
    assert row["left_out"] == {"arm0": ["0", "1", "2"], "arm1": ["6", "7", "8"]}
    assert "3 runs of arm0 (seeds 0, 1, 2)" in notices(half)[0]
    less = compare_scores(made_up(lambda k: range(3 * k, 3 * k + 5), 2))
    assert not less["against_control"][0]["paired"]
    assert "arm1 has no seeds 0, 1, 2; arm0 has no seeds 5, 6, 7" in notices(less)[0]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"a": {"0": 1.0}, "b": {"0": 2.0}}, "one seed gives no interval"),
        ({"a": {"0": 1.0}, "b": {"1": 2.0, "2": 3.0}}, "an arm with one run gives no interval"),
        ({"a": {"0": 1.0, "1": 1.0}, "b": {"2": 2.0, "3": 2.0}}, "no spread"),
        ({"a": {"0": 1.0, "1": 1.5}, "b": {"0": 2.0, "1": 2.5}}, "no spread"),
    ],
)
def test_too_little_for_an_interval(found, reason):
    summary = compare_scores(Scores("score", found))
    (row,) = summary["against_control"]
    assert row["ci_t"] is None
    assert reason in row["no_interval"]
    assert table_rows(summary)[1].difference is not None
    json.dumps(summary, allow_nan=False)


def test_failed_runs_of_a_benchmark_are_left_out_and_counted():
    """Folds are pairs, seeds are not: the frameworks got different ones."""
    path = DATA / "automlbenchmark-kc1.csv"
    with path.open() as file:
        table = [row for row in csv.DictReader(file) if row["acc"]]
    accuracy = {}
    for row in table:
        accuracy.setdefault(row["framework"], {})[row["fold"]] = float(row["acc"])
    scores = read_scores(path, seed_column="fold")
    assert scores.values == accuracy
    assert "8 rows of oboe without acc, 1 row of autosklearn without acc" in scores.notes[1]
    rows = {row["arms"][1]: row for row in compare_scores(scores, "H2OAutoML")["against_control"]}
    folds = sorted(accuracy["autosklearn"])
    pair = [[accuracy[name][fold] for fold in folds] for name in ("autosklearn", "H2OAutoML")]
    test = stats.ttest_rel(*pair)
    np.testing.assert_allclose(rows["autosklearn"]["ci_t"], test.confidence_interval(), rtol=1e-9)
    assert rows["autosklearn"]["n"] == 9
    assert not rows["oboe"]["paired"]
    by_seed = compare_scores(read_scores(path))["against_control"]
    assert not any(row["paired"] for row in by_seed)


def test_runs_without_seeds_of_a_benchmark():
    path = DATA / "dopamine-asterix.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    by_agent = {}
    for row in rows:
        by_agent.setdefault(row["Agent"], []).append(row["Value"])
    scores = read_scores(path)
    summary = compare_scores(scores)
    assert (scores.metric, summary["control"], scores.unit) == ("Value", "DQN", "")
    for row in summary["against_control"]:
        test = stats.ttest_ind(by_agent[row["arms"][1]], by_agent["DQN"], equal_var=False)
        np.testing.assert_allclose(row["ci_t"], test.confidence_interval(), rtol=1e-9)


def test_nested_settings_of_a_benchmark():
    path = DATA / "domainbed-vlcs.jsonl"
    with pytest.raises(UserError, match=r"several columns have numbers: .* 'env0_out_acc'"):
        read_scores(path)
    scores = read_scores(path, arm_column="args.hparams_seed", metric="env0_out_acc")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    halves = [
        [row["env0_out_acc"] for row in rows if row["args"]["hparams_seed"] == at] for at in (1, 0)
    ]
    (row,) = compare_scores(scores)["against_control"]
    test = stats.ttest_ind(*halves, equal_var=False)
    np.testing.assert_allclose(row["ci_t"], test.confidence_interval(), rtol=1e-9)
