"""Copies the append-only file of a server that runs on, as it is at one moment.

The file is a folder: a base (a snapshot), increments (what was written since), and a manifest that names both in
order. A base never changes, an increment only grows, numbers are never used twice, and the manifest is replaced whole.
So a set of open files is a state of the store if the manifest is the same before and after opening them: nothing need
be held off, no setting of the server is touched, and nothing is left behind when this process is killed. Files that a
rewrite deletes meanwhile stay readable while they are open. What is copied of the last increment is what it was long
when all were open.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safekeeping.console import Damaged, Failed

FOLDER = "appendonlydir"
FILE = "appendonly.aof"
MANIFEST = f"{FILE}.manifest"
# ``file <name> seq <number> type <b|i|h>…``: b is the base, i an increment, h one that a rewrite has made useless.
_LINE = re.compile(r"^file (?P<name>\S+) seq (?P<number>\d+) type (?P<kind>\w)")
_TRIES = 50
_PAUSE_SECONDS = 0.1
_CHUNK_BYTES = 1 << 20

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Part:
    """A base or an increment. ``number`` is the sequence number that the manifest gives it."""

    name: str
    number: int
    kind: str


@dataclass
class OpenFile:
    """A part that is open, and how much of it belongs to the copy."""

    part: Part
    descriptor: int
    size_bytes: int


@dataclass
class Moment:
    """All files of a store at one moment.

    Attributes:
        at_unix: When; nothing that was written until then is missing.
    """

    files: list[OpenFile]
    at_unix: float

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


def parts_of(manifest: str) -> list[Part]:
    """What a manifest names, in order, without what is no longer needed.

    Raises:
        Damaged: It names a file in another folder, which no server does.
    """
    lines = [line for line in map(_LINE.match, manifest.splitlines()) if line and line["kind"] in "bi"]
    for line in lines:
        if "/" in line["name"]:
            raise Damaged(f"{MANIFEST} names {line['name']!r}; expected: a file of the folder that it is in")
    return [Part(line["name"], int(line["number"]), line["kind"]) for line in lines]


@contextlib.contextmanager
def opened(folder: Path, manifest_name: str = MANIFEST) -> Iterator[Moment]:
    """The files of a folder as they are now; they stay as they are while this is held.

    Raises:
        Failed: They never stood still for long enough, or the folder holds no append-only file.
    """
    for _ in range(_TRIES):
        moment = _open_once(folder, folder / manifest_name)
        if moment is not None:
            break
        time.sleep(_PAUSE_SECONDS)
    else:
        raise Failed(f"{folder}: its manifest changes faster than its files can be opened; is a disk dying there?")
    try:
        yield moment
    finally:
        _close(moment.files)


def _open_once(folder: Path, manifest: Path) -> Moment | None:
    try:
        named = manifest.read_bytes()
    except FileNotFoundError:
        raise Failed(f"{manifest} is not there: {folder} holds no append-only file") from None
    files: list[OpenFile] = []
    complete = False
    try:
        for part in parts_of(named.decode()):
            descriptor = os.open(folder / part.name, os.O_RDONLY | os.O_CLOEXEC)
            files.append(OpenFile(part, descriptor, 0))
        at_unix = time.time()
        for file in files:
            file.size_bytes = os.fstat(file.descriptor).st_size
        complete = bool(files) and manifest.read_bytes() == named
    except FileNotFoundError:  # a rewrite has just ended
        return None
    finally:
        if not complete:
            _close(files)
    return Moment(files, at_unix) if complete else None


def _close(files: list[OpenFile]) -> None:
    while files:
        os.close(files.pop().descriptor)


def write_copy(moment: Moment, target: Path, on_bytes: OnBytes) -> dict[str, str]:
    """Write the files into a new folder under the default names, with their manifest; returns SHA-256 by name."""
    target.mkdir(mode=0o700)
    digests: dict[str, str] = {}
    parts: list[Part] = []
    for file in moment.files:
        tail = file.part.name.partition(f".{file.part.number}.")[2]
        part = Part(f"{FILE}.{file.part.number}.{tail}", file.part.number, file.part.kind)
        digests[part.name] = _copy(file, target / part.name, on_bytes)
        parts.append(part)
    digests[MANIFEST] = write_manifest(target, parts)
    return digests


def write_manifest(folder: Path, parts: list[Part]) -> str:
    """Name these parts; returns the manifest's SHA-256."""
    text = "".join(f"file {part.name} seq {part.number} type {part.kind}\n" for part in parts).encode()
    with open(folder / MANIFEST, "xb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(text).hexdigest()


def _copy(file: OpenFile, target: Path, on_bytes: OnBytes) -> str:
    digest, offset = hashlib.sha256(), 0
    with open(target, "xb") as out:
        while offset < file.size_bytes:
            chunk = os.pread(file.descriptor, min(_CHUNK_BYTES, file.size_bytes - offset), offset)
            if not chunk:
                raise Failed(f"{file.part.name} became shorter while it was read: the server had no room for a write")
            out.write(chunk)
            digest.update(chunk)
            offset += len(chunk)
            on_bytes(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def link_for_reading(folder: Path, target: Path) -> Path | None:
    """A view of the files that a server may be started on without harm to them: the last increment, to which it would
    append, is copied; the others are linked. Returns the copy, which the server cuts if its end is no whole record;
    None if there is no increment.
    """
    target.mkdir(mode=0o700, parents=True)
    manifest = (folder / MANIFEST).read_text(errors="replace")
    parts = parts_of(manifest)
    (target / MANIFEST).write_text(manifest)
    last = target / parts[-1].name if parts and parts[-1].kind == "i" else None
    for part in parts:
        if last is not None and part.name == last.name:
            shutil.copyfile(folder / part.name, last)
        else:
            try:
                os.link(folder / part.name, target / part.name)
            except OSError:  # another file system
                shutil.copyfile(folder / part.name, target / part.name)
    return last
