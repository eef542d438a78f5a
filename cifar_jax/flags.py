"""The flags that several commands share, and the flags of the config's settings."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from cifar_jax.arguments import address_of, count_of, number_of, path_of, seconds, threads
from cifar_jax.config.settings import SECTIONS
from cifar_jax.config.tables import field_type, parse_value
from cifar_jax.device import DEVICES
from cifar_jax.runner.signals import GRACE
from cifar_jax.runner.writer import CHECKPOINT_EVERY

PROGRAM = "cifar_jax"
# How help shows the value of a setting that is text. For others the type says it.
_FORMS = {
    "dataset": "NAME|PATH",
    "data_dir": "DIR",
    "classes": "NAME,...",
    "mean": "X,...",
    "std": "X,...",
    "milestones": "N,...",
    "init_from": "DIR|FILE",
    "freeze": "PATTERN,...",
    "lr_multipliers": "PATTERN=X,...",
    "arms": "NAME,...",
    "sweep": "FIELD=VALUE,...",
    "seed_parallelism": "N|auto",
}


def flag_of(section: str, name: str) -> str:
    """Return the flag of a setting, such as `--lr`."""
    field = next(f for f in dataclasses.fields(SECTIONS[section]) if f.name == name)
    return "--" + (field.metadata["flag"] or name).replace("_", "-")


def _converter(section: type, name: str, flag: str) -> Any:
    """Return a function that parses and checks a flag's text."""
    return lambda text: parse_value(section, name, text, flag)


def add_config_flags(parser: argparse.ArgumentParser, without: Sequence[str]) -> None:
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
            flag = flag_of(section, field.name)
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
            form = _FORMS.get(field.name) or {int: "N", float: "X", str: "NAME"}[plain]
            metavar = "|".join(choices) if choices else form
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


def add_path(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    flag: str,
    metavar: str,
    help: str,
    **options: Any,
) -> None:
    """Add a flag that takes a path. Other arguments are those of `add_argument`."""
    parser.add_argument(flag, type=path_of(flag), metavar=metavar, help=help, **options)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the device and of its threads."""
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
        help="CPU threads (default: one per core); equal numbers give bitwise equal results on any "
        "number of cores",
    )


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """Add the flag of a config file."""
    add_path(parser, "--config", "FILE", "TOML file of the experiment; flags override it")


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the argument of an experiment file, and the flag for its errors."""
    parser.add_argument(
        "file",
        nargs="?",
        type=path_of("FILE"),
        metavar="FILE",
        help="Python file that defines `arms`; its code is run",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="print the traceback of an error in FILE"
    )


def add_saving(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say when checkpoints are written."""
    parser.add_argument(
        "--checkpoint-every",
        type=seconds("--checkpoint-every"),
        default=CHECKPOINT_EVERY,
        metavar="SECONDS",
        help="time between two checkpoints (default: %(default)g); a kill loses what came after "
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


def add_data_parallel(parser: argparse.ArgumentParser) -> None:
    """Add the flag for several devices in one process."""
    parser.add_argument(
        "--data-parallel",
        type=count_of("--data-parallel"),
        default=1,
        metavar="N",
        help="devices that divide each batch (default: %(default)s); BatchNorm's statistics are "
        "those of the whole batch",
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add the flags for a run of several processes."""
    group = parser.add_argument_group(
        "several processes",
        "Processes on several hosts, one on each, train one run together. Under Slurm, Kubernetes "
        "and Cloud TPU, JAX sets these values.",
    )
    group.add_argument(
        "--coordinator",
        type=address_of("--coordinator"),
        metavar="HOST:PORT",
        help="host of process 0, and a free port there",
    )
    group.add_argument(
        "--processes", type=count_of("--processes"), metavar="N", help="number of processes"
    )
    group.add_argument(
        "--process-id",
        type=number_of("--process-id"),
        metavar="I",
        help="number of this process, from 0; process 0 writes the files",
    )


def add_moved_data(parser: argparse.ArgumentParser, more_help: str = "") -> None:
    """Add the flags for images that were moved.

    Args:
        parser: of the command.
        more_help: ends the help of --dataset.
    """
    parser.add_argument(
        "--dataset",
        metavar="NAME|PATH",
        help=f"where the images are now, if they were moved{more_help}",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where the published dataset is now, if it was moved"
    )
