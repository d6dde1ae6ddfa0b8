"""Code in the store: uploads in pieces, whole or not there, kept as long as it is named."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
from store_scene import Scene

from tenure.common.errors import InvalidCode, UnknownCode
from tenure.common.spec import Requirements
from tenure.master.core.matching import Capabilities, servable_classes
from tenure.master.store.code import CodeState
from tenure.master.store.records import ACCEPTS_CODE_LABEL

ARCHIVE = random.Random(7).randbytes(3_000)
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()
NAMED = {"evaluator": "m:f", "code": DIGEST}
FOR_EVER_MS = 10**12


async def put(
    scene: Scene, archive: bytes = ARCHIVE, piece: int = 1_000, digest: str = "", search: str = ""
) -> CodeState:
    digest, state = digest or hashlib.sha256(archive).hexdigest(), CodeState(False, 0)
    while not state.whole:
        offset = state.received_bytes
        state = await scene.store.code.put(
            search or scene.search, digest, len(archive), offset, archive[offset : offset + piece]
        )
    return state


async def read(scene: Scene, digest: str = DIGEST) -> bytes:
    found = b""
    while True:
        size, piece = await scene.store.code.read(scene.search, digest, len(found))
        found += piece
        if len(found) >= size:
            return found


async def test_it_comes_in_pieces_and_is_there_when_whole(scene: Scene) -> None:
    code = scene.store.code
    assert await code.put("s", DIGEST, 3_000, 0, ARCHIVE[:1_000]) == CodeState(False, 1_000)
    assert await code.state("s", DIGEST) == CodeState(False, 1_000)
    with pytest.raises(UnknownCode):
        await code.read("s", DIGEST, 0)
    # Sent twice, and from where another one stopped: nothing changes, and the answer says where to go on.
    for offset in (0, 500, 2_000):
        assert await code.put("s", DIGEST, 3_000, offset, b"x" * 10) == CodeState(False, 1_000)
    assert await put(scene) == CodeState(True, 3_000)
    assert await read(scene) == ARCHIVE
    assert await code.put("s", DIGEST, 3_000, 0, b"y") == CodeState(True, 3_000)
    assert await scene.violations() == []


async def test_two_who_upload_the_same_at_once(scene: Scene) -> None:
    archive = random.Random(8).randbytes(400_000)
    states = await asyncio.gather(*(put(scene, archive, piece) for piece in (10_000, 7_001, 31_337)))
    assert set(states) == {CodeState(True, 400_000)}
    assert await read(scene, hashlib.sha256(archive).hexdigest()) == archive


async def test_what_has_another_digest_is_dropped(scene: Scene) -> None:
    with pytest.raises(InvalidCode, match="another digest"):
        await put(scene, ARCHIVE[:-1] + b"?", digest=DIGEST)
    assert await scene.store.code.state("s", DIGEST) == CodeState(False, 0)
    with pytest.raises(InvalidCode, match="longer"):
        await scene.store.code.put("s", DIGEST, 10, 0, b"x" * 11)
    assert (await put(scene)).whole


async def test_an_upload_that_nobody_goes_on_with_runs_out(scene: Scene) -> None:
    await scene.store.code.put("s", DIGEST, 3_000, 0, ARCHIVE[:1_000])
    assert 0 < scene.client.ttl(scene.key(f"code-part:{DIGEST}")) <= 3_600
    await put(scene)
    assert scene.client.ttl(scene.key(f"code:{DIGEST}")) == -1


async def test_tasks_and_searches_need_code_that_is_there(scene: Scene) -> None:
    with pytest.raises(UnknownCode):
        await scene.submit(**NAMED)
    with pytest.raises(UnknownCode):
        await scene.store.searches.put("s", dict(NAMED))
    assert scene.client.keys(scene.key("task:*")) == []
    await put(scene)
    await scene.store.searches.put("s", dict(NAMED))
    (task_id,) = await scene.submit(key="once", **NAMED)
    # The store came back without it: whoever submits the task again hears of that, too.
    scene.client.delete(scene.key(f"code:{DIGEST}"))
    assert await scene.violations() == [f"task {task_id} of search s: names code that is not kept"]
    with pytest.raises(UnknownCode):
        await scene.submit(key="once", **NAMED)
    await put(scene)
    assert await scene.submit(key="once", **NAMED) == [task_id]
    assert await scene.violations() == []


async def test_a_grant_names_it_and_so_does_the_record(scene: Scene) -> None:
    await put(scene)
    (task_id,) = await scene.submit(requirements=Requirements(0, {"zone": "a"}), **NAMED)
    assert await scene.claim() == []
    classes = await scene.store.searches.requirement_classes()
    assert servable_classes(classes, Capabilities(0, {"zone": "a"})) == ()
    # Nor by a master that knows labels only, whatever label a worker has; one with "=" in its name none can have.
    assert servable_classes(classes, Capabilities(0, {"zone": "a", ACCEPTS_CODE_LABEL: "1"})) == ()
    (name,) = servable_classes(classes, Capabilities(0, {"zone": "a"}, accepts_code=True))
    (grant,) = await scene.claim(classes=[name])
    assert (grant.task_id, grant.evaluator, grant.code, dict(grant.config.extra)) == (task_id, "m:f", DIGEST, {})
    view = await scene.view(task_id)
    assert (view.evaluator, view.code, view.requirements) == ("m:f", DIGEST, Requirements(0, {"zone": "a"}))
    # Handed back and given out again: the same code.
    await scene.release(grant)
    (again,) = await scene.claim(classes=[name])
    assert (again.evaluator, again.code) == ("m:f", DIGEST)


async def test_other_code_is_another_task(scene: Scene) -> None:
    other = b"other" + ARCHIVE
    await put(scene)
    await put(scene, other)
    programs = [{}, NAMED, {**NAMED, "evaluator": "m:g"}, {**NAMED, "code": hashlib.sha256(other).hexdigest()}]
    ids = [await scene.submit(architecture="{}", key="", **program) for program in programs]
    assert len({task_id for (task_id,) in ids}) == 4
    assert await scene.submit(architecture="{}", key="", **NAMED) == ids[1]
    assert await scene.violations() == []


async def test_it_is_kept_while_a_task_or_a_search_names_it(scene: Scene) -> None:
    await put(scene)
    await scene.store.searches.put("s", dict(NAMED))
    await scene.submit(**NAMED)
    assert await scene.store.code.forget(0, 0) == 0
    await scene.store.searches.put("s", {"evaluator": "", "code": ""})
    assert await scene.store.code.forget(0, 0) == 0
    (grant,) = await scene.claim(classes=list(await scene.store.searches.requirement_classes()))
    await scene.complete(grant)
    assert await scene.store.code.forget(0, 0) == 0
    assert await scene.tasks.forget("s", 0, FOR_EVER_MS) == 1
    # The last one that named it is gone just now.
    assert await scene.store.code.forget(0, FOR_EVER_MS) == 0
    assert await scene.store.code.forget(0, 0) == 1
    assert [key.decode() for key in scene.client.keys(scene.key("code*"))] == []
    assert await scene.violations() == []


async def test_what_was_never_named_goes_after_a_while(scene: Scene) -> None:
    await put(scene)
    assert await scene.store.code.forget(0, FOR_EVER_MS) == 0
    assert await scene.store.code.forget(0, 0) == 1
    with pytest.raises(UnknownCode):
        await read(scene)


async def test_fsck_counts_who_names_it(scene: Scene) -> None:
    await put(scene)
    await scene.submit(3, **NAMED)
    scene.client.hincrby(scene.key("code-tasks"), DIGEST, 2)
    told = await scene.violations()
    scene.client.hincrby(scene.key("code-tasks"), DIGEST, -2)
    assert told == [f"code {DIGEST}: 2 fewer tasks have it than counted"]
