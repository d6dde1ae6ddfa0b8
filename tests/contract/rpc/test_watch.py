"""Watches: the cursor first, every event once and in order, resumable anywhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from processes import eventually
from raw_peers import Broker, OpenBroker, OpenSession, StartMaster, error_parts, refused
from store_server import StoreServer

from tenure.proto import tenure_pb2, worker_pb2

Step = tuple[str, str, int]


class Watch:
    """One watch, read by hand.

    Attributes:
        cursor: Of the last response.
        events: All so far.
    """

    def __init__(self, broker: Broker, search: str = "", cursor: str = "") -> None:
        self.call = broker.api.Watch(tenure_pb2.WatchRequest(search=search, cursor=cursor))
        self.cursor = ""
        self.events: list[tenure_pb2.TaskEvent] = []

    async def first(self) -> Watch:
        """Hear the first response, which carries no events."""
        response = await self.call.read()
        assert list(response.events) == []
        assert response.cursor
        self.cursor = response.cursor
        return self

    async def until(self, number: int, seconds: float = 30) -> list[tenure_pb2.TaskEvent]:
        """So many events in all."""
        async with asyncio.timeout(seconds):
            while len(self.events) < number:
                response = await self.call.read()
                assert response is not grpc.aio.EOF
                self.cursor = response.cursor
                self.events += response.events
        return self.events

    def steps(self) -> list[Step]:
        """The events in short: task, transition, state."""
        return [(event.task_id, event.transition, event.state) for event in self.events]


@contextlib.asynccontextmanager
async def watching(broker: Broker, search: str = "", cursor: str = "") -> AsyncIterator[Watch]:
    """A watch that has begun."""
    watch = Watch(broker, search, cursor)
    try:
        yield await watch.first()
    finally:
        watch.call.cancel()


async def test_every_transition_in_order(broker: Broker, search: str, open_session: OpenSession) -> None:
    await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=search))
    async with watching(broker, search) as watch:
        (task_id,) = await broker.submit(search)
        session = await open_session(want=2)
        await session.end(await session.hear_task(), worker_pb2.OUTCOME_RELEASE)
        task = await session.hear_task()
        await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[task_id]))
        await session.end(task)
        await watch.until(6)
        assert watch.steps() == [
            (task_id, "submit", tenure_pb2.QUEUED),
            (task_id, "claim", tenure_pb2.LEASED),
            (task_id, "release", tenure_pb2.QUEUED),
            (task_id, "claim", tenure_pb2.LEASED),
            (task_id, "cancel", tenure_pb2.LEASED),
            (task_id, "complete", tenure_pb2.SUCCEEDED),
        ]
        assert [event.epoch for event in watch.events] == [0, 1, 1, 2, 2, 2]
        assert [event.worker_id for event in watch.events] == ["", *[session.worker_id] * 5]
        assert {event.search for event in watch.events} == {search}
        times = [event.at_unix_ms for event in watch.events]
        assert times == sorted(times)


async def test_a_watch_begins_now(broker: Broker, search: str) -> None:
    await broker.submit(search)
    async with watching(broker, search) as watch:
        (later,) = await broker.submit(search)
        await watch.until(1)
        assert watch.steps() == [(later, "submit", tenure_pb2.QUEUED)]


async def test_a_watch_hears_of_its_search_only_or_of_all(broker: Broker, search: str) -> None:
    other = f"{search}-2"
    for name in (search, other):
        await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=name))
    async with watching(broker, search) as one, watching(broker) as every:
        (second,) = await broker.submit(other)
        (first,) = await broker.submit(search)
        await one.until(1)
        assert [event.task_id for event in one.events] == [first]
        await every.until(2)
        assert [event.task_id for event in every.events] == [second, first]
    await broker.api.CancelSearch(tenure_pb2.SearchName(name=other))


async def test_a_watch_resumes_where_it_was(broker: Broker, search: str) -> None:
    ids = await broker.submit(search, 3)
    async with watching(broker, search) as watch:
        ids += await broker.submit(search, 3)
        await watch.until(3)
        cursor = watch.cursor
    for _ in range(3):
        ids += await broker.submit(search, 100)
    async with watching(broker, search, cursor) as resumed:
        assert resumed.cursor == cursor
        ids += await broker.submit(search, 2)
        await resumed.until(len(ids) - 6)
        assert [event.task_id for event in resumed.events] == ids[6:]
        # The same cursor again: the same events again.
    async with watching(broker, search, cursor) as again:
        await again.until(len(ids) - 6)
        assert [event.task_id for event in again.events] == ids[6:]


@pytest.mark.parametrize("way", ["kill", "terminate"])
async def test_a_watch_resumes_after_a_restart_without_a_gap_or_a_repetition(
    own_master: StartMaster, open_broker: OpenBroker, way: str
) -> None:
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    ids = await broker.submit("s", 5)
    seen: list[str] = []
    async with watching(broker, "s") as watch:
        ids = await broker.submit("s", 5)
        await watch.until(3)
        await asyncio.to_thread(getattr(master, way))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.until(1000)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        cursor, seen = watch.cursor, [event.task_id for event in watch.events]
    await asyncio.to_thread(master.restart)
    broker = open_broker(master.address)
    ids += await broker.submit("s", 5)
    async with watching(broker, "s", cursor) as resumed:
        ids += await broker.submit("s", 5)
        await resumed.until(15 - len(seen))
        assert seen + [event.task_id for event in resumed.events] == ids


async def test_a_watch_survives_its_stores_restart_or_ends_resumable(
    own_master: StartMaster, open_broker: OpenBroker, tmp_path: Any
) -> None:
    server = StoreServer(tmp_path / "store").start()
    try:
        master = await asyncio.to_thread(own_master, store=server.url, data_dir=None)
        broker = open_broker(master.address)
        ids = await broker.submit("s")
        async with watching(broker, "s") as watch:
            server.kill()
            await asyncio.to_thread(server.start)

            async def submitted() -> bool:
                try:
                    ids.extend(await broker.submit("s"))
                except grpc.aio.AioRpcError:
                    return False
                return True

            await eventually(submitted)
            await watch.until(1)
            assert [event.task_id for event in watch.events] == ids[-1:]
    finally:
        server.remove()


async def test_an_expired_cursor_is_out_of_range(
    own_master: StartMaster, open_broker: OpenBroker, tmp_path: Any
) -> None:
    """Events are trimmed; a store that was rolled back has never had what the cursor names."""
    server = StoreServer(tmp_path / "store").start()
    try:
        master = await asyncio.to_thread(own_master, store=server.url, data_dir=None)
        broker = open_broker(master.address)
        await broker.submit("s")
        async with watching(broker, "s") as watch:
            await broker.submit("s", 10)
            await watch.until(10)
        with server.client() as client:
            last = client.xrevrange("tenure:{0}:events", count=1)[0][0].decode()
            client.xtrim("tenure:{0}:events", maxlen=2, approximate=False)
        async with watching(broker, "s", last) as good:
            assert good.cursor == last
        ahead = f"{int(last.split('-')[0]) + 3_600_000}-0"
        for cursor in ("1-1", ahead):
            async with refused(grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED", "cursor", cursor) as parts:
                await Watch(broker, "s", cursor).first()
            assert "list" in parts["expected"]
    finally:
        server.remove()


async def test_a_watcher_that_does_not_read_is_cut_off_and_may_resume(
    own_master: StartMaster, open_broker: OpenBroker
) -> None:
    """What it has not read is not kept for it without end, and costs nobody else anything."""
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    ids = tenure_pb2.TaskIds(task_ids=await broker.submit("s", 100))
    # A small window, so that little is under way; without this it grows to megabytes.
    narrow = open_broker(master.address, ("grpc.http2.bdp_probe", 0))
    async with watching(narrow, "s") as slow, watching(broker, "s") as quick:
        submits = asyncio.Event()
        heard = 0

        async def count() -> None:
            nonlocal heard
            while not submits.is_set():
                for event in (await quick.call.read()).events:
                    heard += 1
                    if event.transition == "submit":
                        submits.set()

        counting = asyncio.ensure_future(count())
        made = 0

        async def cut_off() -> bool:
            nonlocal made
            for _ in range(10):
                await broker.api.CancelTasks(ids)
                await broker.api.RequeueTasks(ids)
            made += 2_000
            return bool(master.logged("watch.cut_off"))

        # The first go into buffers on the way; then they wait at the master, and then it is enough.
        await eventually(cut_off, deadline=60)
        (task_id,) = await broker.submit("s")
        await counting
        assert heard == made + 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await slow.until(made)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert error_parts(caught.value)["code"] == "UNAVAILABLE"
        cursor, before = slow.cursor, len(slow.events)
    async with watching(broker, "s", cursor) as resumed:
        await resumed.until(made + 1 - before)
        assert resumed.events[-1].task_id == task_id


async def test_a_quiet_watch_is_kept_alive(broker: Broker, search: str) -> None:
    await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=search))
    async with watching(broker, search) as watch:
        async with asyncio.timeout(30):
            response = await watch.call.read()
        assert (list(response.events), bool(response.cursor)) == ([], True)
