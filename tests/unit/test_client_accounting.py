"""The demo's accounting: it must see what it claims to see, so each promise is broken once on purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import optuna

from tenure.client import AttemptRecord, FsckReport, Requirements, Stats, TaskRecord, TaskState
from tenure.client.demo.accounting import account, promises
from tenure.client.demo.chaos import Damage, Victim
from tenure.client.demo.run import SPACE
from tenure.client.demo.screen import describe


def lease(epoch: int, outcome: str, start: int = 0) -> AttemptRecord:
    return AttemptRecord(epoch, "worker-1", outcome, 1, 2, "", "", 0, 0, "", start, 8, 1.0)


def record(task_id: str, *leases: AttemptRecord, accuracy: float = 0.98, **changes: Any) -> TaskRecord:
    fields: dict[str, Any] = dict.fromkeys(TaskRecord.__dataclass_fields__, 0)
    fields |= {
        "task_id": task_id,
        "state": TaskState.SUCCEEDED,
        "epoch": len(leases),
        "metrics": {"val_accuracy": accuracy},
        "failure": None,
        "progress": None,
        "checkpoint": None,
        "requirements": Requirements(),
        "config": None,
        "attempt_records": leases,
    }
    return TaskRecord(**(fields | changes))


STATS = Stats({}, 2, 2, 0, 0, 0, 0, "m", "1", "s", "strict", {})
CLEAN = FsckReport(3, ())
DAMAGE = Damage([Victim("b", "worker-1", 1, 3)], 1, [("c", 1)])
GOOD = {
    "a": record("a", lease(1, "success")),
    "b": record("b", lease(1, "expired"), lease(2, "success", start=3)),
    "c": record("c", lease(1, "success")),
}


def broken(
    records: dict[str, TaskRecord] = GOOD,
    *,
    submitted: str = "abc",
    stats: Stats = STATS,
    fsck: FsckReport = CLEAN,
    damage: Damage = DAMAGE,
    chaos: bool = True,
) -> list[str]:
    figures = account(list(submitted), records, stats, damage)
    return [promise.text for promise in promises(figures, records, fsck, damage, chaos=chaos) if not promise.kept]


def test_a_good_run() -> None:
    figures = account(list("abc"), GOOD, STATS, DAMAGE)
    assert (figures.submitted, figures.succeeded, figures.resumed) == (3, 3, 1)
    assert (figures.lost, figures.evaluated_twice, figures.interrupted, figures.leases) == (0, 0, 0, 4)
    assert broken() == []


def test_a_task_that_the_broker_does_not_know_is_lost() -> None:
    assert broken(submitted="abcd") == ["every submitted task ended", "every task has its result"]


def test_a_task_that_never_ended_is_lost() -> None:
    records = {**GOOD, "a": replace(GOOD["a"], state=TaskState.LEASED, attempt_records=())}
    assert broken(records) == ["every submitted task ended", "every task has its result"]


def test_a_failed_task_has_no_result() -> None:
    records = {**GOOD, "a": replace(GOOD["a"], state=TaskState.FAILED)}
    assert broken(records) == ["every task has its result"]


def test_a_second_success_is_an_evaluation_too_many() -> None:
    records = {**GOOD, "b": record("b", lease(1, "success"), lease(2, "success", start=3))}
    assert broken(records) == ["nothing was evaluated twice"]
    assert broken(stats=replace(STATS, counters={"duplicates": 1})) == ["nothing was evaluated twice"]


def test_the_victim_must_not_start_from_scratch() -> None:
    records = {**GOOD, "b": record("b", lease(1, "expired"), lease(2, "success"))}
    assert broken(records) == ["the killed worker's task went on from its checkpoint"]
    records = {**GOOD, "b": record("b", lease(1, "expired"), lease(2, "success", start=2))}
    assert broken(records) == ["the killed worker's task went on from its checkpoint"]


def test_what_ran_when_the_master_died_must_deliver() -> None:
    records = {**GOOD, "c": record("c", lease(1, "expired"), lease(2, "success", start=7))}
    assert broken(records) == ["the master's death interrupted no evaluation"]


def test_what_was_not_killed_proves_nothing() -> None:
    assert broken(damage=Damage()) == [
        "the killed worker's task went on from its checkpoint",
        "the master's death interrupted no evaluation",
    ]
    assert broken(damage=Damage(), chaos=False) == []


def test_violations_and_a_poor_result() -> None:
    assert broken(fsck=FsckReport(3, ("task a is in two indexes",))) == ["the store's indexes and tasks agree"]
    poor = {task_id: replace(each, metrics={"val_accuracy": 0.9699}) for task_id, each in GOOD.items()}
    assert broken(poor) == ["the best accuracy is at least 0.97"]


def test_a_network_in_one_line() -> None:
    fixed = {
        "activation": "relu",
        "blocks": 2,
        "block0_filters": 16,
        "block0_kernel": 5,
        "block0_batchnorm": True,
        "block0_pool_3": "maxpool",
        "block0_skip": True,
        "block1_filters": 8,
        "block1_kernel": 3,
        "block1_batchnorm": False,
        "block1_pool_3": "none",
        "block1_skip": False,
        "dense_units": 32,
        "dropout": 0.1,
    }
    graph = json.dumps(SPACE(optuna.trial.FixedTrial(fixed)))
    assert describe(graph) == "conv 16 5×5 bn max · skip+conv 8 3×3 · dense 32 · dropout 0.1"
