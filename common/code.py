"""Code that is shipped with a search: how it is named, and which names it may hold. No I/O.

The archive is a zip: a wheel as it was built, or what ``client/code.py`` makes of a directory. Its digest, the SHA-256
of its bytes, is its name everywhere. The same checks run in the client, which packs, and in the worker, which unpacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tenure.common import limits
from tenure.common.errors import InvalidCode, InvalidInput

REFERENCE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
# What runs the evaluator: shipped code must not stand before it.
RESERVED = "tenure"


def check_program(evaluator: str, code: str) -> None:
    """What evaluates a task is right, or nothing is said of it; else InvalidInput with the field."""
    if code and not evaluator:
        raise InvalidInput(
            "is missing", field="evaluator", expected="code needs the function in it: name it as module:function"
        )
    if evaluator:
        check_reference(evaluator)
    if code:
        check_digest(code)


def check_reference(evaluator: str) -> str:
    """``evaluator`` if it is ``module:function``; else InvalidInput."""
    right = isinstance(evaluator, str) and REFERENCE.match(evaluator) is not None
    if not right or len(evaluator.encode()) > limits.REFERENCE_BYTES_MAX:
        raise InvalidInput(
            "is not a reference to a function",
            field="evaluator",
            given=evaluator,
            expected=f"module:function of at most {limits.REFERENCE_BYTES_MAX} bytes, as my_package.train:evaluate",
        )
    return evaluator


def check_digest(code: str) -> str:
    """``code`` if it is a digest; else InvalidInput."""
    if not isinstance(code, str) or not _DIGEST.match(code):
        raise InvalidInput(
            "is no digest", field="code", given=code, expected="the SHA-256 of the archive, 64 hex digits"
        )
    return code


def top_module(evaluator: str) -> str:
    """The package or module that ``my_package.train:evaluate`` is in: ``my_package``."""
    return evaluator.partition(":")[0].partition(".")[0]


def check_names(names: Iterable[str]) -> None:
    """The names of an archive's files are relative paths that stay within it, and don't get in one another's way.

    Raises:
        InvalidCode: Names the first that doesn't.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for name in names:
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name or ":" in parts[0]:
            raise InvalidCode("leads out of the archive, or is no plain path", field="code", given=name)
        if len(name.encode("utf-8", "surrogatepass")) > limits.CODE_NAME_BYTES_MAX:
            raise InvalidCode(
                "is too long a name", field="code", given=name, expected=f"at most {limits.CODE_NAME_BYTES_MAX} bytes"
            )
        if parts[0] in (RESERVED, f"{RESERVED}.py"):
            raise InvalidCode(
                f"would hide the package {RESERVED}, which runs it", field="code", given=name, expected="rename it"
            )
        above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        if name in seen or name in folders or above & seen:
            raise InvalidCode("is there twice", field="code", given=name)
        seen.add(name)
        folders |= above
    if len(seen) > limits.CODE_FILES_MAX:
        raise InvalidCode(
            f"holds {len(seen)} files", field="code", expected=f"at most {limits.CODE_FILES_MAX} are allowed"
        )
