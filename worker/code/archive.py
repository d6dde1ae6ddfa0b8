"""Unpacks an archive of shipped code into a directory that evaluators are imported from.

What came over the wire is not trusted to be an archive at all: nothing is written outside the directory, nothing but
plain files, and no more than the limits allow.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from tenure.common import limits
from tenure.common.code import check_names
from tenure.common.errors import InvalidCode

_CHUNK_BYTES = 256 * 1024
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# Where a wheel has what belongs beside its packages: `name-1.0.data/purelib/…`.
_WHEEL_DATA = ".data"
_LIBRARIES = ("purelib", "platlib")


def unpack(archive: Path, target: Path) -> Mapping[str, tuple[int, str]]:
    """Unpack ``archive`` into ``target``, an empty directory.

    A wheel is laid out as an installer would: what it has for the libraries' directory goes there, its scripts, headers
    and data are left out.

    Returns:
        Each file's size and SHA-256, by its path below ``target``.

    Raises:
        InvalidCode: It is no zip, damaged, over a limit, or would write what it must not. What was written until then
            is left for the caller to remove.
        OSError: The directory can't be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _checked(opened.infolist())
            return {place: _write(opened, entry, target / place) for place, entry in entries.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise InvalidCode(
            f"can't be unpacked: {error}", field="code", expected="ship a directory or a wheel"
        ) from error


def _checked(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by where they go, once all of them may be written."""
    if len(infos) > 2 * limits.CODE_FILES_MAX:
        raise InvalidCode(f"has {len(infos)} entries", field="code", expected=f"at most {limits.CODE_FILES_MAX} files")
    check_names(info.filename for info in infos if not info.is_dir())
    for info in infos:
        # Directories come of themselves; only their names are looked at.
        if info.is_dir() and info.filename != "/":
            check_names([info.filename.rstrip("/")])
    total = sum(info.file_size for info in infos)
    if total > limits.CODE_UNPACKED_BYTES_MAX:
        raise InvalidCode(
            f"holds {total} bytes once unpacked",
            field="code",
            expected=f"at most {limits.CODE_UNPACKED_BYTES_MAX} are allowed",
        )
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InvalidCode("is neither a file nor a directory", field="code", given=info.filename)
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            raise InvalidCode("is encrypted, or packed in another way than deflate", field="code", given=info.filename)
    places = {place: info for info in infos if not info.is_dir() and (place := _place_of(info.filename))}
    # Once more: what a wheel keeps apart may meet what it has beside.
    check_names(places)
    if len(places) < sum(bool(_place_of(info.filename)) for info in infos if not info.is_dir()):
        raise InvalidCode("has two files for one place", field="code")
    return places


def _place_of(name: str) -> str:
    """Where a file goes; empty: nowhere."""
    first, _, rest = name.partition("/")
    if not rest or not first.endswith(_WHEEL_DATA):
        return name
    kind, _, within = rest.partition("/")
    return within if kind in _LIBRARIES else ""


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> tuple[int, str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed, size = hashlib.sha256(), 0
    # `x`: an archive can't have put anything there, so somebody else has.
    with opened.open(info) as source, path.open("xb") as sink:
        while chunk := source.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > info.file_size:
                raise InvalidCode("is longer than the archive says", field="code", given=info.filename)
            hashed.update(chunk)
            sink.write(chunk)
    # Read-only: the directory is shared by every run of this code on this worker.
    path.chmod(0o555 if info.external_attr >> 16 & stat.S_IXUSR else 0o444)
    return size, hashed.hexdigest()


def matches(target: Path, files: Mapping[str, tuple[int, str]]) -> bool:
    """Whether every file is as it was unpacked. Others, such as bytecode, may have come."""
    for place, (size, digest) in files.items():
        path = target / place
        try:
            if path.stat().st_size != size:
                return False
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return False
        except OSError:
            return False
    return True


def remove(directory: Path) -> None:
    """Delete a directory, as much of it as can be."""
    shutil.rmtree(directory, ignore_errors=True)
