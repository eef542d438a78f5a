"""Command line: parse it, call one command, print the result."""

import argparse
import dataclasses
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import cifar_jax
from cifar_jax import failures, libraries
from cifar_jax.arguments import Parser, name_of, path_of, seconds, threads
from cifar_jax.config import tables
from cifar_jax.config.settings import SECTIONS, WITHOUT_FLAGS, Config
from cifar_jax.config.tables import field_type, parse_value
from cifar_jax.device import DEVICES
from cifar_jax.errors import UserError, printable, shown
from cifar_jax.runner.signals import GRACE, exit_status, raise_on_sigterm

PROGRAM = "cifar_jax"
COMMANDS = ("train", "study", "report", "evaluate", "compare")

# Flags of `compare` about its table.
COLUMNS_AND_CONTROL = ("arm_column", "seed_column", "metric", "control")

EXIT_FAILED = 1  # The others: 2 of UserError, 130 of Ctrl-C, 143 of SIGTERM.


def _flag(section: str, field: dataclasses.Field[Any]) -> str:
    return "--" + (field.metadata["flag"] or field.name).replace("_", "-")


def _flag_of(section: str, name: str) -> str:
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


def _add_grace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grace",
        type=seconds,
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


def _train_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} [train]",
        description="Train the report's CNN on CIFAR-10, with or without Batch Normalization, "
        "evaluate it, and save everything in a directory.",
        epilog="Other commands: study, report, evaluate, compare (each has its own --help).",
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
    _add_grace(parser)
    _add_device(parser)
    _add_config_flags(parser, ("study", *WITHOUT_FLAGS))
    return parser


def _study_parser() -> argparse.ArgumentParser:
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
    _add_grace(parser)
    _add_device(parser)
    _add_config_flags(parser, WITHOUT_FLAGS)
    return parser


def _report_parser() -> argparse.ArgumentParser:
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


def _evaluate_parser() -> argparse.ArgumentParser:
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


def _compare_parser() -> argparse.ArgumentParser:
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


def parse_config(arguments: argparse.Namespace, saved: Config | None = None) -> Config:
    """Return the config of a command line: its file or `saved`, changed by its flags.

    Args:
        arguments: of the command line.
        saved: config in the run's directory; None for the defaults.

    Raises:
        UserError: the file or a flag's value is not allowed.
    """
    config = tables.load(arguments.config) if arguments.config else saved or Config()
    given = vars(arguments)
    for destination, value in given.items():
        section, _, name = destination.partition(".")
        if name:
            config = tables.override(config, section, name, value, _flag_of(section, name))
    return config


def _warn(line: str) -> None:
    print(printable(f"{PROGRAM}: warning: {line}"), file=sys.stderr)


def _start_libraries() -> None:
    if unused := libraries.start():
        _warn(f"ignored, so that results do not depend on it: {', '.join(unused)}")


def _prepare_jax(arguments: argparse.Namespace) -> None:
    _start_libraries()
    from cifar_jax.data.sources.cache import cache_root, is_homeless
    from cifar_jax.device import select_device, use_compilation_cache

    select_device(arguments.device, arguments.threads)
    cache = cache_root()
    if is_homeless(cache):
        _warn(f"no home directory, so the cache is {cache}; set CIFAR_JAX_CACHE to choose another")
    use_compilation_cache(cache / "compiled")


def _saved_run(arguments: argparse.Namespace) -> Config | None:
    """Return the saved config of the run in `--workdir`."""
    from cifar_jax.runner.resume import saved_config

    found = saved_config(arguments.workdir)
    if found is None and not any("." in name for name in vars(arguments)):
        raise UserError(
            f"--resume --workdir {arguments.workdir}: has no run to resume; "
            "to begin one, give its flags or --config"
        )
    return found


def _read_config(
    arguments: argparse.Namespace, saved: Callable[[argparse.Namespace], Config | None] | None
) -> Config:
    """Set up JAX and return the config of a command line.

    Args:
        arguments: of the command line.
        saved: reads the config saved in `--workdir`; None for a new run.
    """
    if saved is None or arguments.config is not None or arguments.workdir is None:
        config = parse_config(arguments)
        _prepare_jax(arguments)
        return config
    if arguments.workdir.exists() and not arguments.workdir.is_dir():
        raise UserError(f"--workdir {arguments.workdir}: is not a directory")
    _prepare_jax(arguments)
    return parse_config(arguments, saved(arguments))


