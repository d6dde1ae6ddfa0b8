"""Retention: ended tasks go by count and by age with every key they had; after a drained run nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from store_scene import Scene

from tenure.common.errors import UnknownSearch
from tenure.common.spec import Config, Requirements, TaskSpec
from tenure.common.states import TaskState
from tenure.master.store.records import RetryPolicy

FOREVER = 10**12
# What stays of a store that has been used: its clock, numbers, counters and the trimmed stream of events.
BASELINE = {"{meta}:schema", "{0}:clock", "{0}:seq", "{0}:counters", "{0}:events"}


def age(scene: Scene, task_id: str, ms: int) -> None:
    """Let a task have ended this much earlier."""
    (index,) = [key for key in scene.all_keys() if ":ended:" in key and score(scene, key, task_id) is not None]
    scene.client.zincrby(f"{scene.store.keys.prefix}:{index}", -ms, task_id)


def score(scene: Scene, index: str, task_id: str) -> float | None:
    return scene.client.zscore(f"{scene.store.keys.prefix}:{index}", task_id)


async def ended(scene: Scene, count: int) -> list[str]:
    """Succeeded tasks, the oldest first."""
    return [(await finish(scene)) for _ in range(count)]


async def finish(scene: Scene) -> str:
    grant = await scene.lease()
    await scene.complete(grant)
    return grant.task_id


async def existing(scene: Scene, task_ids: list[str]) -> list[str]:
    return sorted(await scene.tasks.show(task_ids))


class TestWhatGoes:
    async def test_by_count_the_oldest_of_each_end(self, scene: Scene) -> None:
        task_ids = await ended(scene, 5)
        for number, task_id in enumerate(task_ids):
            age(scene, task_id, 1000 - number)
        failed = await scene.lease()
        await scene.fail(failed, retryable=False)
        assert await scene.tasks.forget("s", 2, FOREVER) == 3
        assert await existing(scene, [*task_ids, failed.task_id]) == sorted([*task_ids[3:], failed.task_id])
        assert await scene.tasks.forget("s", 2, FOREVER) == 0

    async def test_by_age(self, scene: Scene) -> None:
        task_ids = await ended(scene, 3)
        age(scene, task_ids[1], 3_600_000)
        assert await scene.tasks.forget("s", 1000, 3_000_000) == 1
        assert await existing(scene, task_ids) == sorted([task_ids[0], task_ids[2]])

    async def test_never_what_has_not_ended(self, scene: Scene) -> None:
        await scene.lease()
        await scene.submit(delay_ms=1000)
        await scene.submit()
        before = scene.dump()
        assert await scene.tasks.forget("s", 0, 0) == 0
        assert scene.dump() == before

    async def test_at_most_a_hundred_in_one_step(self, scene: Scene) -> None:
        for _ in range(2):
            await scene.tasks.cancel(await scene.submit(100))
        await scene.tasks.cancel(await scene.submit(30))
        assert [await scene.tasks.forget("s", 0, FOREVER) for _ in range(4)] == [100, 100, 30, 0]

    async def test_counts_follow(self, scene: Scene) -> None:
        await ended(scene, 4)
        await scene.tasks.forget("s", 1, FOREVER)
        search = await scene.store.searches.get("s")
        assert search.counts[TaskState.SUCCEEDED] == 1
        assert await scene.violations() == []

    async def test_a_forgotten_key_is_free_again(self, scene: Scene) -> None:
        spec = scene.spec()
        (first,) = await scene.tasks.submit("s", [spec])
        await scene.tasks.cancel([first.task_id])
        await scene.tasks.forget("s", 0, FOREVER)
        (second,) = await scene.tasks.submit("s", [spec])
        assert second.created
        assert second.task_id != first.task_id

    async def test_an_event_tells(self, scene: Scene) -> None:
        (task_id,) = await ended(scene, 1)
        cursor = await scene.store.events.now()
        await scene.tasks.forget("s", 0, FOREVER)
        events = [
            event
            async for _, batch in scene.store.events.between(cursor, await scene.store.events.now())
            for event in batch
        ]
        assert [(event.task_id, event.transition, event.state) for event in events] == [
            (task_id, "forget", "SUCCEEDED")
        ]


class TestPayloads:
    """Tasks of equal content share one payload; it goes with the last of them."""

    def payloads(self, scene: Scene) -> list[str]:
        return [key for key in scene.all_keys() if ":payload:" in key]

    async def test_shared_over_searches(self, scene: Scene) -> None:
        spec = TaskSpec('{"big": "x"}', Config(1))
        (one,) = await scene.tasks.submit("s", [spec])
        (two,) = await scene.tasks.submit("t", [spec])
        (three,) = await scene.tasks.submit("t", [TaskSpec('{"big": "x"}', Config(1), key="another")])
        assert len(self.payloads(scene)) == 1
        for gone, (search, task_id) in enumerate([("s", one.task_id), ("t", three.task_id), ("t", two.task_id)]):
            assert len(self.payloads(scene)) == 1, gone
            await scene.tasks.cancel([task_id])
            await scene.tasks.forget(search, 0, FOREVER)
        assert self.payloads(scene) == []

    async def test_different_content_is_kept_apart(self, scene: Scene) -> None:
        specs = [TaskSpec("{}", Config(1), key="a"), TaskSpec("{}", Config(2), key="b"), TaskSpec("[]", key="c")]
        await scene.tasks.submit("s", specs)
        assert len(self.payloads(scene)) == 3


class TestSearches:
    async def test_an_idle_empty_search_goes_with_its_settings(self, scene: Scene) -> None:
        await scene.store.searches.put("s", {"weight": 2})
        await ended(scene, 1)
        assert await scene.tasks.forget("s", 0, FOREVER) == 1
        assert (await scene.store.searches.get("s")).weight == 2
        await scene.tasks.forget("s", 0, -1)
        with pytest.raises(UnknownSearch):
            await scene.store.searches.get("s")
        assert "s" not in [search.name for search in (await scene.store.searches.overview())[0].searches]

    async def test_one_with_open_tasks_stays(self, scene: Scene) -> None:
        await scene.submit()
        await scene.tasks.forget("s", 0, -1)
        assert (await scene.store.searches.get("s")).counts[TaskState.QUEUED] == 1

    async def test_a_forgotten_one_can_be_made_anew(self, scene: Scene) -> None:
        await scene.store.searches.put("s", {"format": "json"}, status="cancelled")
        await scene.tasks.forget("s", 0, -1)
        await scene.store.searches.put("s", {"format": "graph"})
        await scene.submit()
        assert len(await scene.claim()) == 1

    async def test_forgetting_an_unknown_one_is_no_error(self, scene: Scene) -> None:
        before = scene.dump(without=[])
        assert await scene.tasks.forget("nowhere", 0, -1) == 0
        assert scene.dump(without=[]) == before

    async def test_more_than_a_thousand_are_all_seen(self, scene: Scene) -> None:
        names = [f"search {number}" for number in range(1001)]
        await asyncio.gather(*(scene.store.searches.put(name, {}) for name in names))
        (overview,) = await scene.store.searches.overview()
        assert sorted(search.name for search in overview.searches) == sorted(names)


async def a_life(scene: Scene, search: str, tasks: int, seed: int) -> None:
    """A run with everything in it, drained to its end."""
    rng = random.Random(seed)
    await scene.store.searches.put(search, {"max_leased": 7, "priority": seed % 3})
    for _ in range(tasks):
        await scene.submit(
            search=search,
            delay_ms=rng.choice([0, 0, 50]),
            priority=rng.randint(-2, 2),
            max_losses=rng.randint(1, 3),
            requirements=Requirements(rng.randint(0, 2)),
        )
    classes = list(await scene.store.searches.requirement_classes())
    while True:
        await scene.advance(rng.choice([10, 40_000]))
        await scene.tasks.expire(0, 100)
        await scene.tasks.promote(0, 100)
        grants = await scene.claim(f"w{rng.randint(0, 3)}", 5, classes)
        for grant in grants:
            worker = (await scene.view(grant.task_id)).fields["worker"]
            await scene.renew(grant, worker, progress=json.dumps({"step": 1}))
            for step in range(rng.randint(0, 4)):
                await scene.checkpoint(grant, step, rng.random(), worker)
            match rng.randint(0, 5):
                case 0:
                    await scene.fail(grant, worker, retry=RetryPolicy(10, 100))
                case 1:
                    await scene.release(grant, worker)
                case 2:
                    await scene.tasks.cancel([grant.task_id])
                case 3:
                    pass  # the worker vanishes
                case _:
                    await scene.complete(grant, worker)
        counts = (await scene.store.searches.get(search)).counts
        if not any(counts[state] for state in (TaskState.QUEUED, TaskState.SCHEDULED, TaskState.LEASED)):
            return


async def test_after_a_drained_run_and_retention_the_store_is_as_it_was(scene: Scene) -> None:
    for seed, tasks in ((1, 5), (2, 60)):
        await a_life(scene, f"search {seed}", tasks, seed)
        assert await scene.violations() == []
        assert len(scene.all_keys()) > tasks
        assert await scene.tasks.forget(f"search {seed}", 0, -1) == tasks
        while await scene.tasks.take_discarded(0, 100):
            pass
        assert set(scene.all_keys()) == BASELINE
