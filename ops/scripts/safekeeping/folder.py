"""The form of a backup on disk, and the folder that holds a row of them.

::

    tenure-20260131T040000Z/        made whole under another name, fsynced, then renamed: it is complete or not there
        manifest.json               what it is of, when, how much, each file's size and SHA-256, whether it is verified,
                                    and a SHA-256 of all that
        node-0/appendonlydir/       an append-only folder that a server of the same or a newer version starts on

Every backup has append-only folders, whichever way it was made; a snapshot is a base without increments.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from safekeeping.appendonly import FOLDER, MANIFEST, parts_of
from safekeeping.console import Damaged, Failed, Misused, Refused
from safekeeping.manifest_form import check_form

FORMAT = 1
_NAME = re.compile(r"tenure-\d{8}T\d{6}Z(-\d+)?")
_PARTIAL, _DELETING = ".partial-", ".deleting-"
# Of whoever looks at a backup without holding the folder; its pid follows.
_VIEW = re.compile(r"\.view-(\d+)-")
_MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Backup:
    """One backup. ``facts`` is its manifest."""

    path: Path
    facts: dict[str, Any]

    @property
    def verified(self) -> bool:
        """Whether a server was started on it and everything agreed."""
        return bool(self.facts["verified"])

    @property
    def verdict(self) -> str:
        """The same for people, with a reason."""
        if self.verified:
            return "verified"
        return f"NOT VERIFIED: {'; '.join(map(str, self.facts['violations'][:1])) or 'no reason is noted'}"

    @property
    def moment_unix(self) -> float:
        """Nothing that was written until then is missing."""
        return min(float(node["moment_unix"]) for node in self.facts["nodes"])

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(int(file["bytes"]) for node in self.facts["nodes"] for file in node["files"])

    @property
    def folders(self) -> list[Path]:
        """The append-only folder of each node."""
        return [self.path / node["name"] / FOLDER for node in self.facts["nodes"]]


@dataclass(frozen=True)
class Unreadable:
    """What has the name of a backup and can't be read. As a text it is the reason."""

    path: Path
    why: str

    def __str__(self) -> str:
        return self.why

    def is_newer_than(self, backup: Backup) -> bool:
        """As far as names tell, which are times."""
        return self.path.name > backup.path.name


def holds_backup(path: Path) -> bool:
    """Whether a folder is a backup, damaged or not."""
    return (path / _MANIFEST).exists() or (_NAME.fullmatch(path.name) is not None and path.is_dir())


