"""Run compiled programs from the host, in a few calls for each epoch."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import jax

from cifar_jax.core.optim import Hyper
from cifar_jax.core.train import Metrics, TrainState
from cifar_jax.runner.processes import of_first
from cifar_jax.runner.programs import CompiledEpoch

# Seconds between two checks for signals, well within the grace period after SIGTERM. On a CPU, a
# call takes almost one step longer, because it allocates its memory again.
SEGMENT = 10.0


@dataclass(frozen=True)
class Boundary:
    """A point in training between two calls of a program.

    Attributes:
        state: after the steps so far.
        epoch: the current epoch, counted from 1.
        steps: finished steps of this epoch.
        seconds: time of these steps in compiled programs.
        metrics: of the epoch; None before its end.
    """

    state: TrainState
    epoch: int
    steps: int
    seconds: float
    metrics: Metrics | None = None


def boundaries(
    program: CompiledEpoch,
    hyper: Hyper,
    begin: Boundary,
    last: int,
    segment: float = SEGMENT,
) -> Iterator[Boundary]:
    """Train to the end of epoch `last` in calls of about `segment` seconds.

    Args:
        program: of an epoch.
        hyper: hyper-parameters.
        begin: where training starts or resumes.
        last: number of the last epoch.
        segment: seconds that a call should take. The first call is a single step.

    Yields:
        The boundary after each call. The end of an epoch is a separate call.
    """
    state, steps, seconds, call = begin.state, begin.steps, begin.seconds, 1
    for epoch in range(begin.epoch, last + 1):
        while steps < program.full:
            stop = min(steps + call, program.full)
            clock = time.perf_counter()
            state = jax.block_until_ready(program.advance(hyper, state, steps, stop))
            spent = time.perf_counter() - clock
            call = of_first(max(1, int(segment / max(spent / (stop - steps), 1e-6))))
            steps, seconds = stop, seconds + spent
            yield Boundary(state, epoch, steps, seconds)
        clock = time.perf_counter()
        state, metrics = jax.block_until_ready(program.finish(hyper, state))
        seconds += time.perf_counter() - clock
        yield Boundary(state, epoch, program.steps, seconds, metrics)
        steps, seconds = 0, 0.0
