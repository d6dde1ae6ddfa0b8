"""A history, sorted by what the checker asks for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaos_suite.history import Event

# Transitions after which the task's lease of before is over.
LEASE_ENDS = frozenset({"complete", "fail", "release", "expire"})


@dataclass(frozen=True)
class Lease:
    """One lease of one task, from the store's own account.

    Attributes:
        begun: Time of the claim, or of the re-adoption.
        ended: Time of its end; infinity if it has none.
        end: The transition that ended it.
    """

    task_id: str
    epoch: int
    worker: str
    begun: float
    ended: float
    end: str


class Story:
    """Events by kind and by task.

    Args:
        events: In order of time.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self._by_kind: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            self._by_kind[event["what"]].append(event)
        self.records: dict[str, Event] = {event["task_id"]: event for event in self.of("record")}
        self.transitions: dict[str, list[Event]] = defaultdict(list)
        for event in self.of("transition"):
            self.transitions[event["task_id"]].append(event)

    def of(self, what: str) -> list[Event]:
        """All events of one kind, in order."""
        return self._by_kind.get(what, [])

    def tasks_of(self, what: str) -> set[str]:
        """The tasks that events of one kind are about."""
        return {event["task_id"] for event in self.of(what)}

    @property
    def submitted(self) -> dict[str, str]:
        """Key of each task whose submit was acknowledged."""
        return {event["task_id"]: event["key"] for event in self.of("submitted")}

    def leases(self) -> list[Lease]:
        """Every lease that there was."""
        found = []
        for task_id, transitions in self.transitions.items():
            held: Event | None = None
            for event in transitions:
                if event["transition"] in ("claim", "readopt"):
                    held = event
                elif event["transition"] in LEASE_ENDS and held is not None:
                    found.append(_lease(task_id, held, event["time"], event["transition"]))
                    held = None
            if held is not None:
                found.append(_lease(task_id, held, float("inf"), ""))
        return found

    def strikes(self) -> list[tuple[Event, float]]:
        """Each strike with the time of its end; infinity for one that was never healed."""
        healed = {event["strike"]: event["time"] for event in self.of("heal")}
        return [(event, healed.get(event["strike"], float("inf"))) for event in self.of("strike")]


def _lease(task_id: str, held: Event, ended: float, end: str) -> Lease:
    return Lease(task_id, held["epoch"], held["worker"], held["time"], ended, end)


def last_of(events: Sequence[Event], name: str, default: Any = None) -> Any:
    """A field of the last event."""
    return events[-1][name] if events else default
