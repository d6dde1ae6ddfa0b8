"""Reads checkpoints back, verifying everything before anything is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple

from tenure.common.errors import CheckpointError, CorruptCheckpoint
from tenure.worker.checkpoint.codec import decode_state
from tenure.worker.checkpoint.manifest import (
    MANIFEST,
    MANIFEST_BYTES_MAX,
    Manifest,
    StateFile,
    decode_manifest,
    digest_of,
)
from tenure.worker.checkpoint.naming import CheckpointName, split_checkpoint_url
from tenure.worker.checkpoint.storage import TaskDirectory, advice_on, open_task_directory

_READ_BYTES = 1024 * 1024


class Loaded(NamedTuple):
    """A state, and which of the registered checkpoints (0 = newest) it came from."""

    state: dict[str, Any]
    which: int


def read_checkpoint(url: str, digest: str) -> dict[str, Any]:
    """The state that was written to ``url``; tensors are on the CPU.

    The manifest must have the registered digest, the state file the manifest's size and SHA-256; then it is
    decoded without running code (``weights_only``).

    Raises:
        CorruptCheckpoint: A file is missing or not what was written; the message names the file and what
            differs.
        CheckpointError: The URL is no checkpoint's, the storage can't be read, the format is unknown, or the
            state needs torch and there is none. Another worker, or a later try, may be able to read it.
    """
    directory, name = _locate(url)
    manifest = _read_manifest(directory, name, url, digest)
    where = f"{url}/{manifest.state.name}"
    with _opened(directory, name, manifest.state.name, where) as stream:
        _verify(stream, manifest.state, where)
        stream.seek(0)
        return decode_state(stream, manifest.state.encoding, where)


def read_manifest(url: str, digest: str) -> Manifest:
    """The manifest alone, verified. Raises as :func:`read_checkpoint`."""
    directory, name = _locate(url)
    return _read_manifest(directory, name, url, digest)


def load_newest(checkpoints: Sequence[tuple[str, str]], log: Callable[..., None] | None = None) -> Loaded | None:
    """The first of ``checkpoints`` (url and digest, newest first) that is whole; None if none is.

    One that is missing or corrupt is skipped, with a ``checkpoint.skipped`` line in the log.

    Raises:
        CheckpointError: None could be loaded, and at least one only because the storage could not be read or
            the format is not known here. Starting afresh would throw away work that another try may find.
    """
    unreadable: CheckpointError | None = None
    for which, (url, digest) in enumerate(checkpoints):
        try:
            return Loaded(read_checkpoint(url, digest), which)
        except CheckpointError as error:
            if log is not None:
                log("checkpoint.skipped", url=url, code=error.code, error=str(error))
            if unreadable is None and not isinstance(error, CorruptCheckpoint):
                unreadable = error
    if unreadable is not None:
        raise unreadable
    return None


def _locate(url: str) -> tuple[TaskDirectory, CheckpointName]:
    directory_url, name = split_checkpoint_url(url)
    try:
        return open_task_directory(directory_url), name
    except OSError as error:
        raise CheckpointError(f"the storage can't be used: {error}", field=url, expected=advice_on(error)) from error


def _read_manifest(directory: TaskDirectory, name: CheckpointName, url: str, digest: str) -> Manifest:
    where = f"{url}/{MANIFEST}"
    with _opened(directory, name, MANIFEST, where) as stream:
        data = _read(stream, MANIFEST_BYTES_MAX + 1, where)
    if len(data) > MANIFEST_BYTES_MAX:
        raise CorruptCheckpoint("is too long", field=where, expected=f"at most {MANIFEST_BYTES_MAX} bytes")
    if digest_of(data) != digest:
        raise CorruptCheckpoint(
            "SHA-256 differs from the registered digest",
            field=where,
            given=digest_of(data),
            expected=f"registered is {digest}",
        )
    return decode_manifest(data, where)


def _opened(directory: TaskDirectory, name: CheckpointName, file: str, where: str) -> BinaryIO:
    try:
        return directory.open(name, file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptCheckpoint(
            "is missing", field=where, expected="do all workers see this storage, and is it mounted here?"
        ) from error
    except OSError as error:
        raise CheckpointError(f"can't be read: {error}", field=where, expected=advice_on(error)) from error


def _verify(stream: BinaryIO, state: StateFile, where: str) -> None:
    sha256, size = hashlib.sha256(), 0
    while chunk := _read(stream, _READ_BYTES, where):
        sha256.update(chunk)
        size += len(chunk)
    if size != state.size_bytes:
        raise CorruptCheckpoint(
            "size differs from the manifest",
            field=where,
            given=size,
            expected=f"written were {state.size_bytes} bytes",
        )
    if sha256.hexdigest() != state.sha256:
        raise CorruptCheckpoint(
            "SHA-256 differs from the manifest",
            field=where,
            given=sha256.hexdigest(),
            expected=f"written was {state.sha256}",
        )


def _read(stream: BinaryIO, size: int, where: str) -> bytes:
    try:
        return stream.read(size)
    except OSError as error:
        raise CheckpointError(f"can't be read: {error}", field=where) from error
