"""What the store promises, as a few plain rules: the model that the real store is compared with.

Knows nothing of Redis, indexes, scripts or masters. Times are milliseconds of the lease clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tenure.common.states import TaskState
from tenure.master.store.records import FailureKind, RenewVerdict, Verdict

LEASE_TTL_MS = 30_000
SCHEDULED, QUEUED, LEASED = TaskState.SCHEDULED, TaskState.QUEUED, TaskState.LEASED
SUCCEEDED, FAILED, CANCELLED = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED
COUNTED = {FailureKind.FAILURE: "attempts", FailureKind.LOSS: "losses", FailureKind.OUT_OF_MEMORY: "ooms"}


@dataclass
class Task:
    """A task as it should be."""

    task_id: str
    search: str
    key: str
    number: int
    priority: int
    max_attempts: int
    max_losses: int
    state: TaskState
    due_ms: int = 0
    expires_ms: int = 0
    token: str = ""
    worker: str = ""
    epoch: int = 0
    spent: Counter[str] = field(default_factory=Counter)
    cancel: bool = False
    reported_token: str = ""
    reaped_token: str = ""
    records: list[str] = field(default_factory=list)
    fitness: float | None = None

    def end(self, state: TaskState) -> None:
        """It stays in this state unless an operator requeues it."""
        self.state, self.token, self.cancel, self.reaped_token = state, "", False, ""

    def open_again(self, state: TaskState, due_ms: int = 0) -> None:
        """Nobody holds it any more."""
        self.state, self.token, self.due_ms = state, "", due_ms

    def record(self, outcome: str) -> None:
        """Evidence of one lease; the oldest give way."""
        self.records = [*self.records, outcome][-50:]


@dataclass
class Search:
    """A search's settings as they should be."""

    status: str = "active"
    priority: int = 0
    max_leased: int = 0
    best: float | None = None


def mark(token: str, worker: str) -> str:
    """What a task remembers of who ended its run."""
    return token or f"legacy:{worker}"


