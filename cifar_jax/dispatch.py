"""Parse the flags of each command, and call it with them."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_jax import libraries
from cifar_jax.config.settings import Config
from cifar_jax.configure import (
    check_engine,
    check_file,
    check_kind,
    chosen_parts,
    given_flags,
    prepare_jax,
    read_config,
    start_libraries,
)
from cifar_jax.errors import UserError, counted, printable
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

if TYPE_CHECKING:
    from cifar_jax.runner.moved import Moved
    from cifar_jax.study.file import ExperimentFile
    from cifar_jax.study.rebuild import Saved

EXIT_FAILED = 1  # The others: 2 of UserError, 130 of Ctrl-C, 143 of SIGTERM.


def _moved(arguments: argparse.Namespace) -> "Moved":
    from cifar_jax.runner.moved import Moved

    return Moved(arguments.dataset, arguments.data_dir)


def _loaded(arguments: argparse.Namespace) -> "ExperimentFile | None":
    """Load the experiment file, if one is given."""
    from cifar_jax.study.file import load_file

    return load_file(arguments.file) if arguments.file else None


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
            figures=arguments.figures,
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
    check_engine(arguments.engine)
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
            spread=Spread(arguments.data_parallel, *arguments.share)._replace(
                engine=arguments.engine
            ),
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

    select_device("cpu")  # Nothing is computed that needs another, which may be in use.
    write: Callable[..., object] = report_run if is_run(arguments.workdir) else redraw
    moved, file = _moved(arguments), _loaded(arguments)
    write(arguments.workdir, moved, file=file, demo=arguments.demo)
    return 0


def _evaluate(argv: list[str]) -> int:
    arguments = evaluate_parser().parse_args(argv)
    check_file(arguments)
    prepare_jax(arguments)
    from cifar_jax.commands.evaluate_file import evaluate_file
    from cifar_jax.commands.train import evaluate_run
    from cifar_jax.study.onnx_network import is_network_file, open_file, open_onnx_network

    moved, path = _moved(arguments), arguments.checkpoint
    if arguments.onnx is not None:
        evaluate_file(open_onnx_network(arguments.onnx, "--onnx"), "--onnx", moved)
    elif is_network_file(path):
        evaluate_file(open_file(path, "--checkpoint"), "--checkpoint", moved)
    else:
        evaluate_run(path, file=_loaded(arguments), moved=moved)
    return 0


def _predict(argv: list[str]) -> int:
    arguments = predict_parser().parse_args(argv)
    check_file(arguments)
    if arguments.images.count(STANDARD_INPUT) > 1:
        raise UserError(f"IMAGE {STANDARD_INPUT}: is given twice; standard input is one image")
    prepare_jax(arguments)
    from cifar_jax.commands.predict import Source, Wanted, predict_run

    source = Source(
        arguments.run, arguments.arm, arguments.file, arguments.dataset, arguments.data_dir
    )
    wanted = Wanted(arguments.top, arguments.json, arguments.montage)
    failed = predict_run(arguments.images, source, wanted)
    if failed:
        text = f"{PROGRAM}: {counted(failed, 'image')} could not be read"
        print(text, file=sys.stderr)
    return EXIT_FAILED if failed else 0


def _analyse(argv: list[str]) -> int:
    arguments = analyse_parser().parse_args(argv)
    check_file(arguments)
    names = chosen_parts(arguments)
    prepare_jax(arguments)
    from cifar_jax.analysis.trained import Request
    from cifar_jax.commands.analyse import analyse_run

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
        file=_loaded(arguments),
        moved=_moved(arguments),
    )
    return 0


def _export(argv: list[str]) -> int:
    arguments = export_parser().parse_args(argv)
    check_file(arguments)
    prepare_jax(arguments)
    from cifar_jax.commands.export import Wanted, export_run

    export_run(
        arguments.run,
        Wanted(arguments.format, arguments.output, arguments.input),
        file=_loaded(arguments),
        moved=_moved(arguments),
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
