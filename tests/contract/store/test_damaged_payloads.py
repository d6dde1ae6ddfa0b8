"""What a worker needs of a task can't be read any more: a disk's damage, or somebody who wrote to the store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_scene import Scene

from tenure.common.spec import TaskSpec
from tenure.common.states import TaskState
from tenure.master.store.records import DEFAULT_CLASS, ClaimRequest


@pytest.mark.parametrize("damaged", [b"no payload", b"", None], ids=["overwritten", "emptied", "lost"])
async def test_such_a_task_costs_the_others_nothing_and_ends_by_its_own_budget(
    scene: Scene, damaged: bytes | None
) -> None:
    (bad,) = await scene.submit(max_losses=2)
    (good,) = await scene.submit()
    digest = scene.client.hget(scene.key(f"task:{bad}"), "payload")
    assert digest is not None
    payload = scene.key(f"payload:{digest.decode()}")
    whole = scene.client.get(payload)
    assert whole is not None
    if damaged is None:
        scene.client.delete(payload)
    else:
        scene.client.set(payload, damaged)
    said = (
        f"payload {digest.decode()}: is damaged; tasks that have it: 1"
        if damaged is not None
        else f"task {bad} of search s: has no payload"
    )
    assert await scene.store.fsck.run() == (2, [said])
    assert (await scene.view(bad)).architecture == ""
    granted = await scene.tasks.claim(ClaimRequest("w1", ["1" * 32, "2" * 32], [DEFAULT_CLASS]))
    assert [grant.task_id for grant in granted] == [good]
    assert granted.damaged == (bad,)
    await scene.complete(granted[0])
    await scene.expire_all()
    assert await scene.claim("w2") == []
    await scene.expire_all()
    assert (await scene.tasks.show([bad]))[bad].state is TaskState.FAILED
    scene.client.set(payload, whole)


@pytest.mark.parametrize("damaged", [b"no payload", b"", None], ids=["overwritten", "emptied", "lost"])
@pytest.mark.parametrize("key", ["same", "another"])
async def test_who_submits_it_again_mends_it(scene: Scene, damaged: bytes | None, key: str) -> None:
    content = TaskSpec(architecture='{"n": 1}', key="same")
    (bad,) = [each.task_id for each in await scene.tasks.submit("s", [content])]
    digest = scene.client.hget(scene.key(f"task:{bad}"), "payload")
    assert digest is not None
    payload = scene.key(f"payload:{digest.decode()}")
    if damaged is None:
        scene.client.delete(payload)
    else:
        scene.client.set(payload, damaged)
    await scene.tasks.submit("s", [replace(content, key=key)])
    assert (await scene.view(bad)).architecture == content.architecture
    assert {grant.task_id for grant in await scene.claim(count=2)} >= {bad}
    assert (await scene.store.fsck.run())[1] == []


async def test_a_key_with_other_content_leaves_nothing_behind(scene: Scene) -> None:
    await scene.tasks.submit("s", [TaskSpec(architecture='{"n": 1}', key="same")])
    before = scene.client.keys(scene.key("payload:*").replace("{", "\\{"))
    await scene.tasks.submit("s", [TaskSpec(architecture='{"n": 2}', key="same")])
    assert scene.client.keys(scene.key("payload:*").replace("{", "\\{")) == before
