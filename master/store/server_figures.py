"""What the store's servers say of themselves while in use: memory, append-only file, fsyncs, forks, replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerFigures:
    """Of one server, or of all primaries of a cluster together.

    Attributes:
        used_bytes, max_bytes: Its memory, of a cluster's fullest node; ``max_bytes`` 0 = no limit.
        aof_healthy: Whether the append-only file can be written, everywhere.
        aof_bytes, aof_base_bytes: Its size now, and after its last rewrite; summed. 0 without one.
        rewrite_in_progress, rewrite_failed: Whether any is being rewritten; whether any's last rewrite failed.
        fsyncs_delayed, fsyncs_pending: Writes that a slow fsync has held up; fsyncs that wait; summed.
        fork_seconds: How long the last fork took; the slowest.
        clients: Connections; summed.
        replicas: That are connected; the fewest of any node.
        server, version: ``redis`` or ``valkey`` and its own version; of a cluster's first node.
    """

    used_bytes: int
    max_bytes: int
    aof_healthy: bool
    aof_bytes: int
    aof_base_bytes: int
    rewrite_in_progress: bool
    rewrite_failed: bool
    fsyncs_delayed: int
    fsyncs_pending: int
    fork_seconds: float
    clients: int
    replicas: int
    server: str
    version: str

    @staticmethod
    def of(info: Mapping[str, Any]) -> ServerFigures:
        """From a server's INFO. What it doesn't tell (a managed service, no append-only file) counts as nothing."""

        def number(name: str) -> int:
            return int(info.get(name, 0))

        return ServerFigures(
            used_bytes=number("used_memory"),
            max_bytes=number("maxmemory"),
            aof_healthy=info.get("aof_last_write_status", "ok") == "ok",
            aof_bytes=number("aof_current_size"),
            aof_base_bytes=number("aof_base_size"),
            rewrite_in_progress=bool(number("aof_rewrite_in_progress")),
            rewrite_failed=info.get("aof_last_bgrewrite_status", "ok") != "ok",
            fsyncs_delayed=number("aof_delayed_fsync"),
            fsyncs_pending=number("aof_pending_bio_fsync"),
            fork_seconds=number("latest_fork_usec") / 1e6,
            clients=number("connected_clients"),
            replicas=number("connected_slaves"),
            server=str(info.get("server_name", "redis")),
            version=str(info.get("valkey_version", info.get("redis_version", ""))),
        )

    @staticmethod
    def together(figures: Sequence[ServerFigures]) -> ServerFigures:
        """Of all primaries: the worst or the sum, as the attributes say."""
        fullest = max(figures, key=lambda each: each.used_bytes / each.max_bytes if each.max_bytes else 0.0)
        return ServerFigures(
            used_bytes=fullest.used_bytes,
            max_bytes=fullest.max_bytes,
            aof_healthy=all(each.aof_healthy for each in figures),
            aof_bytes=sum(each.aof_bytes for each in figures),
            aof_base_bytes=sum(each.aof_base_bytes for each in figures),
            rewrite_in_progress=any(each.rewrite_in_progress for each in figures),
            rewrite_failed=any(each.rewrite_failed for each in figures),
            fsyncs_delayed=sum(each.fsyncs_delayed for each in figures),
            fsyncs_pending=sum(each.fsyncs_pending for each in figures),
            fork_seconds=max(each.fork_seconds for each in figures),
            clients=sum(each.clients for each in figures),
            replicas=min(each.replicas for each in figures),
            server=figures[0].server,
            version=figures[0].version,
        )
