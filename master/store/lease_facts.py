"""What is known of a lease when something happens to it: for logs and traces, nothing is decided by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tenure.common.traceparent import lease_traceparent, log_fields


@dataclass(frozen=True)
class LeaseFacts:
    """A lease as lua/lib/leave.lua says it.

    Attributes:
        attempt: Attempts that were charged before it, and this one.
        token: Empty: the lease has ended before.
        leased_unix_ms: Since when.
        trace: The context that the spans of the task's life are below; empty: it is not traced.
    """

    search: str
    epoch: int
    attempt: int
    worker_id: str
    token: str
    leased_unix_ms: int
    trace: str

    @staticmethod
    def of(reply: Sequence[bytes]) -> LeaseFacts:
        """From a script's reply."""
        search, epoch, attempt, worker, token, leased, trace = (
            part.decode("utf-8", "surrogatepass") if isinstance(part, bytes) else part for part in reply
        )
        return LeaseFacts(search, int(epoch), int(attempt), worker, token, int(leased or 0), trace)

    def log_fields(self, token: str = "") -> dict[str, Any]:
        """What every log line about it carries, beside task and worker. ``token``: of the lease, if it has ended."""
        trace = lease_traceparent(self.trace, token or self.token, "lease")
        return {"search": self.search, "epoch": self.epoch, "attempt": self.attempt, **log_fields(trace)}
