"""Checks that several kinds of input share."""

from __future__ import annotations

from typing import Any

from tenure.common.errors import InvalidInput


def check_integer(value: Any, field: str, least: int, most: int, error: type[InvalidInput] = InvalidInput) -> None:
    """Raises ``error``, which names ``field``, unless ``value`` is an integer from ``least`` to ``most``."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or not least <= value <= most:
        raise error(
            "out of range" if is_integer else "must be an integer",
            field=field,
            given=value if is_integer else repr(value),
            expected=f"an integer from {least} to {most}",
        )
