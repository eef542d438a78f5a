"""How the libraries start and what they may say: the terminal is the program's own."""

import logging
import os
import sys
import warnings
from types import TracebackType
from typing import Any

from cifar_jax import variables


def start() -> list[str]:
    """Import JAX, free of the shell's variables that results must not depend on.

    Returns:
        The variables that are not used, each as `NAME=value`.

    Raises:
        UserError: if another of JAX's variables has a wrong value.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Figures are written, not shown. Jupyter sets a backend that may be missing here.
    os.environ["MPLBACKEND"] = "agg"
    for name in ("absl", "asyncio", "matplotlib"):  # What matters is raised too.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    dropped = variables.drop_fixed()
    variables.import_jax()
    return dropped


def _is_from_asyncio(trace: TracebackType | None) -> bool:
    """Whether an error was raised in Python's asyncio, which this program itself does not use."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return name.startswith("asyncio.")


def silence() -> None:
    """Keep the libraries' warnings from the terminal, and from ending the program.

    For a whole process. Whoever wants the warnings says so by PYTHONWARNINGS or -W; there an
    "error" is a warning. After a failed save Orbax's threads go on with a closed event loop: what
    they then raise says nothing beside the program's own message.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    elif any(option.startswith("e") for option in sys.warnoptions):
        warnings.simplefilter("default")
    excepthook, unraisablehook = sys.excepthook, sys.unraisablehook

    def on_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not _is_from_asyncio(trace):
            excepthook(kind, error, trace)

    def on_unraisable(found: Any) -> None:
        if not _is_from_asyncio(found.exc_traceback):
            unraisablehook(found)

    sys.excepthook, sys.unraisablehook = on_error, on_unraisable
