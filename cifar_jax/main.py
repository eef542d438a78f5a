"""The only door: reads the command line, calls one room, prints what it returns."""

import argparse
import dataclasses
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import cifar_jax
from cifar_jax import config as configuration
from cifar_jax import failures, libraries
from cifar_jax.arguments import Parser, path_of, seconds, threads
from cifar_jax.config import SECTIONS, Config, field_type, parse_value
from cifar_jax.device import DEVICES
from cifar_jax.errors import UserError, printable, shown
from cifar_jax.interrupt import GRACE, exit_status, raise_on_sigterm

PROGRAM = "cifar_jax"
COMMANDS = ("train", "study", "report", "evaluate")

EXIT_FAILED = 1  # Beside it 2, see UserError, and 130 and 143, by Ctrl-C and by SIGTERM.


def _flag(section: str, field: dataclasses.Field[Any]) -> str:
    return "--" + (field.metadata["flag"] or field.name).replace("_", "-")


def _flag_of(section: str, name: str) -> str:
    return _flag(section, next(f for f in dataclasses.fields(SECTIONS[section]) if f.name == name))


def _converter(section: type, name: str, flag: str) -> Any:
    """Turn a flag's text into its field's type, and check it."""
    return lambda text: parse_value(section, name, text, flag)


def _add_config_flags(parser: argparse.ArgumentParser, sections: dict[str, type]) -> None:
    """A flag for every field of the configuration, without a default of its own."""
    for section, kind in sections.items():
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
        help="where to compute (default: the best that JAX finds)",
    )
    parser.add_argument(
        "--threads",
        type=threads,
        metavar="N",
        help="threads of a CPU (default: one a core); the same number gives the same last bits, on "
        "any number of cores",
    )


def _add_config_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=path_of("--config"),
        metavar="FILE",
        help="TOML file of the experiment; flags override it",
    )


def _add_grace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grace",
        type=seconds,
        default=GRACE,
        metavar="SECONDS",
        help="how long the steps under way may take after SIGTERM (default: %(default)g); then "
        "they are given up, and what was before them is saved",
    )


def _add_moved_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset", metavar="NAME", help="where the images lie now, if they were moved"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where CIFAR-10 lies now")


def _train_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} [train]",
        description="Train the report's CNN on CIFAR-10, with or without Batch Normalization, "
        "evaluate it, and keep everything in a directory.",
        epilog="Other commands: study, report, evaluate (each has its own --help).",
    )
    parser.add_argument("--version", action="version", version=cifar_jax.__version__)
    _add_config_file(parser)
    parser.add_argument(
        "--workdir",
        type=path_of("--workdir"),
        metavar="DIR",
        help="what the run leaves (default: runs/<dataset>-<model>-<norm>-seed<seed>)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint in --workdir"
    )
    parser.add_argument(
        "--debug-nans",
        action="store_true",
        help="if training diverges, find the operation and layer of the first value that is not "
        "finite; costs one copy of the state an epoch",
    )
    _add_grace(parser)
    _add_device(parser)
    _add_config_flags(parser, {k: v for k, v in SECTIONS.items() if k != "study"})
    return parser


def _study_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} study",
        description="Train every arm with every seed, paired, and write the report with its "
        "statistics. An arm is a norm, or a norm at one value of a swept setting. The same command "
        "goes on with a study that was interrupted.",
    )
    _add_config_file(parser)
    parser.add_argument(
        "--workdir",
        type=path_of("--workdir"),
        metavar="DIR",
        help="what the study leaves (default: runs/study-<dataset>-<model>)",
    )
    _add_grace(parser)
    _add_device(parser)
    _add_config_flags(parser, SECTIONS)
    return parser


def _report_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} report",
        description="Write the report of a study again, or the page of a single run, without "
        "training.",
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


def parse_config(arguments: argparse.Namespace, saved: Config | None = None) -> Config:
    """The configuration that a command line asks for: its file or `saved`, then flags.

    Args:
        arguments: of the command line.
        saved: what the directory in use was begun with; None for the defaults.

    Raises:
        UserError: if the file or the combination of flags is not allowed.
    """
    config = configuration.load(arguments.config) if arguments.config else saved or Config()
    given = vars(arguments)
    for destination, value in given.items():
        section, _, name = destination.partition(".")
        if name:
            config = configuration.override(config, section, name, value, _flag_of(section, name))
    return config


def _warn(line: str) -> None:
    print(printable(f"{PROGRAM}: warning: {line}"), file=sys.stderr)


def _start_libraries() -> None:
    if unused := libraries.start():
        _warn(f"ignored, because results must not depend on it: {', '.join(unused)}")


