"""The states of a task and every transition between them.

This table is the state machine: the Lua scripts of ``master/store/lua`` carry it out (one file a row), the contract
tests try every state against every row, and docs/states.md is generated from it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class TaskState(enum.StrEnum):
    """Where a task is. A task is in exactly one state and in exactly one index of the store."""

    SCHEDULED = "SCHEDULED"
    QUEUED = "QUEUED"
    LEASED = "LEASED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether a task stays in this state unless an operator requeues it."""
        return self in TERMINAL


TERMINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
OPEN = frozenset(TaskState) - TERMINAL

STATE_MEANING: dict[TaskState, str] = {
    TaskState.SCHEDULED: "waits for a time: its own delay, or the backoff after a failure",
    TaskState.QUEUED: "ready for the next free worker that fits",
    TaskState.LEASED: "a worker holds it, until its lease ends or expires",
    TaskState.SUCCEEDED: "has its one accepted result",
    TaskState.FAILED: "a budget ran out or the error is not retryable: a dead letter, with the evidence",
    TaskState.CANCELLED: "somebody stopped it",
}


@dataclass(frozen=True)
class Transition:
    """One row of the state machine.

    Attributes:
        name: The verb; also the Lua file, the store's method, the metric label and the log event.
        sources: States it may start from; empty means that the task doesn't exist yet.
        targets: States it may end in. More than one: the script decides by budgets and requests.
        actor: Who does it.
        fenced: Whether the caller must name the current lease token.
        meaning: One line for the documentation.
    """

    name: str
    sources: frozenset[TaskState]
    targets: frozenset[TaskState]
    actor: str
    fenced: bool
    meaning: str

    @property
    def edges(self) -> frozenset[tuple[TaskState | None, TaskState | None]]:
        """The pairs (before, after) that can happen; None is "doesn't exist".

        A state that is both source and target stays as it is (``cancel`` of a LEASED task is a request).
        """
        before: frozenset[TaskState | None] = self.sources or frozenset({None})
        after: frozenset[TaskState | None] = self.targets - self.sources or frozenset({None})
        staying = self.sources & self.targets
        return frozenset((source, target) for source in before - staying for target in after) | frozenset(
            (source, source) for source in staying
        )


def _row(name: str, sources: str, targets: str, actor: str, fenced: bool, meaning: str) -> Transition:
    def states(text: str) -> frozenset[TaskState]:
        return frozenset(TaskState(word) for word in text.split())

    return Transition(name, states(sources), states(targets), actor, fenced, meaning)


TRANSITIONS: tuple[Transition, ...] = (
    _row("submit", "", "QUEUED SCHEDULED", "client", False, "a new task; SCHEDULED with a delay"),
    _row("promote", "SCHEDULED", "QUEUED", "promoter", False, "its time has come on the lease clock"),
    _row("claim", "QUEUED", "LEASED", "worker", False, "epoch + 1 and a fresh lease token"),
    _row(
        "complete",
        "LEASED QUEUED SCHEDULED",
        "SUCCEEDED",
        "worker",
        False,
        "a success; with an outdated token too while the task is open: the first success wins",
    ),
    _row(
        "fail",
        "LEASED",
        "QUEUED SCHEDULED FAILED CANCELLED",
        "worker",
        True,
        "the evaluator raised, ran out of memory or lost its process; budgets and backoff decide",
    ),
    _row("release", "LEASED", "QUEUED CANCELLED", "worker", True, "handed back unfinished; burns nothing"),
    _row(
        "expire",
        "LEASED",
        "QUEUED FAILED CANCELLED",
        "reaper",
        False,
        "the lease ran out on the lease clock; burns a loss",
    ),
    _row(
        "readopt",
        "QUEUED SCHEDULED",
        "LEASED",
        "worker",
        True,
        "the holder is back and nobody was given the task since, or the store was rolled back behind its claim",
    ),
    _row(
        "cancel",
        "QUEUED SCHEDULED LEASED",
        "CANCELLED LEASED",
        "client",
        False,
        "at once when nobody holds it; else requested, and the holder is told",
    ),
    _row(
        "requeue",
        "FAILED CANCELLED",
        "QUEUED",
        "client",
        False,
        "an operator gives it fresh budgets; also SUCCEEDED, if its result can't be read any more",
    ),
    _row("forget", "SUCCEEDED FAILED CANCELLED", "", "sweeper", False, "retention: the record is deleted"),
)

TRANSITIONS_BY_NAME: dict[str, Transition] = {row.name: row for row in TRANSITIONS}
