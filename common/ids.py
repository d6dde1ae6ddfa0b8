"""Ids: which texts are allowed, and how Tenure makes its own.

Ids that people choose (workers, searches, keys) may hold any printable text within a byte limit; control characters
are refused because they would break log lines, terminals and keys. Ids that Tenure makes are random, so a store that
was rolled back can't repeat one.
"""

from __future__ import annotations

import os
import secrets
import time

from tenure.common import limits
from tenure.common.errors import InvalidInput

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def check_text(value: str, field: str, bytes_max: int) -> str:
    """``value`` if it is non-empty printable text of at most ``bytes_max`` UTF-8 bytes; else InvalidInput."""
    if not isinstance(value, str) or not value:
        raise InvalidInput("must not be empty", field=field, given=repr(value), expected="give a non-empty text")
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > bytes_max:
        raise InvalidInput(
            f"is {size} bytes long", field=field, given=value, expected=f"at most {bytes_max} bytes are allowed"
        )
    if not value.isprintable() or value != value.strip():
        raise InvalidInput(
            "has control characters or blanks at its ends",
            field=field,
            given=repr(value),
            expected="use printable characters",
        )
    return value


def check_id(value: str, field: str) -> str:
    """A worker, task or instance id."""
    return check_text(value, field, limits.ID_BYTES_MAX)


def check_search_name(value: str, field: str = "search") -> str:
    """A search's name."""
    return check_text(value, field, limits.SEARCH_NAME_BYTES_MAX)


def new_task_id(shard: int) -> str:
    """``<shard>-<time><random>``: the shard is readable from the id, and ids sort by the time they were made.

    Layout of the second part as ULID's (48 bits of Unix milliseconds, 80 random bits, Crockford base 32).
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    digits = []
    for _ in range(26):
        digits.append(_CROCKFORD[value & 31])
        value >>= 5
    return f"{shard:x}-{''.join(reversed(digits))}"


def new_lease_token() -> str:
    """128 random bits, hexadecimal."""
    return secrets.token_hex(16)


def new_instance_id() -> str:
    """Tells two processes with one worker id, or two starts of one, apart."""
    return secrets.token_hex(8)
