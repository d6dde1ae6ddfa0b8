"""Shipped code on this worker's disk: fetched once, unpacked once, verified, and deleted when others were used later.

::

    <work dir>/code/
        <digest>/manifest.json      each file's size and SHA-256
        <digest>/files/…            what evaluators are imported from
        .…                          what a process was doing when it died; removed at the start

A directory comes under its digest by one rename, once everything is in it. Each process looks through it once before it
uses it: what a machine had not written when its power failed, and what somebody has changed, is fetched again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import BinaryIO

import structlog

from tenure.worker.code.archive import matches, remove, unpack
from tenure.worker.code.fetch import CodeUnavailable

log = structlog.get_logger()

ENTRIES_MAX = 32
BYTES_MAX = 1024 * 1024 * 1024

Fetch = Callable[[BinaryIO], Awaitable[None]]
"""Writes the archive into a file."""


class CodeCache:
    """The code in one directory, of one worker process.

    Args:
        directory: Made if need be.
        in_use: The digests that must not be deleted now.
        entries_max, bytes_max: What is kept of those that nobody uses, the last used first.
    """

    def __init__(
        self,
        directory: Path,
        in_use: Callable[[], Collection[str]] = tuple,
        *,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._directory = directory
        self._in_use = in_use
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._cleared = False
        self._verified: set[str] = set()
        self._turns: dict[str, asyncio.Lock] = {}

    def _clear_leftovers(self) -> None:
        """Remove what an earlier process of this worker left half done."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.glob(".*"):
            if path.is_dir():
                remove(path)
            else:
                path.unlink(missing_ok=True)

    async def get(self, digest: str, fetch: Fetch) -> Path:
        """The directory of the code, to be put on ``sys.path``. Slots that want the same wait for one another.

        Raises:
            CodeUnavailable: It can't be had now, or what came is not it.
            InvalidCode: It can't be unpacked.
            OSError: The disk.
        """
        if not self._cleared:
            # Before anything of this process can be there.
            self._cleared = True
            self._clear_leftovers()
        async with self._turns.setdefault(digest, asyncio.Lock()):
            entry = self._directory / digest
            if digest not in self._verified:
                if not await asyncio.to_thread(_is_whole, entry):
                    await self._bring(digest, fetch)
                self._verified.add(digest)
            with contextlib.suppress(OSError):
                # When it was used last.
                os.utime(entry)
        return entry / "files"

    async def _bring(self, digest: str, fetch: Fetch) -> None:
        await asyncio.to_thread(self._evict, {digest})
        suffix = f"{digest}-{secrets.token_hex(4)}"
        archive, unpacked = self._directory / f".fetched-{suffix}", self._directory / f".unpacking-{suffix}"
        try:
            with archive.open("xb") as file:
                await fetch(file)
            size = await asyncio.to_thread(_check_digest, archive, digest)
            await asyncio.to_thread(self._unpack, archive, unpacked, digest)
            log.info("code.unpacked", code=digest, size_bytes=size)
        finally:
            archive.unlink(missing_ok=True)
            await asyncio.shield(asyncio.to_thread(remove, unpacked))

    def _unpack(self, archive: Path, unpacked: Path, digest: str) -> None:
        (unpacked / "files").mkdir(parents=True)
        files = unpack(archive, unpacked / "files")
        (unpacked / "manifest.json").write_text(json.dumps(files))
        # An entry that is there was found to be damaged.
        self._delete(self._directory / digest)
        unpacked.rename(self._directory / digest)

    def _evict(self, wanted: Collection[str]) -> None:
        """Make room for one more: delete what was used longest ago, beyond the bounds."""
        kept = {*wanted, *self._in_use()}
        entries = sorted(
            (path for path in self._directory.iterdir() if not path.name.startswith(".")),
            key=lambda path: (path.name in kept, path.stat().st_mtime),
            reverse=True,
        )
        number, size = 1, 0
        for entry in entries:
            number, size = number + 1, size + _size_of(entry)
            if entry.name not in kept and (number > self._entries_max or size > self._bytes_max):
                log.info("code.evicted", code=entry.name)
                self._verified.discard(entry.name)
                self._delete(entry)

    def _delete(self, entry: Path) -> None:
        """Not there any more at once, gone a little later."""
        doomed = self._directory / f".deleting-{entry.name}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            entry.rename(doomed)
        remove(doomed)


def _is_whole(entry: Path) -> bool:
    """Whether everything in it is as it was unpacked."""
    try:
        files = json.loads((entry / "manifest.json").read_bytes())
        return matches(entry / "files", {name: (int(size), str(digest)) for name, (size, digest) in files.items()})
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _size_of(entry: Path) -> int:
    try:
        return sum(int(size) for size, _ in json.loads((entry / "manifest.json").read_bytes()).values())
    except (OSError, ValueError, AttributeError, TypeError):
        return 0


def _check_digest(archive: Path, digest: str) -> int:
    """The archive's size, if it is what was asked for."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise CodeUnavailable(f"what the master sent as code {digest} has the digest {found}")
        return file.tell()
