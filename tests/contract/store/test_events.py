"""The event stream: every transition is told once, in order, and a cursor resumes or says that it can't."""

from __future__ import annotations

import asyncio

import pytest
from store_scene import Scene
from store_server import OpenStore

from tenure.common.errors import CursorExpired, InvalidInput
from tenure.common.spec import TaskSpec
from tenure.master.store import Store
from tenure.master.store.records import TaskEvent

PATIENCE_SECONDS = 30


async def collect(store: Store, cursor: str) -> list[TaskEvent]:
    """All events after a cursor so far."""
    until = await store.events.now()
    return [event async for _, batch in store.events.between(cursor, until) for event in batch]


class TestWhatIsTold:
    async def test_every_transition_of_a_task_in_order(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        (task_id,) = await scene.submit(delay_ms=10)
        await scene.advance(10)
        await scene.tasks.promote(0, 100)
        (grant,) = await scene.claim("w1")
        await scene.renew(grant)
        await scene.release(grant)
        (grant,) = await scene.claim("w2")
        await scene.expire_all()
        await scene.renew(grant, "w2")
        await scene.tasks.cancel([task_id])
        await scene.fail(grant, "w2")
        await scene.tasks.requeue([task_id])
        (grant,) = await scene.claim("w3")
        await scene.complete(grant, "w3")
        await scene.tasks.forget("s", 0, 10**12)
        told = [
            (each.transition, each.state, each.worker_id, each.epoch) for each in await collect(scene.store, cursor)
        ]
        assert told == [
            ("submit", "SCHEDULED", "", 0),
            ("promote", "QUEUED", "", 0),
            ("claim", "LEASED", "w1", 1),
            ("release", "QUEUED", "w1", 1),
            ("claim", "LEASED", "w2", 2),
            ("expire", "QUEUED", "w2", 2),
            ("readopt", "LEASED", "w2", 2),
            ("cancel", "LEASED", "w2", 2),
            ("fail", "CANCELLED", "w2", 2),
            ("requeue", "QUEUED", "w2", 2),
            ("claim", "LEASED", "w3", 3),
            ("complete", "SUCCEEDED", "w3", 3),
            ("forget", "SUCCEEDED", "", 0),
        ]

    async def test_a_request_sent_twice_is_told_once(self, scene: Scene) -> None:
        spec = scene.spec()
        await scene.tasks.submit("s", [spec])
        (grant,) = await scene.claim()
        await scene.tasks.cancel([grant.task_id])
        await scene.complete(grant)
        cursor = await scene.store.events.now()
        await scene.tasks.submit("s", [spec])
        await scene.tasks.cancel([grant.task_id])
        await scene.complete(grant)
        assert await collect(scene.store, cursor) == []

    async def test_a_search_that_changes_is_told_without_a_task(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        await scene.store.searches.put("s", {"weight": 2})
        await scene.store.searches.put("s", {}, status="paused")
        told = [(each.task_id, each.search, each.transition, each.state) for each in await collect(scene.store, cursor)]
        assert told == [("", "s", "search", "active"), ("", "s", "search", "paused")]


class TestCursor:
    async def test_of_an_empty_store_is_the_beginning(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        assert await scene.store.events.check(cursor) == ["0-0"]
        task_ids = await scene.submit(3)
        assert [each.task_id for each in await collect(scene.store, cursor)] == task_ids

    async def test_resumes_where_it_was(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        task_ids = await scene.submit(50)
        first, *rest = await collect(scene.store, cursor)
        await scene.store.events.check(first.cursor)
        assert await collect(scene.store, first.cursor) == rest
        assert [first.task_id, *(each.task_id for each in rest)] == task_ids

    async def test_goes_through_more_than_one_step(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        for _ in range(11):
            await scene.submit(100)
        until = await scene.store.events.now()
        batches = [batch async for batch in scene.store.events.between(cursor, until)]
        assert [len(events) for _, events in batches] == [1000, 100]
        assert batches[-1][0] == until

    @pytest.mark.parametrize(
        "given", ["", "x", "1", "1-", "-1", "1-2,3-4", "1-2-3", "a-b", "1-2 ", "²-1", "9" * 30 + "-0"]
    )
    async def test_what_is_none_is_refused_by_name(self, scene: Scene, given: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            await scene.store.events.check(given)
        assert caught.value.field == "cursor"
        assert caught.value.given == (given if len(given) <= 200 else given[:199] + "…")
        assert "use one that a watch returned" in str(caught.value)

    async def test_before_trimmed_events_has_expired(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        await scene.submit(10)
        first, second, *_ = await collect(scene.store, cursor)
        scene.client.xtrim(scene.key("events"), maxlen=5, approximate=False)
        for expired in (first.cursor, second.cursor):
            with pytest.raises(CursorExpired, match="list the tasks, then watch without a cursor"):
                await scene.store.events.check(expired)
        kept = await collect(scene.store, second.cursor)
        await scene.store.events.check(kept[0].cursor)

    async def test_of_the_beginning_expires_too(self, scene: Scene) -> None:
        """Who began on an empty store and was away until events were trimmed has missed some."""
        cursor = await scene.store.events.now()
        await scene.submit(10)
        await scene.store.events.check(cursor)
        scene.client.xtrim(scene.key("events"), maxlen=5, approximate=False)
        with pytest.raises(CursorExpired):
            await scene.store.events.check(cursor)

    async def test_at_the_oldest_event_is_still_good(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        await scene.submit(10)
        events = await collect(scene.store, cursor)
        scene.client.xtrim(scene.key("events"), maxlen=5, approximate=False)
        await scene.store.events.check(events[5].cursor)
        assert await collect(scene.store, events[5].cursor) == events[6:]

    async def test_ahead_of_a_store_that_was_rolled_back_has_expired(self, scene: Scene) -> None:
        await scene.submit()
        before = scene.client.dump(scene.key("events"))
        await scene.submit()
        cursor = await scene.store.events.now()
        scene.client.restore(scene.key("events"), 0, before, replace=True)
        with pytest.raises(CursorExpired):
            await scene.store.events.check(cursor)

    async def test_the_stream_is_trimmed(self, scene: Scene) -> None:
        """By the server, to about a hundred thousand; here by a stream that is already full."""
        with scene.client.pipeline(transaction=False) as pipe:
            for _ in range(100_500):
                pipe.xadd(scene.key("events"), {"task": "x"})
            pipe.execute()
        await scene.submit()
        assert scene.client.xlen(scene.key("events")) <= 100_200


class TestFollowing:
    async def test_live_events_come_as_they_happen(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        heard: asyncio.Queue[TaskEvent] = asyncio.Queue()

        async def follow() -> None:
            async for _, events in scene.store.events.follow(cursor):
                for event in events:
                    heard.put_nowait(event)

        follower = asyncio.create_task(follow())
        try:
            for _ in range(3):
                (task_id,) = await scene.submit()
                event = await asyncio.wait_for(heard.get(), PATIENCE_SECONDS)
                assert (event.task_id, event.transition) == (task_id, "submit")
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def test_two_masters_hear_the_same(self, open_test_store: OpenStore) -> None:
        one, two = await open_test_store(), await open_test_store()
        cursor = await one.events.now()
        for number in range(5):
            await (one if number % 2 else two).tasks.submit("s", [TaskSpec("{}", key=f"k{number}")])
        assert await collect(one, cursor) == await collect(two, cursor)

    async def test_all_shards_together(self, open_test_store: OpenStore) -> None:
        store = await open_test_store(shards=3)
        cursor = await store.events.now()
        expected = set()
        for number in range(9):
            (submitted,) = await store.tasks.submit(f"s{number}", [TaskSpec("{}")])
            expected.add(submitted.task_id)
        assert {each.task_id for each in await collect(store, cursor)} == expected
        async for behind, events in store.events.follow(cursor):
            assert {each.task_id for each in events} == expected
            assert await store.events.check(behind) == (await store.events.now()).split(",")
            break

    async def test_registrations_and_modes_are_told(self, scene: Scene) -> None:
        heard: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        follower = asyncio.create_task(scene.store.events.follow_workers(heard.put_nowait))
        try:
            # It follows from now on: register until it is heard.
            while heard.empty():
                await scene.store.workers.register("w1", "i1", {})
                await asyncio.sleep(0.01)
            assert (await heard.get())["event"] == "register"
            await scene.store.workers.set_mode("w1", "draining")
            while (told := await asyncio.wait_for(heard.get(), PATIENCE_SECONDS))["event"] == "register":
                pass
            assert told == {"worker": "w1", "event": "mode", "instance": "i1", "mode": "draining"}
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
