"""A checkpoint exists once it is registered; the broker alone decides which are kept: the last two and the best."""

from __future__ import annotations

import math

import pytest
from store_scene import Scene, release, success

from tenure.master.store.records import FailureKind, Grant, Verdict


async def kept(scene: Scene, grant: Grant) -> list[int]:
    """Steps of the registered checkpoints, newest first, as the next holder gets them."""
    await scene.release(grant)
    (successor,) = await scene.claim("w2")
    assert successor.task_id == grant.task_id
    return [each.step for each in successor.checkpoints]


def url(grant: Grant, step: int) -> str:
    return f"file:///c/{grant.task_id}/{step}"


async def test_a_claim_brings_them_newest_first_and_counts_a_resume(scene: Scene) -> None:
    grant = await scene.lease()
    assert grant.checkpoints == []
    await scene.checkpoint(grant, 1, score=0.5, digest="ab", size_bytes=7)
    await scene.checkpoint(grant, 2)
    await scene.release(grant)
    (successor,) = await scene.claim("w2")
    newest, older = successor.checkpoints
    assert (newest.step, newest.score, newest.epoch) == (2, None, 1)
    assert (older.url, older.digest, older.size_bytes, older.score) == (url(grant, 1), "ab", 7, 0.5)
    view = await scene.view(grant.task_id)
    assert view.number("resumes") == 1
    assert view.checkpoint == newest
    assert (await scene.counters())["checkpoints"] == 2


