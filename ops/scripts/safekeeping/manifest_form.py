"""Whether a manifest has the form of one, and names nothing outside of its backup.

Its SHA-256 says that it is as somebody wrote it, not who did. A restore runs as root and writes what the manifest
names: a backup that was put together by hand must not lead it to another place.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safekeeping.appendonly import FOLDER
from safekeeping.console import Damaged

_NODE = re.compile(r"node-[0-9]+")
_FILE = re.compile(rf"{FOLDER}/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHOWN_CHARACTERS = 80


def check_form(path: Path, facts: dict[str, Any]) -> None:
    """Check what restores, drills and checks rely on, before any of it is used.

    Args:
        path: The backup.
        facts: Its manifest.

    Raises:
        Damaged: A field is missing, of another type, or names something outside; or the backup has symbolic links.
    """
    form = _Form(path)
    form.expect(facts, "", "verified", "true or false", lambda value: isinstance(value, bool))
    form.expect(facts, "", "violations", "a list", lambda value: isinstance(value, list))
    store = form.expect(facts, "", "store", "an object", lambda value: isinstance(value, dict))
    form.expect(store, "store.", "prefix", "a text", lambda value: isinstance(value, str))
    form.expect(store, "store.", "shards", "a number from 1", lambda value: _whole(value) and value >= 1)
    form.expect(facts, "", "states", "numbers by state", _are_counts)
    form.expect(facts, "", "searches", "an object or a list", lambda value: isinstance(value, (dict, list)))
    nodes = form.expect(facts, "", "nodes", "a list of nodes", _are_objects)
    for number, node in enumerate(nodes):
        _check_node(form, f"nodes[{number}].", node)
    form.expect_different("nodes", "name", nodes)
    _check_links(path)


def _check_node(form: _Form, at: str, node: dict[str, Any]) -> None:
    form.expect(node, at, "name", "node-0, node-1, …", lambda value: _matches(_NODE, value))
    form.expect(node, at, "moment_unix", "a time in seconds", _is_number)
    form.expect(node, at, "memory_bytes", "a number from 0", lambda value: _whole(value) and value >= 0)
    files = form.expect(node, at, "files", "a list of files", _are_objects)
    for number, file in enumerate(files):
        inner = f"{at}files[{number}]."
        form.expect(file, inner, "path", f"a file in {FOLDER}/, as {FOLDER}/NAME", lambda value: _matches(_FILE, value))
        form.expect(file, inner, "bytes", "a number from 0", lambda value: _whole(value) and value >= 0)
        form.expect(file, inner, "sha256", "64 hexadecimal digits", lambda value: _matches(_SHA256, value))
    form.expect_different(f"{at}files", "path", files)


class _Form:
    """Raises what is wrong with the manifest of the backup at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def expect(self, owner: dict[str, Any], at: str, name: str, right: str, is_right: Callable[[Any], bool]) -> Any:
        """A field's value, which is right."""
        if name not in owner:
            raise self._wrong(f"{at}{name}", "missing", right)
        value = owner[name]
        if not is_right(value):
            shown = repr(value)
            raise self._wrong(
                f"{at}{name}", shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}…", right
            )
        return value

    def expect_different(self, at: str, name: str, owners: list[dict[str, Any]]) -> None:
        """No two have the same."""
        values = [owner[name] for owner in owners]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise self._wrong(at, f"with {twice[0]!r} twice", f"one of each {name}")

    def _wrong(self, field: str, given: str, right: str) -> Damaged:
        return Damaged(
            f"{self._path}: its manifest is not one that `backup` writes: {field} is {given}; expected: {right}. "
            "Nothing of it was used; take another backup"
        )


def _check_links(path: Path) -> None:
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            found = Path(folder, name)
            if found.is_symlink():
                raise Damaged(
                    f"{path}: {found} is a symbolic link, and `backup` makes none. Nothing of it was used; "
                    "copy backups without links (as `rsync --archive` or `cp --archive` do), or take another one"
                )


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(_whole(each) for each in value.values())
