"""Set up JAX, and read what a parsed command line asks for."""

import argparse
import importlib.util
import sys
from collections.abc import Callable

from cifar_jax import libraries
from cifar_jax.config import tables
from cifar_jax.config.settings import Config
from cifar_jax.errors import UserError, printable, shown
from cifar_jax.flags import PROGRAM, flag_of
from cifar_jax.names import PARTS, PARTS_WITH_FLAGS


def _warn(line: str) -> None:
    print(printable(f"{PROGRAM}: warning: {line}"), file=sys.stderr)


def start_libraries() -> None:
    """Import JAX. Warn of environment variables that are ignored."""
    if unused := libraries.start():
        _warn(f"ignored, so that results do not depend on it: {', '.join(unused)}")


def prepare_jax(arguments: argparse.Namespace) -> None:
    """Start JAX on the device of a command's flags, with its cache of compiled programs.

    Raises:
        UserError: there is no such device, or the other processes cannot be joined.
    """
    start_libraries()
    from cifar_jax.data.sources.cache import cache_root, is_homeless
    from cifar_jax.device import select_device, use_compilation_cache

    _join(arguments)
    select_device(arguments.device, arguments.threads)
    cache = cache_root()
    if is_homeless(cache):
        _warn(f"no home directory, so the cache is {cache}; set CIFAR_JAX_CACHE to choose another")
    use_compilation_cache(cache / "compiled")


def _join(arguments: argparse.Namespace) -> None:
    """Join the other processes of `train`, if there are any."""
    if not hasattr(arguments, "coordinator"):
        return
    from cifar_jax.runner.processes import Place, join

    place = arguments.coordinator, arguments.processes, arguments.process_id
    if place.count(None) not in (0, 3):
        raise UserError("--coordinator, --processes and --process-id: give all three, or none")
    join(None if None in place else Place(*place))


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
            config = tables.override(config, section, name, value, flag_of(section, name))
    return config


def check_kind(arguments: argparse.Namespace, recorded: Config) -> None:
    """Raise if FILE is given, and the run or study in `--workdir` began without one."""
    if arguments.file is not None and recorded.experiment.file is None:
        raise UserError(
            f"--workdir {arguments.workdir}: began without an experiment file; leave out FILE, or "
            "choose another --workdir"
        )


def read_config(
    arguments: argparse.Namespace, saved: Callable[[argparse.Namespace], Config | None] | None
) -> Config:
    """Set up JAX and return the config of a command line.

    Args:
        arguments: of the command line.
        saved: reads the config saved in `--workdir`; None for a new run.
    """
    if saved is None or arguments.config is not None or arguments.workdir is None:
        config = parse_config(arguments)
        if arguments.file is None:
            from cifar_jax.runner import early

            early.begin(config.data)
        prepare_jax(arguments)
        return config
    if arguments.workdir.exists() and not arguments.workdir.is_dir():
        raise UserError(f"--workdir {arguments.workdir}: is not a directory")
    prepare_jax(arguments)
    return parse_config(arguments, saved(arguments))


def check_file(arguments: argparse.Namespace) -> None:
    """Check that the experiment file exists, before slow imports."""
    if arguments.file is not None and not arguments.file.is_file():
        raise UserError(f"FILE {arguments.file}: there is no such file")


def check_engine(engine: str) -> None:
    """Check that the package of an engine is installed, before slow imports.

    Args:
        engine: of `--engine`, or empty.
    """
    found = importlib.util.find_spec(engine) if engine else None
    if engine and (found is None or found.origin is None):  # A directory has no origin.
        raise UserError(f"--engine {engine}: is not installed: pip install 'cifar_jax[{engine}]'")


def given_flags(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the given flags of the config, by setting."""
    destinations = (name for name in vars(arguments) if "." in name)
    return {name: flag_of(*name.split(".")) for name in destinations}


def chosen_parts(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the parts that `--only` names, in the page's order; without it all.

    A part that needs a flag is only among all if the flag is given.
    """
    if arguments.only is None:
        lacking = [
            name
            for name, flags in PARTS_WITH_FLAGS.items()
            if not any(getattr(arguments, flag) for flag in flags)
        ]
        return tuple(name for name in PARTS if name not in lacking)
    names = [name.strip() for name in arguments.only.split(",")]
    for name in names:
        if name not in PARTS:
            raise UserError(f"--only: {shown(name)} is not a part; allowed: {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in names)