class Model:
    """All tasks and searches, and what each request should be answered."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.searches: dict[str, Search] = {}
        self.now_ms = 0

    def in_state(self, *states: TaskState) -> list[Task]:
        """Tasks in any of these states, in the order of submission."""
        return [task for task in self.tasks.values() if task.state in states]

    def leased(self, search: str) -> int:
        """How many of a search's tasks are leased."""
        return sum(task.search == search for task in self.in_state(LEASED))

    # ---- claims -----------------------------------------------------------------------------------------------------

    def may_serve(self, search: str) -> bool:
        """Whether a claim may be given this search's tasks."""
        settings = self.searches[search]
        below_cap = settings.max_leased == 0 or self.leased(search) < settings.max_leased
        return settings.status == "active" and below_cap

    def next_ones(self) -> set[str]:
        """Ids one of which a claim must be given now: of each search of the highest priority its first in line."""
        first: dict[str, Task] = {}
        for task in sorted(self.in_state(QUEUED), key=lambda task: (-task.priority, task.number)):
            if self.may_serve(task.search):
                first.setdefault(task.search, task)
        highest = max((self.searches[search].priority for search in first), default=0)
        return {task.task_id for search, task in first.items() if self.searches[search].priority == highest}

    def grant(self, task: Task, token: str, worker: str) -> None:
        """A claim was given this task."""
        task.state, task.token, task.worker, task.reaped_token = LEASED, token, worker, ""
        task.epoch += 1
        task.expires_ms = self.now_ms + LEASE_TTL_MS

    # ---- what holders write -----------------------------------------------------------------------------------------

    def complete(self, task: Task, token: str, worker: str, fitness: float) -> Verdict:
        """The first success of an open task wins."""
        if task.state.terminal:
            same = task.state is SUCCEEDED and task.reported_token == mark(token, worker)
            return Verdict.OK if same else Verdict.DUPLICATE
        task.end(SUCCEEDED)
        task.reported_token, task.worker, task.fitness = mark(token, worker), worker, fitness
        task.record("success")
        search = self.searches[task.search]
        search.best = fitness if search.best is None else max(search.best, fitness)
        return Verdict.OK

    def report(self, task: Task, token: str, worker: str) -> Verdict | None:
        """Whether this token may end its run: None; else the answer. It may, too, if its lease ran out and nobody was
        given the task since. Without a token it is a legacy peer's, known by its worker id."""
        holds = task.token == token if token else task.worker == worker
        if self.was_reaped(task, token):
            self.undo_expiry(task, token)
        elif task.state is not LEASED or not holds:
            return Verdict.OK if task.reported_token == mark(token, worker) else Verdict.STALE
        task.reported_token = mark(token, worker)
        return None

    def was_reaped(self, task: Task, token: str) -> bool:
        """Whether the reaper took this lease last, and nobody was given the task since."""
        return bool(token) and task.reaped_token == token and task.state in (QUEUED, SCHEDULED)

    def undo_expiry(self, task: Task, token: str) -> None:
        """As if that lease had not run out."""
        task.spent["losses"] -= 1
        task.records.pop()
        task.state, task.token, task.reaped_token = LEASED, token, ""

    def fail(self, task: Task, kind: FailureKind, retryable: bool, wait_ms: int) -> None:
        """The holder's run ended badly; ``wait_ms`` is the backoff that was drawn."""
        counted = COUNTED[kind]
        task.spent[counted] += 1
        task.record(kind.value)
        budget = task.max_losses if kind is FailureKind.LOSS else task.max_attempts
        if task.cancel:
            task.end(CANCELLED)
        elif not retryable or task.spent[counted] >= budget:
            task.end(FAILED)
        else:
            task.open_again(SCHEDULED if wait_ms else QUEUED, self.now_ms + wait_ms)

    def release(self, task: Task) -> None:
        """The holder handed it back."""
        task.record("release")
        if task.cancel:
            task.end(CANCELLED)
        else:
            task.open_again(QUEUED)

    def renew(self, task: Task, token: str) -> RenewVerdict:
        """A holder says that it still is one."""
        if task.state.terminal:
            return RenewVerdict.FINISHED
        if task.state is LEASED:
            if task.token != token:
                return RenewVerdict.LOST
            task.expires_ms = self.now_ms + LEASE_TTL_MS
            return RenewVerdict.CANCEL if task.cancel else RenewVerdict.OK
        if not self.was_reaped(task, token):
            return RenewVerdict.LOST
        self.undo_expiry(task, token)
        task.expires_ms = self.now_ms + LEASE_TTL_MS
        return RenewVerdict.READOPTED

    def cut(self, task: Task, token: str, grace_ms: int) -> int:
        """The holder's stream broke; returns how many leases that shortened."""
        if task.state is not LEASED or task.token != token or task.expires_ms <= self.now_ms + grace_ms:
            return 0
        task.expires_ms = self.now_ms + grace_ms
        return 1

    # ---- time -------------------------------------------------------------------------------------------------------

    def expire(self) -> set[str]:
        """The reaper takes what ran out."""
        due = [task for task in self.in_state(LEASED) if task.expires_ms <= self.now_ms]
        for task in due:
            task.spent["losses"] += 1
            task.record("expired")
            task.reaped_token = task.token
            if task.cancel:
                task.end(CANCELLED)
            elif task.spent["losses"] >= task.max_losses:
                task.end(FAILED)
            else:
                task.open_again(QUEUED)
        return {task.task_id for task in due}

    def promote(self) -> int:
        """What waited for its time is queued."""
        due = [task for task in self.in_state(SCHEDULED) if task.due_ms <= self.now_ms]
        for task in due:
            task.open_again(QUEUED)
        return len(due)

    # ---- clients and operators --------------------------------------------------------------------------------------

    def cancel(self, task: Task) -> tuple[str, str]:
        """Somebody wants it stopped."""
        if task.state is LEASED:
            task.cancel = True
            return "cancel_requested", LEASED.value
        if task.state.terminal:
            return ("already" if task.state is CANCELLED else "wrong_state"), task.state.value
        task.end(CANCELLED)
        return "ok", CANCELLED.value

    def requeue(self, task: Task) -> tuple[str, str]:
        """An operator gives it fresh budgets."""
        if not task.state.terminal:
            return "already", task.state.value
        if task.state is SUCCEEDED or self.searches[task.search].status == "cancelled":
            return "wrong_state", task.state.value
        task.spent.clear()
        task.reported_token = ""
        task.open_again(QUEUED)
        return "ok", QUEUED.value
