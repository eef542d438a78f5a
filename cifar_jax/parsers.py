"""The parsers of the commands. They import nothing slow, so that `--help` answers at once."""

import argparse

import cifar_jax
from cifar_jax.arguments import Parser, above_zero, count_of, name_of, path_of, picture, share_of
from cifar_jax.config.settings import WITHOUT_FLAGS
from cifar_jax.flags import (
    PROGRAM,
    add_config_file,
    add_config_flags,
    add_data_parallel,
    add_device,
    add_file,
    add_moved_data,
    add_path,
    add_processes,
    add_saving,
)
from cifar_jax.names import CORRUPTION_IMAGES, EXPORTS, PARTS


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-demo",
        action="store_false",
        dest="demo",
        help="leave the networks out of report.html; with them, it classifies images in a browser",
    )


def train_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} [train]",
        description="Train one network, evaluate it on the test images, and write everything into "
        "a directory. The defaults are those of a course report: a small CNN on CIFAR-10, without "
        "Batch Normalization.",
        epilog="Other commands: study, report, evaluate, predict, analyse, export, seeds, compare, "
        "init (each has its own --help).",
    )
    add_file(parser)
    parser.add_argument("--arm", metavar="NAME", help="arm of FILE to train, if it has several")
    parser.add_argument("--version", action="version", version=cifar_jax.__version__)
    add_config_file(parser)
    add_path(
        parser,
        "--workdir",
        "DIR",
        "directory of the run (default: runs/<dataset>-<model>-<norm>-seed<seed>)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the newest checkpoint in --workdir"
    )
    parser.add_argument(
        "--debug-nans",
        action="store_true",
        help="if training diverges, find the operation and layer of the first non-finite value; "
        "costs one copy of the state per epoch",
    )
    parser.add_argument(
        "--figures",
        action="store_true",
        help="draw training_curves.png and confusion_matrix.png at the end; `report` draws more",
    )
    add_saving(parser)
    add_device(parser)
    add_data_parallel(parser)
    add_processes(parser)
    add_config_flags(parser, ("study", *WITHOUT_FLAGS))
    return parser


def study_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} study",
        description="Train every arm with every seed, paired, and write the report with its "
        "statistics. An arm is a norm, or an experiment of FILE. With --sweep, each is trained at "
        "each value of the setting. After a stop, the same command continues.",
    )
    add_file(parser)
    add_config_file(parser)
    add_path(
        parser, "--workdir", "DIR", "directory of the study (default: runs/study-<dataset>-<model>)"
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="only say how many seeds decide each claim of the study in --workdir; train nothing",
    )
    _add_demo(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--share",
        type=share_of("--share"),
        default=(0, 1),
        metavar="I/N",
        help="train every N-th seed, from the I-th on, counted from 0; other processes or machines "
        "with the same --workdir train the others",
    )
    where.add_argument(
        "--slurm",
        type=count_of("--slurm"),
        metavar="N",
        help="only write the script of a Slurm job array; each of N tasks has a share of the seeds",
    )
    where.add_argument(
        "--engine",
        choices=("ray",),
        default="",
        metavar="ray",
        help="let the machines of a Ray cluster train the runs; all must see --workdir",
    )
    add_saving(parser)
    add_device(parser)
    add_data_parallel(parser)
    add_config_flags(parser, WITHOUT_FLAGS)
    return parser


def report_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} report",
        description="Write the report of a study again, or the page of a single run. Nothing is "
        "trained.",
    )
    add_file(parser)
    add_path(parser, "--workdir", "DIR", "a study's directory, or a run's", required=True)
    _add_demo(parser)
    add_moved_data(parser)
    return parser


