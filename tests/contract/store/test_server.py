"""Which servers are used and which are refused: each refusal names the setting, its value and the remedy, and leaves
the server as it was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_server import OpenStore, StoreServer

from tenure.common.errors import InvalidSetting, StoreUnavailable, TenureError, UnsuitableStore
from tenure.common.passwords import without_password
from tenure.common.spec import TaskSpec
from tenure.master.store import Store, StoreOptions, open_store
from tenure.master.store.keys import SCHEMA_VERSION

StartServer = Callable[..., StoreServer]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with settings of their own."""
    started: list[StoreServer] = []

    def start(**settings: str) -> StoreServer:
        started.append(StoreServer(tmp_path / f"own-{len(started)}", **settings).start())
        return started[-1]

    yield start
    for server in started:
        server.remove()


async def refused(error: type[TenureError], **options: Any) -> TenureError:
    """The error with which a store is not opened."""
    with pytest.raises(TenureError) as caught:
        await (await open_store(StoreOptions(**options))).close()
    assert type(caught.value) is error, caught.value
    return caught.value


class TestUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost",
            "localhost:6379",
            "http://localhost:6379",
            "redis//localhost",
            "redis:/localhost",
            "REDIS",
            "unix://",
            "redis://host:abc/0",
            "redis://host:99999/0",
            "redis://host:6379/first",
            "redis://[::1/0",
            "redis://host?never_heard_of=1",
            "redis://host?socket_timeout=soon",
            "redis://host?decode_responses=true",
            "redis://host?protocol=9",
            "unix:///s?db=x",
        ],
    )
    async def test_that_can_not_be_right(self, url: str) -> None:
        error = await refused(InvalidSetting, url=url)
        assert error.field == "store"
        assert error.given == url
        assert "redis://" in error.expected

    async def test_an_option_that_there_is_not_is_named(self) -> None:
        error = await refused(InvalidSetting, url="redis+sentinel://h/svc?sentinel_pasword=a")
        assert "unknown option 'sentinel_pasword'" in str(error)

    @pytest.mark.parametrize(
        "url",
        ["redis://:secret@host:abc/0", "http://me:secret@host", "redis://me:secret@[::1/0", "redis://me:secret@h?x=1"],
    )
    async def test_a_password_is_never_shown(self, url: str) -> None:
        error = await refused(InvalidSetting, url=url)
        assert "secret" not in repr(error) + str(error)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://h:1/0", "redis://h:1/0"),
            ("redis://:p@h:1/0", "redis://:***@h:1/0"),
            ("rediss://me:p%40@h/0?x=1", "rediss://me:***@h/0?x=1"),
            ("unix://me:p@/run/s?db=1", "unix://me:***@/run/s?db=1"),
            ("redis://h?password=p&db=1", "redis://h?password=***&db=1"),
        ],
    )
    def test_as_it_may_be_logged(self, url: str, shown: str) -> None:
        assert without_password(url) == shown

    @pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/at/all", "redis://:pw@127.0.0.1:1"])
    async def test_where_nobody_listens(self, url: str) -> None:
        error = await refused(StoreUnavailable, url=url)
        assert (error.field, error.given) == ("store", without_password(url))
        assert error.expected == "start the server, or correct the URL"


