"""For how long tasks could have been taken before they were, and before those that wait will be.

Contract: a task waits from when it was queued last, or due; until then it could not be taken. The tests set these times
back.
"""

from __future__ import annotations

import pytest
from store_scene import Scene

from tenure.common.states import TaskState

HOUR_MS = 3_600_000
# How much longer than the test says a task can have waited by the store's clock: the test itself.
SLACK_MS = 60_000


def queued_ago(scene: Scene, task_id: str, ms: int, field: str) -> None:
    """What the field says was so much earlier."""
    scene.client.hincrby(scene.key(f"task:{task_id}"), field, -ms)


async def waited(scene: Scene) -> int:
    """For how long the task that is claimed next could have been taken."""
    (grant,) = await scene.claim("w9")
    return grant.waited_ms


async def test_a_new_task_waits_from_its_submission(scene: Scene) -> None:
    (task_id,) = await scene.submit()
    queued_ago(scene, task_id, HOUR_MS, "submitted")
    assert HOUR_MS <= await waited(scene) < HOUR_MS + SLACK_MS


@pytest.mark.parametrize("way", ["release", "fail", "expire", "requeue"])
async def test_a_task_that_is_queued_again_waits_from_then(scene: Scene, way: str) -> None:
    grant = await scene.lease()
    if way == "release":
        await scene.release(grant)
    elif way == "fail":
        await scene.fail(grant)
    elif way == "expire":
        await scene.expire_all()
    else:
        await scene.fail(grant, retryable=False)
        await scene.tasks.requeue([grant.task_id])
    queued_ago(scene, grant.task_id, HOUR_MS, "leased")
    queued_ago(scene, grant.task_id, 5000, "queued")
    assert 5000 <= await waited(scene) < 5000 + SLACK_MS


async def test_a_scheduled_task_waits_from_when_it_was_due(scene: Scene) -> None:
    await scene.submit(delay_ms=1_000_000)
    await scene.advance(1_300_000)
    assert await scene.tasks.promote(0, 100) == 1
    assert 300_000 <= await waited(scene) < 300_000 + SLACK_MS


async def test_a_task_that_an_earlier_version_queued_again_waits_from_its_last_lease_at_most(scene: Scene) -> None:
    grant = await scene.lease()
    queued_ago(scene, grant.task_id, HOUR_MS, "leased")
    queued_ago(scene, grant.task_id, 10 * HOUR_MS, "submitted")
    await scene.release(grant)
    scene.client.hdel(scene.key(f"task:{grant.task_id}"), "queued")
    assert HOUR_MS <= await waited(scene) < HOUR_MS + SLACK_MS


async def oldest(scene: Scene) -> int:
    """What the search says of its oldest task."""
    (queue,) = await scene.store.looks.queues()
    return queue.oldest_wait_ms


async def test_the_oldest_wait_is_seen_behind_tasks_that_were_handed_back(scene: Scene) -> None:
    """Those are in front again, and have waited for moments only."""
    await scene.submit(40)
    grants = await scene.claim("w1", count=20)
    _, waiting = await scene.tasks.page("s", [TaskState.QUEUED], "", 100)
    assert len(waiting) == 20
    for task_id in waiting:
        queued_ago(scene, task_id, HOUR_MS, "submitted")
    for grant in grants:
        await scene.release(grant)
    assert HOUR_MS <= await oldest(scene) < HOUR_MS + SLACK_MS


async def test_the_oldest_wait_is_of_all_priorities(scene: Scene) -> None:
    await scene.submit(3, priority=5)
    (last,) = await scene.submit(priority=-5)
    await scene.submit(2, priority=-6)
    queued_ago(scene, last, HOUR_MS, "submitted")
    assert HOUR_MS <= await oldest(scene) < HOUR_MS + SLACK_MS
