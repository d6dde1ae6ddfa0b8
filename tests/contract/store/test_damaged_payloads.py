"""What a worker needs of a task can't be read any more: a disk's damage, or somebody who wrote to the store."""

from __future__ import annotations

import pytest
from store_scene import Scene

from tenure.common.states import TaskState
from tenure.master.store.records import DEFAULT_CLASS, ClaimRequest


@pytest.mark.parametrize("damaged", [b"no payload", None], ids=["overwritten", "lost"])
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
    granted = await scene.tasks.claim(ClaimRequest("w1", ["1" * 32, "2" * 32], [DEFAULT_CLASS]))
    assert [grant.task_id for grant in granted] == [good]
    assert granted.damaged == (bad,)
    await scene.complete(granted[0])
    await scene.expire_all()
    assert await scene.claim("w2") == []
    await scene.expire_all()
    assert (await scene.tasks.show([bad]))[bad].state is TaskState.FAILED
    scene.client.set(payload, whole)
