"""Takes out of a copy whatever would have its master or workers act outside the scratch directory.

A master calls workers that are registered for push; workers delete checkpoints that a master names as discarded, and a
task's checkpoints are discarded when it ends. In a copy of a production store, all of these are production's.
"""

from __future__ import annotations

import redis

# After the prefix and its colon: the workers that are registered; checkpoints that are registered, retired or to be
# deleted; what workers told of lost tasks, with their checkpoints.
_PATTERNS = (
    "{workers}:*",
    "{*}:legacy-seen",
    "{*}:checkpoints:*",
    "{*}:retired:*",
    "{*}:discarded",
    "{*}:orphans",
    "{*}:orphans-at",
)
_BATCH = 1000


def scrub(client: redis.Redis, prefix: str) -> int:
    """Delete them; returns how many keys that were."""
    deleted = 0
    for pattern in _PATTERNS:
        batch: list[bytes] = []
        # The prefix may have no special characters: see MasterSettings.key_prefix.
        for key in client.scan_iter(match=f"{prefix}:{pattern}", count=_BATCH):
            batch.append(key)
            if len(batch) == _BATCH:
                deleted += int(client.unlink(*batch))
                batch = []
        if batch:
            deleted += int(client.unlink(*batch))
    return deleted
