"""Start the libraries and silence their warnings."""

import importlib
import logging
import os
import sys
import threading
import warnings
from types import TracebackType
from typing import Any

from cifar_jax import variables


def draw_without_display() -> None:
    """Let Matplotlib draw into files, without warnings.

    Jupyter sets a backend that is not always installed.
    """
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)


def start() -> list[str]:
    """Import JAX, without the environment variables that would change results.

    Returns:
        The removed variables, each as `NAME=value`.

    Raises:
        UserError: another `JAX_` variable has a wrong value.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    draw_without_display()
    for name in ("absl", "asyncio"):  # Serious errors are raised too.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    dropped = variables.drop_fixed()
    variables.import_jax()
    return dropped


def import_late(study: bool) -> None:
    """Import the libraries that a run, or a study, needs only after its first step."""
    importlib.import_module("orbax.checkpoint.args")
    import_tensorboardx()
    if study:  # Its report has figures and statistics.
        importlib.import_module("matplotlib.figure")
        importlib.import_module("scipy.stats")


_HIDES_TORCH = threading.Lock()


def import_tensorboardx() -> None:
    """Import tensorboardX without PyTorch, which it imports for seconds where it is installed."""
    with _HIDES_TORCH:
        hide = "torch" not in sys.modules
        if hide:
            sys.modules["torch"] = None  # type: ignore[assignment]  # Its import fails at once.
        try:
            importlib.import_module("tensorboardX.event_file_writer")
        finally:
            if hide:
                del sys.modules["torch"]


def _is_from_asyncio(trace: TracebackType | None) -> bool:
    """Return whether asyncio raised an error. Only libraries use asyncio here."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return name.startswith("asyncio.")


def silence() -> None:
    """Hide the libraries' warnings in this whole process.

    PYTHONWARNINGS or -W show them; their "error" only warns. After a failed save, Orbax's threads
    use a closed event loop. Their asyncio errors are hidden too: the program reports the failure.
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
