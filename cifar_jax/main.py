"""Command line: call one command, and turn its errors into a line and an exit status."""

import contextlib
import gc
import io
import os
import sys
import traceback
from typing import NoReturn

from cifar_jax import failures, libraries
from cifar_jax.dispatch import COMMANDS, EXIT_FAILED
from cifar_jax.errors import UserError, printable, shown
from cifar_jax.flags import PROGRAM
from cifar_jax.runner.signals import exit_status, raise_on_sigterm


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
    gc.set_threshold(1_000_000)  # By default, collections take a tenth of the start.
    status = main(sys.argv[1:])
    # All files are closed. An orderly exit takes a second, and a thread that still imports,
    # compiles or trains would delay or crash it.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main_cli()
