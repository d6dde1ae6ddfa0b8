"""What is kept of a task's end can't be read any more: it is named, hides nothing else, and can be made anew."""

from __future__ import annotations

import pytest
from store_scene import Scene

from tenure.common.states import TaskState
from tenure.master.rpc.messages import task_message

JUNK = [b"junk", b"", b'{"metrics": {"fitn', b"\xff\xfe", b"3", b"null", b"[]"]


@pytest.mark.parametrize("junk", JUNK)
async def test_a_result(scene: Scene, junk: bytes) -> None:
    grant = await scene.lease()
    await scene.complete(grant)
    other = await scene.lease()
    await scene.complete(other)
    scene.client.set(scene.key(f"outcome:{grant.task_id}"), junk)
    said = f"task {grant.task_id} of search s: has a result that can't be read; requeue it"
    assert await scene.store.fsck.run() == (2, [said])
    views = await scene.tasks.show([grant.task_id, other.task_id], full=True)
    shown = {task_id: task_message(view) for task_id, view in views.items()}
    assert shown[grant.task_id].failure.error_class == "ResultDamaged"
    assert not shown[grant.task_id].metrics
    assert shown[other.task_id].metrics
    assert not shown[other.task_id].HasField("failure")

    answers = await scene.tasks.requeue([grant.task_id, other.task_id])
    assert [answers[each.task_id][0] for each in (grant, other)] == ["ok", "wrong_state"]
    (again,) = await scene.claim()
    assert (again.task_id, again.epoch) == (grant.task_id, 2)
    await scene.complete(again)
    assert (await scene.view(grant.task_id)).state is TaskState.SUCCEEDED
    assert (await scene.store.fsck.run())[1] == []


@pytest.mark.parametrize("junk", [each for each in JUNK if each != b"[]"])
async def test_an_attempt_record(scene: Scene, junk: bytes) -> None:
    grant = await scene.lease()
    await scene.complete(grant)
    scene.client.rpush(scene.key(f"attempts:{grant.task_id}"), junk)
    said = f"task {grant.task_id} of search s: has an attempt record that can't be read"
    assert await scene.store.fsck.run() == (1, [said])
    view = await scene.view(grant.task_id)
    assert [record.outcome for record in view.attempt_records] == ["success", "damaged"]
    assert task_message(view).metrics
    scene.client.rpop(scene.key(f"attempts:{grant.task_id}"))


@pytest.mark.parametrize("junk", [b'[null, null, null, null, null, "{}"]', b'[1, "w", "success", 1, 2, 3]', b"[]"])
async def test_an_attempt_record_of_another_form_hides_nothing_else(scene: Scene, junk: bytes) -> None:
    grant = await scene.lease()
    await scene.complete(grant)
    scene.client.rpush(scene.key(f"attempts:{grant.task_id}"), junk)
    view = await scene.view(grant.task_id)
    assert [record.outcome for record in view.attempt_records] == ["success", "damaged"]


@pytest.mark.parametrize("field", ["attempts", "losses"])
async def test_a_number(scene: Scene, field: str) -> None:
    (task_id,) = await scene.submit()
    scene.client.hset(scene.key(f"task:{task_id}"), field, "many")
    said = f"task {task_id} of search s: has no number of {field}"
    assert await scene.store.fsck.run() == (1, [said])
    assert getattr(task_message(await scene.view(task_id)), field) == 0
    scene.client.hset(scene.key(f"task:{task_id}"), field, "0")