def _prepare_jax(arguments: argparse.Namespace) -> None:
    _start_libraries()
    from cifar_jax.data.sources.cache import cache_root, is_homeless
    from cifar_jax.device import select_device, use_compilation_cache

    select_device(arguments.device, arguments.threads)
    cache = cache_root()
    if is_homeless(cache):
        _warn(f"there is no home directory, so the cache is {cache}; CIFAR_JAX_CACHE names another")
    use_compilation_cache(cache / "compiled")


def _saved_run(arguments: argparse.Namespace) -> Config | None:
    """What the run in `--workdir` was begun with."""
    from cifar_jax.resume import saved_config

    found = saved_config(arguments.workdir)
    if found is None and not any("." in name for name in vars(arguments)):
        raise UserError(
            f"--resume --workdir {arguments.workdir}: holds no run to resume; "
            "to begin one, give its flags or --config"
        )
    return found


def _read_config(
    arguments: argparse.Namespace, saved: Callable[[argparse.Namespace], Config | None] | None
) -> Config:
    """The configuration of a command line, and JAX made ready.

    Args:
        arguments: of the command line.
        saved: reads what `--workdir` was begun with; None for a run that is to begin.
    """
    if saved is None or arguments.config is not None or arguments.workdir is None:
        config = parse_config(arguments)
        _prepare_jax(arguments)
        return config
    if arguments.workdir.exists() and not arguments.workdir.is_dir():
        raise UserError(f"--workdir {arguments.workdir}: is not a directory")
    _prepare_jax(arguments)
    return parse_config(arguments, saved(arguments))


def _train(argv: list[str]) -> int:
    arguments = _train_parser().parse_args(argv)
    config = _read_config(arguments, _saved_run if arguments.resume else None)
    from cifar_jax.host import Interrupted
    from cifar_jax.run import Diverged, train_run

    try:
        train_run(
            config,
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


def _refuse_overruled(given: dict[str, Any], sweep: str | None) -> None:
    """Refuse flags that a study would overrule without a word.

    Args:
        given: what the command line says.
        sweep: of the study, by a flag, its file or its directory.
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
    _refuse_overruled(given, given.get("study.sweep"))  # Before what is slow to import.
    seeds: tuple[int, ...] | None = None

    def saved(arguments: argparse.Namespace) -> Config | None:
        """What the study in `--workdir` was begun with."""
        from cifar_jax.study.record import saved_study

        nonlocal seeds
        found = saved_study(arguments.workdir)
        if found and not given.keys() & {"training.seed", "study.seeds"}:
            seeds = found.seeds
        return found.config if found else None

    config = _read_config(arguments, saved)
    _refuse_overruled(given, config.study.sweep)
    from cifar_jax.host import Interrupted
    from cifar_jax.run_study import study_run

    try:
        failed = study_run(config, seeds=seeds, workdir=arguments.workdir, grace=arguments.grace)
    except Interrupted as stop:
        print(printable(str(stop)), file=sys.stderr)
        return stop.status
    for reason in failed:
        print(printable(f"{PROGRAM}: {reason}"), file=sys.stderr)
    return EXIT_FAILED if failed else 0


def _report(argv: list[str]) -> int:
    arguments = _report_parser().parse_args(argv)
    _start_libraries()
    from cifar_jax.run_report import is_run, report_run
    from cifar_jax.run_study import redraw

    write = report_run if is_run(arguments.workdir) else redraw
    write(arguments.workdir, dataset=arguments.dataset, data_dir=arguments.data_dir)
    return 0


def _evaluate(argv: list[str]) -> int:
    arguments = _evaluate_parser().parse_args(argv)
    _prepare_jax(arguments)
    from cifar_jax.run import evaluate_run

    evaluate_run(arguments.checkpoint, dataset=arguments.dataset, data_dir=arguments.data_dir)
    return 0


def main(argv: list[str]) -> int:
    """Run one command line, without the program's name; returns the exit status."""
    command, rest = "train", argv
    if argv and not argv[0].startswith("-"):
        command, rest = argv[0], argv[1:]
    try:
        if command not in COMMANDS:
            raise UserError(f"{shown(command)} is not a command; allowed: {', '.join(COMMANDS)}")
        run = {"train": _train, "study": _study, "report": _report, "evaluate": _evaluate}
        return run[command](rest)
    except UserError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt as stop:
        print("\nStopped outside of training; what was complete is kept.", file=sys.stderr)
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
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A class name that the terminal's encoding lacks must not stop a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    libraries.silence()
    raise_on_sigterm()
    status = main(sys.argv[1:])
    if status > 128:
        # What is compiling or training in another thread would hold up, or crash, an orderly exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main_cli()
