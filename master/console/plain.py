"""From messages to what JSON can hold. Absent fields stay absent: the page takes them as 0 or empty."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.message import Message


def plain(message: Message) -> dict[str, Any]:
    """The fields that are set, by their names in the .proto file; enums by name, what is no finite number as None."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if isinstance(value, Message):
            found[field.name] = plain(value)
        elif hasattr(value, "items"):
            found[field.name] = {str(name): finite(part) for name, part in value.items()}
        elif field.enum_type is not None:
            found[field.name] = field.enum_type.values_by_number[value].name
        elif isinstance(value, str | int | float):
            found[field.name] = finite(value)
        else:
            found[field.name] = [plain(part) if isinstance(part, Message) else finite(part) for part in value]
    return found


def finite(value: Any) -> Any:
    """``value``, or None for a number that JSON hasn't got."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
