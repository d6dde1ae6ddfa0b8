"""Packs code to be shipped with a search: a directory, a module or a wheel becomes one archive with one digest.

The same files give the same archive on every machine: names in order, no times, nothing compressed (compressors
differ). So what is uploaded once is known everywhere by its SHA-256, and a search that is started again from the same
files finds its tasks.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tenure.common import limits
from tenure.common.code import RESERVED, check_names, check_reference, top_module
from tenure.common.errors import InvalidCode

IGNORE_FILE = ".tenureignore"
# Never code that a search needs: version control, environments, caches, bytecode.
_NEVER = (
    *(".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", "__pycache__", ".mypy_cache", ".pytest_cache"),
    *(".ruff_cache", ".ipynb_checkpoints", ".idea", ".vscode", "node_modules", ".DS_Store", "*.pyc", "*.pyo"),
    IGNORE_FILE,
)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LARGEST_SHOWN = 5
_EXPECTED = "give the directory that the module is in, the package itself, the module's file, or a wheel"


@dataclass(frozen=True)
class PackedCode:
    """An archive, ready to be uploaded.

    Attributes:
        digest: SHA-256 of ``archive``, in hexadecimal: the code's name.
        archive: A zip.
        files: What it holds, in order.
    """

    digest: str
    archive: bytes
    files: tuple[str, ...]


def pack(path: str | os.PathLike[str], evaluator: str) -> PackedCode:
    """Pack what ``evaluator`` (``module:function``) is in.

    Args:
        path: The directory that the module is in; or the package itself (a directory of its name), or a module's file;
            or a wheel, which is shipped as it is.
        evaluator: Decides which of them it is. For one of Tenure's own, as :mod:`tenure.worker.torch_eval`, it is what
            that is to import, such as a data set: a package if there is an ``__init__.py`` in it, else its directory.

    Left out of directories: version control, environments, caches and bytecode, and what their ``.tenureignore`` names
    (a glob in each line, of names, or of paths if there is a ``/`` in it; a ``/`` at its end means directories only).

    Raises:
        InvalidInput: ``evaluator`` is no reference.
        InvalidCode: There is no such module in it, it can't be read, it is too large (the largest files are named), or
            it has links that lead out of it.
    """
    module = check_reference(evaluator).partition(":")[0]
    root = Path(os.path.abspath(path))
    try:
        if root.is_dir():
            packed = _archive(_files_of_directory(root, top_module(evaluator)))
        elif root.suffix == ".whl":
            packed = _wheel(root)
        else:
            packed = _archive({root.name: root})
    except OSError as error:
        raise InvalidCode(
            f"can't be read: {error.strerror or error}", field="code", given=error.filename or path, expected=_EXPECTED
        ) from None
    if top_module(evaluator) != RESERVED and not _holds(packed.files, module):
        raise _no_module(root, module)
    return packed


def _files_of_directory(root: Path, module: str) -> dict[str, Path]:
    """Its files by their names in the archive."""
    if module == RESERVED:
        # For an evaluator of Tenure's: a data set of your own, say.
        prefix = f"{root.name}/" if (root / "__init__.py").is_file() else ""
    elif (root / module).is_dir() or any(root.glob(f"{module}.*")):
        prefix = ""
    elif root.name == module:
        prefix = f"{module}/"
    else:
        raise _no_module(root, module)
    ignored = _Ignored.of(root)
    return {f"{prefix}{path.relative_to(root).as_posix()}": path for path in _walk(root, root.resolve(), ignored, "")}


def _walk(directory: Path, root: Path, ignored: _Ignored, above: str) -> Iterator[Path]:
    """The files below it that are not ignored; InvalidCode for what is neither a file nor a directory."""
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        is_directory = entry.is_dir(follow_symlinks=False)
        if ignored.names(f"{above}{entry.name}", is_directory):
            continue
        path = directory / entry.name
        if is_directory:
            yield from _walk(path, root, ignored, f"{above}{entry.name}/")
            continue
        # A link to a file within is that file; one that leads elsewhere would mean another file on each machine.
        target = path.resolve()
        if not target.is_relative_to(root):
            raise _refused(path, "is a link that leads out of the directory")
        if not target.is_file():
            raise _refused(path, "is neither a file nor a directory, nor a link to a file")
        yield path


@dataclass(frozen=True)
class _Ignored:
    """What is left out: (glob, of whole paths, directories only)."""

    patterns: tuple[tuple[str, bool, bool], ...]

    @classmethod
    def of(cls, root: Path) -> _Ignored:
        """What is never packed, and what the directory's own file names."""
        lines = []
        if (root / IGNORE_FILE).is_file():
            lines = (root / IGNORE_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        for line in named:
            if line.startswith("!"):
                raise InvalidCode("can't take anything back in", field=IGNORE_FILE, given=line)
        return cls(tuple((text.strip("/"), "/" in text.rstrip("/"), text.endswith("/")) for text in (*_NEVER, *named)))

    def names(self, path: str, is_directory: bool) -> bool:
        """Whether this file or directory is left out."""
        name = path.rpartition("/")[2]
        return any(
            fnmatchcase(path if whole else name, glob) and (is_directory or not directories_only)
            for glob, whole, directories_only in self.patterns
        )


def _archive(files: Mapping[str, Path]) -> PackedCode:
    """The files as a zip whose bytes say nothing but their names, contents and whether they can be executed."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    _check_size(sum(sizes.values()), sizes)
    _check_encodable(files)
    check_names(files)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            information = zipfile.ZipInfo(name, _EPOCH)
            information.create_system = 3
            executable = files[name].stat().st_mode & stat.S_IXUSR
            information.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            archive.writestr(information, files[name].read_bytes())
    packed = sink.getvalue()
    _check_size(len(packed), sizes)
    return PackedCode(hashlib.sha256(packed).hexdigest(), packed, tuple(sorted(files)))


def _wheel(path: Path) -> PackedCode:
    """A wheel as it is. Whether a worker has its platform and what it requires is found out there."""
    packed = path.read_bytes()
    _check_size(len(packed), {})
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (zipfile.BadZipFile, ValueError) as error:
        raise _refused(path, f"is no wheel: {error}") from None
    check_names(names)
    return PackedCode(hashlib.sha256(packed).hexdigest(), packed, tuple(names))


def _holds(names: Collection[str], module: str) -> bool:
    """Whether one of the files is the module, or is in the package of its name; a wheel may keep it among its data."""
    place = module.replace(".", "/")
    for name in names:
        first, _, rest = name.partition("/")
        within = rest.partition("/")[2] if first.endswith(".data") else name
        if within.startswith((f"{place}/", f"{place}.")):
            return True
    return False


def _check_size(size: int, sizes: Mapping[str, int]) -> None:
    if size <= limits.CODE_BYTES_MAX:
        return
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_LARGEST_SHOWN]
    shown = ", ".join(f"{name} ({number / 2**20:.1f} MiB)" for name, number in largest)
    raise InvalidCode(
        f"is {size / 2**20:.1f} MiB large" + (f"; the largest files: {shown}" if shown else ""),
        field="code",
        expected=f"at most {limits.CODE_BYTES_MAX >> 20} MiB: leave data out by a {IGNORE_FILE}",
    )


def _check_encodable(names: Collection[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidCode("is no name in UTF-8", field="code", given=repr(name), expected="rename it") from None


def _refused(path: Path, why: str) -> InvalidCode:
    return InvalidCode(why, field="code", given=str(path), expected=f"remove it, or name it in a {IGNORE_FILE}")


def _no_module(root: Path, module: str) -> InvalidCode:
    return InvalidCode(f"holds no module {module}", field="code", given=str(root), expected=_EXPECTED)