class TestUnsuitable:
    @pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
    async def test_one_that_evicts(self, start_server: StartServer, policy: str) -> None:
        server = start_server(maxmemory_policy=policy)
        error = await refused(UnsuitableStore, url=server.url)
        assert policy in str(error)
        assert (error.field, error.given) == ("store", server.url)
        assert error.expected == "set maxmemory-policy noeviction"
        self.untouched(server)

    async def test_a_replica(self, start_server: StartServer) -> None:
        server = start_server(replicaof="127.0.0.1 1")
        error = await refused(UnsuitableStore, url=server.url)
        assert "is a read-only replica" in str(error)
        assert "primary" in error.expected

    async def test_a_wrong_password(self, start_server: StartServer) -> None:
        server = start_server(requirepass="right")
        for login in (":wrong@", ""):
            error = await refused(UnsuitableStore, url=f"unix://{login}{server.socket}")
            assert error.field == "store"
            assert error.given == without_password(f"unix://{login}{server.socket}")
            assert "redis://USER:PASSWORD@HOST:PORT" in error.expected
            assert "wrong" not in str(error).replace("WRONGPASS", "")
        self.untouched(server)
        store = await open_store(StoreOptions(url=f"unix://:right@{server.socket}"))
        assert "right" not in store.description
        await store.close()

    async def test_a_user_who_may_not_write(self, start_server: StartServer) -> None:
        server = start_server()
        with server.client() as client:
            client.acl_setuser("guest", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@read"])
            client.execute_command("ACL", "SETUSER", "guest", "+info", "+client", "+ping")
        error = await refused(UnsuitableStore, url=f"unix://guest:pw@{server.socket}")
        assert "permissions" in str(error)
        assert (error.field, error.given) == ("store", f"unix://guest:***@{server.socket}")
        assert "a login that may run scripts" in error.expected
        self.untouched(server)

    async def test_one_that_is_too_old(self) -> None:
        async with claims_to_be(b"redis_version:6.2.14\r\nrole:master\r\n") as url:
            error = await refused(UnsuitableStore, url=url)
        assert "runs version 6.2.14" in str(error)
        assert (error.field, error.given, error.expected) == ("store", url, "Redis 7.0 or newer, or Valkey")

    async def test_something_that_is_no_store_at_all(self) -> None:
        async with claims_to_be(b"") as url:
            error = await refused(UnsuitableStore, url=url)
        assert "is no Redis or Valkey server" in str(error)

    def untouched(self, server: StoreServer) -> None:
        with server.client() as client:
            assert client.dbsize() == 0


@contextlib.asynccontextmanager
async def claims_to_be(info: bytes) -> AsyncIterator[str]:
    """A server that answers INFO with this, and everything else with OK."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                is_info = words[0].upper() == b"INFO"
                writer.write(b"$%d\r\n%s\r\n" % (len(info), info) if is_info else b"+OK\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


class TestSchema:
    async def test_is_written_once(self, open_test_store: OpenStore, store_server: StoreServer) -> None:
        store = await open_test_store(shards=3)
        again = await open_test_store(shards=3)
        with store_server.client() as client:
            assert client.hgetall(store.keys.schema) == {b"version": b"%d" % SCHEMA_VERSION, b"shards": b"3"}
        assert again.keys.schema == store.keys.schema

    async def test_masters_that_start_together_on_a_new_store_see_all_of_it(self, start_server: StartServer) -> None:
        server = start_server()
        for turn in range(5):
            options = StoreOptions(url=server.url, prefix=f"new{turn}", shards=3)
            for store in await asyncio.gather(*(open_store(options) for _ in range(8))):
                await store.close()

    @pytest.mark.parametrize("version", [b"2", b"0", b"99", b"new", b""])
    async def test_of_another_version(self, start_server: StartServer, version: bytes) -> None:
        server = start_server()
        with server.client() as client:
            client.hset("tenure:{meta}:schema", mapping={"version": version, "shards": "1"})
            before = client.dump("tenure:{meta}:schema")
            error = await refused(UnsuitableStore, url=server.url)
            assert f"holds schema version {version.decode() or 'none'}" in str(error)
            assert f"reads version {SCHEMA_VERSION}" in str(error)
            assert "run the Tenure version that wrote it" in error.expected
            assert client.dump("tenure:{meta}:schema") == before
            assert client.dbsize() == 1
        await (await open_store(StoreOptions(url=server.url, prefix="other"))).close()

    async def test_of_another_number_of_shards(self, start_server: StartServer) -> None:
        server = start_server()
        await (await open_store(StoreOptions(url=server.url, shards=4))).close()
        error = await refused(UnsuitableStore, url=server.url, shards=2)
        assert "was made with 4 shards, not 2" in str(error)
        assert (error.field, error.given, error.expected) == ("shards", "2", "set shards to 4")

    async def test_a_key_that_is_somebody_else_s(self, start_server: StartServer) -> None:
        server = start_server()
        with server.client() as client:
            client.set("tenure:{meta}:schema", "mine")
            error = await refused(UnsuitableStore, url=server.url)
            assert "the key tenure:{meta}:schema is somebody else's" in str(error)
            assert (error.field, error.given, error.expected) == ("store", server.url, "use another key prefix")
            assert client.dbsize() == 1

    async def test_prefixes_share_a_server(self, start_server: StartServer) -> None:
        server = start_server()
        one, two = [await open_store(StoreOptions(url=server.url, prefix=name)) for name in ("one", "two")]
        (submitted,) = await one.tasks.submit("s", [TaskSpec("{}")])
        assert await two.tasks.show([submitted.task_id]) == {}
        for store in (one, two):
            await store.close()


class TestDurability:
    async def open(self, server: StoreServer, **options: Any) -> Store:
        return await open_store(StoreOptions(url=server.url, **options))

    async def waits(self, server: StoreServer) -> int:
        with server.client() as client:
            return client.info("commandstats").get("cmdstat_waitaof", {"calls": 0})["calls"]

    async def test_fsync_always_is_strict_by_itself(self, start_server: StartServer) -> None:
        server = start_server()
        store = await self.open(server, durability="strict")
        await store.tasks.submit("s", [TaskSpec("{}")])
        assert (store.durability, store.durability_warning) == ("strict", "")
        assert await self.waits(server) == 0
        await store.close()

    async def test_fsync_each_second_is_strict_by_waiting_for_it(self, start_server: StartServer) -> None:
        server = start_server(appendfsync="everysec")
        store = await self.open(server)
        assert (store.durability, store.durability_warning) == ("strict", "")
        specs = [TaskSpec("{}", key=f"k{number}") for number in range(20)]
        await asyncio.gather(*(store.tasks.submit("s", [spec]) for spec in specs))
        assert await self.waits(server) == 1
        await store.tasks.due(0)
        assert await self.waits(server) == 1
        # No fsync will confirm this one any more.
        with server.client() as client:
            client.config_set("appendonly", "no")
        with pytest.raises(StoreUnavailable, match="did not confirm that the write is on its disk"):
            await store.tasks.tick(0, 1)
        await store.close()

    async def test_relaxed_does_not_wait(self, start_server: StartServer) -> None:
        server = start_server(appendfsync="everysec")
        store = await self.open(server, durability="relaxed")
        await store.tasks.submit("s", [TaskSpec("{}")])
        assert (store.durability, store.durability_warning) == ("relaxed", "")
        assert await self.waits(server) == 0
        await store.close()

    async def test_without_an_append_only_file_strict_is_refused(self, start_server: StartServer) -> None:
        server = start_server(appendonly="no")
        error = await refused(UnsuitableStore, url=server.url, durability="strict")
        assert (error.field, error.given) == ("durability", server.url)
        assert "append-only file off" in str(error)
        assert "set `appendonly yes` and `appendfsync always`" in error.expected
        with server.client() as client:
            assert client.dbsize() == 0

    @pytest.mark.parametrize("wanted", [None, "relaxed"])
    async def test_without_an_append_only_file_there_is_a_warning(
        self, start_server: StartServer, wanted: str | None
    ) -> None:
        store = await self.open(start_server(appendonly="no"), durability=wanted)
        assert store.durability == "relaxed"
        assert "restart" in store.durability_warning
        await store.close()

    async def test_the_server_s_figures(self, start_server: StartServer) -> None:
        store = await self.open(start_server(maxmemory="100mb"))
        figures = await store.server_figures()
        assert (figures.max_bytes, figures.aof_healthy) == (100 * 1024 * 1024, True)
        assert 0 < figures.used_bytes < figures.max_bytes
        assert store.facts.aof
        assert store.facts.fsync == "always"
        await store.close()
