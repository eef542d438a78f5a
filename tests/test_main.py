"""The command line: accepted input, and errors."""

import subprocess
import sys

import pytest

from cifar_jax.config.settings import Config
from cifar_jax.configure import parse_config
from cifar_jax.main import main
from cifar_jax.parsers import train_parser


def config_of(*argv: str) -> Config:
    return parse_config(train_parser().parse_args(list(argv)))


def test_no_flag_is_the_protocol():
    assert config_of() == Config()


def test_bn_is_the_batch_norm():
    assert config_of("--bn") == config_of("--norm", "batch")
    assert config_of("--bn").model.norm == "batch"


def test_flags_override_the_file(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[training]\nepochs = 3\nseed = 7\n[model]\nnorm = "batch"\n')
    config = config_of("--config", str(path), "--epochs", "5", "--norm", "none")
    assert (config.training.epochs, config.training.seed) == (5, 7)
    assert config.model.norm == "none"


def test_every_flag_of_the_issue_is_there():
    config = config_of(
        *("--dataset", "synthetic", "--data-dir", "d", "--seed", "1", "--epochs", "2"),
        *("--batch-size", "3", "--lr", "0.5", "--momentum", "0.1", "--weight-decay", "0"),
        *("--train-examples", "10", "--pipeline", "stream", "--no-augment"),
    )
    assert config.data.pipeline == "stream"
    assert config.data.train_examples == 10
    assert not config.data.augment
    assert config.training.learning_rate == 0.5
    assert config.training.weight_decay == 0.0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--epochs", "0"], "--epochs: 0 is out of range; allowed: at least 1"),
        (["--epochs", "many"], "--epochs: 'many' is not an integer"),
        (["--lr", "nan"], "--lr: nan is not a finite number"),
        (["--lr", "-1"], "--lr: -1.0 is out of range"),
        (["--seed", "-1"], "--seed: -1 is out of range"),
        (["--batch-size", "0"], "--batch-size: 0 is out of range"),
        (["--norm", "layers"], "--norm: 'layers' is not known; allowed: none, batch"),
        (["--lr", "-1e-3"], "--lr: -0.001 is out of range; allowed: above 0"),
        (["--lr", "-inf"], "--lr: -inf is not a finite number"),
        (["--weight-decay", "-.5e0"], "--weight-decay: -0.5 is out of range"),
        (["--epochs", "-1e3"], "--epochs: '-1e3' is not an integer"),
        (["--threads", "-2"], "--threads: '-2' is not a number"),
        (["--grace", "-1e1"], "--grace: '-1e1' is not a number of seconds"),
        (["--lr", "--bn"], "--lr: expected one argument"),
        (["--lr", "1", "--epochs", "2", "--lr=1"], "--lr: is given twice; give it once"),
        (["--bn", "--norm", "none"], "--bn and --norm: are the same setting; give one of them"),
        (["--norm", "batch", "--bn"], "--norm and --bn: are the same setting"),
        (["--augment", "--no-augment"], "--augment and --no-augment: are the same setting"),
        (["--resume", "--workdir", "/no/run"], "/no/run: has no run to resume; to begin one"),
        (["--resume", "--resume"], "--resume: is given twice"),
        (["study", "--sweep", "cutout=0,1", "--sweep", "mixup=0,1"], "--sweep: is given twice"),
        (["study", "--arms", "none", "--seeds", "2", "--arms", "batch"], "--arms: is given twice"),
        (["study", "--bn"], "--norm and --bn: a study trains each norm of --arms"),
        (["study", "--sweep", "learning_rate=1,2", "--lr", "3"], "--lr: --sweep varies it"),
        (["report", "--workdir", "a", "--workdir", "b"], "--workdir: is given twice"),
        (["evaluate", "--checkpoint", "a", "--checkpoint", "a"], "--checkpoint: is given twice"),
        (["--device", "abacus"], "--device"),
        (["--threads", "0"], "--threads: '0' is not a number from 1 to 999"),
        (["--threads", "two"], "--threads: 'two' is not a number from 1 to 999"),
        (["--epoch", "3"], "unrecognized arguments: --epoch"),
        (["--epochs"], "--epochs: expected one argument"),
        (
            ["predicate"],
            "'predicate' is not a command; allowed: train, study, report, eva",
        ),
        (["--config", "/no/such.toml"], "--config /no/such.toml: cannot be read"),
        (["evaluate"], "--checkpoint"),
        (["seeds", "--std", "0"], "--std: '0' is not a number above 0"),
        (["seeds"], "give either --std or --from"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(argv, said, capsys):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_flag_that_the_file_sweeps_is_an_error(tmp_path, capsys):
    path = tmp_path / "study.toml"
    path.write_text('[study]\nsweep = "learning_rate=0.01,0.05"\n')
    argv = ["study", "--config", str(path), "--dataset", str(tmp_path / "none"), "--lr", "0.3"]
    assert main(argv) == 2
    assert "--lr: --sweep varies it; give its values only there" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["study"], ["train", "--resume"]])
def test_a_workdir_that_is_a_file_is_an_error(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*command, "--workdir", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.endswith("file: is not a directory\n")


SLOW_IMPORTS = """
import sys
from cifar_jax.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
slow = {"jax", "tensorflow_datasets", "matplotlib", "orbax", "numpy", "flax"} & set(sys.modules)
print("status", status, "slow", sorted(slow))
"""


@pytest.mark.parametrize(
    ("argv", "status"),
    [(["--help"], 0), (["evaluate", "--help"], 0), (["--version"], 0), (["--epochs", "0"], 2)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_help_and_wrong_flags_import_nothing_slow(argv, status):
    command = [sys.executable, "-c", SLOW_IMPORTS, *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == f"status {status} slow []"


def test_a_missing_device_is_one_line(capsys):
    # No test machine has both an Apple GPU and a TPU.
    statuses = [main(["--device", name]) for name in ("metal", "tpu") if not present(name)]
    lines = capsys.readouterr().err.splitlines()
    assert statuses == [2] * len(lines)
    assert lines
    assert all("not found, only" in line for line in lines)


def present(name: str) -> bool:
    import jax

    platforms = {"metal": ("mps", "METAL"), "tpu": ("tpu",)}[name]
    return any(device.platform in platforms for device in jax.devices())
