"""The scratch directory of each slot, and beside it a note of the lease that its run is about.

A worker that starts finds the notes of runs that an earlier process of its was carrying out when it died, and can
report them at once instead of letting the leases run out. The note also keeps the last checkpoint of the run, which
no master may have registered by then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from tenure.proto import worker_pb2
from tenure.worker.leases import fields_of

log = structlog.get_logger()

_NOTE = ".lease"


class Scratch:
    """One slot's directory ``slot-<n>/`` and note ``slot-<n>.lease``. Its runs use it one after the other."""

    def __init__(self, directory: Path, slot: int) -> None:
        self._path = directory / f"slot-{slot}"
        self._note = self._path.with_suffix(_NOTE)

    def begin(self, request: worker_pb2.EvaluateRequest) -> Path:
        """The run's directory, empty; the note says whose it is. Raises OSError."""
        self._path.mkdir(parents=True, exist_ok=True)
        self._write_note(request, request.checkpoints[:1])
        return self._path

    def note_checkpoint(self, request: worker_pb2.EvaluateRequest, checkpoint: worker_pb2.Checkpoint) -> None:
        """The run has written a checkpoint."""
        try:
            self._write_note(request, [checkpoint])
        except OSError as error:
            log.warning("run.note_not_written", **fields_of(request), error=str(error))

    def end(self) -> None:
        """The run has ended, and its outcome is kept or nobody wants it: nothing of it stays."""
        try:
            os.truncate(self._note, 0)
            for entry in os.scandir(self._path):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
        except FileNotFoundError:
            # The run never began, or cleared the directory itself.
            pass
        except OSError as error:
            log.warning("scratch.not_cleared", directory=str(self._path), error=str(error))

    def _write_note(self, request: worker_pb2.EvaluateRequest, checkpoints: Sequence[worker_pb2.Checkpoint]) -> None:
        note = worker_pb2.EvaluateRequest(
            task_id=request.task_id,
            lease_token=request.lease_token,
            epoch=request.epoch,
            search=request.search,
            attempt=request.attempt,
            trace=request.trace,
            checkpoints=checkpoints,
        )
        # In place, not by rename: a note torn by a crash in between costs what no note costs.
        self._note.write_bytes(note.SerializeToString())


def take_leftovers(directory: Path) -> list[worker_pb2.EvaluateRequest]:
    """The leases that an earlier process held when it died; everything in the directory is removed.

    Raises:
        OSError: The directory can't be made or read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    left = []
    for note in directory.glob(f"*{_NOTE}"):
        try:
            request = worker_pb2.EvaluateRequest.FromString(note.read_bytes())
        except DecodeError:
            # Torn; the lease then runs out by itself.
            log.warning("run.note_unreadable", path=str(note))
            continue
        if request.task_id:
            left.append(request)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    return left
