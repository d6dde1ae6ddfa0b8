"""The Lua scripts: read from ``lua/``, put together from their fragments, addressed by content hash.

The content hash is what the server knows a script by, so masters of two versions run against one store without
meeting each other's scripts.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

_INCLUDE = re.compile(r"^-- @include\s+(.+)$", re.MULTILINE)
_FLAGS = re.compile(r"^-- @flags\s+(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    """One transition or query.

    Attributes:
        name: The file's name without ``.lua``; also its metric label.
        body: What the server is sent, with the shebang that carries the flags.
        sha: SHA-1 of the body, hexadecimal, as EVALSHA wants it.
        writes: Whether it changes anything.
    """

    name: str
    body: bytes
    sha: bytes
    writes: bool


@cache
def load_scripts() -> dict[str, Script]:
    """All scripts by name."""
    folder = resources.files(__package__).joinpath("lua")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".lua"))
    return {name[:-4]: _assemble(folder, name) for name in names}


def _assemble(folder: Traversable, name: str) -> Script:
    source = folder.joinpath(name).read_text()
    include, flags = _INCLUDE.search(source), _FLAGS.search(source)
    fragments = [folder.joinpath(part).read_text() for part in include[1].split()] if include else []
    flag_words = flags[1].split() if flags else []
    shebang = "#!lua" + (f" flags={','.join(flag_words)}" if flag_words else "")
    body = "\n".join([shebang, *(_without_comments(text) for text in (*fragments, source))]).encode()
    return Script(
        name=name[:-4],
        body=body,
        sha=hashlib.sha1(body, usedforsecurity=False).hexdigest().encode(),
        writes="no-writes" not in flag_words,
    )


def _without_comments(text: str) -> str:
    # A changed comment must not make another script.
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--"))
