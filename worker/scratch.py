"""The directory of each run, and the note in it of the lease it is about.

A worker that starts finds the notes of runs that an earlier process of its was carrying out when it died, and can
report them at once instead of letting the leases run out.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from tenure.proto import worker_pb2
from tenure.worker.leases import LeaseKey, key_of

log = structlog.get_logger()

_NOTE = ".lease"


class RunDirectories:
    """The directories ``<run>/`` and notes ``<run>.lease`` below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def take_leftovers(self) -> list[worker_pb2.EvaluateRequest]:
        """The leases that an earlier process held when it died; everything here is removed."""
        left = []
        for note in self._directory.glob(f"*{_NOTE}"):
            try:
                left.append(worker_pb2.EvaluateRequest.FromString(note.read_bytes()))
            except DecodeError:
                # Torn by a crash of the machine; the lease then runs out by itself.
                log.warning("run.note_unreadable", path=str(note))
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        return left

    def make(self, request: worker_pb2.EvaluateRequest) -> Path:
        """A fresh directory for the run; its note is written first."""
        path = self._path(key_of(request))
        self._write_note(path, request, request.checkpoints[:1])
        path.mkdir(exist_ok=True)
        return path

    def note_checkpoint(self, request: worker_pb2.EvaluateRequest, checkpoint: worker_pb2.Checkpoint) -> None:
        """The run has written a checkpoint that no master may have registered yet when this process dies."""
        try:
            self._write_note(self._path(key_of(request)), request, [checkpoint])
        except OSError as error:
            log.warning("run.note_not_written", task=request.task_id, error=str(error))

    def remove(self, key: LeaseKey) -> None:
        """The run has ended, and its outcome is kept or nobody wants it."""
        path = self._path(key)
        path.with_suffix(_NOTE).unlink(missing_ok=True)
        try:
            path.rmdir()
        except OSError:
            # The evaluation left something in it.
            shutil.rmtree(path, ignore_errors=True)

    def _write_note(
        self,
        path: Path,
        request: worker_pb2.EvaluateRequest,
        checkpoints: Sequence[worker_pb2.Checkpoint],
    ) -> None:
        note = worker_pb2.EvaluateRequest(
            task_id=request.task_id,
            lease_token=request.lease_token,
            epoch=request.epoch,
            search=request.search,
            checkpoints=checkpoints,
        )
        temporary = path.with_suffix(".new")
        temporary.write_bytes(note.SerializeToString())
        temporary.rename(path.with_suffix(_NOTE))

    def _path(self, key: LeaseKey) -> Path:
        name = hashlib.sha256(f"{key.task_id}\0{key.token}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._directory / name
