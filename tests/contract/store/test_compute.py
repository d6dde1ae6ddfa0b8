"""What runs cost: the transition that ends a lease counts its time, once, as useful, saved or wasted.

Contract: master/store/lua/lib/compute.lua. Of leases that are lost: test_compute_of_lost_leases.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from run_times import HOUR_MS, SLACK_MS, lease_ago, ran, read, resend, set_back, set_kept, spent
from store_scene import STRANGER, Scene, failure, release, success

from tenure.common.states import TaskState
from tenure.master.store.records import FailureKind, Grant, Verdict

# ---- ends that the holder reports ----------------------------------------------------------------------------------


async def test_an_accepted_result_is_useful_once(scene: Scene) -> None:
    grant = await lease_ago(scene)
    answer = await scene.tasks.complete(success(grant, evidence=ran(600_000)))
    assert (answer.run_ms, answer.late, answer.resent) == (600_000, False, False)
    assert await spent(scene) == {"useful": 600_000}
    again = await scene.tasks.complete(success(grant, evidence=ran(700_000)))
    assert (again[0], again.run_ms, again.resent) == (Verdict.OK, None, True)
    assert await spent(scene) == {"useful": 600_000}


async def test_without_a_word_of_the_worker_it_is_the_time_since_the_grant(scene: Scene) -> None:
    grant = await lease_ago(scene)
    await scene.complete(grant)
    assert HOUR_MS <= (await spent(scene))["useful"] < HOUR_MS + SLACK_MS


async def test_nobody_ran_for_longer_than_since_the_grant(scene: Scene) -> None:
    grant = await lease_ago(scene, ago_ms=HOUR_MS)
    await scene.complete(grant, evidence=ran(1000 * HOUR_MS))
    assert (await spent(scene))["useful"] < HOUR_MS + SLACK_MS


@pytest.mark.parametrize("kind", FailureKind)
@pytest.mark.parametrize("exhausted", [False, True], ids=["tried again", "dead letter"])
async def test_a_failure_wastes_what_no_checkpoint_kept(scene: Scene, kind: FailureKind, exhausted: bool) -> None:
    grant = await lease_ago(scene)
    set_kept(scene, grant, 400_000)
    end = failure(grant, kind=kind, retryable=not exhausted, evidence=ran(600_000))
    answer = await scene.tasks.fail(end)
    assert (answer.run_ms, answer.resent) == (600_000, False)
    assert await spent(scene) == {"saved checkpoint": 400_000, f"wasted {kind}": 200_000}
    await resend(scene, lambda: scene.tasks.fail(end))
    assert (await scene.tasks.fail(end)).resent


async def test_a_release_keeps_what_its_checkpoint_has(scene: Scene) -> None:
    grant = await lease_ago(scene)
    set_kept(scene, grant, 590_000)
    end = release(grant, evidence=ran(600_000))
    assert (await scene.tasks.release(end)).run_ms == 600_000
    assert await spent(scene) == {"saved checkpoint": 590_000, "wasted release": 10_000}
    await resend(scene, lambda: scene.tasks.release(end))


async def test_a_checkpoint_keeps_no_more_than_there_was(scene: Scene) -> None:
    """It was registered after the run's end, or the worker's clock is another."""
    grant = await lease_ago(scene)
    set_kept(scene, grant, 700_000)
    await scene.release(grant, evidence=ran(600_000))
    assert await spent(scene) == {"saved checkpoint": 600_000}


async def test_what_never_reached_its_worker_cost_nothing(scene: Scene) -> None:
    grant = await lease_ago(scene)
    assert (await scene.tasks.release(release(grant, evidence=None))).run_ms == 0
    assert await spent(scene) == {}


async def test_registering_a_checkpoint_says_how_far_the_run_was(scene: Scene) -> None:
    grant = await lease_ago(scene)
    await scene.checkpoint(grant, 1)
    epoch, ms = read(scene, grant, "kept").split()
    assert int(epoch) == grant.epoch
    assert HOUR_MS <= int(ms) < HOUR_MS + SLACK_MS
    # Announced again, it is no newer.
    set_back(scene, grant, HOUR_MS)
    await scene.checkpoint(grant, 1)
    assert read(scene, grant, "kept") == f"{epoch} {ms}"
    # One that is refused says nothing.
    await scene.checkpoint(grant, 2, token=STRANGER)
    assert read(scene, grant, "kept") == f"{epoch} {ms}"


async def test_a_checkpoint_of_an_earlier_lease_keeps_nothing_of_this_one(scene: Scene) -> None:
    first = await lease_ago(scene)
    set_kept(scene, first, 300_000)
    await scene.release(first, evidence=ran(300_000))
    (second,) = await scene.claim("w2")
    set_back(scene, second, HOUR_MS)
    await scene.fail(second, "w2", evidence=ran(50_000))
    assert await spent(scene) == {"saved checkpoint": 300_000, "wasted failure": 50_000}


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda scene, grant: scene.release(grant, evidence=ran(600_000)), id="release"),
        pytest.param(lambda scene, grant: scene.fail(grant, evidence=ran(600_000)), id="fail"),
    ],
)
async def test_cancelling_wastes_the_run_with_its_checkpoints(
    scene: Scene, end: Callable[[Scene, Grant], Awaitable[Any]]
) -> None:
    grant = await lease_ago(scene)
    set_kept(scene, grant, 590_000)
    await scene.tasks.cancel([grant.task_id])
    assert await spent(scene) == {}
    await end(scene, grant)
    assert await scene.state(grant.task_id) is TaskState.CANCELLED
    assert await spent(scene) == {"wasted cancelled": 600_000}


async def test_cancelling_what_nobody_runs_costs_nothing(scene: Scene) -> None:
    (task_id,) = await scene.submit()
    await scene.tasks.cancel([task_id])
    assert await spent(scene) == {}


# ---- equal submissions ---------------------------------------------------------------------------------------------


async def test_an_equal_submission_saves_what_the_result_took_once(scene: Scene) -> None:
    spec = scene.spec()
    ((task_id,),) = [[each.task_id for each in await scene.tasks.submit("s", [spec])]]
    (grant,) = await scene.claim()
    set_back(scene, grant, HOUR_MS)
    # While it waits or runs, the request may as well be the first one, sent again.
    await resend(scene, lambda: scene.tasks.submit("s", [spec]))
    set_kept(scene, grant, 300_000)
    await scene.release(grant, evidence=ran(300_000))
    (grant,) = await scene.claim()
    set_back(scene, grant, HOUR_MS)
    await scene.complete(grant, evidence=ran(600_000))
    (again,) = await scene.tasks.submit("s", [spec])
    assert (again.task_id, again.created) == (task_id, False)
    assert await spent(scene) == {"useful": 600_000, "saved checkpoint": 300_000, "saved shared": 900_000}
    await resend(scene, lambda: scene.tasks.submit("s", [spec]))


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.CANCELLED])
async def test_an_equal_submission_saves_nothing_without_a_result(scene: Scene, state: TaskState) -> None:
    spec = scene.spec()
    await scene.tasks.submit("s", [spec])
    (grant,) = await scene.claim()
    set_back(scene, grant, HOUR_MS)
    set_kept(scene, grant, 300_000)
    if state is TaskState.CANCELLED:
        await scene.tasks.cancel([grant.task_id])
    await scene.fail(grant, retryable=False, evidence=ran(300_000))
    assert await scene.state(grant.task_id) is state
    await resend(scene, lambda: scene.tasks.submit("s", [spec]))


# ---- the store -----------------------------------------------------------------------------------------------------


async def test_times_outlive_their_tasks(scene: Scene) -> None:
    grant = await lease_ago(scene)
    await scene.complete(grant, evidence=ran(600_000))
    assert await scene.tasks.forget("s", 0, 10**15) == 1
    assert await spent(scene) == {"useful": 600_000}


@pytest.mark.parametrize("field", ["useful_ms", "saved_ms:late", "wasted_ms:loss"])
async def test_fsck_finds_times_that_can_t_be(scene: Scene, field: str) -> None:
    await scene.submit()
    scene.client.hset(scene.key("search:s"), field, "-5")
    assert await scene.violations() == [f"search s: counts -5 as its {field}"]
    scene.client.hdel(scene.key("search:s"), field)
