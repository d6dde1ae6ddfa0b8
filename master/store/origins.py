"""A task's origin: what it is, whatever its id. Workers are told it with a task and say it back, so that what they hold
can be matched when the store has lost the task (lua/lib/orphans.lua)."""

from __future__ import annotations

import json

from tenure.common.limits import KEY_BYTES_MAX, SEARCH_NAME_BYTES_MAX
from tenure.master.store.keys import Keys

_DIGEST_BYTES = 32
# JSON may spend six characters on one of a name's.
ORIGIN_BYTES_MAX = 6 * (SEARCH_NAME_BYTES_MAX + KEY_BYTES_MAX) + _DIGEST_BYTES + 20


def origin(search: str, key: str, digest: str) -> str:
    """The origin of a task of this search and key whose payload has this digest."""
    return json.dumps([search, key, digest], separators=(",", ":"))


def search_of(origin: str) -> str:
    """The search in an origin, as whoever tells it says; empty if it is none."""
    try:
        parts = json.loads(origin) if len(origin) <= ORIGIN_BYTES_MAX else None
    except ValueError:
        return ""
    return parts[0] if isinstance(parts, list) and parts and isinstance(parts[0], str) else ""


def checked_origin(text: str, task_id: str, keys: Keys) -> str:
    """``text`` if it is an origin that this task can have; else '': then nothing can be matched by it."""
    if not text or len(text) > ORIGIN_BYTES_MAX:
        return ""
    try:
        parts = json.loads(text)
    except ValueError:
        return ""
    if not isinstance(parts, list) or len(parts) != 3 or not all(isinstance(part, str) for part in parts):
        return ""
    search = parts[0]
    # Another shard's keys must not be asked for.
    fits = text == origin(*parts) and keys.shard_of_search(search) == keys.shard_of_task(task_id)
    return text if fits else ""
