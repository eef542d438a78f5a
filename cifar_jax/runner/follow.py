"""Train a run beside the process that writes its files, and write none."""

import numpy as np

from cifar_jax.runner import outcome
from cifar_jax.runner.boundaries import boundaries
from cifar_jax.runner.ending import common_fields
from cifar_jax.runner.evaluation import evaluate_logits
from cifar_jax.runner.group import Group
from cifar_jax.runner.hooks import Interrupted, is_stop
from cifar_jax.runner.results import DivergedAt, Results
from cifar_jax.runner.session import Session
from cifar_jax.runner.signals import Interrupts, Terminated, exit_status, in_thread


def follow(session: Session, group: Group, later: bool) -> list[Results]:
    """Call the programs that the first process calls. Return the same results.

    Args:
        session, group: as in the first process.
        later: whether other groups train after this one.

    Raises:
        Interrupted: all processes stop.
    """
    interrupts = Interrupts(lambda stop: None, session.grace)
    with interrupts:
        for at in interrupts.each(boundaries(group.program, group.hyper, group.at, group.last)):
            group.advance(at)
            if is_stop(interrupts, group, later):
                status = exit_status(interrupts.requested or Terminated())
                raise Interrupted("Stopped with the process that writes the files.", status)
            if not group.alive:
                break
    if group.alive:
        images = session.prepared.dataset.test_images
        logits = in_thread(lambda: group.program.predict(group.hyper, group.at.state, images))
    labels = np.asarray(session.prepared.dataset.test_labels)
    results: list[Results] = []
    for i in range(len(group.runs)):
        fields = common_fields(session, group, i)
        if found := group.diverged.get(i):
            where = DivergedAt(epoch=found.epoch, step=found.step)
            results.append(outcome.divergence(where, **fields))
        else:
            results.append(outcome.finished(evaluate_logits(logits[i], labels), **fields))
    return results
