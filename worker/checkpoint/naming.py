"""The names of checkpoints: ``<base url>/<search>/<task id>/step-00000012-epoch-3-9f2c4d6e8a1b3c5d``.

Search names and ids of foreign masters may be any printable text, so both are made safe for file systems
first; the last part is random, so two runs of one task never write to one place.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from tenure.common.errors import CheckpointError

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SAFE_CHARS_MAX = 48
_NAME = re.compile(r"step-(?P<step>\d{8,19})-epoch-(?P<epoch>\d{1,19})-(?P<random>[0-9a-f]{16})")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_EXPECTED = "a checkpoint's URL ends in <search>/<task id>/step-<step>-epoch-<epoch>-<16 hexadecimal digits>"


class CheckpointName(NamedTuple):
    """The last part of a checkpoint's URL."""

    step: int
    epoch: int
    random: str

    def __str__(self) -> str:
        return f"step-{self.step:08d}-epoch-{self.epoch}-{self.random}"


def new_name(step: int, epoch: int) -> CheckpointName:
    """A name that nobody has used: 64 random bits."""
    return CheckpointName(step, epoch, secrets.token_hex(8))


def parse_name(text: str) -> CheckpointName | None:
    """The parts of a name that :func:`new_name` made, or None."""
    match = _NAME.fullmatch(text)
    return CheckpointName(int(match["step"]), int(match["epoch"]), match["random"]) if match else None


def safe_segment(text: str) -> str:
    """``text`` as one path segment: itself if it is safe, else its safe characters, ``~`` and a hash.

    Different texts never share a segment: ``~`` is not among the safe characters.
    """
    if _SAFE.fullmatch(text):
        return text
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", text).lstrip("-")[:_SAFE_CHARS_MAX] or "_"
    return f"{readable}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def task_url(base_url: str, search: str, task_id: str) -> str:
    """The directory of one task's checkpoints.

    A plain path becomes an absolute ``file://`` URL: what is registered must mean the same in another
    directory.
    """
    base = base_url if is_url(base_url) else Path(base_url).absolute().as_uri()
    return f"{base.rstrip('/')}/{safe_segment(search)}/{safe_segment(task_id)}"


def split_checkpoint_url(url: str) -> tuple[str, CheckpointName]:
    """(URL of the task's directory, name).

    Raises:
        CheckpointError: This can't be the URL of a checkpoint that Tenure wrote.
    """
    directory, _, last = url.rstrip("/").rpartition("/")
    name = parse_name(last)
    if name is None or not directory or ".." in unquote(directory).split("/"):
        raise CheckpointError("is not a checkpoint's URL", field="url", given=url, expected=_EXPECTED)
    return directory, name


def is_url(text: str) -> bool:
    """Whether ``text`` names a scheme (``s3://``, ``simplecache::s3://``), and so is no plain path."""
    return _SCHEME.match(text) is not None or "::" in text.split("/")[0]


def local_path(url: str) -> Path | None:
    """The path of a plain path or a ``file://`` URL; None for every other storage.

    Raises:
        CheckpointError: A ``file://`` URL that names another host.
    """
    if not is_url(url):
        return Path(url)
    match = _SCHEME.match(url)
    if match is None or match["scheme"].lower() not in ("file", "local"):
        return None
    host, slash, path = url[match.end() :].partition("/")
    if host not in ("", "localhost") or not slash:
        raise CheckpointError("names another host", field="url", given=url, expected="give file:///an/absolute/path")
    return Path("/" + unquote(path))
