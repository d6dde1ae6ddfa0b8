"""The page's own files, read once."""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
INDEX = "/index.html"


class File(NamedTuple):
    """What is sent for a path."""

    body: bytes
    content_type: str
    tag: str


def load_files() -> dict[str, File]:
    """Every file of ``static/`` by its path; ``/`` is the index."""
    found: dict[str, File] = {}
    _load(resources.files(__package__).joinpath("static"), "", found)
    return found | {"/": found[INDEX]}


def _load(folder: Traversable, prefix: str, found: dict[str, File]) -> None:
    for entry in folder.iterdir():
        path = f"{prefix}/{entry.name}"
        if entry.is_dir():
            _load(entry, path, found)
        elif (content_type := TYPES.get(entry.name.rpartition(".")[2])) is not None:
            body = entry.read_bytes()
            found[path] = File(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
