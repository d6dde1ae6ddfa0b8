"""What the store makes of fenced writes."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

from tenure.master.store.lease_facts import LeaseFacts

T = TypeVar("T")


class Verdict(enum.StrEnum):
    """What a script made of a fenced write."""

    OK = "OK"
    STALE = "STALE"
    DUPLICATE = "DUPLICATE"
    UNKNOWN_TASK = "UNKNOWN_TASK"
    # Nothing was written: the search has another retry policy, by which the failure must be judged.
    POLICY = "POLICY"


class RenewVerdict(enum.StrEnum):
    """What became of a lease that its holder wanted renewed.

    AHEAD: readopted, and the holder was given the task in a time that the store has lost. ORPHAN: the store has lost
    the task itself; the holder's result is wanted all the same.
    """

    OK = "OK"
    CANCEL = "CANCEL"
    READOPTED = "READOPTED"
    AHEAD = "AHEAD"
    LOST = "LOST"
    FINISHED = "FINISHED"
    ORPHAN = "ORPHAN"
    UNKNOWN = "UNKNOWN"


class Answer(tuple[Verdict, T], Generic[T]):
    """What the store makes of an outcome: the verdict, and more by the outcome's kind.

    Attributes:
        late: Whether a success was taken from an outdated lease.
        resent: Whether it was taken before, and nothing is changed now.
        run_ms: How long the run took that this outcome ended; None if it ended none (refused, or sent again).
        lease: The lease that the task was under until then, or last; None of a task that the store doesn't know.
    """

    late: bool = False
    resent: bool = False
    run_ms: int | None = None
    lease: LeaseFacts | None = None
