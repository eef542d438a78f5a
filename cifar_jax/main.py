"""Command line: parse it, call one command, print the result."""

import argparse
import contextlib
import gc
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cifar_jax import failures, libraries
from cifar_jax.config.settings import Config
from cifar_jax.configure import (
    check_file,
    check_kind,
    chosen_parts,
    given_flags,
    prepare_jax,
    read_config,
    start_libraries,
)
from cifar_jax.errors import UserError, counted, printable, shown
from cifar_jax.flags import PROGRAM, flag_of
from cifar_jax.names import STANDARD_INPUT
from cifar_jax.parsers import (
    analyse_parser,
    compare_parser,
    evaluate_parser,
    export_parser,
    init_parser,
    predict_parser,
    report_parser,
    seeds_parser,
    study_parser,
    train_parser,
)
from cifar_jax.runner.signals import exit_status, raise_on_sigterm

if TYPE_CHECKING:
    from cifar_jax.study.rebuild import Saved

EXIT_FAILED = 1  # The others: 2 of UserError, 130 of Ctrl-C, 143 of SIGTERM.


def _saved_run(arguments: argparse.Namespace) -> Config | None:
    """Return the saved config of the run in `--workdir`."""
    from cifar_jax.runner.resume import saved_config

    found = saved_config(arguments.workdir)
    if found is None and not any("." in name for name in vars(arguments)):
        raise UserError(
            f"--resume --workdir {arguments.workdir}: has no run to resume; "
            "to begin one, give its flags or --config"
        )
    if found is not None:
        check_kind(arguments, found)
    return found


def _train(argv: list[str]) -> int:
    arguments = train_parser().parse_args(argv)
    check_file(arguments)
    if arguments.arm is not None and arguments.file is None:
        raise UserError("--arm: names an arm of FILE, and there is no FILE")
    config = read_config(arguments, _saved_run if arguments.resume else None)
    from cifar_jax.commands.open_file import choose_arm, given_settings, open_file
    from cifar_jax.commands.train import Diverged, train_run
    from cifar_jax.runner.hooks import Interrupted

    flags = given_flags(arguments)
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
            checkpoint_every=arguments.checkpoint_every,
            data_parallel=arguments.data_parallel,
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
    if "model.norm" in given and given["file"] is None:
        raise UserError("--norm and --bn: a study trains each norm of --arms; name them there")
    from cifar_jax.study.grid import FIXED

    swept = {field.strip() for field in (sweep or "").partition("=")[0].split("+")}
    for destination in given:
        section, _, name = destination.partition(".")
        if name and swept & {name, destination} and destination not in FIXED:
            raise UserError(
                f"{flag_of(section, name)}: --sweep varies it; give its values only there"
            )


def _say(line: str) -> None:
    print(printable(line))


def _plan(workdir: Path | None) -> int:
    """Say how many seeds decide each claim of a study."""
    if workdir is None:
        raise UserError("--plan: needs --workdir, the directory of a study")
    from cifar_jax.commands.seeds import seeds_run

    seeds_run(study_dir=workdir, say=_say)
    return 0


def _study(argv: list[str]) -> int:
    arguments = study_parser().parse_args(argv)
    check_file(arguments)
    given = vars(arguments)
    if arguments.plan:
        return _plan(arguments.workdir)
    if arguments.slurm is not None:
        from cifar_jax.commands.slurm import write_script

        path = write_script(argv, arguments.workdir, arguments.slurm)
        _say(f"written: {path}; submit it with sbatch")
        return 0
    _check_varied(given, given.get("study.sweep"))  # Before slow imports.
    seeds: tuple[int, ...] | None = None
    before: Saved | None = None

    def saved(arguments: argparse.Namespace) -> Config | None:
        """Return the saved config of the study in `--workdir`."""
        from cifar_jax.study.rebuild import saved_study

        nonlocal seeds, before
        before = saved_study(arguments.workdir)
        if before is None:
            return None
        if not given.keys() & {"training.seed", "study.seeds"}:
            seeds = before.seeds
        check_kind(arguments, before.config)
        return before.config

    config = read_config(arguments, saved)
    _check_varied(given, config.study.sweep)
    from cifar_jax.commands.open_file import given_settings, open_file, recorded_settings
    from cifar_jax.commands.study import study_run
    from cifar_jax.runner.hooks import Interrupted
    from cifar_jax.study.definition import Given
    from cifar_jax.study.schedule import Spread

    flags = given_flags(arguments)
    file, config = open_file(arguments.file, config, flags, arguments.workdir)
    replaced = given_settings(config, flags, arguments.config is not None)
    if file is not None and before is not None:
        replaced += recorded_settings(file, before.arms, before.config)
    try:
        failed = study_run(
            config,
            given=Given(file, replaced, arguments.demo),
            seeds=seeds,
            workdir=arguments.workdir,
            grace=arguments.grace,
            checkpoint_every=arguments.checkpoint_every,
            spread=Spread(arguments.data_parallel, *arguments.share),
        )
    except Interrupted as stop:
        print(printable(str(stop)), file=sys.stderr)
        return stop.status
    for reason in failed:
        print(printable(f"{PROGRAM}: {reason}"), file=sys.stderr)
    return EXIT_FAILED if failed else 0


