"""The parsers of the commands. They import nothing slow, so that `--help` answers at once."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import cifar_jax
from cifar_jax.arguments import Parser, above_zero, count_of, name_of, path_of, seconds, threads
from cifar_jax.config.settings import SECTIONS, WITHOUT_FLAGS
from cifar_jax.config.tables import field_type, parse_value
from cifar_jax.device import DEVICES
from cifar_jax.names import CORRUPTION_IMAGES, PARTS
from cifar_jax.runner.signals import GRACE
from cifar_jax.runner.writer import CHECKPOINT_EVERY

PROGRAM = "cifar_jax"


def _flag(section: str, field: dataclasses.Field[Any]) -> str:
    return "--" + (field.metadata["flag"] or field.name).replace("_", "-")


def flag_of(section: str, name: str) -> str:
    return _flag(section, next(f for f in dataclasses.fields(SECTIONS[section]) if f.name == name))


def _converter(section: type, name: str, flag: str) -> Any:
    """Return a function that parses and checks a flag's text."""
    return lambda text: parse_value(section, name, text, flag)


def _add_config_flags(parser: argparse.ArgumentParser, without: Sequence[str]) -> None:
    """Add a flag for every field of the config. Flags have no defaults of their own.

    Args:
        parser: of the command.
        without: sections to leave out.
    """
    for section, kind in SECTIONS.items():
        if section in without:
            continue
        group = parser.add_argument_group(section)
        for field in dataclasses.fields(kind):
            flag = _flag(section, field)
            default = "" if field.default is None else f" (default: {field.default})"
            options: dict[str, Any] = {
                "dest": f"{section}.{field.name}",
                "default": argparse.SUPPRESS,
                "help": (field.metadata["help"] + default).replace("%", "%%"),
            }
            plain, _ = field_type(kind, field.name)
            if plain is bool:
                group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
                continue
            choices = field.metadata["choices"]
            metavar = "|".join(choices) if choices else {int: "N", float: "X", str: "NAME"}[plain]
            group.add_argument(
                flag, type=_converter(kind, field.name, flag), metavar=metavar, **options
            )
            if field.name == "norm":
                group.add_argument(
                    "--bn",
                    action="store_const",
                    const="batch",
                    dest="model.norm",
                    default=argparse.SUPPRESS,
                    help="Batch Normalization, the same as --norm batch",
                )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        metavar="|".join(DEVICES),
        choices=DEVICES,
        help="device to compute on (default: JAX's choice)",
    )
    parser.add_argument(
        "--threads",
        type=threads,
        metavar="N",
        help="CPU threads (default: one a core); equal numbers give bitwise equal results, on any "
        "number of cores",
    )


def _add_config_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=path_of("--config"),
        metavar="FILE",
        help="TOML file of the experiment; flags override it",
    )


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=path_of("FILE"),
        metavar="FILE",
        help="Python file whose `arms` are experiments; the command runs it",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="print the traceback of an error in FILE"
    )


def _add_saving(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint-every",
        type=seconds("--checkpoint-every"),
        default=CHECKPOINT_EVERY,
        metavar="SECONDS",
        help="time between two checkpoints (default: %(default)g); a kill loses the epochs since "
        "the last one",
    )
    parser.add_argument(
        "--grace",
        type=seconds("--grace"),
        default=GRACE,
        metavar="SECONDS",
        help="how long the current steps may take after SIGTERM (default: %(default)g); then the "
        "state before them is saved",
    )


def _add_moved_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset", metavar="NAME", help="the images' present folder, if they were moved"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="CIFAR-10's present directory")


def train_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} [train]",
        description="Train the report's CNN on CIFAR-10, with or without Batch Normalization, "
        "evaluate it, and save everything in a directory.",
        epilog="Other commands: study, report, evaluate, analyse, seeds, compare (each has its own "
        "--help).",
    )
    _add_file(parser)
    parser.add_argument("--arm", metavar="NAME", help="arm of FILE to train")
    parser.add_argument("--version", action="version", version=cifar_jax.__version__)
    _add_config_file(parser)
    parser.add_argument(
        "--workdir",
        type=path_of("--workdir"),
        metavar="DIR",
        help="directory of the run (default: runs/<dataset>-<model>-<norm>-seed<seed>)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the newest checkpoint in --workdir"
    )
    parser.add_argument(
        "--debug-nans",
        action="store_true",
        help="if training diverges, find the operation and layer of the first non-finite value; "
        "costs one copy of the state an epoch",
    )
    _add_saving(parser)
    _add_device(parser)
    _add_config_flags(parser, ("study", *WITHOUT_FLAGS))
    return parser