def _flags(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the given flags of the config, by setting."""
    destinations = (name for name in vars(arguments) if "." in name)
    return {name: _flag_of(*name.split(".")) for name in destinations}


def _train(argv: list[str]) -> int:
    arguments = _train_parser().parse_args(argv)
    if arguments.arm is not None and arguments.file is None:
        raise UserError("--arm: names an arm of FILE, and there is no FILE")
    config = _read_config(arguments, _saved_run if arguments.resume else None)
    from cifar_jax.commands.open_file import choose_arm, given_settings, open_file
    from cifar_jax.commands.train import Diverged, train_run
    from cifar_jax.runner.hooks import Interrupted

    flags = _flags(arguments)
    file, config = open_file(arguments.file, config, flags, arguments.workdir)
    if file is not None:
        given = given_settings(config, flags, arguments.config is not None)
        config = choose_arm(file, arguments.arm, config, given)
    try:
        train_run(
            config,
            file=file,
            workdir=arguments.workdir,
            resume=arguments.resume,
            debug_nans=arguments.debug_nans,
            grace=arguments.grace,
        )
    except Interrupted as stop:
        print(printable(str(stop)), file=sys.stderr)
        return stop.status
    except Diverged as failure:
        print(printable(f"{PROGRAM}: {failure}"), file=sys.stderr)
        return EXIT_FAILED
    return 0


def _check_varied(given: dict[str, Any], sweep: str | None) -> None:
    """Raise if a flag sets what the study varies.

    Args:
        given: flags of the command line.
        sweep: of the study, from a flag, its file or its directory.
    """
    if "model.norm" in given:
        raise UserError("--norm and --bn: a study trains each norm of --arms; name them there")
    from cifar_jax.study.grid import FIXED

    swept = {field.strip() for field in (sweep or "").partition("=")[0].split("+")}
    for destination in given:
        section, _, name = destination.partition(".")
        if name and swept & {name, destination} and destination not in FIXED:
            raise UserError(
                f"{_flag_of(section, name)}: --sweep varies it; give its values only there"
            )


def _study(argv: list[str]) -> int:
    arguments = _study_parser().parse_args(argv)
    given = vars(arguments)
    _check_varied(given, given.get("study.sweep"))  # Before slow imports.
    seeds: tuple[int, ...] | None = None
    of_file: tuple[str, ...] = ()

    def saved(arguments: argparse.Namespace) -> Config | None:
        """Return the saved config of the study in `--workdir`."""
        from cifar_jax.study.record import saved_study

        nonlocal seeds, of_file
        found = saved_study(arguments.workdir)
        of_file = found.given if found else ()
        if found and not given.keys() & {"training.seed", "study.seeds"}:
            seeds = found.seeds
        return found.config if found else None

    config = _read_config(arguments, saved)
    _check_varied(given, config.study.sweep)
    from cifar_jax.commands.open_file import given_settings, open_file
    from cifar_jax.commands.study import study_run
    from cifar_jax.runner.hooks import Interrupted
    from cifar_jax.study.definition import Given

    flags = _flags(arguments)
    file, config = open_file(arguments.file, config, flags, arguments.workdir)
    replaced = (*of_file, *given_settings(config, flags, arguments.config is not None))
    try:
        failed = study_run(
            config,
            given=Given(file, replaced),
            seeds=seeds,
            workdir=arguments.workdir,
            grace=arguments.grace,
        )
    except Interrupted as stop:
        print(printable(str(stop)), file=sys.stderr)
        return stop.status
    for reason in failed:
        print(printable(f"{PROGRAM}: {reason}"), file=sys.stderr)
    return EXIT_FAILED if failed else 0


def _report(argv: list[str]) -> int:
    arguments = _report_parser().parse_args(argv)
    _start_libraries()
    from cifar_jax.commands.report import is_run, report_run
    from cifar_jax.commands.study import redraw

    write = report_run if is_run(arguments.workdir) else redraw
    write(arguments.workdir, dataset=arguments.dataset, data_dir=arguments.data_dir)
    return 0


def _evaluate(argv: list[str]) -> int:
    arguments = _evaluate_parser().parse_args(argv)
    _prepare_jax(arguments)
    from cifar_jax.commands.train import evaluate_run
    from cifar_jax.runner.moved import Moved
    from cifar_jax.study.file import load_file

    evaluate_run(
        arguments.checkpoint,
        file=load_file(arguments.file) if arguments.file else None,
        moved=Moved(arguments.dataset, arguments.data_dir),
    )
    return 0


def _compare(argv: list[str]) -> int:
    arguments = _compare_parser().parse_args(argv)
    libraries.draw_without_display()  # Without JAX, which takes seconds.
    from cifar_jax.commands.compare import compare_run

    flags = {key: getattr(arguments, key) for key in COLUMNS_AND_CONTROL}
    compare_run(arguments.paths, flags, arguments.workdir)
    return 0


def main(argv: list[str]) -> int:
    """Run one command line, without the program's name. Return the exit status."""
    command, options = "train", argv
    if argv and not argv[0].startswith("-"):
        command, options = argv[0], argv[1:]
    try:
        if command not in COMMANDS:
            raise UserError(f"{shown(command)} is not a command; allowed: {', '.join(COMMANDS)}")
        run = {
            "train": _train,
            "study": _study,
            "report": _report,
            "evaluate": _evaluate,
            "compare": _compare,
        }
        return run[command](options)
    except UserError as error:
        if error.__cause__ is not None and "--traceback" in options:
            traceback.print_exception(error.__cause__)
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt as stop:
        print("\nStopped outside of training; complete results are saved.", file=sys.stderr)
        return exit_status(stop)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        line = failures.line(error)
        if line is None:
            raise
        print(printable(f"{PROGRAM}: error: {line}"), file=sys.stderr)
        return EXIT_FAILED


def main_cli() -> NoReturn:
    """Run the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A class name that the terminal's encoding lacks must not stop a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    libraries.silence()
    raise_on_sigterm()
    status = main(sys.argv[1:])
    if status > 128:
        # A thread that still compiles or trains would delay or crash an orderly exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main_cli()
