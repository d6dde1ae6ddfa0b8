"""How a registered worker is spoken of. Nothing about leases is decided by it."""

from __future__ import annotations


def worker_status(*, seen_ms_ago: int, left: bool, lease_ttl_ms: int) -> str:
    """``live``; ``silent`` once it missed a lease's time of heartbeats; ``gone`` after goodbye or ten such times."""
    if left or seen_ms_ago > 10 * lease_ttl_ms:
        return "gone"
    return "silent" if seen_ms_ago > lease_ttl_ms else "live"
