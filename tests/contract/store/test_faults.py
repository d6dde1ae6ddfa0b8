"""What goes wrong between a master and its server: killed, stopped, full, its replies lost. Nothing acknowledged is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cutting_proxy import CuttingProxy
from store_scene import Scene, open_scene, success
from store_server import OpenStore, StoreServer

from tenure.common.errors import Overloaded, StoreUnavailable
from tenure.common.spec import TaskSpec
from tenure.common.states import TaskState
from tenure.master.store import Store, server
from tenure.master.store.records import ClaimRequest, Grant, RenewVerdict, Verdict
from tenure.master.store.scripts import load_scripts


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[StoreServer]:
    """A server that this test may harm."""
    own = StoreServer(tmp_path / "own").start()
    yield own
    own.remove()


async def insist(call: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until somebody answers, as every caller of the store does."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(0.005)


class TestKilled:
    async def test_its_caller_is_told_and_a_new_server_is_used(
        self, open_test_store: OpenStore, own_server: StoreServer
    ) -> None:
        store = await open_test_store(url=own_server.url)
        (submitted,) = await store.tasks.submit("s", [TaskSpec("{}")])
        own_server.kill()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.tasks.show([submitted.task_id])
            with pytest.raises(StoreUnavailable):
                await store.events.now()
            with pytest.raises(StoreUnavailable):
                await store.server_figures()
        own_server.start()
        assert set(await store.tasks.show([submitted.task_id])) == {submitted.task_id}

    async def test_in_the_middle_of_traffic_nothing_acknowledged_is_lost(
        self, open_test_store: OpenStore, own_server: StoreServer
    ) -> None:
        store = await open_test_store(url=own_server.url)
        traffic = Traffic(store)
        workers = [asyncio.create_task(traffic.work(f"w{number}")) for number in range(4)]
        clients = [asyncio.create_task(traffic.submit(f"c{number}", 60)) for number in range(3)]
        for kill in range(4):
            await traffic.reached(30 * (kill + 1))
            own_server.kill()
            await asyncio.sleep(0.02)
            own_server.start()
        await asyncio.gather(*clients)
        await traffic.reached(180)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        views: dict[str, Any] = {}
        for start in range(0, len(traffic.submitted), 100):
            views |= await store.tasks.show(sorted(traffic.submitted)[start : start + 100])
        assert set(views) == traffic.submitted
        for task_id, metrics in traffic.accepted.items():
            assert views[task_id].state is TaskState.SUCCEEDED
            assert views[task_id].outcome["metrics"] == metrics
        assert await store.fsck.run() == (180, [])


class Traffic:
    """Clients and workers that keep account of what was acknowledged to them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.submitted: set[str] = set()
        self.accepted: dict[str, dict[str, float]] = {}
        self._tokens = iter(range(10**9))

    async def submit(self, client: str, count: int) -> None:
        for number in range(count):
            spec = TaskSpec(json.dumps([client, number]), key=f"{client}/{number}")
            (submitted,) = await insist(lambda spec=spec: self.store.tasks.submit("s", [spec]))
            self.submitted.add(submitted.task_id)

    async def work(self, worker: str) -> None:
        while True:
            token = f"{next(self._tokens):032x}"
            try:
                grants = await self.store.tasks.claim(ClaimRequest(worker, [token], ["-"]))
            except StoreUnavailable:
                # What an unanswered claim was given goes back.
                await insist(lambda token=token: self.store.tasks.give_back([token]))
                continue
            for grant in grants:
                await insist(lambda grant=grant: self.finish(worker, grant))
            await asyncio.sleep(0)

    async def finish(self, worker: str, grant: Grant) -> None:
        metrics = {"fitness": float(grant.epoch)}
        verdict, _ = await self.store.tasks.complete(success(grant, worker, metrics=metrics))
        assert verdict == Verdict.OK
        self.accepted[grant.task_id] = metrics

    async def reached(self, accepted: int) -> None:
        while len(self.accepted) < accepted:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class TestFailover:
    async def test_a_primary_that_became_a_replica_is_left(
        self, open_test_store: OpenStore, own_server: StoreServer
    ) -> None:
        scene = open_scene(await open_test_store(url=own_server.url), own_server)
        grant = await scene.lease()
        scene.client.replicaof("127.0.0.1", "1")
        dialled = scene.client.info("stats")["total_connections_received"]
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await scene.complete(grant)
        assert scene.client.info("stats")["total_connections_received"] > dialled
        scene.client.replicaof("NO", "ONE")
        assert await scene.complete(grant) == Verdict.OK
        scene.client.close()


