"""Write TensorBoard events, without TensorFlow and without a thread.

`tensorboardX.SummaryWriter` writes in a thread. A full disk kills the thread, and its callers then
wait forever. These events are written by the calling thread, which sees the error.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_jax import libraries
from cifar_jax.storage import name_in_errors


class Events:
    """Scalars of a run, in a new file of a directory. TensorBoard ignores those of earlier files.

    Args:
        directory: made if it is missing.
        first: the next epoch, a part of the file's name.
    """

    def __init__(self, directory: Path, first: int) -> None:
        directory.mkdir(exist_ok=True)
        self._directory, self._first = directory, first

    @functools.cached_property
    def _writer(self) -> Any:
        libraries.import_tensorboardx()
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        # The name has the time in seconds. Two starts in one second must not share a file.
        writer = EventsWriter(str(self._directory / "events"), f".{self._first}")
        start = SessionLog(status=SessionLog.START)
        writer.write_event(Event(step=1, session_log=start))
        return writer

    def add(self, rows: Sequence[tuple[int, dict[str, float]]]) -> None:
        """Write epochs with their values, by name, and wait for the disk.

        An epoch is one record, since its checksum is slow.
        """
        import time

        with name_in_errors(self._directory):
            writer = self._writer  # Imports tensorboardX.
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.proto.summary_pb2 import Summary

            for epoch, scalars in rows:
                values = [Summary.Value(tag=tag, simple_value=v) for tag, v in scalars.items()]
                event: Any = Event(step=epoch, wall_time=time.time(), summary=Summary(value=values))
                writer.write_event(event)
            writer.flush()

    def close(self) -> None:
        """Close the file."""
        if "_writer" in vars(self):
            with name_in_errors(self._directory):
                self._writer.close()
