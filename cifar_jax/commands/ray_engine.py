"""Let the workers of a Ray cluster train the groups of a study, one group a task.

The driver, which is the command's own process, plans the groups as if it trained them. A worker
opens the images once, and keeps its compiled programs. A worker that dies is replaced: the next one
takes over the locks of the runs, and resumes them.
"""

import dataclasses
import functools
import os
import platform
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from cifar_jax.commands.study_groups import (
    Sessions,
    Work,
    say_outcomes,
    sessions_of,
    train_together,
)
from cifar_jax.config.settings import Config
from cifar_jax.data.sources.cache import cache_root
from cifar_jax.device import (
    DEVICES,
    fixed_threads,
    local_devices,
    select_device,
    use_compilation_cache,
)
from cifar_jax.errors import MachineError, UserError, counted, one_line
from cifar_jax.runner.console import Display
from cifar_jax.runner.hooks import Interrupted
from cifar_jax.runner.locate import remove_finished_groups
from cifar_jax.runner.memory import TooManyRuns
from cifar_jax.runner.prepare import open_dataset, split_dataset
from cifar_jax.runner.results import Results
from cifar_jax.runner.signals import GRACE, exit_status
from cifar_jax.study.file import load_file
from cifar_jax.study.schedule import Group

# How often the task of a group may begin; its worker may die each time.
MOST_TRIES = 4
POLL = 0.2  # seconds


class _Job(NamedTuple):
    """What a worker needs to train groups as the driver would.

    Attributes:
        config, workdir, options: of the driver's `Work`.
        fingerprint, notes: of the images.
        file: path of the experiment file, or None.
        runs: of the study; they share the time of loading.
        device, threads: for `select_device`.
    """

    config: Config
    workdir: Path
    options: tuple[tuple[str, Any], ...]
    fingerprint: str
    notes: tuple[str, ...]
    file: Path | None
    runs: int
    device: str | None
    threads: int | None


def _job(work: Work, runs: int) -> _Job:
    dataset, found = work.prepared.dataset, local_devices()[0].platform
    return _Job(
        config=work.prepared.config,
        workdir=work.workdir.absolute(),
        options=tuple(work.options.items()),
        fingerprint=dataset.fingerprint,
        notes=dataset.notes,
        file=work.file.path.absolute() if work.file else None,
        runs=runs,
        device=found if found in DEVICES else None,
        threads=fixed_threads(),
    )


@functools.cache
def _open(job: _Job) -> tuple[Work, Sessions]:
    """Set up this worker for a study, once."""
    select_device(job.device, job.threads)
    use_compilation_cache(cache_root() / "compiled")
    begun = time.perf_counter()
    file = load_file(job.file) if job.file else None
    config, dataset = open_dataset(job.config, images=file.dataset if file else None)
    if dataset.fingerprint != job.fingerprint:
        raise MachineError(f"--engine ray: {platform.node()} has other images than the driver")
    prepared = split_dataset(config, dataclasses.replace(dataset, notes=job.notes))
    prepared = dataclasses.replace(prepared, seconds=time.perf_counter() - begun)
    options: Any = dict(job.options)
    quiet = Display(Console(quiet=True))
    work = Work(job.workdir, prepared, file, 1, options, quiet, demo=False)
    return work, sessions_of(work, job.runs)


def _train(job: _Job, group: Group) -> list[Results] | UserError | None:
    """Train a group in a worker. Return an error of the user, and None after a signal."""
    try:
        work, sessions = _open(job)
        return train_together(work, group, sessions)
    except UserError as error:
        return error
    except Interrupted:  # The machine shuts down. A checkpoint is saved.
        return None


