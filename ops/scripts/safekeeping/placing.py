"""Puts files in the place of others: whole or not at all, and what stood there is kept.

The copy is made beside its place and fsynced; then the two are exchanged in one step. Whoever is killed on the way
leaves the old in its place, or the new, and never neither (on file systems that can't exchange, for a moment).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safekeeping.appendonly import FOLDER
from safekeeping.console import Damaged
from safekeeping.folder import Backup, digest_of, sync

_STAGING = ".restoring-"
# In a copy until it has its place; what stands at a staging path without it is somebody's store.
_MARK = "copied-from"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_CHUNK_BYTES = 1 << 20


def clear_away(parent: Path, name: str) -> list[str]:
    """Finish or undo what a killed run has left: copies are deleted, a store that stood there gets its name."""
    told = []
    for path in sorted(parent.glob(f"{_STAGING}{name}-*")):
        if (path / _MARK).exists() or not any(path.iterdir()):
            shutil.rmtree(path)
            told.append(f"deleted {path}, the copy of a restore that was broken off")
        else:
            aside = aside_of(parent, name)
            os.rename(path, aside)
            told.append(f"a restore was broken off after its last step; what stood there before is {aside}")
    return told


def stage(backup: Backup, node: dict[str, Any], parent: Path, name: str, on_bytes: Callable[[int], None]) -> Path:
    """A copy of a node's append-only folder beside its place, fsynced; its content is what the manifest says.

    Raises:
        Damaged: A file is.
    """
    staging = Path(tempfile.mkdtemp(prefix=f"{_STAGING}{name}-", dir=parent))
    (staging / _MARK).write_text(f"{backup.path}\n")
    (staging / FOLDER).mkdir(mode=0o700)
    for file in node["files"]:
        target = staging / file["path"]
        with open(backup.path / node["name"] / file["path"], "rb") as source, open(target, "xb") as out:
            while chunk := source.read(_CHUNK_BYTES):
                out.write(chunk)
                on_bytes(len(chunk))
            out.flush()
            os.fsync(out.fileno())
        if digest_of(target) != file["sha256"]:
            raise Damaged(f"{target} is not what the manifest says (SHA-256): the backup or this disk is damaged")
    sync(staging / FOLDER)
    sync(staging)
    return staging


def place(staging: Path, target: Path, aside: Path) -> Path | None:
    """Put a staged folder at its place; returns where what stood there is now, None if nothing did."""
    stood = target.exists()
    if stood and _exchanged(staging, target):
        os.rename(staging, aside)
    else:
        if stood:
            os.rename(target, aside)
        os.rename(staging, target)
    sync(target.parent)
    (target / _MARK).unlink()
    return aside if stood else None


def narrowed(staging: Path) -> Path:
    """A staged copy whose place is that of an append-only folder: only that, still marked."""
    (staging / FOLDER / _MARK).write_text((staging / _MARK).read_text())
    inner = staging.with_name(f"{staging.name}-files")
    os.rename(staging / FOLDER, inner)
    shutil.rmtree(staging)
    return inner


def give_up(staging: Path) -> None:
    """Delete a copy that was not placed."""
    if (staging / _MARK).exists():
        shutil.rmtree(staging)


def aside_of(parent: Path, name: str) -> Path:
    """A new name for what is moved out of the way."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = parent / f"{name}.before-restore-{stamp}", 1
    while aside.exists():
        number += 1
        aside = parent / f"{name}.before-restore-{stamp}-{number}"
    return aside


def and_aside(target: Path) -> str:
    """What placing something there will also do, to be put behind what it does."""
    return ", and move aside what stands there" if target.exists() else ""


def undo_of(target: Path, aside: Path | None) -> str:
    """What undoes a placing, for a shell, where somebody with all rights may paste it; names may hold anything."""
    place, away = shlex.quote(str(target.absolute())), shlex.quote(f"{target.absolute()}.restored")
    if aside is None:
        return f"rm -rf -- {place}"
    # -T: where that name is taken (of an undo before) it fails, and doesn't move the one into the other.
    return f"mv -T -- {place} {away} && mv -T -- {shlex.quote(str(aside.absolute()))} {place}"


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system can't."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(other))
