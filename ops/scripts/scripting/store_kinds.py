"""What a store consists of, as its URL tells."""

from __future__ import annotations

from tenure.master.store.cluster import CLUSTER_SCHEMES
from tenure.master.store.sentinel import SENTINEL_SCHEMES


def kind_of(url: str) -> str:
    """``server``, ``sentinel`` (some servers behind sentinels) or ``cluster``."""
    if url.startswith(SENTINEL_SCHEMES):
        return "sentinel"
    return "cluster" if url.startswith(CLUSTER_SCHEMES) else "server"