def read(path: Path) -> Backup:
    """The backup in a folder; its files are not looked at.

    Raises:
        Misused: There is none.
        Damaged: Its manifest is, or names what is outside of it.
        Failed: It is of a version that can't be read, or the operating system doesn't let it be read.
    """
    try:
        facts = json.loads((path / _MANIFEST).read_bytes())
        digest = facts.pop("sha256")
    except (FileNotFoundError, NotADirectoryError):
        if holds_backup(path):
            raise Damaged(f"{path} is damaged: its {_MANIFEST} is gone; take another backup") from None
        raise Misused(f"{path} is no backup: it has no {_MANIFEST}") from None
    except OSError as error:
        # Another user's, a disk that gives errors: it may be good, and says nothing against those beside it.
        raise Failed(f"{path / _MANIFEST} can't be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        facts, digest = {}, "unreadable"
    if hashlib.sha256(_canonical(facts)).hexdigest() != digest:
        raise Damaged(f"{path / _MANIFEST} is damaged: its SHA-256 is not that of its content; take another backup")
    if facts.get("format") != FORMAT:
        raise Failed(f"{path} has format {facts.get('format')!r}; these scripts read {FORMAT}: use newer ones")
    check_form(path, facts)
    return Backup(path, facts)


def damages(backup: Backup, on_bytes: Callable[[int], None] = lambda _: None) -> list[str]:
    """What is wrong with its files: missing, of another size, of other content, not to be read, or not named.

    Raises:
        Damaged: An append-only folder names what is outside of it.
    """
    wrong: list[str] = []
    named = {backup.path / _MANIFEST}
    for node in backup.facts["nodes"]:
        for file in node["files"]:
            path = backup.path / node["name"] / file["path"]
            named.add(path)
            try:
                if path.stat().st_size != file["bytes"]:
                    wrong.append(f"{path}: {path.stat().st_size} bytes instead of {file['bytes']}")
                elif digest_of(path, on_bytes) != file["sha256"]:
                    wrong.append(f"{path}: its content has changed (SHA-256)")
            except FileNotFoundError:
                wrong.append(f"{path} is missing")
            except OSError as error:
                wrong.append(f"{path} can't be read: {error.strerror}")
    for manifest in (each / MANIFEST for each in backup.folders):
        if manifest not in named:
            wrong.append(f"{manifest} is missing")
            continue
        with contextlib.suppress(OSError):  # it is wrong already
            parts = [manifest.parent / part.name for part in parts_of(manifest.read_text(errors="replace"))]
            wrong += [f"{part} is missing" for part in parts if part not in named]
    wrong += [f"{path} does not belong to it" for path in sorted(_files(backup.path)) if path not in named]
    return wrong


def digest_of(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def backups_in(folder: Path) -> tuple[list[Backup], list[Unreadable]]:
    """(all backups, the newest first; what is wrong with those that can't be read)."""
    found: list[Backup] = []
    wrong: list[Unreadable] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _NAME.fullmatch(path.name):
            try:
                found.append(read(path))
            except (Failed, Misused, ValueError) as error:
                wrong.append(Unreadable(path, str(error)))
    return sorted(found, key=lambda backup: backup.moment_unix, reverse=True), wrong


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """One backup into a folder at a time; clears away what runs that were killed have left.

    Raises:
        Refused: Another run holds it, or it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Refused(f"{folder} can't be made: {error.strerror}; give another folder") from None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another backup into {folder} is under way") from None
        for path in folder.iterdir():
            view = _VIEW.match(path.name)
            if path.name.startswith((_PARTIAL, _DELETING)) or (view and not psutil.pid_exists(int(view[1]))):
                shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch_for(backup: Backup) -> Iterator[Path]:
    """A folder to look at a backup from: beside it, where files can be linked; else where temporary files are."""
    parent = backup.path.parent if os.access(backup.path.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=f".view-{os.getpid()}-", dir=parent) as path:
        yield Path(path)


def begin(folder: Path) -> Path:
    """A new place for a backup that is being made."""
    try:
        return Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder))
    except OSError as error:
        raise Refused(f"{folder} can't be written: {error.strerror}; give another folder") from None


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Put the manifest there, in place of one that may be there already."""
    facts = {"format": FORMAT, **facts}
    document = {**facts, "sha256": hashlib.sha256(_canonical(facts)).hexdigest()}
    new = path / f"{_MANIFEST}.new"
    try:
        with open(new, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path / _MANIFEST)
    finally:
        new.unlink(missing_ok=True)
    sync(path)


def _canonical(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def finish(partial: Path, facts: dict[str, Any], moment_unix: float) -> Path:
    """Give a backup that is complete its name; on return it is on the disk."""
    write_facts(partial, facts)
    for folder in [path for path in partial.rglob("*") if path.is_dir()]:
        sync(folder)
    name = time.strftime("tenure-%Y%m%dT%H%M%SZ", time.gmtime(moment_unix))
    target, number = partial.parent / name, 1
    while target.exists():
        number += 1
        target = partial.parent / f"{name}-{number}"
    os.rename(partial, target)
    sync(partial.parent)
    return target


def surplus(folder: Path, keep: int) -> list[Backup]:
    """What retention deletes: all that are older than the newest ``keep`` verified ones. 0 keeps all.

    The newest verified one always stays, and so does what can't be read.
    """
    found, _ = backups_in(folder)
    verified = [backup for backup in found if backup.verified]
    if not keep or len(verified) < keep:
        return []
    oldest_kept = found.index(verified[keep - 1])
    return found[oldest_kept + 1 :]


def delete(backup: Backup) -> None:
    """Delete it; killed half-way, it is no backup any more, and the next run deletes the rest."""
    doomed = backup.path.parent / f"{_DELETING}{backup.path.name}"
    os.rename(backup.path, doomed)
    shutil.rmtree(doomed)


def sync(folder: Path) -> None:
    """Have a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]