def _remote(ray: Any, job: _Job) -> Any:
    """Return `_train` as a function of Ray, the module.

    A task needs a GPU, or without one as many CPUs as threads, by default all of a machine.

    Raises:
        UserError: no machine of the cluster has them.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kind, count = "CPU", job.threads or min(int(node.get("CPU", 0)) or 1 for node in nodes)
    if job.device == "gpu":
        kind, count = "GPU", 1
    if max(node.get(kind, 0) for node in nodes) < count:
        raise UserError(f"--engine ray: no machine of the cluster has {counted(count, kind)}")
    return ray.remote(max_retries=0, **{f"num_{kind.lower()}s": count})(_train)


def train_groups(work: Work, groups: Sequence[Group]) -> list[str]:
    """Train groups on a Ray cluster. Return a line for each run that failed.

    The cluster is that of `RAY_ADDRESS`, else the one of this machine, else a new one.

    Raises:
        UserError: no machine of the cluster can train, or has enough memory.
        Interrupted: after a signal.
    """
    import ray  # Only this needs it.

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    # Before a worker imports JAX, it removes the variables that would change results.
    start = {"worker_process_setup_hook": "cifar_jax.libraries.start"}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", runtime_env=start)
    except ConnectionError as error:
        raise UserError(f"--engine ray: the cluster does not answer ({one_line(error)})") from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has replaced it.
    tasks = _Tasks(ray, work, _job(work, sum(len(group.runs) for group in groups)))
    try:
        failed = tasks.finish(groups)
    except KeyboardInterrupt as stop:
        work.display.say("stopping all workers at their next step, and saving")
        tasks.cancel()
        raise Interrupted("Stopped.", exit_status(stop)) from None
    except UserError:
        tasks.cancel()
        raise
    finally:
        work.display.end_progress()
        ray.shutdown()
    remove_finished_groups(work.workdir)
    return failed


class _Tasks:
    """The running tasks of a study. `ray` is the module."""

    def __init__(self, ray: Any, work: Work, job: _Job) -> None:
        self._ray, self._work, self._job = ray, work, job
        self._running: dict[Any, Group] = {}
        self._tries: Counter[Group] = Counter()

    def finish(self, groups: Sequence[Group]) -> list[str]:
        """Train all groups. Return a line for each run that failed."""
        begun, done, failed = time.monotonic(), 0, []
        train = _remote(self._ray, self._job)
        to_do = list(groups)
        while to_do or self._running:
            for group in to_do:
                self._tries[group] += 1
                self._running[train.remote(self._job, group)] = group
            left = (time.monotonic() - begun) * (self._job.runs / done - 1) if done else None
            self._work.display.progress("runs", done, self._job.runs, left=left)
            ended, to_do = self._ray.wait(list(self._running), timeout=0)[0], []
            if not ended:
                time.sleep(POLL)  # Inside `wait`, each signal would become KeyboardInterrupt.
            for task in ended:
                group = self._running.pop(task)
                lines = self._collect(group, task)
                if lines is None:
                    to_do.append(group)
                else:
                    failed += lines
                    done += len(group.runs)
        return failed

    def _collect(self, group: Group, task: Any) -> list[str] | None:
        """Return a line for each failed run of a group. None: it lost its worker."""
        names, say, why = "; ".join(group.labels), self._work.display.say, "it was stopped"
        try:
            found = self._ray.get(task)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:  # The worker or its machine has died.
            found, why = None, type(error).__name__
        if isinstance(found, MachineError | TooManyRuns):  # The other runs would fail too.
            raise found
        if found is None and self._tries[group] < MOST_TRIES:
            say(f"{names}: lost its worker ({why}); another one resumes")
            return None
        if found is None:
            found = UserError(
                f"{names}: lost {MOST_TRIES} workers, the last by {why}; Ray's logs say more; all "
                "machines need this package"
            )
        if isinstance(found, UserError):
            say(str(found))
            return [str(found)]
        return say_outcomes(self._work, group, found)

    def cancel(self) -> None:
        """Stop all tasks at their next step, and wait until they have saved."""
        for task in self._running:
            self._ray.cancel(task)
        grace = self._work.options.get("grace", GRACE)
        self._ray.wait(list(self._running), num_returns=max(1, len(self._running)), timeout=grace)
