"""Ends out of memory: how often workers are told that, and slots with more memory for tasks that need it."""

from __future__ import annotations

import json

import pytest
from store_scene import Scene

from tenure.common.spec import Requirements
from tenure.master.core.matching import Capabilities, servable_classes
from tenure.master.store.records import Evidence, FailureKind, Grant, Verdict, requirement_class

GIB = 2**30
OOM = FailureKind.OUT_OF_MEMORY


async def given(scene: Scene, memory_bytes: int, gpus: int = 0, **labels: str) -> list[Grant]:
    """What a worker with such slots claims."""
    classes = await scene.store.searches.requirement_classes()
    return await scene.claim(
        count=9, classes=servable_classes(classes, Capabilities(gpus, labels, False, memory_bytes))
    )


async def test_a_grant_says_how_often_memory_ran_out(scene: Scene) -> None:
    (task_id,) = await scene.submit(max_out_of_memory=9)
    for told in range(3):
        (grant,) = await scene.claim()
        assert grant.out_of_memory == told
        assert (await scene.fail(grant, kind=OOM))[1] == "QUEUED"
    (grant,) = await scene.claim()
    await scene.fail(grant, kind=FailureKind.LOSS)
    (grant,) = await scene.claim()
    assert grant.out_of_memory == 3
    await scene.fail(grant, kind=OOM, retryable=False)
    await scene.tasks.requeue([task_id])
    (grant,) = await scene.claim()
    assert grant.out_of_memory == 0


async def test_ends_that_a_rule_has_a_budget_for_are_told_too(scene: Scene) -> None:
    (task_id,) = await scene.submit()
    rule = {"rule": "torch.*", "rule_budget": 9}
    (grant,) = await scene.claim()
    await scene.fail(grant, kind=OOM, **rule)
    (grant,) = await scene.claim()
    assert grant.out_of_memory == 1
    assert (await scene.view(task_id)).number("ooms") == 0
    await scene.fail(grant, kind=FailureKind.FAILURE, **rule)
    (grant,) = await scene.claim()
    assert grant.out_of_memory == 1
    await scene.fail(grant, kind=OOM, retryable=False, **rule)
    await scene.tasks.requeue([task_id])
    assert (await scene.claim())[0].out_of_memory == 0


async def test_required_memory_is_matched(scene: Scene) -> None:
    (small,) = await scene.submit(requirements=Requirements(memory_bytes=4 * GIB))
    (large,) = await scene.submit(requirements=Requirements(memory_bytes=40 * GIB))
    assert await given(scene, 0) == []
    assert await given(scene, 4 * GIB - 1) == []
    assert [grant.task_id for grant in await given(scene, 4 * GIB)] == [small]
    assert [grant.task_id for grant in await given(scene, 80 * GIB)] == [large]
    assert (await scene.view(large)).requirements == Requirements(memory_bytes=40 * GIB)


def test_classes_without_memory_keep_the_names_of_earlier_versions() -> None:
    assert requirement_class(Requirements()) == ("-", '{"gpus":0,"labels":{}}')
    assert requirement_class(Requirements(1))[1] == '{"gpus":1,"labels":{}}'
    assert requirement_class(Requirements(memory_bytes=1))[0] not in ("-", requirement_class(Requirements(1))[0])


@pytest.mark.parametrize("before", [Requirements(), Requirements(1, {"zone": "ü"}), Requirements(2, {}, GIB)])
async def test_a_task_that_needs_more_memory_goes_to_no_smaller_slot(scene: Scene, before: Requirements) -> None:
    (task_id,) = await scene.submit(requirements=before, max_out_of_memory=9)
    needed = 2**50 - 1

    async def claimed(memory_bytes: int) -> list[Grant]:
        return await given(scene, memory_bytes, before.gpus, **before.labels)

    (grant,) = await claimed(GIB)
    assert await scene.fail(grant, kind=OOM, memory_needed_bytes=needed) == (Verdict.OK, "QUEUED")
    assert await scene.violations() == []
    assert await claimed(needed - 1) == []
    if before.gpus:
        assert await given(scene, needed, 0) == []
    (grant,) = await claimed(needed)
    assert grant.task_id == task_id
    assert (await scene.view(task_id)).requirements == Requirements(before.gpus, before.labels, needed)
    # Less than it requires already changes nothing.
    await scene.fail(grant, kind=OOM, memory_needed_bytes=5)
    assert (await scene.view(task_id)).requirements.memory_bytes == needed
    assert await scene.violations() == []


async def test_what_nobody_requires_any_more_is_forgotten(scene: Scene) -> None:
    """A task that moves on leaves no class behind; those that need the same share one."""
    first, second = await scene.submit(2, requirements=Requirements(1))
    for grant in await given(scene, 0, 1):
        await scene.fail(grant, kind=OOM, memory_needed_bytes=7 * GIB)
    assert list((await scene.store.searches.requirement_classes()).values()) == [Requirements(1, {}, 7 * GIB)]
    one, other = (await scene.view(first)), (await scene.view(second))
    assert one.fields["class"] == other.fields["class"]
    for grant in await given(scene, 7 * GIB, 1):
        await scene.complete(grant)
    await scene.tasks.forget("s", 0, 10**12)
    assert await scene.store.searches.requirement_classes() == {}
    assert await scene.violations() == []


async def test_one_class_too_many_is_not_made(scene: Scene) -> None:
    await scene.submit(requirements=Requirements())
    for gpus in range(1, 64):
        await scene.submit(requirements=Requirements(gpus))
    await scene.submit()
    (grant, *_) = await scene.claim()
    assert await scene.fail(grant, kind=OOM, memory_needed_bytes=GIB) == (Verdict.OK, "QUEUED")
    assert (await scene.view(grant.task_id)).requirements == Requirements()
    assert await scene.violations() == []


async def test_the_record_tells_what_is_known_of_memory(scene: Scene) -> None:
    grant = await scene.lease()
    memory = {"estimated_bytes": 3 * GIB, "limit_bytes": 2 * GIB, "micro_batches": 4}
    await scene.fail(grant, kind=OOM, evidence=Evidence(error_class="DoesNotFit", memory=memory))
    (record,) = (await scene.view(grant.task_id)).attempt_records
    assert record.evidence.memory == memory


async def test_records_of_a_newer_version_can_be_read(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.fail(grant)
    key = scene.key(f"attempts:{grant.task_id}")
    record = json.loads(scene.client.lpop(key))
    record[-1] = json.dumps({"error_class": "ValueError", "weather": "rain"})
    scene.client.rpush(key, json.dumps(record))
    (shown,) = (await scene.view(grant.task_id)).attempt_records
    assert shown.evidence == Evidence(error_class="ValueError")