def study_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} study",
        description="Train every arm with every seed, paired, and write the report with its "
        "statistics. An arm is a norm, or an experiment of FILE; with --sweep, it is one at one "
        "value of the setting. The same command continues an interrupted study.",
    )
    _add_file(parser)
    _add_config_file(parser)
    parser.add_argument(
        "--workdir",
        type=path_of("--workdir"),
        metavar="DIR",
        help="directory of the study (default: runs/study-<dataset>-<model>)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="only say how many seeds decide each claim of the study in --workdir; train nothing",
    )
    _add_saving(parser)
    _add_device(parser)
    _add_config_flags(parser, WITHOUT_FLAGS)
    return parser


def report_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} report",
        description="Write the report of a study, or the page of a run, again without training.",
    )
    parser.add_argument(
        "--workdir",
        type=path_of("--workdir"),
        required=True,
        metavar="DIR",
        help="a study's directory, or a run's",
    )
    _add_moved_data(parser)
    return parser


def evaluate_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} evaluate",
        description="Restore a run's newest checkpoint and evaluate it on the run's test images.",
    )
    _add_file(parser)
    parser.add_argument(
        "--checkpoint",
        type=path_of("--checkpoint"),
        required=True,
        metavar="DIR",
        help="a run's directory, or the checkpoints directory in it",
    )
    _add_moved_data(parser)
    _add_device(parser)
    return parser


def analyse_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} analyse",
        description="Measure what accuracy hides, for every run of a study, paired by seed. Write "
        "analysis.json, and its sections on the page. What is measured already is not measured "
        "again.",
    )
    parser.add_argument(
        "workdir",
        type=path_of("analyse"),
        metavar="RUN|STUDY",
        help="a study's directory or a run's",
    )
    _add_file(parser)
    parser.add_argument(
        "--only",
        metavar="PART,...",
        help=f"measure only these parts (default: {','.join(PARTS)})",
    )
    parser.add_argument(
        "--unknown",
        action="append",
        type=name_of("--unknown"),
        default=[],
        metavar="NAME|DIR",
        help="images of none of the classes, for the part unknown: synthetic, cifar10, or a folder "
        "of images, which may have any folders; may be given several times",
    )
    _add_shift(parser)
    _add_moved_data(parser)
    _add_device(parser)
    return parser


def _add_shift(parser: Parser) -> None:
    parser.add_argument(
        "--corruption-images",
        type=count_of("--corruption-images"),
        metavar="N",
        default=CORRUPTION_IMAGES,
        help=f"number of test images that are corrupted (default: {CORRUPTION_IMAGES})",
    )
    for flag, what in (
        ("--cifar10-c", "CIFAR-10-C: gaussian_noise.npy and 14 more, labels.npy"),
        ("--cifar10-1", "CIFAR-10.1: cifar10.1_v6_data.npy, cifar10.1_v6_labels.npy"),
    ):
        parser.add_argument(
            flag, type=path_of(flag), metavar="DIR", help=f"directory with the files of {what}"
        )


def seeds_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} seeds",
        description="Say how many seeds a question takes, without training. Every number has the "
        "unit of the metric, for example points of test accuracy.",
        epilog="Example: seeds --difference 0.5 --std 0.55",
    )
    for flag, text in (
        ("--difference", "true difference between two arms that the study has to show"),
        ("--half-width", "wanted half-width of the 95 %% interval of the difference"),
        ("--std", "standard deviation of the paired differences, one difference a seed"),
    ):
        parser.add_argument(flag, type=above_zero(flag), metavar="X", help=text)
    parser.add_argument(
        "--from",
        dest="study",
        type=path_of("--from"),
        metavar="STUDY",
        help="directory of a study that gives the standard deviation; alone, it says how many "
        "seeds decide each claim of the study",
    )
    return parser


def compare_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} compare",
        description="Compare scores of runs from anywhere: CSV, JSON lines, or the table of runs "
        "that Weights & Biases exports, one row a run. Runs with the same seed are pairs. With "
        "directories of studies instead, write their results into one table.",
    )
    parser.add_argument(
        "paths",
        type=path_of("compare"),
        nargs="+",
        metavar="TABLE|STUDY",
        help="one table, or directories of studies",
    )
    for flag, what in (
        ("--arm-column", "column that names a run's arm, such as its model"),
        ("--seed-column", "column of the seed"),
        ("--metric", "column of the score"),
    ):
        parser.add_argument(
            flag, type=name_of(flag), metavar="NAME", help=f"{what} (default: by its name)"
        )
    parser.add_argument(
        "--control",
        type=name_of("--control"),
        metavar="NAME",
        help="arm that the others are compared with (default: the first)",
    )
    parser.add_argument(
        "--workdir",
        type=path_of("--workdir"),
        metavar="DIR",
        help="directory of the comparison (default: runs/compare-<file>)",
    )
    return parser
