"""A run is over, and the reaper was quicker than the report of it: the store was away, or its master was.

Contract: while nobody was given the task since, a failure or a release under the lease that was reaped last is taken as
if the lease had not run out, once and as what it is. A renewal that comes behind it gets nothing back: there is no run.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from store_scene import SOON, STRANGER, Scene

from tenure.common.retry import Jitter, RetryPolicy
from tenure.common.states import TaskState
from tenure.master.store.records import FailureKind, Grant, RenewVerdict, TaskEvent, Verdict

Report = Callable[[Scene, Grant], Awaitable[Verdict]]
BUDGETS = ("attempts", "losses", "ooms")


async def fail(scene: Scene, grant: Grant) -> Verdict:
    return (await scene.fail(grant))[0]


async def lose(scene: Scene, grant: Grant) -> Verdict:
    return (await scene.fail(grant, kind=FailureKind.LOSS))[0]


async def run_out_of_memory(scene: Scene, grant: Grant) -> Verdict:
    return (await scene.fail(grant, kind=FailureKind.OUT_OF_MEMORY))[0]


async def release(scene: Scene, grant: Grant) -> Verdict:
    return await scene.release(grant)


# The report, what it charges, its attempt record.
REPORTS: list[tuple[Report, dict[str, int], str]] = [
    (fail, {"attempts": 1}, "failure"),
    (lose, {"losses": 1}, "loss"),
    (run_out_of_memory, {"ooms": 1}, "out_of_memory"),
    (release, {}, "release"),
]
EVERY = pytest.mark.parametrize(("report", "charged", "outcome"), REPORTS, ids=[each[2] for each in REPORTS])


async def reaped(scene: Scene, **fields: int) -> Grant:
    """w1's lease ran out and was taken; nobody has the task."""
    grant = await scene.lease("w1", **fields)
    await scene.expire_all()
    return grant


async def transitions(scene: Scene, since: str) -> list[tuple[str, str]]:
    """(transition, state) of every event since the cursor."""
    log = scene.store.events
    events: list[TaskEvent] = [event async for _, batch in log.between(since, await log.now()) for event in batch]
    return [(event.transition, event.state) for event in events]


@EVERY
async def test_it_counts_once_and_as_what_it_is(
    scene: Scene, report: Report, charged: dict[str, int], outcome: str
) -> None:
    grant = await reaped(scene)
    leased_at = (await scene.view(grant.task_id)).fields["leased"]
    since = await scene.store.events.now()
    assert await report(scene, grant) == Verdict.OK
    view = await scene.view(grant.task_id)
    assert view.state is TaskState.QUEUED
    assert {name: view.number(name) for name in BUDGETS} == {**dict.fromkeys(BUDGETS, 0), **charged}
    (record,) = view.attempt_records
    assert (record.outcome, record.epoch, record.worker_id) == (outcome, 1, "w1")
    assert record.leased_unix_ms == int(leased_at), "the lease began with its claim"
    verb = "release" if report is release else "fail"
    assert await transitions(scene, since) == [("readopt", "LEASED"), (verb, "QUEUED")]
    assert await scene.violations() == []


@EVERY
async def test_a_renewal_behind_it_gets_nothing_back(
    scene: Scene, report: Report, charged: dict[str, int], outcome: str
) -> None:
    grant = await reaped(scene)
    await report(scene, grant)
    before = scene.dump()
    assert await scene.renew(grant) == RenewVerdict.LOST
    assert scene.dump() == before
    assert await scene.state(grant.task_id) is TaskState.QUEUED


@EVERY
async def test_sent_twice_it_changes_nothing_the_second_time(
    scene: Scene, report: Report, charged: dict[str, int], outcome: str
) -> None:
    grant = await reaped(scene)
    await report(scene, grant)
    before = scene.dump()
    assert await report(scene, grant) == Verdict.OK
    assert scene.dump() == before
    (successor,) = await scene.claim("w2")
    before = scene.dump()
    assert await report(scene, grant) == Verdict.OK
    assert scene.dump() == before
    assert await scene.renew(successor, "w2") == RenewVerdict.OK


