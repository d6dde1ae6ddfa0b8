"""The pipeline: what arrives together goes together; what is lost on the way is told; one bad call costs no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from store_scene import STRANGER, Scene, open_scene, renewal
from store_server import OpenStore, StoreServer

from tenure.common.errors import Overloaded, StoreUnavailable, TenureError
from tenure.common.spec import TaskSpec
from tenure.master.store import Store, pipeline
from tenure.master.store.records import Release, RenewVerdict, Verdict

Observed = list[tuple[str, float, int]]


@pytest.fixture
def observed() -> Observed:
    """(script, seconds of its round trip, items) of every call."""
    return []


@pytest.fixture
async def watched(open_test_store: OpenStore, observed: Observed) -> Store:
    """A store whose calls are observed."""
    return await open_test_store(observe=lambda *call: observed.append(call))


@pytest.fixture
def traffic(watched: Store, store_server: StoreServer, observed: Observed) -> Iterator[Scene]:
    """A scene on it."""
    scene = open_scene(watched, store_server)
    yield scene
    scene.client.close()


class TestBatches:
    async def test_a_call_alone_goes_alone(self, traffic: Scene, observed: Observed) -> None:
        grant = await traffic.lease()
        observed.clear()
        await traffic.renew(grant)
        assert [(name, items) for name, _, items in observed] == [("renew", 1)]

    async def test_calls_of_one_script_become_batches_of_a_hundred(self, traffic: Scene, observed: Observed) -> None:
        for _ in range(3):
            await traffic.submit(84)
        grants = [grant for _ in range(3) for grant in await traffic.claim(count=84)]
        observed.clear()
        assert set(await asyncio.gather(*map(traffic.renew, grants))) == {RenewVerdict.OK}
        assert [(name, items) for name, _, items in observed] == [("renew", 100), ("renew", 100), ("renew", 52)]

    async def test_calls_of_several_scripts_share_one_round_trip(self, traffic: Scene, observed: Observed) -> None:
        await traffic.submit(4)
        one, two, three = await traffic.claim(count=3)
        observed.clear()
        await asyncio.gather(
            traffic.complete(one),
            traffic.fail(two),
            traffic.renew(three),
            traffic.claim("w2"),
            traffic.tasks.tick(0, 1000),
            traffic.submit(),
        )
        assert {name for name, _, _ in observed} == {"complete", "fail", "renew", "claim", "tick", "submit"}
        assert len({seconds for _, seconds, _ in observed}) == 1

    async def test_each_shard_has_its_own_batch(self, open_test_store: OpenStore, observed: Observed) -> None:
        store = await open_test_store(shards=2, observe=lambda *call: observed.append(call))
        ids = []
        for number in range(8):
            ids += await store.tasks.submit(f"s{number}", [TaskSpec("{}")])
        observed.clear()
        await asyncio.gather(*(store.tasks.release(Release(each.task_id, "x", "w1")) for each in ids))
        items = [count for name, _, count in observed if name == "release"]
        assert len(items) == 2
        assert sum(items) == 8

    async def test_replies_come_to_those_who_asked(self, traffic: Scene) -> None:
        ids = await traffic.submit(60)
        views = await asyncio.gather(*(traffic.view(task_id) for task_id in ids))
        assert [view.task_id for view in views] == ids
        grants = await traffic.claim(count=60)
        odd = [grant if number % 2 else replace(grant, token=STRANGER) for number, grant in enumerate(grants)]
        verdicts = await asyncio.gather(*map(traffic.renew, odd))
        assert verdicts == [RenewVerdict.LOST, RenewVerdict.OK] * 30

    async def test_a_caller_who_gave_up_is_not_sent_for(self, traffic: Scene, observed: Observed) -> None:
        grant = await traffic.lease()
        observed.clear()
        waiting = [asyncio.ensure_future(traffic.renew(grant)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [results[0], results[2]] == [RenewVerdict.OK] * 2
        assert [items for _, _, items in observed] == [2]


class TestScripts:
    async def test_scripts_that_the_server_forgot_are_loaded_again(self, traffic: Scene) -> None:
        await traffic.submit(100)
        for _ in range(3):
            grants = await traffic.claim(count=20)
            traffic.client.script_flush()
            results = await asyncio.gather(
                *map(traffic.complete, grants[:15]), *map(traffic.renew, grants[15:]), traffic.claim("w2")
            )
            assert results[:-1] == [Verdict.OK] * 15 + [RenewVerdict.OK] * 5
            assert len(results[-1]) == 1

    async def test_flushed_in_the_middle_of_traffic(self, traffic: Scene) -> None:
        await traffic.submit(100)
        done = asyncio.Event()

        async def flush() -> None:
            while not done.is_set():
                traffic.client.script_flush()
                await asyncio.sleep(0)

        async def work(worker: str) -> int:
            count = 0
            while grants := await traffic.claim(worker):
                assert await traffic.complete(grants[0], worker) == Verdict.OK
                count += 1
            return count

        flusher = asyncio.create_task(flush())
        counts = await asyncio.gather(*(work(f"w{number}") for number in range(5)))
        done.set()
        await flusher
        assert sum(counts) == 100


class TestOneBadCall:
    async def test_what_can_not_be_encoded_fails_alone(self, traffic: Scene) -> None:
        grant = await traffic.lease()
        bad, good = await asyncio.gather(traffic.renew(grant, token={1}), traffic.renew(grant), return_exceptions=True)
        assert isinstance(bad, TypeError)
        assert good == RenewVerdict.OK
        with pytest.raises(UnicodeEncodeError):
            await traffic.tasks.cancel(["0-" + "\ud800" * 26])
        assert await traffic.renew(grant) == RenewVerdict.OK

    async def test_a_script_that_fails_on_one_item_fails_on_that_alone(self, traffic: Scene) -> None:
        """A key that somebody's hand damaged must not cost the batch that its task happens to be in."""
        await traffic.submit(30)
        grants = await traffic.claim(count=30)
        damaged = grants[7]
        traffic.client.set(traffic.key(f"attempts:{damaged.task_id}"), "no list")
        results = await asyncio.gather(*map(traffic.complete, grants), return_exceptions=True)
        assert results[:7] + results[8:] == [Verdict.OK] * 29
        assert isinstance(results[7], TenureError)
        assert "WRONGTYPE" in str(results[7])
        traffic.client.delete(traffic.key(f"attempts:{damaged.task_id}"))

    async def test_a_ready_id_without_a_task_is_dropped_by_claims(self, traffic: Scene) -> None:
        await traffic.submit(3)
        traffic.client.zadd(traffic.key("ready:-|s"), {"0-nobody": -1})
        first, second = await asyncio.gather(traffic.claim("w1", 2), traffic.claim("w2", 2))
        assert len(first) + len(second) == 3
        assert (await traffic.counters())["orphans_dropped"] == 1
        assert (await traffic.store.searches.get("s")).counts["QUEUED"] == 0
        assert await traffic.violations() == []


