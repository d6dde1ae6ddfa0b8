"""Who may write: the present holder; a late success while the task is open; nobody else. And sending twice is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from store_scene import STRANGER, Scene

from tenure.common.states import TaskState
from tenure.master.store.records import FailureKind, Grant, RenewVerdict, Verdict

Write = Callable[[Scene, Grant], Awaitable[Any]]


async def handed_over(scene: Scene, **fields: Any) -> tuple[Grant, Grant]:
    """(outdated grant of w1, present grant of w2) of one task."""
    first = await scene.lease("w1", **fields)
    await scene.expire_all()
    (second,) = await scene.claim("w2")
    assert second.task_id == first.task_id
    return first, second


class TestOutdatedToken:
    @pytest.mark.parametrize("kind", list(FailureKind))
    async def test_failure_is_refused(self, scene: Scene, kind: FailureKind) -> None:
        outdated, _ = await handed_over(scene)
        before = scene.dump()
        assert await scene.fail(outdated, kind=kind) == (Verdict.STALE, "LEASED")
        assert scene.dump() == before
        assert (await scene.counters())["stale_refused"] == 1

    async def test_release_is_refused(self, scene: Scene) -> None:
        outdated, _ = await handed_over(scene)
        before = scene.dump()
        assert await scene.release(outdated) == Verdict.STALE
        assert scene.dump() == before

    async def test_renewal_and_progress_are_refused(self, scene: Scene) -> None:
        outdated, present = await handed_over(scene)
        assert await scene.renew(present, "w2", progress='{"step": 7}') == RenewVerdict.OK
        before = scene.dump()
        assert await scene.renew(outdated, progress='{"step": 99}') == RenewVerdict.LOST
        assert scene.dump() == before

    async def test_checkpoint_is_refused(self, scene: Scene) -> None:
        outdated, _ = await handed_over(scene)
        before = scene.dump()
        assert await scene.checkpoint(outdated, 5) == (Verdict.STALE, [])
        assert scene.dump() == before

    async def test_a_holder_who_came_by_the_task_twice_can_not_use_its_first_token(self, scene: Scene) -> None:
        first = await scene.lease("w1")
        await scene.expire_all()
        (second,) = await scene.claim("w1")
        assert second.epoch == first.epoch + 1
        assert await scene.fail(first) == (Verdict.STALE, "LEASED")
        assert await scene.checkpoint(first, 5) == (Verdict.STALE, [])
        assert await scene.renew(second) == RenewVerdict.OK


class TestFirstSuccessWins:
    async def test_while_another_holds_the_task(self, scene: Scene) -> None:
        outdated, present = await handed_over(scene)
        assert await scene.complete(outdated, fitness=0.7) == Verdict.OK
        assert await scene.renew(present, "w2") == RenewVerdict.FINISHED
        assert await scene.fail(present, "w2") == (Verdict.STALE, "SUCCEEDED")
        assert await scene.release(present, "w2") == Verdict.STALE
        assert (await scene.checkpoint(present, 9, worker="w2"))[0] == Verdict.STALE
        assert await scene.complete(present, "w2", fitness=0.9) == Verdict.DUPLICATE
        view = await scene.view(outdated.task_id)
        assert view.outcome is not None
        assert view.outcome["metrics"] == {"fitness": 0.7}
        assert view.fields["worker"] == "w1"
        assert [(each.epoch, each.outcome) for each in view.attempt_records] == [(1, "expired"), (1, "success")]
        counters = await scene.counters()
        assert (counters["late_accepted"], counters["duplicates"]) == (1, 1)

    async def test_while_the_task_is_queued(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.expire_all()
        assert await scene.complete(grant) == Verdict.OK
        assert await scene.claim("w2") == []

    async def test_while_the_task_waits_for_its_backoff(self, scene: Scene) -> None:
        (task_id,) = await scene.submit(delay_ms=1000)
        late = Grant(task_id, STRANGER, 1, 1, "s", "", (await scene.view(task_id)).config, 0, 0, [])
        assert await scene.complete(late) == Verdict.OK
        assert await scene.promote_all() == 0

    async def test_while_somebody_wants_it_stopped(self, scene: Scene) -> None:
        """The work is done: throwing the result away would help nobody."""
        grant = await scene.lease()
        await scene.tasks.cancel([grant.task_id])
        assert await scene.complete(grant) == Verdict.OK
        view = await scene.view(grant.task_id)
        assert view.state == TaskState.SUCCEEDED
        assert "cancel" not in view.fields

    @pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
    async def test_after_any_end_it_is_a_duplicate(self, scene: Scene, end: str) -> None:
        outdated, present = await handed_over(scene)
        if end == "complete":
            await scene.complete(present, "w2")
        elif end == "fail":
            await scene.fail(present, "w2", retryable=False)
        else:
            await scene.tasks.cancel([present.task_id])
            await scene.release(present, "w2")
        before = scene.dump()
        assert await scene.complete(outdated) == Verdict.DUPLICATE
        assert scene.dump() == before

    async def test_the_best_of_a_search_is_the_highest_accepted_fitness(self, scene: Scene) -> None:
        for fitness in (0.5, -1.0, 0.8, 0.8, 0.3):
            await scene.complete(await scene.lease(), fitness=fitness)
        best = await scene.store.searches.get("s")
        assert best.best_fitness == 0.8
        view = await scene.view(best.best_task_id)
        assert view.outcome is not None
        assert view.outcome["metrics"] == {"fitness": 0.8}

    async def test_a_result_without_fitness_is_taken_too(self, scene: Scene) -> None:
        grant = await scene.lease()
        assert await scene.complete(grant, metrics={"loss": 1.0}, detail="d", architecture="{}") == Verdict.OK
        view = await scene.view(grant.task_id)
        assert view.outcome == {"metrics": {"loss": 1.0}, "detail": "d", "architecture": "{}"}
        assert (await scene.store.searches.get("s")).best_fitness is None


class TestLegacyPeer:
    """A peer that knows no lease tokens is told apart by its worker id."""

    async def test_its_own_result_is_taken_and_repeated(self, scene: Scene) -> None:
        grant = await scene.lease("old")
        assert await scene.complete(grant, "old", token="", epoch=0) == Verdict.OK
        before = scene.dump(without=["events"])
        assert await scene.complete(grant, "old", token="", epoch=0) == Verdict.OK
        assert scene.dump(without=["events"]) == before
        assert await scene.complete(grant, "other", token="", epoch=0) == Verdict.DUPLICATE

    async def test_its_failure_counts_once(self, scene: Scene) -> None:
        grant = await scene.lease("old")
        assert await scene.fail(grant, "old", token="") == (Verdict.OK, "QUEUED")
        assert await scene.fail(grant, "old", token="") == (Verdict.OK, "QUEUED")
        assert (await scene.view(grant.task_id)).number("attempts") == 1

    async def test_a_worker_that_does_not_hold_the_task_can_not_end_it(self, scene: Scene) -> None:
        grant = await scene.lease("old")
        before = scene.dump()
        assert await scene.fail(grant, "other", token="") == (Verdict.STALE, "LEASED")
        assert await scene.release(grant, "other", token="") == Verdict.STALE
        assert await scene.renew(grant, "other", token="") == RenewVerdict.LOST
        assert (await scene.checkpoint(grant, 1, worker="other", token=""))[0] == Verdict.STALE
        assert scene.dump() == before

    async def test_it_renews_and_hands_back(self, scene: Scene) -> None:
        grant = await scene.lease("old")
        assert await scene.renew(grant, "old", token="") == RenewVerdict.OK
        assert await scene.release(grant, "old", token="") == Verdict.OK
        assert await scene.state(grant.task_id) is TaskState.QUEUED

    async def test_it_is_not_given_back_what_it_lost(self, scene: Scene) -> None:
        """Without a token nobody can tell that the task wasn't given away and came back since."""
        grant = await scene.lease("old")
        await scene.expire_all()
        assert await scene.renew(grant, "old", token="", epoch=9) == RenewVerdict.LOST
        assert await scene.complete(grant, "old", token="", epoch=0) == Verdict.OK


