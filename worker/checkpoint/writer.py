"""Writes one checkpoint, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tenure import __version__
from tenure.common.errors import CheckpointError, InvalidInput
from tenure.worker.checkpoint.codec import Sink, choose_encoding, encode_state
from tenure.worker.checkpoint.manifest import MANIFEST, STATE_FILES, Manifest, StateFile, digest_of
from tenure.worker.checkpoint.naming import new_name, task_url
from tenure.worker.checkpoint.storage import Writing, open_task_directory

_STEP_MAX = 2**63 - 1


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
    state: Mapping[str, Any],
    score: float | None = None,
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

    Raises:
        InvalidInput: The state or a number can't be kept in a checkpoint. The evaluator has to change.
        CheckpointError: The storage failed; the message names the cause. Trying again later can help.
    """
    _check_numbers(epoch, step, score)
    encoding = choose_encoding(state)
    directory_url = task_url(base_url, search, task_id)
    name = new_name(step, epoch)
    writing: Writing | None = None
    try:
        writing = open_task_directory(directory_url).begin(name)
        state_file = _write_state(writing, state, encoding)
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


def _write_state(writing: Writing, state: Mapping[str, Any], encoding: str) -> StateFile:
    name = STATE_FILES[encoding]
    with writing.file(name) as sink:
        hashing = _HashingSink(sink)
        try:
            encode_state(state, encoding, hashing)
        except Exception as error:
            # torch wraps what its sink raises into RuntimeErrors of its own.
            if hashing.failure is not None:
                raise hashing.failure from error
            raise
    return StateFile(name, encoding, hashing.size_bytes, hashing.sha256.hexdigest())


class _HashingSink:
    """Hashes what goes through: the manifest tells what was to be written, not what a disk gives back."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            written = self._sink.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.sha256.update(data)
        self.size_bytes += written
        return written

    def flush(self) -> None:
        """torch calls it; the file's fsync is the sink's affair."""


def _check_numbers(epoch: int, step: int, score: float | None) -> None:
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
    return CheckpointError(f"could not be written: {error}", field=url)
