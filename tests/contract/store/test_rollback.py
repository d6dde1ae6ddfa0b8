"""The store comes back older than it was: every state that a task may be in again, against what its worker knows.

Contract: who was given a task in the lost time gets it again unless it was given away since; results for open tasks are
taken; results for tasks that are lost themselves wait until they are submitted again; epochs never fall.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from store_scene import SOON, Scene, success

from tenure.common.errors import CursorExpired
from tenure.common.states import TaskState
from tenure.master.store.records import DEFAULT_CLASS, ClaimRequest, FailureKind, Grant, RenewVerdict, Verdict

DAY_MS = 24 * 3600 * 1000


async def queued(scene: Scene) -> None:
    await scene.submit()


async def backed_off(scene: Scene) -> None:
    grant = await scene.lease("w1", max_attempts=1000)
    # The jitter may come to no delay at all.
    while (await scene.fail(grant, retry=SOON))[1] != TaskState.SCHEDULED:
        (grant,) = await scene.claim("w1")


async def reaped(scene: Scene) -> None:
    await scene.lease("w1")
    await scene.expire_all()


async def leased_by_another(scene: Scene) -> None:
    await scene.lease("w1")


async def leased_by_the_same(scene: Scene) -> None:
    await scene.lease("w2")


async def to_be_cancelled(scene: Scene) -> None:
    grant = await scene.lease("w1")
    await scene.tasks.cancel([grant.task_id])


BEFORE: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "QUEUED": queued,
    "QUEUED after a loss": reaped,
    "SCHEDULED": backed_off,
    "LEASED by another": leased_by_another,
    "LEASED by the same worker under an older token": leased_by_the_same,
    "LEASED, its cancellation requested": to_be_cancelled,
}


async def given_anew(scene: Scene, task_id: str) -> Grant:
    """In the time that will be lost the task comes to w2, under a new token and epoch."""
    view = await scene.view(task_id)
    if view.state is TaskState.LEASED:
        held = Grant(task_id, view.fields["token"], view.number("epoch"), 1, "s", "", view.config, 0, 0, [])
        await scene.fail(held, view.fields["worker"])
        if (await scene.state(task_id)) is TaskState.CANCELLED:
            await scene.tasks.requeue([task_id])
    elif view.state is TaskState.SCHEDULED:
        await scene.promote_all()
    (grant,) = await scene.claim("w2")
    assert grant.task_id == task_id
    return grant


class TestHolderIsAhead:
    """Its lease began in the time that was lost."""

    @pytest.fixture(params=BEFORE)
    async def grant(self, scene: Scene, request: pytest.FixtureRequest) -> Grant:
        await BEFORE[request.param](scene)
        (task_id,) = scene.client.zrange(scene.key("members:s"), 0, -1)
        before = scene.snapshot()
        grant = await given_anew(scene, task_id.decode())
        await scene.checkpoint(grant, 7, worker="w2")
        scene.roll_back(before)
        return grant

    async def test_it_gets_the_task_again(self, scene: Scene, grant: Grant) -> None:
        before = await scene.view(grant.task_id)
        assert await scene.renew(grant, "w2") == RenewVerdict.AHEAD
        after = await scene.view(grant.task_id)
        assert (after.state, after.fields["worker"], after.fields["token"]) == (TaskState.LEASED, "w2", grant.token)
        assert after.number("epoch") == grant.epoch
        budgets = ("attempts", "losses", "ooms")
        assert [after.number(name) for name in budgets] == [before.number(name) for name in budgets]
        assert await scene.violations() == []
        told = RenewVerdict.CANCEL if before.fields.get("cancel") == "1" else RenewVerdict.OK
        assert await scene.renew(grant, "w2") == told
        assert await scene.claim("w3") == []
        assert await scene.checkpoint(grant, 7, worker="w2") == (Verdict.OK, []), "it registers anew what it has"
        assert (await scene.view(grant.task_id)).checkpoint is not None
        assert await scene.complete(grant, "w2") == Verdict.OK

    async def test_whom_the_store_named_instead_is_outdated(self, scene: Scene, grant: Grant) -> None:
        before = await scene.view(grant.task_id)
        await scene.renew(grant, "w2")
        if before.state is not TaskState.LEASED:
            return
        old = replace(grant, token=before.fields["token"], epoch=before.number("epoch"))
        worker = before.fields["worker"]
        state = scene.dump()
        assert await scene.renew(old, worker) == RenewVerdict.LOST
        assert await scene.fail(old, worker) == (Verdict.STALE, "LEASED")
        assert await scene.release(old, worker) == Verdict.STALE
        assert (await scene.checkpoint(old, 9, worker=worker))[0] == Verdict.STALE
        assert scene.dump() == state

    async def test_its_result_is_taken_without_a_word_before(self, scene: Scene, grant: Grant) -> None:
        assert await scene.complete(grant, "w2", fitness=0.25) == Verdict.OK
        assert await scene.complete(grant, "w2", fitness=0.25) == Verdict.OK
        view = await scene.view(grant.task_id)
        assert view.outcome is not None
        assert view.outcome["metrics"] == {"fitness": 0.25}
        assert await scene.violations() == []

    async def test_its_failure_counts_once_it_has_said_that_it_holds_the_task(self, scene: Scene, grant: Grant) -> None:
        """A worker's hello names the leases of outcomes without a verdict, too."""
        await scene.renew(grant, "w2")
        before = (await scene.view(grant.task_id)).number("losses")
        assert (await scene.fail(grant, "w2", kind=FailureKind.LOSS))[0] == Verdict.OK
        assert (await scene.view(grant.task_id)).number("losses") == before + 1

    async def test_the_next_claim_s_epoch_is_above_all_that_were_shown(self, scene: Scene, grant: Grant) -> None:
        await scene.renew(grant, "w2")
        await scene.release(grant, "w2")
        if await scene.state(grant.task_id) is TaskState.CANCELLED:
            await scene.tasks.requeue([grant.task_id])
        (successor,) = await scene.claim("w3")
        assert successor.epoch > grant.epoch


