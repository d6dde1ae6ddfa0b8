"""Outcomes on disk until a master has acknowledged them.

An outcome is hours of GPU time, so it is fsynced before it is sent and forgotten only after a verdict; a worker that
starts again sends what it finds. One file per outcome: magic, length, SHA-256, the message.

A full disk must not lose it: the spool holds as many files in reserve as there are slots, their blocks allocated and
written once, and an outcome is written into one of these and renamed. When it is forgotten the file goes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog
from google.protobuf.message import DecodeError

from tenure.proto import worker_pb2
from tenure.worker.leases import LeaseKey, fields_of, key_of

log = structlog.get_logger()

RESERVE_BYTES = 256 * 1024
_MAGIC = b"TENURE-OUTCOME-1"
_HEADER = struct.Struct(">16sI32s")
_OUTCOME = ".outcome"
_RESERVE = ".reserve"
_CORRUPT = ".corrupt"

T = TypeVar("T")


class Spool:
    """The outcomes that no master has acknowledged, in memory and on disk.

    One event loop uses it; files are touched by one thread of its own, in order.

    Attributes:
        write_failures: Outcomes that are in memory only because the disk refused them.
    """

    def __init__(self, directory: Path, reserve: int) -> None:
        self._files = _SpoolFiles(directory, reserve)
        self._pending: dict[LeaseKey, worker_pb2.Outcome] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._forgotten = asyncio.Event()
        self.write_failures = 0

    async def open(self) -> None:
        """Read what an earlier process left, and allocate the reserve.

        What was left is to be delivered however full the disk is: the reserve may then fall short, until that is
        forgotten.

        Raises:
            OSError: The directory can't be used; or there is no room for the reserve, and nothing was left.
        """
        for outcome in await self._in_thread(self._files.open):
            self._pending[key_of(outcome)] = outcome

    def pending(self) -> list[worker_pb2.Outcome]:
        """Those not acknowledged, in the order in which they ended."""
        return list(self._pending.values())

    def get(self, key: LeaseKey) -> worker_pb2.Outcome | None:
        """The outcome of that lease, if it is pending."""
        return self._pending.get(key)

    @property
    def size_bytes(self) -> int:
        """Of the outcomes that are pending. Any thread may ask."""
        return sum(outcome.ByteSize() for outcome in list(self._pending.values()))

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: object) -> bool:
        return key in self._pending

    async def put(self, outcome: worker_pb2.Outcome) -> None:
        """Keep it; on return it is on disk, and only then among the pending.

        A disk that refuses is logged and counted: the outcome is then kept in memory.
        """
        key = key_of(outcome)
        data = outcome.SerializeToString()
        try:
            await self._in_thread(lambda: self._files.write(key, data))
        except OSError as error:
            self.write_failures += 1
            log.error("spool.write_failed", **fields_of(outcome), error=str(error))
        self._pending[key] = outcome

    def forget(self, key: LeaseKey) -> None:
        """A master has it, or will never want it. Its file goes a little later."""
        if (outcome := self._pending.pop(key, None)) is not None:
            self._thread.submit(self._remove_file, key, fields_of(outcome))
            self._forgotten.set()
            self._forgotten = asyncio.Event()

    async def acknowledged(self, key: LeaseKey | None, seconds: float) -> bool:
        """Wait until that outcome is forgotten, or all are (None); False if they aren't within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while key in self._pending if key is not None else self._pending:
                    await self._forgotten.wait()
        except TimeoutError:
            return False
        return True

    def _remove_file(self, key: LeaseKey, fields: dict[str, Any]) -> None:
        try:
            self._files.remove(key)
        except OSError as error:
            # Should this worker start again, the outcome is sent once more and refused as a duplicate.
            log.warning("spool.not_removed", **fields, error=str(error))

    async def close(self) -> None:
        """Wait for what is being written. What is pending stays on disk."""
        await self._in_thread(lambda: None)
        self._thread.shutdown()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


class _SpoolFiles:
    """The files; every method blocks."""

    def __init__(self, directory: Path, reserve: int) -> None:
        self._directory = directory
        self._reserve_files_min = reserve
        self._free: list[Path] = []
        self._made = 0
        self._stamp_ns = 0

    def open(self) -> list[worker_pb2.Outcome]:
        self._directory.mkdir(parents=True, exist_ok=True)
        outcomes = list(self._read_all())
        self._free = sorted(self._directory.glob(f"*{_RESERVE}"))
        self._made = len(self._free)
        try:
            while len(self._free) < self._reserve_files_min:
                self._free.append(self._make_reserve())
        except OSError as error:
            if not outcomes:
                raise
            log.warning(
                "spool.reserve_short", reserved=len(self._free), slots=self._reserve_files_min, error=str(error)
            )
        self._sync_directory()
        return outcomes

    def write(self, key: LeaseKey, data: bytes) -> None:
        source = self._free.pop() if self._free else self._make_reserve()
        try:
            descriptor = os.open(source, os.O_WRONLY)
            try:
                header = _HEADER.pack(_MAGIC, len(data), hashlib.sha256(data).digest())
                _write_whole(descriptor, header + data)
                # The kernel's own times are coarse (4 ms); two outcomes of one moment must keep their order.
                self._stamp_ns = max(time.time_ns(), self._stamp_ns + 1)
                os.utime(descriptor, ns=(self._stamp_ns, self._stamp_ns))
                # The size may have grown over the reserve's; fdatasync covers that too.
                os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(source, self._path(key))
        except OSError:
            self._free.append(source)
            raise
        self._sync_directory()

    def remove(self, key: LeaseKey) -> None:
        path = self._path(key)
        if not path.exists():
            # Its write had failed.
            return
        if len(self._free) < self._reserve_files_min:
            reserve = self._new_reserve_path()
            os.rename(path, reserve)
            self._free.append(reserve)
        else:
            path.unlink()
        # Not synced: should the removal be undone by a crash, the outcome is sent once more and refused as duplicate.

    def _read_all(self) -> Iterator[worker_pb2.Outcome]:
        # By the time they ended: a task's outcomes must not overtake each other.
        for path in sorted(self._directory.glob(f"*{_OUTCOME}"), key=lambda path: path.stat().st_mtime_ns):
            try:
                outcome = _decode(path.read_bytes())
            except (ValueError, DecodeError) as error:
                kept = path.with_suffix(_CORRUPT)
                path.rename(kept)
                log.error("spool.corrupt", path=str(kept), error=str(error))
                continue
            yield outcome

    def _make_reserve(self) -> Path:
        path = self._new_reserve_path()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            # Written, not only allocated: overwriting it then needs no block, on any file system that overwrites.
            _write_whole(descriptor, bytes(RESERVE_BYTES))
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        finally:
            os.close(descriptor)
        return path

    def _new_reserve_path(self) -> Path:
        while True:
            self._made += 1
            path = self._directory / f"{self._made:06d}{_RESERVE}"
            if not path.exists():
                return path

    def _path(self, key: LeaseKey) -> Path:
        # Ids of foreign masters may be any text.
        name = hashlib.sha256(f"{key.task_id}\0{key.token}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._directory / f"{name}{_OUTCOME}"

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _decode(data: bytes) -> worker_pb2.Outcome:
    if len(data) < _HEADER.size:
        raise ValueError("shorter than a header")
    magic, length, digest = _HEADER.unpack_from(data)
    body = data[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC:
        raise ValueError("not an outcome's file")
    if len(body) != length or hashlib.sha256(body).digest() != digest:
        raise ValueError("truncated or altered")
    return worker_pb2.Outcome.FromString(body)


def _write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