def evaluate_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} evaluate",
        description="Restore a run's newest checkpoint and evaluate it on the run's test images. "
        "Or evaluate a network file on the test images of --dataset.",
    )
    add_file(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    add_path(
        which,
        "--checkpoint",
        "DIR|FILE",
        "directory of a run, or its checkpoints directory; or a torchvision ResNet, a "
        ".safetensors file",
    )
    add_path(which, "--onnx", "FILE", "an ONNX file with one image input, run by ONNX Runtime")
    add_moved_data(parser, "; for a network file, the test images")
    add_device(parser)
    return parser


def predict_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} predict",
        description="Classify images with a trained network. An image of any size is rotated by "
        "its EXIF orientation. Its largest centred square is resized (Lanczos). Confidences are "
        "calibrated on the run's validation images.",
        epilog="Exit status: 0 if all images were read, 1 if not, 2 for wrong input.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=picture,
        metavar="IMAGE",
        help="files, folders of images, or - for standard input",
    )
    add_path(
        parser,
        "--run",
        "DIR|FILE",
        "directory of a run, or of a study, whose seeds form an ensemble; or a network file: "
        "a torchvision ResNet (.safetensors) or .onnx",
        required=True,
    )
    parser.add_argument(
        "--arm", type=name_of("--arm"), metavar="NAME", help="arm of the study, such as batch"
    )
    add_path(parser, "--file", "FILE", "the run's Python file, if it has one; its code is run")
    parser.add_argument(
        "--top",
        type=count_of("--top"),
        default=3,
        metavar="K",
        help="number of classes to name (default: %(default)s)",
    )
    add_path(parser, "--montage", "PNG", "also draw the first 24 images with their answers")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument(
        "--traceback", action="store_true", help="print the traceback of an error in --file"
    )
    add_moved_data(parser, "; for a network file, the dataset that names its classes")
    add_device(parser)
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
    add_file(parser)
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
        help="images of none of the classes, for the part unknown: a dataset such as svhn, or a "
        "folder of images, subfolders included; may be given several times",
    )
    _add_shift(parser)
    _add_demo(parser)
    add_moved_data(parser)
    add_device(parser)
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
        add_path(parser, flag, "DIR", f"directory with the files of {what}")


def export_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} export",
        description="Write a run's trained network for other programs. First, the program that "
        "reads the format checks the file on test images. A wrong file is not written.",
    )
    add_file(parser)
    add_path(parser, "--run", "DIR", "directory of the run", required=True)
    parser.add_argument(
        "--format",
        choices=tuple(EXPORTS),
        required=True,
        metavar="|".join(EXPORTS),
        help="safetensors: weights with PyTorch's names, and PyTorch code that loads them; onnx: "
        "for ONNX Runtime and others; stablehlo: for jax.export; torch: for torch.export.load",
    )
    parser.add_argument(
        "--input",
        choices=("uint8", "float32"),
        default="uint8",
        metavar="uint8|float32",
        help="pixels that the file takes: uint8, from 0 to 255, or float32, from 0 to 1 (default: "
        "uint8)",
    )
    add_path(
        parser,
        "--output",
        "FILE",
        f"file to write (default: network{', network'.join(EXPORTS.values())} in DIR)",
    )
    add_moved_data(parser)
    add_device(parser)
    return parser


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
        ("--std", "standard deviation of the paired differences, one difference per seed"),
    ):
        parser.add_argument(flag, type=above_zero(flag), metavar="X", help=text)
    add_path(
        parser,
        "--from",
        "STUDY",
        "directory of a study that gives the standard deviation; alone, it says how many "
        "seeds decide each claim of the study",
        dest="study",
    )
    return parser


def compare_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} compare",
        description="Compare scores of runs from anywhere: CSV, JSON lines, or the table of runs "
        "that Weights & Biases exports, one row per run. Runs with the same seed are pairs. With "
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
            flag, type=name_of(flag), metavar="NAME", help=f"{what} (default: found by its name)"
        )
    parser.add_argument(
        "--control",
        type=name_of("--control"),
        metavar="NAME",
        help="arm that the others are compared with (default: the first)",
    )
    add_path(
        parser, "--workdir", "DIR", "directory of the comparison (default: runs/compare-<file>)"
    )
    return parser


def init_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} init",
        description="Copy the examples and the ready-made configs into a directory, to run and "
        "change them there.",
    )
    parser.add_argument(
        "directory", type=path_of("init"), metavar="DIR", help="created if it is missing"
    )
    return parser
