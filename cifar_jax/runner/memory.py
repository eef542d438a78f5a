"""Check that a group's programs fit into the device's memory, before training."""

from collections.abc import Iterable
from typing import Any

import jax

from cifar_jax.device import memory_limit
from cifar_jax.errors import UserError, counted


class TooManyRuns(UserError):
    """A group of runs needs more memory than the device has.

    Attributes:
        fits: number of runs that fit; may be 0.
    """

    def __init__(self, message: str, fits: int) -> None:
        super().__init__(message)
        self.fits = fits

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.fits)  # Another process can raise it again.


def check_memory(
    programs: Iterable[Any], runs: int, shared: Any, device: jax.Device, devices: int = 1
) -> None:
    """Check that compiled programs fit into the memory of an accelerator.

    A CPU, and a device that does not tell its memory, pass.

    Args:
        programs: compiled, of a group.
        runs: in the group.
        shared: arrays that all runs share, on each device: the images.
        device: that runs them, or one of several.
        devices: that each train some of the runs.

    Raises:
        TooManyRuns: not all runs fit.
    """
    limit = memory_limit(device)
    if limit is None:
        return
    need = max(_bytes(program) for program in programs)
    if need <= limit:
        return
    once = sum(leaf.nbytes for leaf in jax.tree.leaves(shared))
    fits = int((limit - once) / (need - once) * runs / devices) * devices
    whose = "the device's" if devices == 1 else "each device's"
    sizes = f"need {need / 2**30:.1f} GiB of {whose} memory, which has {limit / 2**30:.1f} GiB"
    if fits < 1:
        raise TooManyRuns(
            f"--batch-size: {counted(runs, 'run')} {sizes}; not even one run fits; lower "
            "--batch-size, or use --pipeline stream",
            0,
        )
    raise TooManyRuns(f"--seed-parallelism {runs}: {runs} runs {sizes}; {fits} fit", fits)


def _bytes(program: Any) -> int:
    """Return the bytes that a call of a compiled program needs, its arguments included."""
    sizes = program.memory_analysis()
    need: int = (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )
    return need
