"""Settings that are texts with a grammar of their own: lists of GPUs and of numbers, sizes of memory."""

from __future__ import annotations

import re

from tenure.common import limits
from tenure.common.errors import InvalidSetting

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(%|[KMGT]i?B|B)?$", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
# The driver's numbers are three digits long.
_XID_MAX = 9999


def parse_slot_gpus(text: str) -> tuple[tuple[str, ...], ...]:
    """``0,1/2,3`` as the GPUs of each slot; empty for an empty text. All slots have the same number of them.

    Raises:
        InvalidSetting: It is no such list.
    """
    if not text.strip():
        return ()
    shares = tuple(tuple(name.strip() for name in part.split(",")) for part in text.split("/"))
    if not all(name for share in shares for name in share):
        raise InvalidSetting(
            "is not a list of slots and their GPUs",
            field="slot_gpus",
            given=repr(text),
            expected="GPUs of one slot separated by commas, slots by slashes: 0,1/2,3",
        )
    if len({len(share) for share in shares}) > 1:
        raise InvalidSetting(
            "gives some slots more GPUs than others",
            field="slot_gpus",
            given=repr(text),
            expected="all slots of a worker have the same number of GPUs; start a worker for each size",
        )
    if len(shares) > limits.SLOTS_MAX:
        raise InvalidSetting(
            f"names {len(shares)} slots", field="slot_gpus", expected=f"at most {limits.SLOTS_MAX} are allowed"
        )
    return shares


def parse_memory(text: str, field: str) -> tuple[int, float]:
    """``2GiB`` or ``10%`` as (bytes, share of the machine's memory); the other one is 0. ``0`` is (0, 0).

    Raises:
        InvalidSetting: It is neither.
    """
    found = _SIZE.match(text.strip())
    if found is None or (found[2] == "%" and float(found[1]) > 100):
        raise InvalidSetting(
            "is no amount of memory",
            field=field,
            given=repr(text),
            expected="bytes with a unit (2GiB, 500MB), or a share of the machine's memory (10%); 0: no limit",
        )
    number, unit = float(found[1]), (found[2] or "").lower()
    return (0, number / 100) if unit == "%" else (int(number * _UNITS[unit]), 0.0)


def parse_xids(text: str) -> frozenset[int]:
    """``74,109`` as numbers.

    Raises:
        InvalidSetting: One of them is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if not part.isascii() or not part.isdigit() or not 0 < int(part) <= _XID_MAX:
            raise InvalidSetting(
                "is not a list of XIDs",
                field="xids_ignored",
                given=repr(part),
                expected=f"numbers from 1 to {_XID_MAX}, for example 74,109",
            )
    return frozenset(map(int, parts))