class TestBounds:
    async def test_too_many_waiting_calls_are_refused(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        grant = await scene.lease()
        monkeypatch.setattr(pipeline, "WAITING_CALLS_MAX", 5)
        results = await asyncio.gather(*(scene.renew(grant) for _ in range(8)), return_exceptions=True)
        assert results[:5] == [RenewVerdict.OK] * 5
        assert all(isinstance(each, Overloaded) and "try again later" in str(each) for each in results[5:])
        assert await scene.renew(grant) == RenewVerdict.OK

    async def test_a_closed_store_refuses_and_lets_nobody_wait(self, open_test_store: OpenStore) -> None:
        store = await open_test_store()
        waiting = [asyncio.ensure_future(store.tasks.tick(0, 1)) for _ in range(3)]
        await asyncio.sleep(0)
        await store.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable | tuple) for each in results)
        with pytest.raises(StoreUnavailable, match="the store is closed"):
            await store.tasks.tick(0, 1)
        await store.close()


class TestConnection:
    async def test_one_that_was_cut_is_dialled_anew(self, scene: Scene) -> None:
        grant = await scene.lease()
        for _ in range(3):
            scene.client.client_kill_filter(_type="normal", skipme=True)
            # Whether a call on the dead connection was carried out nobody knows: its caller is told, and asks again.
            await asyncio.gather(scene.renew(grant), return_exceptions=True)
            assert await scene.renew(grant) == RenewVerdict.OK

    async def test_cut_in_the_middle_of_traffic(self, scene: Scene) -> None:
        await scene.submit(100)
        grants = await scene.claim(count=100)
        done = asyncio.Event()

        async def cut() -> None:
            while not done.is_set():
                scene.client.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.002)

        async def insist(index: int) -> RenewVerdict:
            while True:
                try:
                    return await scene.tasks.renew(renewal(grants[index]))
                except StoreUnavailable:
                    await asyncio.sleep(0)

        cutter = asyncio.create_task(cut())
        verdicts = await asyncio.gather(*map(insist, range(100)))
        done.set()
        await cutter
        assert verdicts == [RenewVerdict.OK] * 100
        # The last cut may be one that nobody has noticed yet.
        assert await insist(0) == RenewVerdict.OK

    async def test_the_event_stream_is_told_of_a_cut(self, scene: Scene) -> None:
        cursor = await scene.store.events.now()
        batches = scene.store.events.follow(cursor)
        waiting = asyncio.ensure_future(anext(batches))
        await blocked(scene)
        scene.client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(StoreUnavailable):
            await waiting
        (task_id,) = await insist_on_submit(scene)
        async for _, events in scene.store.events.follow(cursor):
            assert [event.task_id for event in events] == [task_id]
            break


async def blocked(scene: Scene) -> None:
    """Until a connection waits in XREAD."""
    while not any(each["cmd"] == "xread" for each in scene.client.client_list()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def insist_on_submit(scene: Scene) -> list[str]:
    spec = scene.spec()
    while True:
        try:
            return [each.task_id for each in await scene.tasks.submit("s", [spec])]
        except StoreUnavailable:
            await asyncio.sleep(0)
