"""fsck finds every way in which indexes and tasks can disagree: what is broken by hand here is named, task and all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from store_scene import Scene, open_scene
from store_server import OpenStore, StoreServer

from tenure.common.spec import Requirements


@pytest.fixture
async def broken(open_test_store: OpenStore, store_server: StoreServer) -> AsyncIterator[Scene]:
    """A scene with a task in each state, for breaking: nobody runs fsck behind it."""
    scene = open_scene(await open_test_store(), store_server)
    await scene.complete(await scene.lease())
    await scene.fail(await scene.lease(), retryable=False)
    await scene.tasks.cancel(await scene.submit())
    await scene.lease()
    await scene.submit(delay_ms=1000)
    await scene.submit(2)
    assert await scene.store.fsck.run() == (7, [])
    yield scene
    scene.client.close()


def one(scene: Scene, index: str) -> str:
    """The first id of an index."""
    return scene.client.zrange(scene.key(index), 0, 0)[0].decode()


BREAKS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "queued, not in the index": (
        lambda s: s.client.zrem(s.key("ready:-|s"), one(s, "ready:-|s")),
        "is QUEUED but not in that index",
    ),
    "leased, not in the index": (
        lambda s: s.client.zrem(s.key("leases"), one(s, "leases")),
        "is LEASED but not in that index",
    ),
    "scheduled, not in the index": (
        lambda s: s.client.zrem(s.key("scheduled"), one(s, "scheduled")),
        "is SCHEDULED but not in that index",
    ),
    "ended, not in the index": (
        lambda s: s.client.delete(s.key("ended:s:FAILED")),
        "is FAILED but not in that index",
    ),
    "in two indexes": (
        lambda s: s.client.zadd(s.key("leases"), {one(s, "ready:-|s"): 1}),
        "is QUEUED but also in the index of LEASED",
    ),
    "a lease of no task": (
        lambda s: s.client.zadd(s.key("leases"), {"0-nobody": 1}),
        "is in the index leases but is unknown",
    ),
    "a state that nothing follows": (
        lambda s: s.client.hset(s.key(f"task:{one(s, 'leases')}"), "state", "QUEUED"),
        "is in the index leases but is QUEUED",
    ),
    "a token without a lease": (
        lambda s: s.client.hset(s.key(f"task:{one(s, 'ready:-|s')}"), "token", "abc"),
        "its lease token does not fit that",
    ),
    "a lease without a token": (
        lambda s: s.client.hset(s.key(f"task:{one(s, 'leases')}"), "token", ""),
        "its lease token does not fit that",
    ),
    "a count": (lambda s: s.client.hincrby(s.key("search:s"), "n:QUEUED", 1), "counts 3 QUEUED, its indexes hold 2"),
    "a count of ended": (
        lambda s: s.client.hincrby(s.key("search:s"), "n:FAILED", -1),
        "counts 0 FAILED, its index holds 1",
    ),
    "a count of leased": (
        lambda s: s.client.hincrby(s.key("search:s"), "n:LEASED", 1),
        "the index leases holds 1, the searches count 2",
    ),
    "no record": (lambda s: s.client.delete(s.key(f"task:{one(s, 'members:s')}")), "is a member but has no record"),
    "no payload": (
        lambda s: s.client.delete(*s.client.scan_iter(match=s.key("payload:*").replace("{", "\\{"))),
        "has no payload",
    ),
    "no result": (lambda s: s.client.delete(s.key(f"outcome:{one(s, 'ended:s:SUCCEEDED')}")), "has no result"),
    "a key of another task": (lambda s: s.client.hset(s.key("keys:s"), "k0", "0-other"), "is not what its key names"),
    "a key too many": (lambda s: s.client.hset(s.key("keys:s"), "more", "0-other"), "has 7 members and 8 keys"),
    "nobody is offered it": (lambda s: s.client.delete(s.key("fair:-")), "has ready tasks that nobody is offered"),
    "offered though paused": (
        lambda s: s.client.hset(s.key("search:s"), "status", "paused"),
        "is offered though the search may not be served",
    ),
    "a class without tasks": (lambda s: s.client.sadd(s.key("classes:s"), "x"), "class x is listed but has no ready"),
    "too many attempts": (
        lambda s: s.client.hset(s.key(f"task:{one(s, 'leases')}"), "attempts", "4"),
        "burned more attempts than its budget",
    ),
    "too many losses": (
        lambda s: s.client.hset(s.key(f"task:{one(s, 'leases')}"), "losses", "6"),
        "burned more losses than its budget",
    ),
    "another search's": (
        lambda s: s.client.hset(s.key(f"task:{one(s, 'leases')}"), "search", "t"),
        "says it belongs to t",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_what_is_broken_is_named(broken: Scene, name: str) -> None:
    do, told = BREAKS[name]
    do(broken)
    _, violations = await broken.store.fsck.run()
    assert [each for each in violations if told in each], violations


async def test_it_changes_nothing(broken: Scene) -> None:
    broken.client.delete(broken.key("fair:-"))
    before = broken.dump(without=[])
    await broken.store.fsck.run()
    assert broken.dump(without=[]) == before


async def test_it_walks_everything_however_much_there_is(scene: Scene) -> None:
    for gpus in (0, 1, 2):
        for _ in range(4):
            await scene.submit(100, requirements=Requirements(gpus))
    await scene.claim(count=100)
    assert await scene.store.fsck.run() == (1200, [])
