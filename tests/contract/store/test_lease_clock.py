"""Leases run on the lease clock: what moves it, what doesn't, and who keeps a lease alive."""

from __future__ import annotations

import asyncio

import pytest
from store_scene import STRANGER, Scene
from store_server import OpenStore

from tenure.common.states import TaskState
from tenure.master.store.records import Expired, Grant, RenewVerdict, Verdict

TTL = 30_000


async def left(scene: Scene, grant: Grant) -> int:
    """Milliseconds that the lease has left."""
    ms = (await scene.view(grant.task_id)).lease_left_ms
    assert ms is not None
    return ms


class TestClock:
    def set_wall(self, scene: Scene, ms_from_now: int) -> None:
        """Let the last tick have been at another time: what a clock that jumped looks like."""
        seconds, micros = scene.client.time()
        scene.client.hset(scene.store.keys.clocks[0], "wall", seconds * 1000 + micros // 1000 + ms_from_now)

    async def test_the_first_tick_of_all_adds_nothing(self, scene: Scene) -> None:
        assert await scene.tasks.tick(0, 1000) == (0, 0, 0)

    async def test_a_tick_adds_what_has_passed(self, scene: Scene) -> None:
        self.set_wall(scene, -300)
        clock, added, skipped = await scene.tasks.tick(0, 60_000)
        assert clock == added >= 300
        assert skipped == 0

    async def test_time_in_which_nobody_ticked_counts_up_to_the_cap(self, scene: Scene) -> None:
        self.set_wall(scene, -3_600_000)
        clock, added, skipped = await scene.tasks.tick(0, 1000)
        assert (clock, added) == (1000, 1000)
        assert skipped >= 3_599_000

    async def test_a_clock_set_back_adds_nothing_and_goes_on_from_there(self, scene: Scene) -> None:
        await scene.advance(5000)
        self.set_wall(scene, 3_600_000)
        clock, added, skipped = await scene.tasks.tick(0, 1000)
        assert (clock, added) == (5000, 0)
        assert skipped > 3_500_000
        self.set_wall(scene, -200)
        assert (await scene.tasks.tick(0, 1000))[1] >= 200

    async def test_two_tickers_count_no_time_twice(self, open_test_store: OpenStore, scene: Scene) -> None:
        other = await open_test_store()
        self.set_wall(scene, -500)
        ticks = await asyncio.gather(*(each.tasks.tick(0, 10_000) for each in (scene.store, other) for _ in range(20)))
        passed = sum(added for _, added, _ in ticks)
        assert max(clock for clock, _, _ in ticks) == passed
        # All twenty ticks of both took a moment, not twenty times half a second.
        assert 500 <= passed < 10_000

    async def test_without_ticks_no_lease_runs_out(self, scene: Scene) -> None:
        grant = await scene.lease()
        self.set_wall(scene, -10 * TTL)
        assert await scene.tasks.due(0) == (0, 1, 0)
        assert await scene.tasks.expire(0, 100) == []
        assert await left(scene, grant) == TTL

    async def test_after_any_outage_a_lease_has_the_time_it_had_left(self, scene: Scene) -> None:
        await scene.advance(1)
        grant = await scene.lease()
        await scene.advance(12_000)
        self.set_wall(scene, -7 * 24 * 3600 * 1000)
        await scene.tasks.tick(0, 1000)
        assert await left(scene, grant) == TTL - 12_000 - 1000


class TestExpiry:
    async def test_at_its_last_millisecond_a_lease_lives(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.advance(TTL - 1)
        assert await scene.tasks.expire(0, 100) == []
        assert await left(scene, grant) == 1
        await scene.advance(1)
        assert await scene.tasks.due(0) == (1, 1, 1)
        taken = await scene.tasks.expire(0, 100)
        assert taken == [Expired(grant.task_id, TaskState.QUEUED, "w1", grant.token)]
        assert (await scene.counters())["leases_expired"] == 1

    async def test_a_renewal_starts_it_anew(self, scene: Scene) -> None:
        grant = await scene.lease()
        for _ in range(4):
            await scene.advance(TTL - 1)
            assert await scene.renew(grant) == RenewVerdict.OK
            assert await left(scene, grant) == TTL
        assert await scene.tasks.due(0) == (0, 1, 0)

    async def test_reaping_takes_the_longest_due_first_and_no_more_than_asked(self, scene: Scene) -> None:
        grants = []
        for worker in ("w1", "w2", "w3"):
            grants.append(await scene.lease(worker))
            await scene.advance(10)
        await scene.advance(TTL)
        assert await scene.tasks.due(0) == (3, 3, 3)
        assert [each.task_id for each in await scene.tasks.expire(0, 2)] == [each.task_id for each in grants[:2]]
        assert await scene.tasks.due(0) == (1, 1, 1)

    async def test_due_counts_workers_of_the_next_step(self, scene: Scene) -> None:
        await scene.submit(6)
        for worker, count in (("a", 3), ("b", 2), ("c", 1)):
            await scene.claim(worker, count)
        await scene.advance(TTL)
        assert await scene.tasks.due(0) == (6, 6, 3)

    async def test_a_late_renewal_before_the_reaper_is_in_time(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.advance(2 * TTL)
        assert await scene.renew(grant) == RenewVerdict.OK
        assert await scene.tasks.expire(0, 100) == []

    async def test_a_lease_without_a_task_does_not_stop_the_reaper(self, scene: Scene) -> None:
        """No script makes one; somebody's hand might."""
        grant = await scene.lease()
        scene.client.zadd(scene.key("leases"), {"0-" + "0" * 26: -1})
        assert len(await scene.violations()) >= 1
        await scene.advance(TTL)
        assert [each.task_id for each in await scene.tasks.expire(0, 100)] == [grant.task_id]
        assert (await scene.counters())["orphans_dropped"] == 1


class TestCut:
    async def test_a_broken_stream_leaves_a_short_grace(self, scene: Scene) -> None:
        grant = await scene.lease()
        assert await scene.tasks.cut([(grant.task_id, grant.token)], 2000) == 1
        assert await left(scene, grant) == 2000
        assert await scene.tasks.cut([(grant.task_id, grant.token)], 2000) == 0

    async def test_a_holder_who_comes_back_in_time_keeps_it(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.tasks.cut([(grant.task_id, grant.token)], 2000)
        await scene.advance(1999)
        assert await scene.renew(grant) == RenewVerdict.OK
        assert await left(scene, grant) == TTL

    async def test_never_lengthens_a_lease(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.advance(TTL - 500)
        assert await scene.tasks.cut([(grant.task_id, grant.token)], 2000) == 0
        assert await left(scene, grant) == 500

    async def test_an_outdated_token_cuts_nobody(self, scene: Scene) -> None:
        grant = await scene.lease()
        assert await scene.tasks.cut([(grant.task_id, STRANGER), ("0-" + "0" * 26, STRANGER), ("x", "y")], 0) == 0
        assert await left(scene, grant) == TTL

    async def test_many_at_once(self, scene: Scene) -> None:
        await scene.submit(100)
        await scene.submit(30)
        grants = await scene.claim(count=100) + await scene.claim(count=30)
        assert await scene.tasks.cut([(each.task_id, each.token) for each in grants], 0) == 130
        assert (await scene.tasks.due(0))[0] == 130


class TestReadopt:
    """A holder who is back gets its lease again, if nobody was given the task since."""

    async def test_the_reaped_lease_comes_back_with_its_loss(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.checkpoint(grant, 4)
        await scene.expire_all()
        assert await scene.renew(grant) == RenewVerdict.READOPTED
        view = await scene.view(grant.task_id)
        assert (view.state, view.number("losses"), view.number("epoch")) == (TaskState.LEASED, 0, 1)
        assert view.attempt_records == []
        assert view.fields["token"] == grant.token
        assert await left(scene, grant) == TTL
        assert (await scene.counters())["readopted"] == 1
        assert await scene.renew(grant) == RenewVerdict.OK
        assert await scene.complete(grant) == Verdict.OK

    async def test_again_and_again(self, scene: Scene) -> None:
        grant = await scene.lease(max_losses=1000)
        for _ in range(3):
            await scene.expire_all()
            assert await scene.renew(grant) == RenewVerdict.READOPTED
        assert (await scene.view(grant.task_id)).number("losses") == 0

    async def test_not_after_somebody_claimed_it(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.expire_all()
        (successor,) = await scene.claim("w2")
        assert await scene.renew(grant) == RenewVerdict.LOST
        await scene.release(successor, "w2")
        before = scene.dump()
        assert await scene.renew(grant) == RenewVerdict.LOST
        assert scene.dump() == before

    @pytest.mark.parametrize("end", ["release", "fail"])
    async def test_not_after_the_holder_itself_ended_it(self, scene: Scene, end: str) -> None:
        grant = await scene.lease()
        await (scene.release(grant) if end == "release" else scene.fail(grant))
        before = scene.dump()
        assert await scene.renew(grant) == RenewVerdict.LOST
        assert scene.dump() == before

    async def test_not_after_an_end(self, scene: Scene) -> None:
        grant = await scene.lease(max_losses=1)
        await scene.expire_all()
        assert await scene.renew(grant) == RenewVerdict.FINISHED
        await scene.tasks.requeue([grant.task_id])
        assert await scene.renew(grant) == RenewVerdict.LOST

    async def test_epochs_never_fall(self, scene: Scene) -> None:
        """A holder that forgot its epoch still names its token."""
        grant = await scene.lease()
        await scene.release(grant)
        (grant,) = await scene.claim()
        await scene.expire_all()
        assert await scene.renew(grant, epoch=0) == RenewVerdict.READOPTED
        assert (await scene.view(grant.task_id)).number("epoch") == 2


class TestLegacyWorker:
    """It renews no leases one by one: it is believed alive while it heartbeats."""

    async def hold(self, scene: Scene, worker: str = "old") -> Grant:
        await scene.submit()
        (grant,) = await scene.claim(worker, legacy=True)
        return grant

    async def test_its_lease_lasts_while_it_heartbeats(self, scene: Scene) -> None:
        grant = await self.hold(scene)
        for _ in range(5):
            await scene.advance(20_000)
            await scene.store.workers.seen_legacy("old")
            assert await scene.tasks.expire(0, 100) == []
        assert await scene.state(grant.task_id) is TaskState.LEASED

    async def test_its_lease_is_judged_by_the_last_heartbeat(self, scene: Scene) -> None:
        grant = await self.hold(scene)
        await scene.advance(20_000)
        await scene.store.workers.seen_legacy("old")
        await scene.advance(TTL - 1)
        assert await scene.tasks.expire(0, 100) == []
        assert await left(scene, grant) == 1
        await scene.advance(1)
        assert [each.task_id for each in await scene.tasks.expire(0, 100)] == [grant.task_id]

    async def test_the_heartbeat_of_a_worker_with_tokens_renews_nothing(self, scene: Scene) -> None:
        await scene.lease("w1")
        await scene.advance(TTL)
        await scene.store.workers.seen_legacy("w1")
        assert len(await scene.tasks.expire(0, 100)) == 1

    async def test_it_is_forgotten_after_a_day(self, scene: Scene) -> None:
        await scene.store.workers.seen_legacy("old")
        await scene.advance(25 * 3600 * 1000)
        await scene.store.workers.seen_legacy("new")
        assert scene.client.zrange(scene.key("legacy-seen"), 0, -1) == [b"new"]
