"""What must confirm a write, beyond the server's own answer, before it is acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Below the socket's timeout, so that the answer says what is missing.
CONFIRMATION_MS_MAX = 5_000


@dataclass(frozen=True)
class Confirmation:
    """What a pipeline that writes ends with.

    Attributes:
        command: ``WAITAOF`` (fsynced) or ``WAIT`` (received).
        local: Servers that must have fsynced, the primary: 1 or 0.
        replicas: Replicas that must have it.
    """

    command: str
    local: int
    replicas: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The command as it is sent."""
        counts = (self.local, self.replicas) if self.command == "WAITAOF" else (self.replicas,)
        return (self.command, *counts, CONFIRMATION_MS_MAX)

    def is_met(self, reply: Any) -> bool:
        """Whether the server's answer says so."""
        if isinstance(reply, Exception):
            return False
        if self.command == "WAIT":
            return int(reply) >= self.replicas
        return int(reply[0]) >= self.local and int(reply[1]) >= self.replicas