async def test_a_task_without_one_is_not_resumed(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.release(grant)
    await scene.claim("w2")
    assert (await scene.view(grant.task_id)).number("resumes") == 0


@pytest.mark.parametrize(
    ("scores", "left", "deleted"),
    [
        ([None] * 4, [4, 3], {3: [1], 4: [2]}),
        ([0.1, 0.2, 0.3, 0.4], [4, 3], {3: [1], 4: [2]}),
        ([0.9, 0.2, 0.3, 0.4], [4, 3, 1], {4: [2]}),
        ([0.1, 0.9, 0.3, 0.4, 0.5], [5, 4, 2], {3: [1], 5: [3]}),
        ([0.5, 0.5, 0.5, 0.5], [4, 3], {3: [1], 4: [2]}),
        ([None, 0.1, None, None], [4, 3, 2], {3: [1]}),
        ([-5.0, None, None, None], [4, 3, 1], {4: [2]}),
    ],
    ids=["no scores", "rising", "first is best", "second is best", "equal", "one score", "a bad score beats none"],
)
async def test_the_last_two_and_the_best_stay(
    scene: Scene, scores: list[float | None], left: list[int], deleted: dict[int, list[int]]
) -> None:
    grant = await scene.lease()
    for step, score in enumerate(scores, start=1):
        verdict, urls = await scene.checkpoint(grant, step, score)
        assert (verdict, urls) == (Verdict.OK, [url(grant, gone) for gone in deleted.get(step, [])])
    assert await kept(scene, grant) == left


async def test_a_former_best_goes_when_a_better_one_comes(scene: Scene) -> None:
    grant = await scene.lease()
    for step, score in enumerate((0.8, 0.1, 0.2, 0.3), start=1):
        await scene.checkpoint(grant, step, score)
    assert await scene.checkpoint(grant, 5, 0.9) == (Verdict.OK, [url(grant, 3), url(grant, 1)])
    assert await kept(scene, grant) == [5, 4]


async def test_a_score_that_is_no_number_is_worth_nothing(scene: Scene) -> None:
    grant = await scene.lease()
    for step, score in enumerate((math.nan, 0.5, -math.inf, math.nan, 0.1), start=1):
        assert (await scene.checkpoint(grant, step, score))[0] == Verdict.OK
    assert await kept(scene, grant) == [5, 4, 2]


async def test_registering_again_answers_ok_and_moves_nothing(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.checkpoint(grant, 1, 0.1)
    await scene.checkpoint(grant, 2, 0.2)
    before = scene.dump(without=["events"])
    assert await scene.checkpoint(grant, 1, 0.1) == (Verdict.OK, [])
    assert scene.dump(without=["events"]) == before


async def test_a_retired_one_that_is_announced_again_stays_retired(scene: Scene) -> None:
    """After a broken stream a worker announces again whatever it got no verdict on, in order: what is retired by then
    must not come back as the newest, nor push out those whose files are there."""
    grant = await scene.lease()
    for step in (1, 2, 3, 4):
        await scene.checkpoint(grant, step)
    before = scene.dump(without=["events"])
    for step in (1, 2, 3, 4):
        verdict, urls = await scene.checkpoint(grant, step)
        assert verdict == Verdict.OK
        # Told once more, should the first answer not have arrived; never one that is kept.
        assert set(urls) == {url(grant, 1), url(grant, 2)}
    assert scene.dump(without=["events"]) == before
    assert await kept(scene, grant) == [4, 3]


async def test_steps_may_begin_anew(scene: Scene) -> None:
    """Which is newest is told by the order of registration: a training in stages counts its steps from 0 again."""
    grant = await scene.lease()
    for step in (10, 20, 1, 2):
        await scene.checkpoint(grant, step)
    assert await kept(scene, grant) == [2, 1]


async def test_only_the_holder_registers(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.release(grant)
    assert await scene.checkpoint(grant, 1) == (Verdict.STALE, [])
    await scene.claim("w2")
    assert await scene.checkpoint(grant, 1) == (Verdict.STALE, [])
    assert await scene.checkpoint(grant, 1, worker="w2", token="") == (Verdict.OK, [])


class TestDeletion:
    """When a task needs none any more, whoever ends it is told what to delete; else any worker is asked later."""

    async def saved(self, scene: Scene, *steps: int) -> Grant:
        grant = await scene.lease()
        for step in steps:
            await scene.checkpoint(grant, step, score=-step)
        return grant

    def keys(self, scene: Scene) -> list[str]:
        return [name for name in scene.all_keys() if "checkpoints" in name or "retired" in name]

    async def test_success(self, scene: Scene) -> None:
        grant = await self.saved(scene, 1, 2, 3, 4)
        told = (Verdict.OK, [url(grant, step) for step in (4, 3, 1)])
        assert await scene.tasks.complete(success(grant)) == told
        # The answer may have been lost, and with it the only mention of these files.
        assert await scene.tasks.complete(success(grant)) == told
        assert await scene.tasks.complete(success(grant, token="another")) == (Verdict.DUPLICATE, [])
        assert await scene.tasks.take_discarded(0, 10) == []
        self.only_for_an_hour(scene, grant)

    async def test_cancelled_by_its_holder(self, scene: Scene) -> None:
        grant = await self.saved(scene, 1, 2)
        await scene.tasks.cancel([grant.task_id])
        for _ in range(2):
            assert await scene.tasks.release(release(grant)) == (Verdict.OK, [url(grant, 2), url(grant, 1)])
        self.only_for_an_hour(scene, grant)

    async def test_a_release_sent_again_names_none(self, scene: Scene) -> None:
        grant = await self.saved(scene, 1, 2, 3, 4)
        for _ in range(2):
            assert await scene.tasks.release(release(grant)) == (Verdict.OK, [])

    async def test_without_checkpoints_nothing_is_left(self, scene: Scene) -> None:
        grant = await scene.lease()
        assert await scene.tasks.complete(success(grant)) == (Verdict.OK, [])
        assert self.keys(scene) == []

    def only_for_an_hour(self, scene: Scene, grant: Grant) -> None:
        assert self.keys(scene) == [f"{{0}}:retired:{grant.task_id}"]
        assert 0 < scene.client.ttl(scene.key(f"retired:{grant.task_id}")) <= 3600

    @pytest.mark.parametrize("end", ["cancel", "cancelled failure", "cancelled expiry", "forget"])
    async def test_where_no_worker_is_at_the_other_end(self, scene: Scene, end: str) -> None:
        grant = await self.saved(scene, 1, 2, 3)
        if end == "cancel":
            await scene.release(grant)
            await scene.tasks.cancel([grant.task_id])
        elif end == "forget":
            await scene.fail(grant, retryable=False)
            await scene.tasks.forget("s", 0, 0)
        else:
            await scene.tasks.cancel([grant.task_id])
            await (scene.fail(grant) if end == "cancelled failure" else scene.expire_all())
        assert self.keys(scene) == []
        assert await scene.tasks.take_discarded(0, 2) == [url(grant, 3), url(grant, 2)]
        assert await scene.tasks.take_discarded(0, 2) == [url(grant, 1)]
        assert await scene.tasks.take_discarded(0, 2) == []
        assert "{0}:discarded" not in scene.all_keys()

    @pytest.mark.parametrize("kind", list(FailureKind))
    async def test_a_dead_letter_keeps_its_own_for_a_requeue(self, scene: Scene, kind: FailureKind) -> None:
        grant = await self.saved(scene, 1, 2)
        await scene.fail(grant, kind=kind, retryable=False)
        await scene.tasks.requeue([grant.task_id])
        (successor,) = await scene.claim("w2")
        assert [each.step for each in successor.checkpoints] == [2, 1]
