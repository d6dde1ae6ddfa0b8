"""What people look at: ended tasks by time, the pace of a search, leases that end soon, the last events."""

from __future__ import annotations

import json

from store_scene import Scene

from tenure.common.spec import Requirements
from tenure.common.states import TaskState

FAR_UNIX_MS = 10**15


async def finished(scene: Scene, count: int) -> list[str]:
    """Tasks that succeeded with fitness 0, 1, …, the oldest first, each a millisecond after the one before."""
    task_ids = []
    for number in range(count):
        grant = await scene.lease()
        await scene.complete(grant, fitness=float(number))
        index = f"{scene.store.keys.prefix}:{{0}}:ended:s:SUCCEEDED"
        scene.client.zadd(index, {grant.task_id: 1000 + number})
        task_ids.append(grant.task_id)
    return task_ids


async def test_ended_tasks_come_in_the_order_of_their_ends(scene: Scene) -> None:
    task_ids = await finished(scene, 3)
    rows = await scene.store.looks.ended("s", TaskState.SUCCEEDED, start_unix_ms=0, skip=0, count=10)
    assert [(row.task_id, row.ended_unix_ms, row.fitness) for row in rows] == [
        (task_id, 1000 + number, float(number)) for number, task_id in enumerate(task_ids)
    ]


async def test_a_page_goes_on_within_a_millisecond(scene: Scene) -> None:
    task_ids = await finished(scene, 4)
    index = f"{scene.store.keys.prefix}:{{0}}:ended:s:SUCCEEDED"
    scene.client.zadd(index, dict.fromkeys(task_ids, 1000))
    seen: list[str] = []
    while rows := await scene.store.looks.ended("s", TaskState.SUCCEEDED, start_unix_ms=1000, skip=len(seen), count=3):
        seen += [row.task_id for row in rows]
    assert sorted(seen) == sorted(task_ids)


async def test_backwards_the_newest_come_first(scene: Scene) -> None:
    task_ids = await finished(scene, 3)
    rows = await scene.store.looks.ended(
        "s", TaskState.SUCCEEDED, start_unix_ms=FAR_UNIX_MS, skip=0, count=2, backwards=True
    )
    assert [row.task_id for row in rows] == task_ids[:0:-1]


async def test_a_long_outcome_is_read_all_the_same(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.complete(grant, fitness=0.25, detail="x" * 60_000)
    (row,) = await scene.store.looks.ended("s", TaskState.SUCCEEDED, start_unix_ms=0, skip=0, count=10)
    assert row.fitness == 0.25


async def test_a_result_without_fitness_has_none(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.complete(grant, metrics={"accuracy": 0.5}, detail=json.dumps({"fitness": 9}))
    (row,) = await scene.store.looks.ended("s", TaskState.SUCCEEDED, start_unix_ms=0, skip=0, count=10)
    assert row.fitness is None


async def test_failures_are_listed_by_their_own_state(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.fail(grant, retryable=False)
    looks = scene.store.looks
    (row,) = await looks.ended("s", TaskState.FAILED, start_unix_ms=0, skip=0, count=10)
    assert (row.task_id, row.fitness) == (grant.task_id, None)
    assert await looks.ended("s", TaskState.SUCCEEDED, start_unix_ms=0, skip=0, count=10) == []
    assert await looks.ended("unheard of", TaskState.FAILED, start_unix_ms=0, skip=0, count=10) == []


async def test_the_pace_counts_what_ended_within_each_window(scene: Scene) -> None:
    await finished(scene, 2)  # long ago
    await scene.complete(await scene.lease())
    await scene.fail(await scene.lease(), retryable=False)
    assert await scene.store.looks.pace("s", [60_000, FAR_UNIX_MS]) == [2, 4]
    assert await scene.store.looks.pace("unheard of", [60_000]) == [0]


async def test_the_leases_with_the_least_time_come_first_and_are_counted(scene: Scene) -> None:
    grants = [await scene.lease() for _ in range(3)]
    await scene.tasks.cut([(grants[1].task_id, grants[1].token)], 10)
    total, task_ids = await scene.store.looks.expiring(2)
    assert (total, len(task_ids), task_ids[0]) == (3, 2, grants[1].task_id)


async def test_the_last_events_come_newest_first(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.complete(grant)
    events = await scene.store.events.latest(2)
    assert [event.transition for event in events] == ["complete", "claim"]
    assert {event.task_id for event in events} == {grant.task_id}


async def test_queues_are_told_by_search_and_requirements_with_their_oldest(scene: Scene) -> None:
    old, _ = await scene.submit(2, priority=-3)
    await scene.submit(priority=5)
    await scene.submit(search="other", requirements=Requirements(gpus=2))
    submitted = int(scene.client.hget(f"{scene.store.keys.prefix}:{{0}}:task:{old}", "submitted") or 0)
    scene.client.hset(f"{scene.store.keys.prefix}:{{0}}:task:{old}", "submitted", submitted - 3_600_000)
    classes = await scene.store.searches.requirement_classes()
    queues = {each.search: each for each in await scene.store.looks.queues()}
    assert {name: queue.tasks for name, queue in queues.items()} == {"s": 3, "other": 1}
    assert classes[queues["other"].requirement_class] == Requirements(gpus=2)
    assert classes[queues["s"].requirement_class] == Requirements()
    assert 3_600_000 <= queues["s"].oldest_wait_ms < 3_700_000
    assert queues["other"].oldest_wait_ms < 600_000


async def test_what_does_not_wait_is_in_no_queue(scene: Scene) -> None:
    await scene.lease()
    assert await scene.store.looks.queues() == []
