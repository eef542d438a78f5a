"""The end of a run: its divergence, or its evaluation, and its results."""

import time
from typing import Any

import jax
import numpy as np
from msgspec import structs

from cifar_jax.core.train import TrainState
from cifar_jax.device import peak_device_memory_bytes, peak_memory_bytes
from cifar_jax.runner import outcome, provenance
from cifar_jax.runner.boundaries import Boundary
from cifar_jax.runner.evaluation import evaluate_logits
from cifar_jax.runner.group import Divergence, Group
from cifar_jax.runner.hooks import Saves
from cifar_jax.runner.nonfinite import replay
from cifar_jax.runner.programs import unstack_run
from cifar_jax.runner.results import Diverged, DivergedAt, Finished
from cifar_jax.runner.session import Session
from cifar_jax.runner.signals import in_thread


def count_parameters(state: TrainState) -> int:
    """Return the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def report_divergence(
    session: Session, group: Group, index: int, divergence: Divergence, before: Boundary
) -> Diverged:
    """Write the results of a run that diverged. `before` is the boundary before that epoch."""
    run, operation = group.runs[index], None
    if session.debug_nans:
        session.display.say(f"{divergence}; replaying epoch {divergence.epoch} step by step")
        run_of = unstack_run((before.state, group.hyper), index)
        state, hyper = jax.device_put(run_of, session.device)
        experiment, host = run.experiment, session.prepared.host
        replayed = in_thread(lambda: replay(experiment, hyper, state, host, divergence.epoch))
        operation = (
            "step {}: {}".format(*replayed)
            if replayed
            else "step by step, all training steps are finite: rounding or the validation differs"
        )
    found = DivergedAt(epoch=divergence.epoch, step=divergence.step, operation=operation)
    return outcome.write_divergence(run.workdir, found, **common_fields(session, group, index))


def common_fields(session: Session, group: Group, index: int) -> dict[str, Any]:
    """Return the fields that the results of finished and diverged runs share."""
    run, record, history = group.runs[index], group.records[index], group.rows(index)
    train_seconds = sum(row.seconds for row in history)
    device = session.device
    return {
        **structs.asdict(record),
        "compile_share": record.compile_seconds / (record.compile_seconds + train_seconds),
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_device_memory_bytes": peak_device_memory_bytes(device),
        "model": run.model_name,
        "norm": run.config.model.norm if run.config.experiment.file is None else None,
        "seed": run.config.training.seed,
        "num_params": count_parameters(group.at.state) // len(group.at.state.step),
        "history": history,
        "spent": group.spent(index),
        "train_seconds": train_seconds,
        "seed_parallelism": len(group.runs),
        "device": provenance.describe_device(device.device_kind, device.platform),
        **provenance.determinism(device.platform, record.computed_on),
    }


def evaluate(session: Session, group: Group, saves: Saves) -> tuple[np.ndarray, float]:
    """Evaluate the runs on the test images, and save their last checkpoints meanwhile.

    Returns:
        Logits, float (runs, N, classes), and seconds per run.
    """
    begun = time.perf_counter()
    saves.save_runs(group, group.alive, group.at)
    images = session.prepared.dataset.test_images
    logits = in_thread(lambda: group.program.predict(group.hyper, group.at.state, images))
    saves.wait()  # A finished run has its checkpoint.
    return logits, (time.perf_counter() - begun) / len(group.runs)


def finish(
    session: Session, group: Group, index: int, logits: np.ndarray, seconds: float
) -> Finished:
    """Write the results of a run.

    Args:
        session, group, index: of the run.
        logits: of the test images, (N, classes).
        seconds: of its evaluation.
    """
    labels = np.asarray(session.prepared.dataset.test_labels)
    fields = common_fields(session, group, index)
    fields["spent"] = group.spent(index, seconds)
    evaluation = evaluate_logits(logits, labels)
    return outcome.write_finished(group.runs[index].workdir, evaluation, logits, labels, **fields)
