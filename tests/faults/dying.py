"""`python dying.py N ROOT PROGRAM ARGUMENT...`: a program that is killed before its N-th write.

It counts the operations of Python's audit hook that change files below ROOT: opening to write,
making, renaming and removing. N = 0 kills nothing.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")


def die_before(count: int, root: str) -> None:
    """Kill this process, as `kill -9` does, before its `count`-th write below `root`."""
    left = count

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            if not args[2] & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in _CHANGES:
            return
        path = args[0]
        # A relative name is one that `shutil.rmtree` takes away, directory by directory.
        if isinstance(path, str | Path) and (str(path).startswith(root) or str(path)[0] != "/"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    count, root, program, *arguments = sys.argv[1:]
    if program == "main":
        sys.path.append(str(Path(__file__).parents[1]))
        from small import shrink

        from cifar_jax.libraries import start
        from cifar_jax.main import main as run

        start()
        shrink()
        die_before(int(count), root)
        sys.exit(run(arguments))
    die_before(int(count), root)
    if program == "folder":
        from cifar_jax.data.sources import folder

        folder.load(arguments[0], Path(arguments[1]))
    if program == "cifar10":
        from cifar_jax.data.sources import published
        from cifar_jax.data.sources.spec import File

        files, counts = json.loads(arguments[2])
        spec = dataclasses.replace(
            published.CIFAR10, files=tuple(File(**file) for file in files), counts=tuple(counts)
        )
        published.load(spec, Path(arguments[1]), data_dir=arguments[0])


if __name__ == "__main__":
    main()
