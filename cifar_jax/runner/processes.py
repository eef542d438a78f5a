"""Several processes, usually one per host, that train one run.

Each process runs the same commands on its own devices. The first one writes all files. `joined`
watches the others over TCP. If one ends or does not answer, it stops all of them, because none can
train on without it.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from cifar_jax.errors import UserError

# Seconds. A process that is silent for `SILENCE` counts as dead. One that ends is noticed at once.
BEAT, SILENCE = 1.0, 20.0
# Seconds to wait at the start for the others, and at the end for their last files.
START, END = 120, 60.0
STATUS = 1


def is_first() -> bool:
    """Return whether this process writes the files."""
    return jax.process_index() == 0


def of_first(value: int) -> int:
    """Return the first process's value in all processes. All must call it."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def of_any(value: bool) -> bool:
    """Return in all processes whether the value of any process is true. All must call it."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.int32(value))))


class Place(NamedTuple):
    """Where a process joins the others: the address of the first, their number, its own number."""

    coordinator: str
    processes: int
    process_id: int


def _is_launched() -> bool:
    """Return whether a launcher that JAX knows has started several processes."""
    found = os.environ.get
    return (
        int(found("SLURM_STEP_NUM_TASKS") or 1) > 1
        or "," in found("TPU_WORKER_HOSTNAMES", "")
        or ("KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" in os.environ)
    )


def join(place: Place | None) -> None:
    """Join the other processes, before the first computation.

    Args:
        place: of this process. None: as Slurm, Kubernetes or Cloud TPU says, else there is one
            process.

    Raises:
        UserError: the others do not answer.
    """
    if place is None and not _is_launched():
        return
    if "JAX_CPU_COLLECTIVES_IMPLEMENTATION" not in os.environ:  # jax 0.5.0 has no default.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    options: dict[str, Any] = {"initialization_timeout": START}
    if place is not None:
        options |= {
            "coordinator_address": place.coordinator,
            "num_processes": place.processes,
            "process_id": place.process_id,
        }
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        where = f"--coordinator {place.coordinator}" if place else "the launcher's processes"
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{where}: the processes do not find each other ({first})") from error


def _stop(number: str, host: str) -> None:
    """Say which process is gone, and end this one, whose main thread may wait for it forever."""
    print(
        f"cifar_jax: error: process {number} on {host} ended or did not answer, so this process "
        "ends; start all processes again with --resume",
        file=sys.stderr,
        flush=True,
    )
    os._exit(STATUS)


class _Line:
    """One connection between the first process and another, with a message a line.

    Messages are `beat`, `bye`, and `gone NUMBER HOST`.

    Args:
        link: connected.
        own: number and host of this process. First, each end tells the other its own.
    """

    def __init__(self, link: socket.socket, own: tuple[int, str]) -> None:
        self.ended = threading.Event()  # The other has said `bye`.
        self._link = link
        link.settimeout(START)
        link.sendall(f"{own[0]} {own[1]}\n".encode())
        self._messages = link.makefile("r", encoding="utf-8")
        number, host = self._messages.readline().split()
        self.other = number, host
        link.settimeout(SILENCE)

    def send(self, message: str) -> None:
        """Send a message. `listen` notices a broken connection."""
        with contextlib.suppress(OSError):
            self._link.sendall(f"{message}\n".encode())

    def listen(self) -> tuple[str, str] | None:
        """Read messages to the end. Return number and host of a process that is gone, or None."""
        try:
            for message in self._messages:
                word, *rest = message.split()
                if word == "bye":
                    self.ended.set()
                elif word == "gone":
                    return rest[0], rest[1]
        except OSError:  # Silent for too long, or reset.
            pass
        return None if self.ended.is_set() else self.other


class _Watch:
    """Threads that watch all other processes, from the first, or the first one, from another."""

    def __init__(self, lines: list[_Line]) -> None:
        self._lines, self._over = lines, threading.Event()
        for line in lines:
            threading.Thread(target=self._listen, args=(line,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            for line in self._lines:
                line.send("beat")

    def _listen(self, line: _Line) -> None:
        gone = line.listen()
        if gone is not None and not self._over.is_set():
            for other in self._lines:
                other.send(f"gone {gone[0]} {gone[1]}")
            _stop(*gone)

    def leave(self) -> None:
        """Wait until the others have also ended their work. The first process is the last."""
        if is_first():
            deadline = time.monotonic() + END
            for line in self._lines:
                line.ended.wait(max(0.0, deadline - time.monotonic()))
            for line in self._lines:
                line.send("bye")
        else:
            (first,) = self._lines
            first.send("bye")
            first.ended.wait()
        self._over.set()


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


def _connect() -> _Watch:
    """Connect the first process with each other one. All must call it."""
    from jax.experimental import multihost_utils

    own = jax.process_index(), socket.gethostname() or "unknown"
    count = jax.process_count()
    with socket.create_server(("", 0), backlog=count) as server:
        numbers = [*map(int, _own_address().split(".")), server.getsockname()[1]]
        *address, port = np.asarray(
            multihost_utils.broadcast_one_to_all(np.array(numbers, np.int32))
        ).tolist()
        if not is_first():
            link = socket.create_connection((".".join(map(str, address)), port), START)
            return _Watch([_Line(link, own)])
        server.settimeout(START)
        return _Watch([_Line(server.accept()[0], own) for _ in range(count - 1)])


@contextlib.contextmanager
def joined(*ends: type[BaseException]) -> Iterator[None]:
    """Watch the other processes meanwhile, and wait for them at the end.

    A process that is gone ends this one with a line that names it. An exception ends this process
    alone, which ends the others.

    Args:
        ends: exceptions that all processes raise together.
    """
    if jax.process_count() == 1:
        yield
        return
    watch = _connect()
    try:
        yield
    except ends:
        watch.leave()
        jax.distributed.shutdown()
        raise
    except Exception:
        time.sleep(2 * BEAT)  # If a process is gone, `watch` says so and ends this one.
        raise
    watch.leave()
    jax.distributed.shutdown()