class TestStopped:
    """A busy machine may take longer than the timeout for anything: what is no part of the silence is insisted on."""

    @pytest.fixture
    def short_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "SOCKET_TIMEOUT_SECONDS", 0.3)

    async def test_a_server_that_hangs_is_given_up_and_used_again_once_it_answers(
        self, short_timeout: None, open_test_store: OpenStore, own_server: StoreServer
    ) -> None:
        store = await insist(lambda: open_test_store(url=own_server.url))
        (submitted,) = await insist(lambda: store.tasks.submit("s", [TaskSpec("{}")]))
        own_server.pause()
        try:
            results = await asyncio.gather(
                *(store.tasks.show([submitted.task_id]) for _ in range(5)),
                store.server_figures(),
                store.tasks.cancel([submitted.task_id]),
                return_exceptions=True,
            )
            assert all(isinstance(each, StoreUnavailable) for each in results), results
        finally:
            own_server.resume()
        # The request may have been carried out when it woke; it is the same then.
        verdict = (await insist(lambda: store.tasks.cancel([submitted.task_id])))[submitted.task_id]
        assert verdict in {("ok", "CANCELLED"), ("already", "CANCELLED")}
        assert await insist(store.fsck.run) == (1, [])

    async def test_a_reply_that_comes_too_late_is_nobody_else_s(
        self, short_timeout: None, open_test_store: OpenStore, own_server: StoreServer
    ) -> None:
        store = await insist(lambda: open_test_store(url=own_server.url))
        own_server.pause()
        with pytest.raises(StoreUnavailable):
            await store.tasks.tick(0, 1)
        own_server.resume()
        (submitted,) = await insist(lambda: store.tasks.submit("s", [TaskSpec("{}")]))
        assert await insist(lambda: store.tasks.due(0)) == (0, 0, 0)
        assert set(await insist(lambda: store.tasks.show([submitted.task_id]))) == {submitted.task_id}