# ---- sent twice -----------------------------------------------------------------------------------------------------


async def search_settings(scene: Scene, grant: Grant) -> None:
    await scene.store.searches.put("s", {"priority": 3, "weight": 2.5, "max_leased": 4, "format": "graph"})


async def paused(scene: Scene, grant: Grant) -> None:
    await scene.store.searches.put("s", {}, status="paused")


WRITES: dict[str, Write] = {
    "complete": lambda scene, grant: scene.complete(grant),
    "fail": lambda scene, grant: scene.fail(grant),
    "fail for good": lambda scene, grant: scene.fail(grant, retryable=False),
    "loss": lambda scene, grant: scene.fail(grant, kind=FailureKind.LOSS),
    "out of memory": lambda scene, grant: scene.fail(grant, kind=FailureKind.OUT_OF_MEMORY),
    "release": lambda scene, grant: scene.release(grant),
    "renew": lambda scene, grant: scene.renew(grant),
    "checkpoint": lambda scene, grant: scene.checkpoint(grant, 4),
    "cut": lambda scene, grant: scene.tasks.cut([(grant.task_id, STRANGER)], 10),
    "cancel": lambda scene, grant: scene.tasks.cancel([grant.task_id]),
    "search settings": search_settings,
    "pause": paused,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_the_second_sending_answers_the_same_and_changes_nothing(scene: Scene, write: Write) -> None:
    grant = await scene.lease()
    await scene.submit(3)
    first = await write(scene, grant)
    before = scene.dump(without=["events"])
    assert await write(scene, grant) == first
    assert scene.dump(without=["events"]) == before


@pytest.mark.parametrize("write", ["fail", "loss", "out of memory", "release"])
async def test_a_late_second_sending_does_not_touch_the_next_holder(scene: Scene, write: str) -> None:
    grant = await scene.lease()
    await WRITES[write](scene, grant)
    (successor,) = await scene.claim("w2")
    before = scene.dump(without=["events"])
    reply = await WRITES[write](scene, grant)
    assert (reply[0] if isinstance(reply, tuple) else reply) == Verdict.OK
    assert scene.dump(without=["events"]) == before
    assert await scene.renew(successor, "w2") == RenewVerdict.OK


async def test_a_second_cancel_or_requeue_answers_that_it_is_done(scene: Scene) -> None:
    (task_id,) = await scene.submit()
    assert await scene.tasks.cancel([task_id]) == {task_id: ("ok", "CANCELLED")}
    before = scene.dump()
    assert await scene.tasks.cancel([task_id]) == {task_id: ("already", "CANCELLED")}
    assert scene.dump() == before
    assert await scene.tasks.requeue([task_id]) == {task_id: ("ok", "QUEUED")}
    before = scene.dump()
    assert await scene.tasks.requeue([task_id]) == {task_id: ("already", "QUEUED")}
    assert scene.dump() == before


async def test_registering_twice_changes_nothing_but_when_it_was_seen(scene: Scene) -> None:
    first = await scene.store.workers.register("w1", "i1", {"host": "h"})
    view = (await scene.store.workers.get("w1")).fields
    assert await scene.store.workers.register("w1", "i1", {"host": "h"}) == first == ("active", "")
    assert (await scene.store.workers.get("w1")).fields == view


async def test_one_batch_may_hold_a_request_twice(scene: Scene) -> None:
    """What the pipeline puts together may be the same request, sent again while the first waits."""
    grant = await scene.lease()
    verdicts = await asyncio.gather(*(scene.complete(grant) for _ in range(5)))
    assert verdicts == [Verdict.OK] * 5
    assert len((await scene.view(grant.task_id)).attempt_records) == 1


async def test_the_same_in_one_batch_by_different_holders(scene: Scene) -> None:
    outdated, present = await handed_over(scene)
    verdicts = await asyncio.gather(scene.complete(outdated), scene.complete(present, "w2"))
    assert verdicts == [Verdict.OK, Verdict.DUPLICATE]


async def test_an_unknown_task_in_a_batch_costs_the_others_nothing(scene: Scene) -> None:
    grant = await scene.lease()
    unknown = replace(grant, task_id="0-" + "0" * 26)
    assert await asyncio.gather(scene.complete(unknown), scene.complete(grant)) == [Verdict.UNKNOWN_TASK, Verdict.OK]