class TestInstance:
    """A hello settles leases by the process that they were given to; an earlier claim's says nothing of this one."""

    @staticmethod
    async def instance(scene: Scene) -> str:
        (lease,) = await scene.tasks.leases()
        return lease.instance_id

    @pytest.mark.parametrize("given", ["w2's process", ""])
    async def test_of_a_lease_that_the_store_had_lost_is_its_holder_s(self, scene: Scene, given: str) -> None:
        await scene.submit()
        (first,) = await scene.tasks.claim(ClaimRequest("w1", ["a" * 32], [DEFAULT_CLASS], instance_id="w1's process"))
        before = scene.snapshot()
        await scene.release(first)
        (second,) = await scene.claim("w2")
        scene.roll_back(before)
        assert await scene.renew(second, "w2", instance_id=given) == RenewVerdict.AHEAD
        assert await self.instance(scene) == given

    async def test_of_a_lease_that_was_reaped_is_that_of_its_claim(self, scene: Scene) -> None:
        await scene.submit()
        (grant,) = await scene.tasks.claim(ClaimRequest("w1", ["a" * 32], [DEFAULT_CLASS], instance_id="p"))
        await scene.expire_all()
        assert await scene.renew(grant) == RenewVerdict.READOPTED
        assert await self.instance(scene) == "p"

    async def test_of_an_orphan_s_lease_is_its_holder_s(self, scene: Scene) -> None:
        spec = scene.spec()
        before = scene.snapshot()
        await scene.tasks.submit("s", [spec])
        (grant,) = await scene.claim("w1")
        scene.roll_back(before)
        assert await scene.renew(grant, origin=grant.origin, instance_id="p") == RenewVerdict.ORPHAN
        await scene.tasks.submit("s", [spec])
        assert await self.instance(scene) == "p"


class TestGivenAwaySince:
    async def test_the_new_holder_keeps_it(self, scene: Scene) -> None:
        await scene.submit()
        before = scene.snapshot()
        (lost,) = await scene.claim("w2")
        scene.roll_back(before)
        (present,) = await scene.claim("w3")
        assert present.token != lost.token
        state = scene.dump()
        assert await scene.renew(lost, "w2") == RenewVerdict.LOST
        assert await scene.fail(lost, "w2") == (Verdict.STALE, "LEASED")
        assert scene.dump() == state
        assert await scene.complete(lost, "w2") == Verdict.OK, "the first success wins all the same"
        assert await scene.renew(present, "w3") == RenewVerdict.FINISHED

    async def test_the_newer_of_two_holders_gets_it(self, scene: Scene) -> None:
        first = await scene.lease("w1")
        await scene.expire_all()
        before = scene.snapshot()
        (second,) = await scene.claim("w2")
        scene.roll_back(before)
        assert await scene.renew(first, "w1") == RenewVerdict.READOPTED, "it came first, and its lease was reaped here"
        assert await scene.renew(second, "w2") == RenewVerdict.AHEAD
        assert await scene.renew(first, "w1") == RenewVerdict.LOST
        assert await scene.renew(second, "w2") == RenewVerdict.OK
        view = await scene.view(first.task_id)
        assert (view.number("epoch"), view.number("losses")) == (2, 0)
        assert await scene.violations() == []