class TestFull:
    """At the server's memory limit new tasks are refused; everything that lets old ones end still passes."""

    @pytest.fixture
    async def full(self, open_test_store: OpenStore, own_server: StoreServer) -> AsyncIterator[tuple[Scene, Grant]]:
        scene = open_scene(await open_test_store(url=own_server.url), own_server)
        grants = [await scene.lease() for _ in range(6)]
        self.grants = grants
        await scene.submit(2)
        await scene.submit(delay_ms=1)
        await scene.store.workers.register("w1", "i", {})
        scene.client.config_set("maxmemory", scene.client.info("memory")["used_memory"] // 2)
        yield scene, grants[0]
        scene.client.close()

    async def test_submits_are_refused_with_the_remedy(self, full: tuple[Scene, Grant]) -> None:
        scene, _ = full
        before = scene.dump(without=[])
        with pytest.raises(Overloaded, match=r"memory limit; raise maxmemory, or forget old tasks"):
            await scene.submit()
        assert scene.dump(without=[]) == before

    async def test_all_else_passes(self, full: tuple[Scene, Grant]) -> None:
        scene, first = full
        _, second, third, fourth, fifth, sixth = self.grants
        assert await scene.complete(first) == Verdict.OK
        assert (await scene.fail(second))[0] == Verdict.OK
        assert await scene.release(third) == Verdict.OK
        assert await scene.renew(fourth, progress='{"step": 1}') == RenewVerdict.OK
        assert await scene.checkpoint(fourth, 1) == (Verdict.OK, [])
        assert (await scene.tasks.cancel([fifth.task_id]))[fifth.task_id] == ("cancel_requested", "LEASED")
        assert await scene.tasks.cut([(sixth.task_id, sixth.token)], 1) == 1
        await scene.advance(10)
        assert len(await scene.tasks.expire(0, 100)) == 1
        assert await scene.renew(sixth) == RenewVerdict.READOPTED
        assert await scene.tasks.promote(0, 100) == 1
        assert await scene.store.workers.heartbeat("w1", "i", {"cpu": "1"}) == ("OK", "active")
        await scene.store.workers.seen_legacy("old")
        assert await scene.tasks.forget("s", 0, 10**12) == 1
        assert await scene.violations() == []

    async def test_what_waits_is_still_worked_off(self, full: tuple[Scene, Grant]) -> None:
        """Else a full store would stay full for ever."""
        scene, _ = full
        grants = await scene.claim(count=9)
        assert len(grants) == 2
        for grant in grants:
            assert await scene.complete(grant) == Verdict.OK

    async def test_a_search_can_be_paused_and_cancelled(self, full: tuple[Scene, Grant]) -> None:
        scene, _ = full
        await scene.store.searches.put("s", {}, status="paused", create=False)
        assert (await scene.store.searches.get("s")).status == "paused"

    async def test_a_master_can_still_start(
        self, full: tuple[Scene, Grant], open_test_store: OpenStore, own_server: StoreServer
    ) -> None:
        scene, first = full
        other = await open_test_store(url=own_server.url)
        assert await Scene(other, scene.client).renew(first) == RenewVerdict.OK


WRITES: dict[str, tuple[Callable[[Scene, Grant], Awaitable[Any]], Any]] = {
    "complete": (lambda scene, grant: scene.complete(grant), Verdict.OK),
    "fail": (lambda scene, grant: scene.fail(grant), (Verdict.OK, "QUEUED")),
    "fail for good": (lambda scene, grant: scene.fail(grant, retryable=False), (Verdict.OK, "FAILED")),
    "release": (lambda scene, grant: scene.release(grant), Verdict.OK),
    "renew": (lambda scene, grant: scene.renew(grant), RenewVerdict.OK),
    "checkpoint": (lambda scene, grant: scene.checkpoint(grant, 3), (Verdict.OK, [])),
    "pause": (lambda scene, grant: scene.store.searches.put("s", {}, status="paused"), None),
    "register": (lambda scene, grant: scene.store.workers.register("w1", "i", {}), ("active", "")),
}


class TestReplyLost:
    """The server has done it, the answer never came: the same again gets the answer of the first time."""

    @pytest.fixture
    async def cut_off(
        self, open_test_store: OpenStore, store_server: StoreServer
    ) -> AsyncIterator[tuple[Scene, CuttingProxy]]:
        async with CuttingProxy(store_server.socket) as proxy:
            scene = open_scene(await open_test_store(url=proxy.url), store_server)
            # The reply that is lost is to be that of the write, not "no such script".
            for script in load_scripts().values():
                scene.client.script_load(script.body)
            await scene.tasks.due(0)  # and not that of the greeting of a new connection
            yield scene, proxy
            scene.client.close()
            await scene.store.close()

    @pytest.mark.parametrize("name", WRITES)
    async def test_of_a_write(self, cut_off: tuple[Scene, CuttingProxy], name: str) -> None:
        scene, proxy = cut_off
        write, answer = WRITES[name]
        grant = await scene.lease()
        proxy.cut_next_reply()
        with pytest.raises(StoreUnavailable):
            await write(scene, grant)
        assert proxy.cut == 1
        done = scene.dump(without=["events"])
        assert await write(scene, grant) == answer
        stamps = {key for key, value in done.items() if value != scene.dump(without=["events"])[key]}
        assert stamps <= {scene.store.keys.workers, scene.store.keys.worker_events}
        assert await scene.violations() == []

    async def test_of_a_submit(self, cut_off: tuple[Scene, CuttingProxy]) -> None:
        scene, proxy = cut_off
        specs = [scene.spec() for _ in range(5)]
        proxy.cut_next_reply()
        with pytest.raises(StoreUnavailable):
            await scene.tasks.submit("s", specs)
        again = await scene.tasks.submit("s", specs)
        assert [(each.key, each.created) for each in again] == [(spec.key, False) for spec in specs]
        assert (await scene.store.searches.get("s")).counts[TaskState.QUEUED] == 5

    async def test_of_a_cancel(self, cut_off: tuple[Scene, CuttingProxy]) -> None:
        scene, proxy = cut_off
        (task_id,) = await scene.submit()
        proxy.cut_next_reply()
        with pytest.raises(StoreUnavailable):
            await scene.tasks.cancel([task_id])
        assert await scene.tasks.cancel([task_id]) == {task_id: ("already", "CANCELLED")}

    async def test_of_a_claim(self, cut_off: tuple[Scene, CuttingProxy]) -> None:
        """It can't be asked again: what it was given is given back, and burns nothing."""
        scene, proxy = cut_off
        (task_id,) = await scene.submit()
        proxy.cut_next_reply()
        with pytest.raises(StoreUnavailable):
            await scene.tasks.claim(ClaimRequest("w1", ["a" * 32], ["-"]))
        assert await scene.state(task_id) is TaskState.LEASED
        assert await scene.tasks.give_back(["a" * 32]) == 1
        view = await scene.view(task_id)
        assert (view.state, view.number("losses"), view.attempt_records) == (TaskState.QUEUED, 0, [])

    async def test_of_a_whole_batch(self, cut_off: tuple[Scene, CuttingProxy]) -> None:
        scene, proxy = cut_off
        await scene.submit(90)
        grants = await scene.claim(count=90)
        proxy.cut_next_reply()
        first = await asyncio.gather(*map(scene.complete, grants), return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) for each in first)
        assert await asyncio.gather(*map(scene.complete, grants)) == [Verdict.OK] * 90
        assert (await scene.counters()).get("duplicates", 0) == 0