def _report(argv: list[str]) -> int:
    arguments = report_parser().parse_args(argv)
    check_file(arguments)
    start_libraries()
    from cifar_jax.commands.report import is_run, report_run
    from cifar_jax.commands.study_report import redraw
    from cifar_jax.device import select_device
    from cifar_jax.runner.moved import Moved
    from cifar_jax.study.file import load_file

    select_device("cpu")  # Nothing is computed that needs another, which may be in use.
    write: Callable[..., object] = report_run if is_run(arguments.workdir) else redraw
    write(
        arguments.workdir,
        Moved(arguments.dataset, arguments.data_dir),
        file=load_file(arguments.file) if arguments.file else None,
        demo=arguments.demo,
    )
    return 0


def _evaluate(argv: list[str]) -> int:
    arguments = evaluate_parser().parse_args(argv)
    check_file(arguments)
    prepare_jax(arguments)
    from cifar_jax.commands.evaluate_file import evaluate_file
    from cifar_jax.commands.train import evaluate_run
    from cifar_jax.runner.moved import Moved
    from cifar_jax.study.file import load_file
    from cifar_jax.study.onnx_network import is_network_file, open_file, open_onnx_network

    moved, path = Moved(arguments.dataset, arguments.data_dir), arguments.checkpoint
    if arguments.onnx is not None:
        evaluate_file(open_onnx_network(arguments.onnx, "--onnx"), "--onnx", moved)
    elif is_network_file(path):
        evaluate_file(open_file(path, "--checkpoint"), "--checkpoint", moved)
    else:
        evaluate_run(path, file=load_file(arguments.file) if arguments.file else None, moved=moved)
    return 0


def _predict(argv: list[str]) -> int:
    arguments = predict_parser().parse_args(argv)
    check_file(arguments)
    if arguments.images.count(STANDARD_INPUT) > 1:
        raise UserError(f"IMAGE {STANDARD_INPUT}: is given twice; standard input is one picture")
    prepare_jax(arguments)
    from cifar_jax.commands.predict import Source, Wanted, predict_run

    source = Source(
        arguments.run, arguments.arm, arguments.file, arguments.dataset, arguments.data_dir
    )
    wanted = Wanted(arguments.top, arguments.json, arguments.montage)
    failed = predict_run(arguments.images, source, wanted)
    if failed:
        text = f"{PROGRAM}: {counted(failed, 'picture')} could not be read"
        print(text, file=sys.stderr)
    return EXIT_FAILED if failed else 0


def _analyse(argv: list[str]) -> int:
    arguments = analyse_parser().parse_args(argv)
    check_file(arguments)
    names = chosen_parts(arguments)
    prepare_jax(arguments)
    from cifar_jax.analysis.trained import Request
    from cifar_jax.commands.analyse import analyse_run
    from cifar_jax.runner.moved import Moved
    from cifar_jax.study.file import load_file

    analyse_run(
        arguments.workdir,
        names,
        request=Request(
            unknown=tuple(arguments.unknown),
            corruption_images=arguments.corruption_images,
            cifar10_c=arguments.cifar10_c,
            cifar10_1=arguments.cifar10_1,
            demo=arguments.demo,
        ),
        file=load_file(arguments.file) if arguments.file else None,
        moved=Moved(arguments.dataset, arguments.data_dir),
    )
    return 0


def _export(argv: list[str]) -> int:
    arguments = export_parser().parse_args(argv)
    check_file(arguments)
    prepare_jax(arguments)
    from cifar_jax.commands.export import Wanted, export_run
    from cifar_jax.runner.moved import Moved
    from cifar_jax.study.file import load_file

    export_run(
        arguments.run,
        Wanted(arguments.format, arguments.output, arguments.input),
        file=load_file(arguments.file) if arguments.file else None,
        moved=Moved(arguments.dataset, arguments.data_dir),
    )
    return 0


def _seeds(argv: list[str]) -> int:
    arguments = seeds_parser().parse_args(argv)
    from cifar_jax.commands.seeds import seeds_run

    seeds_run(arguments.difference, arguments.std, arguments.half_width, arguments.study, _say)
    return 0


def _compare(argv: list[str]) -> int:
    arguments = compare_parser().parse_args(argv)
    libraries.draw_without_display()  # Without JAX, which takes seconds.
    from cifar_jax.commands.compare import compare_run

    names = ("arm_column", "seed_column", "metric", "control")
    flags = {name: getattr(arguments, name) for name in names}
    compare_run(arguments.paths, flags, arguments.workdir)
    return 0


def _init(argv: list[str]) -> int:
    arguments = init_parser().parse_args(argv)
    from cifar_jax.commands.init import init_run

    init_run(arguments.directory, _say)
    return 0


COMMANDS = {
    "train": _train,
    "study": _study,
    "report": _report,
    "evaluate": _evaluate,
    "predict": _predict,
    "analyse": _analyse,
    "export": _export,
    "seeds": _seeds,
    "compare": _compare,
    "init": _init,
}


def main(argv: list[str]) -> int:
    """Run one command line, without the program's name. Return the exit status."""
    command, options = "train", argv
    if argv and not argv[0].startswith("-"):
        command, options = argv[0], argv[1:]
    try:
        if command not in COMMANDS:
            raise UserError(f"{shown(command)} is not a command; allowed: {', '.join(COMMANDS)}")
        status = COMMANDS[command](options)
        sys.stdout.flush()
        return status
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
    gc.set_threshold(100_000)  # By default, collections take a tenth of the start.
    status = main(sys.argv[1:])
    # All files are closed. An orderly exit takes a second, and a thread that still imports,
    # compiles or trains would delay or crash it.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main_cli()
