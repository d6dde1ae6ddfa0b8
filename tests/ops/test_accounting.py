"""The restart scripts' judgement, on looks at a broker that somebody has doctored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest
from restarting.accounting import Accounting, account, shortened
from restarting.snapshot import Snapshot, TaskLine

from tenure.client import AttemptRecord
from tenure.common.states import TaskState

QUEUED, LEASED, SUCCEEDED, FAILED, CANCELLED = (
    TaskState.QUEUED,
    TaskState.LEASED,
    TaskState.SUCCEEDED,
    TaskState.FAILED,
    TaskState.CANCELLED,
)


def line(state: TaskState, **given: Any) -> TaskLine:
    ended = 1_000 if state.terminal else 0
    plain = TaskLine(
        search="s",
        state=state,
        attempts=0,
        losses=0,
        out_of_memory=0,
        epoch=0 if state is QUEUED else 1,
        worker_id="" if state is QUEUED else "w",
        ended_unix_ms=ended,
        fitness=0.5 if state is SUCCEEDED else None,
        lease_left_ms=0,
    )
    return plain._replace(**given)


def record(epoch: int, outcome: str, worker: str = "w", **given: Any) -> AttemptRecord:
    plain = AttemptRecord(
        epoch=epoch,
        worker_id=worker,
        outcome=outcome,
        leased_unix_ms=1,
        ended_unix_ms=2,
        error_class="",
        error_message="",
        exit_signal=0,
        exit_code=0,
        log_tail="",
        steps_start=0,
        steps_end=0,
        duration_seconds=1.0,
    )
    return replace(plain, **given)


def look(tasks: Mapping[str, TaskLine], **counters: int) -> Snapshot:
    return Snapshot("m", tasks, counters, {"w": ("instance", "session")})


BEFORE = {"q": line(QUEUED), "l": line(LEASED), "done": line(SUCCEEDED), "dead": line(FAILED, attempts=3)}


def compare(
    changed: Mapping[str, TaskLine | None],
    records: Mapping[str, list[AttemptRecord]] | None = None,
    *,
    drained: Collection[tuple[str, int]] = (),
    **counters: int,
) -> Accounting:
    """BEFORE against itself with these changes; None: the task is gone."""
    merged = {**BEFORE, **changed}
    after = look({task_id: task for task_id, task in merged.items() if task is not None}, **counters)

    def evidence_of(task_ids: Any) -> Mapping[str, list[AttemptRecord]]:
        return {task_id: (records or {}).get(task_id, []) for task_id in task_ids}

    result = account(look(BEFORE), after, evidence_of, drained=drained)
    return result


def test_nothing_changed() -> None:
    result = compare({})
    assert result.kept
    assert result.notes == []
    assert result.states["LEASED"] == (1, 1)
    assert result.figures["still there"] == 4


def test_work_that_went_on_is_no_breach() -> None:
    result = compare(
        {"l": line(SUCCEEDED), "q": line(LEASED), "new": line(QUEUED)},
        {"l": [record(1, "success")]},
    )
    assert result.kept
    assert result.figures["ended meanwhile"] == 1
    assert result.figures["submitted meanwhile"] == 1


def test_what_was_submitted_meanwhile_is_accounted_for_too() -> None:
    new = {"new": line(QUEUED, epoch=2, losses=1)}
    result = compare(new, {"new": [record(1, "success"), record(2, "loss")]}, drained=[("new", 2)])
    assert result.breaches == ["task new, lease 2 on w: loss; it was draining, which must burn nothing"]
    assert result.figures["losses burned"] == 1
    assert compare({"new": line(LEASED, attempts=1)}).breaches == [
        "task new was charged 1 attempts and its records explain 0"
    ]
    assert compare({"new": line(SUCCEEDED)}, {"new": [record(1, "success")]}).kept


@pytest.mark.parametrize("task_id", ["q", "l", "done", "dead"])
def test_a_task_that_vanished(task_id: str) -> None:
    result = compare({task_id: None})
    assert [breach for breach in result.breaches if "vanished" in breach] == [
        f"task {task_id} of search s vanished; it was {BEFORE[task_id].state.value}"
    ]


def test_what_ended_first_may_be_deleted_by_retention() -> None:
    before = {"old": line(SUCCEEDED, ended_unix_ms=10), "young": line(SUCCEEDED, ended_unix_ms=20)}
    result = account(look(before), look({"young": before["young"]}), lambda ids: {})
    assert result.kept
    assert result.figures["deleted by retention"] == 1
    result = account(look(before), look({"old": before["old"]}), lambda ids: {})
    assert result.breaches == ["task young of search s vanished; it was SUCCEEDED"]


@pytest.mark.parametrize(
    ("task_id", "task"),
    [
        ("done", line(QUEUED, epoch=1)),
        ("done", line(SUCCEEDED, fitness=0.6)),
        ("done", line(SUCCEEDED, ended_unix_ms=2_000)),
        ("dead", line(SUCCEEDED)),
        ("dead", line(QUEUED, epoch=1)),
    ],
)
def test_what_had_ended_has_changed(task_id: str, task: TaskLine) -> None:
    result = compare({task_id: task})
    assert len(result.breaches) == 1
    assert result.breaches[0].startswith(f"task {task_id} had ended {BEFORE[task_id].state.value}")


def test_a_lease_that_expired_is_told_twice_by_the_task_and_by_the_counter() -> None:
    result = compare({"l": line(QUEUED, epoch=1, losses=1)}, {"l": [record(1, "expired")]}, leases_expired=1)
    assert result.breaches == [
        "task l, lease 1 on w: expired; the lease expired and a loss was burned",
        "1 leases expired, by the store's own count",
    ]
    assert result.figures["losses burned"] == 1


@pytest.mark.parametrize("budget", ["attempts", "losses", "out_of_memory"])
def test_a_charge_that_no_record_explains(budget: str) -> None:
    result = compare({"l": line(LEASED, **{budget: 1})})
    assert result.breaches == [f"task l was charged 1 {budget} and its records explain 0"]


def test_an_evaluation_that_failed_by_itself_is_a_note() -> None:
    failure = record(1, "failure", error_class="ValueError", error_message="loss is nan\nsecond line")
    result = compare({"l": line(TaskState.SCHEDULED, attempts=1)}, {"l": [failure]})
    assert result.kept
    assert result.notes == [
        "task l, lease 1 on w: failure ValueError: loss is nan; an end of its own, charged to its attempts"
    ]
    assert result.figures["attempts burned"] == 0
    assert result.figures["failed by themselves"] == 1


@pytest.mark.parametrize(("outcome", "budget"), [("failure", "attempts"), ("loss", "losses")])
def test_the_same_while_its_worker_drained_is_a_breach(outcome: str, budget: str) -> None:
    task, records = line(QUEUED, epoch=1, **{budget: 1}), {"l": [record(1, outcome)]}
    result = compare({"l": task}, records, drained=[("l", 1)])
    assert not result.kept
    assert result.figures[f"{budget} burned"] == 1
    assert result.figures["failed by themselves"] == 0
    # Under another lease it has nothing to do with the drain, unless that was drained, too.
    later = {"l": task._replace(epoch=2)}, {"l": [record(1, "release"), record(2, outcome, "x")]}
    assert compare(*later, drained=[("l", 1)]).kept
    assert not compare(*later, drained=[("l", 1), ("l", 2)]).kept


def test_what_was_handed_back_and_goes_on_elsewhere() -> None:
    result = compare(
        {"l": line(LEASED, epoch=2, worker_id="x")}, {"l": [record(1, "release")]}, drained=[("l", 1)], released=1
    )
    assert result.kept
    assert result.figures["handed back"] == 1


def test_records_of_leases_that_had_ended_before_explain_nothing() -> None:
    before = {"t": line(QUEUED, epoch=3, attempts=1)}
    old = [record(3, "failure")]
    result = account(look(before), look({"t": line(QUEUED, epoch=3, attempts=2)}), lambda ids: {"t": old})
    assert result.breaches == ["task t was charged 1 attempts and its records explain 0"]


def test_a_task_that_two_have_is_a_breach() -> None:
    given_again = {"l": line(LEASED, epoch=2, worker_id="x")}
    result = compare(given_again)
    assert result.breaches == ["task l was given to x although nothing says that lease 1 on w had ended"]
    # A lease that never reached its worker is handed back without a record, and counted.
    assert compare(given_again, released=1).kept


def test_a_counter_that_was_set_back_is_told() -> None:
    before = Snapshot("m", BEFORE, {"leases_expired": 5}, {})
    result = account(before, look(BEFORE, leases_expired=4), lambda ids: {})
    assert result.breaches == [
        "the store's counter leases_expired went back from 5 to 4: this is another store, or an older copy of it"
    ]


def test_a_thousand_breaches_are_not_all_read_out() -> None:
    told = shortened([str(number) for number in range(1000)])
    assert len(told) == 21
    assert told[-1] == "… and 980 more"
    assert shortened(["a"]) == ["a"]