class TestEnded:
    """What ended before the snapshot has ended."""

    @pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
    async def test_a_lease_of_a_requeued_task_does_not_come_back(self, scene: Scene, end: str) -> None:
        grant = await scene.lease("w1")
        if end == "complete":
            await scene.complete(grant)
        elif end == "fail":
            await scene.fail(grant, retryable=False)
        else:
            await scene.tasks.cancel([grant.task_id])
            await scene.release(grant)
        later = replace(grant, token="a" * 32, epoch=grant.epoch + 1)
        state = scene.dump()
        assert await scene.renew(later, "w2") == RenewVerdict.FINISHED
        assert await scene.complete(later, "w2") == Verdict.DUPLICATE
        assert scene.dump() == state

    async def test_what_ended_in_the_lost_time_is_open_again(self, scene: Scene) -> None:
        grant = await scene.lease("w1")
        before = scene.snapshot()
        await scene.complete(grant)
        scene.roll_back(before)
        assert await scene.state(grant.task_id) is TaskState.LEASED
        assert await scene.release(grant) == Verdict.OK, "as its master does when the worker doesn't name it any more"
        (again,) = await scene.claim("w2")
        assert await scene.complete(again, "w2") == Verdict.OK


class TestOrphans:
    """The task was submitted in the time that was lost: the store doesn't know it, its worker does."""

    @pytest.fixture
    async def grant(self, scene: Scene) -> Grant:
        self.spec = scene.spec()
        before = scene.snapshot()
        await scene.tasks.submit("s", [self.spec])
        (grant,) = await scene.claim("w1")
        scene.roll_back(before)
        assert grant.origin
        return grant

    async def resubmit(self, scene: Scene) -> tuple[str, TaskState]:
        (submitted,) = await scene.tasks.submit("s", [self.spec])
        assert submitted.created
        return submitted.task_id, submitted.state

    async def test_its_holder_gets_it_again_with_the_resubmission(self, scene: Scene, grant: Grant) -> None:
        await scene.advance(1000)
        assert await scene.renew(grant, origin=grant.origin) == RenewVerdict.ORPHAN
        assert await scene.renew(grant, origin=grant.origin) == RenewVerdict.ORPHAN
        assert await self.resubmit(scene) == (grant.task_id, TaskState.LEASED)
        assert await scene.claim("w2") == []
        assert await scene.renew(grant) == RenewVerdict.OK
        view = await scene.view(grant.task_id)
        assert (view.number("epoch"), view.number("losses"), view.fields["worker"]) == (grant.epoch, 0, "w1")
        assert await scene.checkpoint(grant, 3) == (Verdict.OK, [])
        assert await scene.complete(grant) == Verdict.OK
        counters = await scene.counters()
        assert (counters["orphans_kept"], counters["orphans_matched"]) == (1, 1)
        assert [name for name in scene.all_keys() if "orphan" in name] == []

    async def test_its_result_waits_for_the_resubmission(self, scene: Scene, grant: Grant) -> None:
        await scene.renew(grant, origin=grant.origin)
        for _ in range(2):
            assert await scene.complete(grant, fitness=1 / 3, origin=grant.origin) == Verdict.UNKNOWN_TASK
        assert await scene.renew(grant, origin=grant.origin) == RenewVerdict.ORPHAN
        assert await self.resubmit(scene) == (grant.task_id, TaskState.SUCCEEDED)
        view = await scene.view(grant.task_id)
        assert view.outcome is not None
        assert view.outcome["metrics"] == {"fitness": 1 / 3}
        assert (view.fields["worker"], view.attempt_records[0].outcome) == ("w1", "success")
        assert (await scene.store.searches.get("s")).best_fitness == 1 / 3
        (again,) = await scene.tasks.submit("s", [self.spec])
        assert (again.created, again.state) == (False, TaskState.SUCCEEDED)
        assert await scene.complete(grant, fitness=1 / 3, origin=grant.origin) == Verdict.OK, "sent once more"
        assert await scene.claim("w2") == []

    async def test_its_result_is_taken_for_the_resubmission_that_came_first(self, scene: Scene, grant: Grant) -> None:
        task_id, state = await self.resubmit(scene)
        assert (task_id != grant.task_id, state) == (True, TaskState.QUEUED)
        assert await scene.renew(grant, origin=grant.origin) == RenewVerdict.ORPHAN, "it may go on"
        for _ in range(2):
            assert await scene.complete(grant, origin=grant.origin) == Verdict.OK
        view = await scene.view(task_id)
        assert (view.state, view.fields["worker"]) == (TaskState.SUCCEEDED, "w1")
        assert await scene.renew(grant, origin=grant.origin) == RenewVerdict.FINISHED

    async def test_other_content_under_the_same_key_is_another_task(self, scene: Scene, grant: Grant) -> None:
        await scene.complete(grant, origin=grant.origin)
        self.spec = replace(self.spec, architecture='{"n": "another"}')
        task_id, state = await self.resubmit(scene)
        assert (task_id != grant.task_id, state) == (True, TaskState.QUEUED)
        assert await scene.complete(grant, origin=grant.origin) == Verdict.UNKNOWN_TASK

    async def test_a_holder_who_fell_silent_does_not_get_it(self, scene: Scene, grant: Grant) -> None:
        await scene.renew(grant, origin=grant.origin)
        await scene.advance(scene.store.options.lease_ttl_ms)
        assert await self.resubmit(scene) == (grant.task_id, TaskState.QUEUED)
        (successor,) = await scene.claim("w2")
        assert successor.epoch > grant.epoch
        assert await scene.renew(grant, origin=grant.origin) == RenewVerdict.LOST

    async def test_a_delayed_resubmission_has_its_result_at_once(self, scene: Scene, grant: Grant) -> None:
        await scene.complete(grant, origin=grant.origin)
        self.spec = replace(self.spec, delay_ms=DAY_MS)
        assert (await self.resubmit(scene))[1] is TaskState.SUCCEEDED
        assert await scene.promote_all() == 0

    @pytest.mark.parametrize(
        "origin", ["", "no json", "[]", '["s","k"]', '["s","k",1]', '["s", "k0", "x"]', "[" * 5000, '{"a":1}']
    )
    async def test_what_is_no_origin_matches_nothing(self, scene: Scene, grant: Grant, origin: str) -> None:
        assert await scene.renew(grant, origin=origin) == RenewVerdict.UNKNOWN
        assert await scene.complete(grant, origin=origin) == Verdict.UNKNOWN_TASK
        assert (await scene.counters()).get("orphans_kept", 0) == 0

    async def test_it_is_kept_as_long_as_ended_tasks_are(self, scene: Scene, grant: Grant) -> None:
        await scene.complete(grant, origin=grant.origin)
        assert await scene.tasks.forget_orphans(0, DAY_MS) == 0
        assert await scene.tasks.forget_orphans(0, -1000) == 1
        assert [name for name in scene.all_keys() if "orphan" in name] == []
        assert (await self.resubmit(scene))[1] is TaskState.QUEUED

    async def test_its_number_is_bounded(self, scene: Scene, grant: Grant) -> None:
        fillers = {f"filler{number}": number for number in range(10_000)}
        scene.client.zadd(scene.key("orphans-at"), fillers)
        scene.client.hset(scene.key("orphans"), mapping=dict.fromkeys(fillers, "{}"))
        await scene.tasks.complete(success(grant, origin=grant.origin))
        assert scene.client.hlen(scene.key("orphans")) == scene.client.zcard(scene.key("orphans-at")) == 10_000
        assert scene.client.hexists(scene.key("orphans"), grant.origin)
        assert not scene.client.hexists(scene.key("orphans"), "filler0")


class TestCursor:
    async def test_one_of_the_lost_time_is_told_so_though_the_stream_has_grown_past_it(self, scene: Scene) -> None:
        await scene.submit()
        before = scene.snapshot()
        kept = await scene.store.events.now()
        await scene.submit()
        lost = await scene.store.events.now()
        scene.roll_back(before)
        for _ in range(2):
            assert await scene.store.events.lost(lost)
            assert not await scene.store.events.lost(kept)
            with pytest.raises(CursorExpired, match="older than it was"):
                await scene.store.events.check(lost)
            await scene.submit()

    async def test_one_that_is_trimmed_is_no_sign_of_it(self, scene: Scene) -> None:
        await scene.submit()
        cursor = await scene.store.events.now()
        await scene.submit(5)
        scene.client.xtrim(scene.key("events"), maxlen=1, approximate=False)
        assert not await scene.store.events.lost(cursor)
        assert not await scene.store.events.lost(await scene.store.events.now())
