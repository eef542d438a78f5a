"""Run a command of `cifar_jax.main`, and print the parts of its time as JSON in the last line.

A child process of `startup`. Its first argument is the time of its start, in seconds of
`time.time`. A part is a name, and its begin and end in seconds after the start.
"""

import gc
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

begun = float(sys.argv[1])
parts: list[tuple[str, float, float]] = [("start Python", 0.0, time.time() - begun)]
_lock = threading.Lock()


def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call`, noting each of its calls as a part."""

    def noted(*args: Any, **kwargs: Any) -> Any:
        start = time.time() - begun
        try:
            return call(*args, **kwargs)
        finally:
            with _lock:
                parts.append((name, start, time.time() - begun))

    return noted


def note(module: str, names: dict[str, str]) -> None:
    """Replace functions of a module by timed ones: from the function's name to the part's."""
    owner: Any = importlib.import_module(module)
    *classes, _ = next(iter(names)).split(".")
    for class_name in classes:
        owner = getattr(owner, class_name)
    for name, part in names.items():
        attribute = name.rpartition(".")[2]
        setattr(owner, attribute, timed(part, getattr(owner, attribute)))


def run(argv: list[str]) -> int:
    """Run the command with the same steps as `main_cli`, timed."""
    from cifar_jax import configure, libraries, main

    gc.set_threshold(1_000_000)
    libraries.silence()
    note("cifar_jax.runner.early", {"open_named": "open images"})
    note("cifar_jax.variables", {"import_jax": "import JAX"})
    note("cifar_jax.device", {"select_device": "start the device"})
    prepare = configure.prepare_jax

    def prepare_and_import(arguments: Any) -> None:
        prepare(arguments)
        timed("import Flax and the project", importlib.import_module)("cifar_jax.commands.train")
        import jax

        note("cifar_jax.commands.train", {"open_data": "split images", "_say_results": "print"})
        note("cifar_jax.runner.starts", {"first_state": "initial values"})
        training = "cifar_jax.runner.training"
        note(training, {"stack_runs": "initial values"})
        note(training, {"evaluate": "evaluate", "finish": "write results"})
        note("cifar_jax.libraries", {"import_late": "import the others"})
        note("cifar_jax.runner.hooks", {"Saves.save": "save a checkpoint"})
        programs: Any = importlib.import_module("cifar_jax.runner.programs")
        jit = programs.jit

        def timed_jit(*args: Any, **kwargs: Any) -> Any:
            jitted = jit(*args, **kwargs)

            class Timed:
                trace = staticmethod(timed("trace and lower", jitted.trace))

                @staticmethod
                def lower(*args: Any) -> Any:
                    return Timed.trace(*args).lower()

            return Timed

        programs.jit = timed_jit
        jax.stages.Traced.lower = timed("trace and lower", jax.stages.Traced.lower)
        jax.stages.Lowered.compile = timed("compile", jax.stages.Lowered.compile)

        def wait_for(call: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args: jax.block_until_ready(call(*args))

        session: Any = importlib.import_module("cifar_jax.runner.session")
        compile_epoch = session.compile_device_epoch

        def compiled(*args: Any) -> Any:
            program = compile_epoch(*args)
            for name, part in (("advance", "train"), ("finish", "validate")):
                ready = wait_for(getattr(program, name))
                object.__setattr__(program, name, timed(part, ready))
            return program

        session.compile_device_epoch = compiled

    configure.prepare_jax = main.prepare_jax = prepare_and_import
    return main.main(argv)


if __name__ == "__main__":
    status = run(sys.argv[2:])
    end = time.time() - begun
    print(json.dumps([*parts, ("end", end, end)]), flush=True)
    os._exit(status)
