"""The store on every kind of server that this machine has: the embedded one, and Redis and Valkey from the PATH."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_scene import Scene, open_scene
from store_server import OpenStore, StoreServer

from tenure.common.errors import StoreUnavailable, UnsuitableStore
from tenure.common.states import TaskState
from tenure.master.store.embedded import find_server
from tenure.master.store.records import RenewVerdict, Verdict
from tenure.master.store.scripts import load_scripts
from tenure.master.store.server import VERSION_MIN

SERVERS = {
    "embedded": find_server(),
    "redis-server": shutil.which("redis-server"),
    "valkey-server": shutil.which("valkey-server"),
}


def version(binary: str) -> tuple[int, ...]:
    """``(7, 2)`` of ``Redis server v=7.2.4 …``."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", told)
    assert found, told
    return tuple(map(int, found.groups()))


@pytest.fixture(params=list(SERVERS))
def any_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreServer]:
    """Each kind of server in turn."""
    binary = SERVERS[request.param]
    if binary is None:
        pytest.skip(f"{request.param} is not on the PATH")
    server = StoreServer(tmp_path / "server", binary).start()
    yield server
    server.remove()


async def test_a_task_s_life(any_server: StoreServer, open_test_store: OpenStore) -> None:
    if version(any_server.binary) < VERSION_MIN:
        with pytest.raises(UnsuitableStore, match=r"Redis 7\.0 or newer"):
            await open_test_store(url=any_server.url)
        return
    store = await open_test_store(url=any_server.url)
    assert store.durability == "strict"
    scene = open_scene(store, any_server)
    start = await store.events.now()
    task_ids = await scene.submit(5)
    (delayed,) = await scene.submit(delay_ms=1000)
    first, second, third, fourth, fifth = await scene.claim(count=9)
    assert await scene.checkpoint(first, 1, 0.5) == (Verdict.OK, [])
    assert await scene.renew(first, progress='{"step": 2}') == RenewVerdict.OK
    assert await scene.complete(first) == Verdict.OK
    assert await scene.fail(second, retryable=False) == (Verdict.OK, "FAILED")
    assert await scene.release(third) == Verdict.OK
    assert await scene.tasks.cut([(fourth.task_id, fourth.token)], 100) == 1
    await scene.advance(1000)
    assert [each.task_id for each in await scene.tasks.expire(0, 100)] == [fourth.task_id]
    assert await scene.renew(fourth) == RenewVerdict.READOPTED
    assert await scene.tasks.promote(0, 100) == 1
    await scene.tasks.cancel([delayed, fifth.task_id])
    assert await scene.tasks.requeue([second.task_id, delayed]) == {
        second.task_id: ("ok", "QUEUED"),
        delayed: ("ok", "QUEUED"),
    }
    scene.client.script_flush()
    assert {each.task_id for each in await scene.claim("w2", 9)} == {second.task_id, third.task_id, delayed}
    states = {task_id: view.state for task_id, view in (await scene.tasks.show([*task_ids, delayed])).items()}
    assert sorted(states.values()) == [TaskState.LEASED] * 5 + [TaskState.SUCCEEDED]
    told = [event async for _, batch in store.events.between(start, await store.events.now()) for event in batch]
    assert {event.transition for event in told} == {
        *("submit", "claim", "complete", "fail", "release", "expire", "readopt", "promote", "cancel", "requeue")
    }
    await store.events.check(start)
    assert await store.fsck.run() == (6, [])
    await restarted(scene, any_server, states)
    scene.client.close()


async def restarted(scene: Scene, server: StoreServer, states: dict[str, TaskState]) -> None:
    """What was acknowledged outlives the server's death."""
    server.kill()
    server.start()
    while True:
        try:
            views = await scene.tasks.show(list(states))
            break
        except StoreUnavailable:  # on the old connection
            continue
    assert {task_id: view.state for task_id, view in views.items()} == states
    assert await scene.tasks.forget("s", 0, 10**12) == 1
    assert await scene.violations() == []


async def test_every_script_is_taken(any_server: StoreServer) -> None:
    if version(any_server.binary) < VERSION_MIN:
        pytest.skip("too old for scripts with flags")
    with any_server.client() as client:
        for script in load_scripts().values():
            assert client.script_load(script.body).encode() == script.sha