@EVERY
async def test_a_claim_in_between_makes_it_stale(
    scene: Scene, report: Report, charged: dict[str, int], outcome: str
) -> None:
    grant = await reaped(scene)
    (successor,) = await scene.claim("w2")
    before = scene.dump()
    assert await report(scene, grant) == Verdict.STALE
    assert scene.dump() == before
    await scene.expire_all()
    before = scene.dump()
    assert await report(scene, grant) == Verdict.STALE, "the lease that was reaped last is another one now"
    assert scene.dump() == before
    assert (await scene.release(successor, "w2")) == Verdict.OK


@EVERY
@pytest.mark.parametrize("other", ["token", "no token", "worker"])
async def test_from_anybody_else_it_is_stale(
    scene: Scene, report: Report, charged: dict[str, int], outcome: str, other: str
) -> None:
    grant = await reaped(scene)
    before = scene.dump()
    if other == "worker":
        assert await scene.release(grant, "w2") == Verdict.STALE
        assert (await scene.fail(grant, "w2"))[0] == Verdict.STALE
    else:
        assert await report(scene, replace(grant, token=STRANGER if other == "token" else "")) == Verdict.STALE
    assert scene.dump() == before
    assert await scene.renew(grant) == RenewVerdict.READOPTED


@EVERY
async def test_after_the_last_loss_it_is_stale(
    scene: Scene, report: Report, charged: dict[str, int], outcome: str
) -> None:
    grant = await reaped(scene, max_losses=1)
    before = scene.dump()
    assert await report(scene, grant) == Verdict.STALE
    assert scene.dump() == before
    assert await scene.state(grant.task_id) is TaskState.FAILED
    await scene.tasks.requeue([grant.task_id])
    before = scene.dump()
    assert await report(scene, grant) == Verdict.STALE, "an operator gave it fresh budgets"
    assert scene.dump() == before


@EVERY
async def test_after_a_cancel_it_is_stale(scene: Scene, report: Report, charged: dict[str, int], outcome: str) -> None:
    grant = await reaped(scene)
    await scene.tasks.cancel([grant.task_id])
    before = scene.dump()
    assert await report(scene, grant) == Verdict.STALE
    assert scene.dump() == before


async def test_it_may_end_the_task(scene: Scene) -> None:
    grant = await reaped(scene)
    assert await scene.fail(grant, retryable=False) == (Verdict.OK, "FAILED")
    view = await scene.view(grant.task_id)
    assert (view.number("attempts"), view.number("losses")) == (1, 0)
    assert view.outcome is not None
    assert await scene.violations() == []


async def test_it_waits_for_its_backoff(scene: Scene) -> None:
    grant = await reaped(scene)
    assert await scene.fail(grant, retry=replace(SOON, jitter=Jitter.NONE)) == (Verdict.OK, "SCHEDULED")
    assert await scene.violations() == []


async def test_the_search_s_policy_is_asked_for_before_anything_is_written(scene: Scene) -> None:
    await scene.store.searches.put("s", {"retry": json.dumps(RetryPolicy(5, 7).to_plain()), "retry_id": "p"})
    grant = await reaped(scene)
    before = scene.dump()
    assert (await scene.fail(grant))[0] == Verdict.POLICY
    assert scene.dump() == before


async def test_a_capped_search_is_served_again_behind_it(scene: Scene) -> None:
    """It takes the lease back for the moment, which fills the cap."""
    await scene.store.searches.put("s", {"max_leased": 1})
    grant = await reaped(scene)
    await scene.submit()
    assert await scene.fail(grant) == (Verdict.OK, "QUEUED")
    (successor,) = await scene.claim("w2", count=2)
    assert successor.task_id == grant.task_id
    assert await scene.violations() == []
