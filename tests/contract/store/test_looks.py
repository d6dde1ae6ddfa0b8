"""What people look at: ended tasks by time, the pace of a search, leases that end soon, the last events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from store_scene import Scene

from tenure.common.spec import Requirements
from tenure.common.states import TaskState
from tenure.master.store.looks import Piece

FAR_UNIX_MS = 10**15
# See ended.lua.
BYTES_MAX = 262_144


async def read(scene: Scene, search: str = "s", state: TaskState = TaskState.SUCCEEDED, **changed: Any) -> Piece:
    """Those that ended, from the first on, with their fitness."""
    asked = {"start_unix_ms": 0, "skip": 0, "count": 10, "with_fitness": True, **changed}
    return await scene.store.looks.ended(search, state, **asked)


async def finished(scene: Scene, count: int, **changed: Any) -> list[str]:
    """Tasks that succeeded with fitness 0, 1, …, the oldest first, each a millisecond after the one before."""
    task_ids = []
    for number in range(count):
        grant = await scene.lease()
        await scene.complete(grant, fitness=float(number), **changed)
        index = f"{scene.store.keys.prefix}:{{0}}:ended:s:SUCCEEDED"
        scene.client.zadd(index, {grant.task_id: 1000 + number})
        task_ids.append(grant.task_id)
    return task_ids


async def test_ended_tasks_come_in_the_order_of_their_ends(scene: Scene) -> None:
    task_ids = await finished(scene, 3)
    rows, more = await read(scene)
    assert not more
    assert [(row.task_id, row.ended_unix_ms, row.fitness) for row in rows] == [
        (task_id, 1000 + number, float(number)) for number, task_id in enumerate(task_ids)
    ]


async def test_a_page_goes_on_within_a_millisecond(scene: Scene) -> None:
    task_ids = await finished(scene, 4)
    index = f"{scene.store.keys.prefix}:{{0}}:ended:s:SUCCEEDED"
    scene.client.zadd(index, dict.fromkeys(task_ids, 1000))
    first = await read(scene, start_unix_ms=1000, count=3)
    second = await read(scene, start_unix_ms=1000, skip=3, count=3)
    assert (len(first.rows), first.more, len(second.rows), second.more) == (3, True, 1, False)
    assert sorted(row.task_id for row in first.rows + second.rows) == sorted(task_ids)


async def test_backwards_the_newest_come_first(scene: Scene) -> None:
    task_ids = await finished(scene, 3)
    rows, more = await read(scene, start_unix_ms=FAR_UNIX_MS, count=2, backwards=True)
    assert ([row.task_id for row in rows], more) == (task_ids[:0:-1], True)


async def test_a_long_outcome_is_read_all_the_same(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.complete(grant, fitness=0.25, detail="x" * 60_000)
    ((row,), _) = await read(scene)
    assert row.fitness == 0.25


@pytest.mark.parametrize("size", [30_000, 60_000], ids=["read by the script", "left to the caller"])
@pytest.mark.parametrize("apart_ms", [0, 1], ids=["of one millisecond", "one after another"])
async def test_of_long_outcomes_fewer_come_at_once_and_none_is_skipped_or_doubled(
    scene: Scene, size: int, apart_ms: int
) -> None:
    """The store does nothing else while a script reads: however long the outcomes are, it reads only so much."""
    task_ids = await finished(scene, 20, detail="x" * size)
    index = scene.key("ended:s:SUCCEEDED")
    scene.client.zadd(index, {task_id: 1000 + apart_ms * number for number, task_id in enumerate(task_ids)})
    seen: dict[str, float | None] = {}
    start, skip, more = 0, 0, True
    while more:
        rows, more = await read(scene, start_unix_ms=start, skip=skip, count=250)
        assert 0 < len(rows) <= BYTES_MAX // size
        assert not seen.keys() & {row.task_id for row in rows}
        seen |= {row.task_id: row.fitness for row in rows}
        same = sum(row.ended_unix_ms == rows[-1].ended_unix_ms for row in rows)
        start, skip = rows[-1].ended_unix_ms, same + (skip if rows[-1].ended_unix_ms == start else 0)
    assert seen == {task_id: float(number) for number, task_id in enumerate(task_ids)}


async def test_an_outcome_longer_than_a_whole_call_may_read_stops_nobody(scene: Scene) -> None:
    task_ids = await finished(scene, 3)
    huge = {"metrics": {"fitness": 7.0}, "detail": "x" * BYTES_MAX}
    scene.client.set(scene.key(f"outcome:{task_ids[1]}"), json.dumps(huge))
    pieces = [await read(scene, start_unix_ms=1000 + number) for number in range(3)]
    assert [[row.fitness for row in piece.rows] for piece in pieces] == [[0.0], [7.0], [2.0]]
    assert [piece.more for piece in pieces] == [True, True, False]


async def test_whoever_asks_for_no_fitness_has_them_all_at_once(scene: Scene) -> None:
    task_ids = await finished(scene, 20, detail="x" * 30_000)
    rows, more = await read(scene, count=250, with_fitness=False)
    assert ([row.task_id for row in rows], more) == (task_ids, False)
    assert {row.fitness for row in rows} == {None}


async def test_a_result_without_fitness_has_none(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.complete(grant, metrics={"accuracy": 0.5}, detail=json.dumps({"fitness": 9}))
    ((row,), _) = await read(scene)
    assert row.fitness is None


async def test_failures_are_listed_by_their_own_state(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.fail(grant, retryable=False)
    ((row,), _) = await read(scene, "s", TaskState.FAILED)
    assert (row.task_id, row.fitness) == (grant.task_id, None)
    assert await read(scene) == ([], False)
    assert await read(scene, "unheard of", TaskState.FAILED) == ([], False)


async def test_the_pace_counts_what_ended_within_each_window(scene: Scene) -> None:
    await finished(scene, 2)  # long ago
    await scene.complete(await scene.lease())
    await scene.fail(await scene.lease(), retryable=False)
    assert (await scene.store.looks.pace("s", [60_000, FAR_UNIX_MS])).ended == [2, 4]
    assert (await scene.store.looks.pace("unheard of", [60_000])).ended == [0]


async def test_the_pace_is_told_with_the_stores_time(scene: Scene) -> None:
    before, _ = scene.client.time()
    unix_ms, _ = await scene.store.looks.pace("s", [])
    after, _ = scene.client.time()
    assert before * 1000 <= unix_ms < (after + 1) * 1000


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
