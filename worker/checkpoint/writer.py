"""Writes one checkpoint, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tenure import __version__
from tenure.common.errors import CheckpointError, InvalidInput
from tenure.worker.checkpoint.codec import Sink
from tenure.worker.checkpoint.manifest import MANIFEST, STATE_FILES, Manifest, StateFile, digest_of
from tenure.worker.checkpoint.naming import new_name, task_url
from tenure.worker.checkpoint.snapshot import Snapshot, checked
from tenure.worker.checkpoint.storage import Writing, advice_on, open_task_directory

_STEP_MAX = 2**63 - 1
# Hashed and written in turns of so much: it stays in the processor's cache, and giving up takes effect between two.
_SLICE_BYTES = 4 * 1024 * 1024


class GivenUp(Exception):
    """Nobody wants the checkpoint that was being written any more."""


@dataclass(frozen=True)
class WrittenCheckpoint:
    """A checkpoint that is whole on storage, as it is to be registered.

    Attributes:
        url: Its directory.
        step: The training epoch or step that the state stands after.
        digest: SHA-256 of the manifest, hexadecimal.
        size_bytes: State and manifest together.
        epoch: The lease epoch that wrote it.
        score: Higher is better; None counts as worst.
    """

    url: str
    step: int
    digest: str
    size_bytes: int
    epoch: int
    score: float | None


def write_checkpoint(
    base_url: str,
    search: str,
    task_id: str,
    epoch: int,
    step: int,
    state: Mapping[str, Any] | Snapshot,
    score: float | None = None,
    unwanted: Callable[[], bool] = lambda: False,
) -> WrittenCheckpoint:
    """Write ``state`` into a new directory under ``<base_url>/<search>/<task_id>/``.

    Holds on return: every file is on storage and would survive a power cut; the checkpoint is not registered
    yet. After an error nothing stands under a final name, and the temporary directory is removed if the
    storage allows.

    Args:
        base_url: A directory or an fsspec URL.
        search: The search's name; made safe for file systems.
        task_id: The task's id; made safe for file systems.
        epoch: The lease's epoch, at least 0.
        step: At least 0.
        state: See :func:`codec.choose_encoding` for what may be in it.
        score: Finite, or None.
        unwanted: Asked between two slices and before the last step; once it says yes, nothing is left behind.

    Raises:
        GivenUp: ``unwanted`` said yes.
        InvalidInput: The state or a number can't be kept in a checkpoint. The evaluator has to change.
        CheckpointError: The storage failed; the message names the cause. Trying again later can help.
    """
    check_numbers(epoch, step, score)
    snapshot = state if isinstance(state, Snapshot) else checked(state)
    directory_url = task_url(base_url, search, task_id)
    name = new_name(step, epoch)
    writing: Writing | None = None
    try:
        writing = open_task_directory(directory_url).begin(name)
        state_file = _write_state(writing, snapshot, unwanted)
        manifest = Manifest(
            search=search,
            task_id=task_id,
            step=step,
            epoch=epoch,
            score=score,
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            tenure_version=__version__,
            state=state_file,
        ).encode()
        with writing.file(MANIFEST) as sink:
            sink.write(manifest)
        if unwanted():
            raise GivenUp
        writing.commit()
    except BaseException as error:
        if writing is not None:
            writing.abort()
        if isinstance(error, OSError):
            raise _storage_failed(error, f"{directory_url}/{name}") from error
        raise
    return WrittenCheckpoint(
        url=f"{directory_url}/{name}",
        step=step,
        digest=digest_of(manifest),
        size_bytes=state_file.size_bytes + len(manifest),
        epoch=epoch,
        score=score,
    )


def _write_state(writing: Writing, snapshot: Snapshot, unwanted: Callable[[], bool]) -> StateFile:
    name = STATE_FILES[snapshot.encoding]
    with writing.file(name) as sink:
        hashing = _HashingSink(sink, unwanted)
        try:
            snapshot.encode(hashing)
        except Exception as error:
            # torch wraps what its sink raises into RuntimeErrors of its own.
            if hashing.failure is not None:
                raise hashing.failure from error
            raise
    return StateFile(name, snapshot.encoding, hashing.size_bytes, hashing.sha256.hexdigest())


class _HashingSink:
    """Hashes what goes through: the manifest tells what was to be written, not what a disk gives back."""

    def __init__(self, sink: Sink, unwanted: Callable[[], bool]) -> None:
        self._sink = sink
        self._unwanted = unwanted
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.failure: OSError | GivenUp | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        try:
            for first in range(0, len(view), _SLICE_BYTES):
                piece = view[first : first + _SLICE_BYTES]
                if self._unwanted():
                    raise GivenUp
                self._sink.write(piece)
                self.sha256.update(piece)
        except (OSError, GivenUp) as error:
            self.failure = error
            raise
        self.size_bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """torch calls it; the file's fsync is the sink's affair."""


def check_numbers(epoch: int, step: int, score: float | None) -> None:
    """Raises InvalidInput for what no checkpoint can have."""
    for name, value in (("epoch", epoch), ("step", step)):
        if type(value) is not int or not 0 <= value <= _STEP_MAX:
            raise InvalidInput(
                "out of range", field=name, given=repr(value), expected=f"an integer from 0 to {_STEP_MAX}"
            )
    if score is not None and (type(score) not in (int, float) or not math.isfinite(score)):
        raise InvalidInput(
            "must be a finite number",
            field="score",
            given=repr(score),
            expected="or None, which counts as worst",
        )


def _storage_failed(error: OSError, url: str) -> CheckpointError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError(
            "the storage is full", field=url, given=error.strerror, expected="free space or raise the quota"
        )
    return CheckpointError(f"could not be written: {error}", field=url, expected=advice_on(error))
