"""A store behind real sentinels: the primary dies or hangs, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from processes import eventually
from sentinel import SERVICE, SentinelStore
from store_scene import Scene

from tenure.common.errors import InvalidSetting, StoreUnavailable, UnsuitableStore
from tenure.common.passwords import without_password
from tenure.master.store import StoreOptions, open_store
from tenure.master.store.records import Verdict
from tenure.master.store.server import make_pool

T = TypeVar("T")


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[SentinelStore]:
    made = SentinelStore(tmp_path / "s")
    try:
        yield made.start()
    finally:
        made.remove()


async def until_taken(work: Callable[[], Awaitable[T]]) -> T:
    """What a client does: again, until somebody takes it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await work()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)], ids=["killed", "hanging"]
)
async def test_a_failover_loses_nothing_that_was_acknowledged(sentinels: SentinelStore, how: signal.Signals) -> None:
    store = await open_store(StoreOptions(url=sentinels.url, replicas=1))
    try:
        scene = Scene(store, sentinels.primary().client())
        before = await scene.submit(20)
        (lease,) = await scene.claim()
        assert (await store.server_figures()).replicas >= 1
        old = await asyncio.to_thread(sentinels.fail_over, how)
        after = await until_taken(lambda: scene.submit(5, key="after"))
        assert len(set(before + after)) == 21, "one key is one task"
        states = [task.state for task in (await until_taken(lambda: store.tasks.show(before))).values()]
        assert sorted(states) == ["LEASED"] + ["QUEUED"] * 19
        assert (await until_taken(lambda: scene.complete(lease))) is Verdict.OK, "the lease lives on at the new primary"
        if how == signal.SIGSTOP:
            assert old.process is not None
            old.process.send_signal(signal.SIGCONT)
            # The old primary is made a replica; a connection that still leads to it would be refused as read-only.
            await eventually(lambda: _role(old) == "slave")
            await until_taken(lambda: scene.submit(1, key="later"))
        _, violations = await until_taken(store.fsck.run)
        assert violations == []
    finally:
        await store.close()


async def test_without_enough_replicas_nothing_is_acknowledged(sentinels: SentinelStore) -> None:
    store = await open_store(StoreOptions(url=sentinels.url, replicas=2))
    try:
        scene = Scene(store, sentinels.primary().client())
        await until_taken(scene.submit)
        primary = sentinels.primary()
        gone = next(each for each in sentinels.servers if each is not primary)
        gone.kill()
        with pytest.raises(StoreUnavailable, match="replicas"):
            await scene.submit(1, key="one is gone")
        gone.start()
        # The same request again finds the task that the first one left.
        await until_taken(lambda: scene.submit(1, key="one is gone"))
    finally:
        await store.close()


async def test_sentinels_that_know_no_such_service(sentinels: SentinelStore) -> None:
    with pytest.raises(StoreUnavailable, match="know no living primary of a service 'other'") as caught:
        await open_store(StoreOptions(url=sentinels.url.replace(SERVICE, "other")))
    assert caught.value.field == "store"


async def test_sentinels_that_do_not_answer() -> None:
    with pytest.raises(StoreUnavailable, match=r"no sentinel names a primary of 'svc'.*: 127\.0\.0\.1:1") as caught:
        await open_store(StoreOptions(url="redis+sentinel://127.0.0.1:1/svc"))
    assert "ConnectionPool" not in str(caught.value)


async def test_what_is_no_sentinel(sentinels: SentinelStore) -> None:
    server = sentinels.servers[0].port
    with pytest.raises(UnsuitableStore, match="is no sentinel"):
        await open_store(StoreOptions(url=f"redis+sentinel://127.0.0.1:{server}/svc"))
    with pytest.raises(UnsuitableStore, match="no database of this number"):
        await open_store(StoreOptions(url=f"redis://127.0.0.1:{server}/99"))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://127.0.0.1:26379", "names no service"),
        ("redis+sentinel:///tenure", "no address"),
        ("redis+sentinel://h:1,h:x/tenure", "'h:x' is no address"),
        ("redis+sentinel://h:99999/tenure", "no address"),
        ("redis+sentinel://h/tenure/one", "number of a database"),
        ("redis+sentinel://h/tenure?colour=red", "colour"),
    ],
)
async def test_what_is_no_url_is_refused(url: str, why: str) -> None:
    with pytest.raises(InvalidSetting, match=why):
        make_pool(url)


async def test_a_url_gives_logins_and_database() -> None:
    pool = make_pool("rediss+sentinel://user:p%40ss@a,[::1]:7/tenure/3?sentinel_password=secret")
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("user", "p@ss")
    assert pool.connection_kwargs["db"] == 3
    sentinels = pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
    places = [each.connection_pool.connection_kwargs for each in sentinels]
    assert [(place["host"], place["port"], place["password"]) for place in places] == [
        ("a", 26379, "secret"),
        ("::1", 7, "secret"),
    ]


def test_passwords_are_not_shown() -> None:
    shown = without_password("redis+sentinel://u:geheim@a:1,b:2/tenure?sentinel_password=auch")
    assert "geheim" not in shown
    assert "auch" not in shown


def _role(server: object) -> str:
    with server.client() as client:  # type: ignore[attr-defined]
        return str(client.info("replication")["role"])
