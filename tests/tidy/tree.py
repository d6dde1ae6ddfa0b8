"""The files of the project, parsed; what the tidy tests share."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE_FOLDERS = ("client", "common", "master", "proto", "worker")
_LEFT_OUT = re.compile(
    r"\.git|\.venv.*|\.make|\.\w+_cache|\.hypothesis|__pycache__|build|dist|.*\.egg-info|tenure-data"
)


def files(*suffixes: str, under: str = ".") -> list[Path]:
    """The project's own files with one of these suffixes; no environments, caches or builds."""
    return sorted(path for path in _walk(ROOT / under) if path.suffix in suffixes)


def _walk(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if _LEFT_OUT.fullmatch(entry.name) or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry


def is_generated(path: Path) -> bool:
    """Stubs: nobody reads or edits them."""
    return "_pb2" in path.name


class Module(NamedTuple):
    """One source file of the package."""

    path: Path
    tree: ast.Module

    @property
    def name(self) -> str:
        """For messages: the path from the root."""
        return str(self.path.relative_to(ROOT))


@functools.cache
def package_modules() -> tuple[Module, ...]:
    """All of ``tenure`` but the generated stubs."""
    paths = [path for folder in PACKAGE_FOLDERS for path in files(".py", under=folder) if not is_generated(path)]
    return tuple(Module(path, ast.parse(path.read_text(), str(path))) for path in paths)


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a module imports anywhere in it, also inside functions."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def is_part_of(name: str, packages: set[str]) -> bool:
    """Whether a dotted name is one of ``packages`` or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)
