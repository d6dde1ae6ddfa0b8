"""Which dead letters are meant, and how they are found: page by page, so that any number of them can be."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tenure.common.errors import InvalidInput
from tenure.common.retry import RetryRule
from tenure.common.states import TaskState

if TYPE_CHECKING:
    from tenure.client import Client, TaskRecord

_SPAN = re.compile(r"^(?P<number>\d+(?:\.\d+)?)(?P<unit>[smhd])$")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Wanted:
    """What a dead letter must be like; empty means any.

    Attributes:
        search: Its search.
        error_class: The class of its last failure, or a glob.
        worker: Who held it last.
        since_unix_ms: It ended no earlier.
    """

    search: str = ""
    error_class: str = ""
    worker: str = ""
    since_unix_ms: float = 0

    @property
    def anything(self) -> bool:
        """Whether every dead letter of the broker is wanted."""
        return self == Wanted()

    def fits(self, record: TaskRecord) -> bool:
        """Whether this one is wanted; its search is not looked at."""
        if record.ended_unix_ms < self.since_unix_ms or (self.worker and record.worker_id != self.worker):
            return False
        found = record.failure.error_class if record.failure else ""
        return not self.error_class or RetryRule(self.error_class).matches(found)

    def __str__(self) -> str:
        parts = [
            f"of search {self.search}" if self.search else "of every search",
            f"with error class {self.error_class}" if self.error_class else "",
            f"last held by {self.worker}" if self.worker else "",
            f"since {_moment(self.since_unix_ms)}" if self.since_unix_ms else "",
        ]
        return ", ".join(filter(None, parts))


def find(client: Client, wanted: Wanted) -> Iterator[TaskRecord]:
    """The wanted dead letters, in the order of their submission; a page of 1,000 is held at a time."""
    searches = [wanted.search] if wanted.search else [each.name for each in client.searches() if _has_dead(each.tasks)]
    for search in searches:
        yield from (record for record in client.tasks(search, [TaskState.FAILED]) if wanted.fits(record))


def parse_since(text: str | None) -> float:
    """Unix ms of a moment: ``90s``, ``30m``, ``2h``, ``7d`` ago, or a date or time in ISO 8601, UTC unless it says so.

    Raises:
        InvalidInput: It is neither.
    """
    if text is None:
        return 0
    span = _SPAN.match(text)
    if span:
        return (time.time() - float(span["number"]) * _UNIT_SECONDS[span["unit"]]) * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            "is neither a length of time nor a date",
            field="since",
            given=text,
            expected="such as 30m, 2h, 7d or 2026-05-01T08:00",
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def parse_wanted(search: str | None, error_class: str | None, worker: str | None, since: str | None) -> Wanted:
    """The options; raises InvalidInput for one that is empty: most likely a variable that is not set."""
    for field, given in (("search", search), ("error-class", error_class), ("worker", worker)):
        if given == "":
            raise InvalidInput("is empty", field=field, expected="leave it out to mean all")
    return Wanted(search or "", error_class or "", worker or "", parse_since(since))


def why_dead(record: TaskRecord) -> str:
    """Which budget ran out, or that no retry could help."""
    spent = (
        ("losses", record.losses, record.max_losses),
        ("attempts", record.attempts, record.max_attempts),
        ("out-of-memory ends", record.out_of_memory, record.max_out_of_memory),
    )
    if record.failure is not None and not record.failure.retryable:
        return "the error is not retryable, by its evaluator's word or by the search's retry policy"
    ended = record.failure.error_class if record.failure else ""
    rules = (
        f"the budget of the retry rule {name} is spent: {count} attempts"
        for name, count in record.rule_attempts.items()
        if RetryRule(name).matches(ended)
    )
    budgets = (f"{count} of {most} {name} spent" for name, count, most in spent if most and count >= most)
    return next(itertools.chain(budgets, rules), "the search's retry policy forbids another try")


def _has_dead(numbers: Mapping[TaskState, int]) -> bool:
    return numbers[TaskState.FAILED] > 0


def _moment(unix_ms: float) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
