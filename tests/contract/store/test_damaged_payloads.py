"""What a worker needs of a task can't be read any more: a disk's damage, or somebody who wrote to the store."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest
from store_scene import Scene

from tenure.common.spec import TaskSpec
from tenure.master.rpc.messages import task_message
from tenure.master.store.payload import DamagedPayload, decode_payload, encode_payload
from tenure.master.store.records import DEFAULT_CLASS, ClaimRequest, Lease


@pytest.mark.parametrize("damaged", [b"no payload", b"", None], ids=["overwritten", "emptied", "lost"])
async def test_such_a_task_is_left_out_of_a_claim_and_named(scene: Scene, damaged: bytes | None) -> None:
    (bad,) = await scene.submit()
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
        f"payload {digest.decode()}: is damaged; submit again what it belongs to: {bad}"
        if damaged is not None
        else f"task {bad} of search s: has no payload"
    )
    assert await scene.store.fsck.run() == (2, [said])
    shown = task_message(await scene.view(bad))
    assert shown.architecture == ""
    assert (shown.failure.error_class, shown.failure.retryable) == ("PayloadDamaged", False)
    assert not task_message(await scene.view(good)).HasField("failure")
    granted = await scene.tasks.claim(ClaimRequest("w1", ["1" * 32, "2" * 32], [DEFAULT_CLASS]))
    assert [grant.task_id for grant in granted] == [good]
    assert granted.damaged == (Lease(bad, "1" * 32, "w1", ""),)
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


@pytest.mark.parametrize(
    "content",
    [b"null", b"[]", b"{}", b'["graph", 1, 2, 3, "mnist", null]', b'["graph", 1, 2, 3, "mnist", {"": 1}]', b"\xff"],
)
def test_what_can_be_read_and_is_no_payload_is_damaged(content: bytes) -> None:
    with pytest.raises(DamagedPayload):
        decode_payload(zlib.compress(content))


async def test_fsck_names_some_of_many_tasks(scene: Scene) -> None:
    specs = [TaskSpec(architecture="{}", key=f"k{number}") for number in range(5)]
    ids = [each.task_id for each in await scene.tasks.submit("s", specs)]
    digest = scene.client.hget(scene.key(f"task:{ids[0]}"), "payload")
    assert digest is not None
    payload = scene.key(f"payload:{digest.decode()}")
    whole = scene.client.get(payload)
    assert whole is not None
    # It can be read, and is another's.
    scene.client.set(payload, encode_payload(TaskSpec(architecture="[]"))[1])
    ((violation,)) = (await scene.store.fsck.run())[1]
    named = f"submit again what it belongs to: {', '.join(ids[:3])} and 2 more"
    assert violation == f"payload {digest.decode()}: is damaged; {named}"
    scene.client.set(payload, whole)
