"""Checkpoints on any other fsspec storage (S3, GCS, …): the state file first, the manifest last.

Object stores have no rename and no directories. There a checkpoint is what has a manifest: it is written
after the state file has been accepted whole, and a deletion removes it first.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.dircache import DirCache

from tenure.common.errors import CheckpointError
from tenure.worker.checkpoint.codec import Sink
from tenure.worker.checkpoint.manifest import FILES, MANIFEST
from tenure.worker.checkpoint.naming import CheckpointName, parse_name

_COPY_BYTES = 1024 * 1024


class RemoteTaskDirectory:
    """See :class:`tenure.worker.checkpoint.storage.TaskDirectory`."""

    def __init__(self, url: str) -> None:
        with _os_errors(url):
            if "::" in url:
                self._fs, path = fsspec.core.url_to_fs(url)
            else:
                self._fs = _filesystem(os.getpid(), url.rsplit("/", 2)[0])
                path = self._fs._strip_protocol(url)
        self._path = str(path).rstrip("/")

    def begin(self, name: CheckpointName) -> RemoteWriting:
        """Nothing is made before the first file."""
        return RemoteWriting(self, name, f"{self._path}/{name}")

    def open(self, name: CheckpointName, file: str) -> BinaryIO:
        """A local copy, so that what is verified is what is read, and it is fetched once."""
        path = f"{self._path}/{name}/{file}"
        copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
        try:
            with _os_errors(path), self._fs.open(path, "rb") as source:
                shutil.copyfileobj(source, copy, _COPY_BYTES)
        except BaseException:
            copy.close()
            raise
        copy.seek(0)
        return copy

    def remove(self, name: CheckpointName) -> bool:
        """The manifest first."""
        directory = f"{self._path}/{name}"
        entries = self._list(directory)
        foreign = next((entry for entry, kind in entries if kind != "file" or entry not in FILES), None)
        if foreign is not None:
            raise CheckpointError(
                "holds what Tenure never wrote and is not deleted",
                field=directory,
                given=foreign,
                expected="look at it and delete it by hand",
            )
        for entry, _ in sorted(entries, key=lambda item: item[0] != MANIFEST):
            with suppress(FileNotFoundError), _os_errors(directory):
                self._fs.rm_file(f"{directory}/{entry}")
        for path in (directory, self._path):
            # Gone by itself, or not empty: either is right.
            with suppress(OSError), _os_errors(path):
                self._fs.rmdir(path)
        return bool(entries)

    def names(self) -> list[CheckpointName]:
        """With a manifest or without."""
        names = (parse_name(entry) for entry, kind in self._list(self._path) if kind == "directory")
        return [name for name in names if name is not None]

    def write(self, name: CheckpointName, file: str) -> Any:
        """The storage's own file object."""
        path = f"{self._path}/{name}/{file}"
        with _os_errors(path):
            try:
                return self._fs.open(path, "wb")
            except FileNotFoundError:
                # Some have real directories. Not asked for at first: S3's would make a bucket of a misspelt name.
                self._fs.makedirs(f"{self._path}/{name}", exist_ok=True)
                return self._fs.open(path, "wb")

    def _list(self, path: str) -> list[tuple[str, str]]:
        """(name, file or directory) of the entries; empty if there is nothing."""
        with _os_errors(path):
            self._fs.invalidate_cache(path)
            try:
                entries = self._fs.ls(path, detail=True)
            except FileNotFoundError:
                return []
        names = [(str(entry["name"]).rstrip("/").rpartition("/")[2], str(entry["type"])) for entry in entries]
        # Some object stores list a marker object for the directory itself.
        return [(name, kind) for name, kind in names if name and name != path.rpartition("/")[2]]


class RemoteWriting:
    """See :class:`tenure.worker.checkpoint.storage.Writing`."""

    def __init__(self, directory: RemoteTaskDirectory, name: CheckpointName, where: str) -> None:
        self._directory = directory
        self._name = name
        self._where = where

    @contextmanager
    def file(self, name: str) -> Iterator[Sink]:
        """Accepted by the storage when the block ends: many send everything only on close."""
        target: io.BufferedIOBase = self._directory.write(self._name, name)
        try:
            yield _File(target, f"{self._where}/{name}")
        except BaseException:
            # Closing may upload a part; without a manifest it is no checkpoint, and abort() removes it.
            with suppress(OSError), _os_errors(name):
                target.close()
            raise
        with _os_errors(f"{self._where}/{name}"):
            target.close()

    def commit(self) -> None:
        """The manifest was the last file written: nothing is left to do."""

    def abort(self) -> None:
        """Manifest first, as every deletion."""
        with suppress(OSError, CheckpointError):
            self._directory.remove(self._name)


@lru_cache(maxsize=8)
def _filesystem(process: int, base_url: str) -> Any:
    """The storage at a base URL, for all threads of a process.

    fsspec has one for each thread, kept for ever: each run's writing thread would leave connections behind.
    """
    filesystem, _ = fsspec.core.url_to_fs(base_url, skip_instance_cache=True)
    listings = getattr(filesystem, "dircache", None)
    if isinstance(listings, DirCache):
        # Other processes write here, too.
        listings.use_listings_cache = False
    return filesystem


class _File:
    def __init__(self, target: io.BufferedIOBase, where: str) -> None:
        self._target = target
        self._where = where

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        written = 0
        with _os_errors(self._where):
            while written < len(view):
                # Raw streams may take less than they are given.
                written += self._target.write(view[written:])
        return written


@contextmanager
def _os_errors(where: str) -> Iterator[None]:
    """Every storage's library has exceptions of its own; here they all become OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{where}: {type(error).__name__}: {error}") from error
