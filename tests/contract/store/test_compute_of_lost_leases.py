"""What a run cost whose lease was lost: wasted as far as nobody has the work, and saved when it turns out otherwise.

Contract: master/store/lua/lib/compute.lua.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from run_times import HOUR_MS, SLACK_MS, expired, lease_ago, lost, ran, read, resend, set_back, set_kept, spent
from store_scene import STRANGER, Scene, renewal, success

from tenure.common.states import TaskState
from tenure.master.store.records import Grant, RenewVerdict, Verdict


async def test_a_silent_worker_ran_until_it_was_heard_last(scene: Scene) -> None:
    grant = await lease_ago(scene)
    await scene.renew(grant)
    ttl = scene.store.options.lease_ttl_ms
    await scene.advance(ttl)
    (taken,) = await scene.tasks.expire(0, 100)
    assert taken.cause == "silent"
    # All of that time it was silent, on the lease clock; the test has not waited for it.
    assert HOUR_MS - ttl <= (await spent(scene))["wasted loss"] < HOUR_MS - ttl + SLACK_MS
    assert await scene.tasks.expire(0, 100) == []


async def test_a_broken_session_was_heard_when_it_broke(scene: Scene) -> None:
    grant = await lease_ago(scene)
    await scene.advance(20_000)
    assert await scene.tasks.cut([(grant.task_id, grant.token)], 2000) == 1
    await scene.advance(2000)
    (taken,) = await scene.tasks.expire(0, 100)
    assert taken.cause == "disconnected"
    assert HOUR_MS - 2000 <= (await spent(scene))["wasted loss"] < HOUR_MS - 2000 + SLACK_MS


async def test_a_worker_that_came_back_and_fell_silent_is_silent(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.tasks.cut([(grant.task_id, grant.token)], 2000)
    await scene.renew(grant)
    await scene.advance(scene.store.options.lease_ttl_ms)
    (taken,) = await scene.tasks.expire(0, 100)
    assert taken.cause == "silent"


async def test_a_lost_run_leaves_what_its_checkpoint_kept(scene: Scene) -> None:
    grant = await expired(scene, kept_ms=400_000)
    run, wasted, kept = lost(scene, grant)
    assert (kept, wasted) == (400_000, run - 400_000)
    assert await spent(scene) == {"saved checkpoint": 400_000, "wasted loss": wasted}


async def test_a_lost_run_of_a_cancelled_task_leaves_nothing(scene: Scene) -> None:
    grant = await lease_ago(scene)
    set_kept(scene, grant, 400_000)
    await scene.tasks.cancel([grant.task_id])
    await scene.expire_all()
    assert list(await spent(scene)) == ["wasted cancelled"]


async def test_a_holder_that_comes_back_has_wasted_nothing(scene: Scene) -> None:
    grant = await expired(scene, kept_ms=400_000)
    _, wasted, _ = lost(scene, grant)
    assert await scene.renew(grant) is RenewVerdict.READOPTED
    times = {"saved checkpoint": 400_000, "saved readopted": wasted, "wasted loss": wasted}
    assert await spent(scene) == times
    await resend(scene, lambda: scene.renew(grant))
    # Its result: all but what is saved already.
    await scene.complete(grant, evidence=ran(900_000))
    assert await spent(scene) == {**times, "useful": 500_000}


async def test_a_holder_that_comes_back_twice_is_counted_each_time(scene: Scene) -> None:
    grant = await expired(scene, kept_ms=400_000)
    _, first, _ = lost(scene, grant)
    await scene.renew(grant)
    set_kept(scene, grant, 700_000)
    await scene.expire_all()
    _, second, kept = lost(scene, grant)
    assert kept == 700_000
    await scene.renew(grant)
    assert await spent(scene) == {
        "saved checkpoint": 700_000,
        "saved readopted": first + second,
        "wasted loss": first + second,
    }


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        pytest.param(lambda scene, grant: scene.fail(grant, evidence=ran(900_000)), "failure", id="fail"),
        pytest.param(lambda scene, grant: scene.release(grant, evidence=ran(900_000)), "release", id="release"),
    ],
)
async def test_a_report_behind_the_reaper_counts_as_what_it_is(
    scene: Scene, end: Callable[[Scene, Grant], Awaitable[Any]], cause: str
) -> None:
    grant = await expired(scene, kept_ms=400_000)
    _, wasted, _ = lost(scene, grant)
    await end(scene, grant)
    assert await spent(scene) == {
        "saved checkpoint": 400_000,
        "saved readopted": wasted,
        "wasted loss": wasted,
        f"wasted {cause}": 500_000,
    }
    await resend(scene, lambda: end(scene, grant))


async def test_a_late_success_has_not_been_wasted(scene: Scene) -> None:
    grant = await expired(scene, kept_ms=400_000)
    _, wasted, _ = lost(scene, grant)
    answer = await scene.tasks.complete(success(grant, evidence=ran(900_000)))
    assert (answer.run_ms, answer.late) == (900_000, True)
    assert await spent(scene) == {
        "useful": 500_000,
        "saved checkpoint": 400_000,
        "saved late": wasted,
        "wasted loss": wasted,
    }
    await resend(scene, lambda: scene.complete(grant, evidence=ran(900_000)))


async def test_a_late_success_ends_what_its_successor_did(scene: Scene) -> None:
    first = await expired(scene)
    _, wasted, _ = lost(scene, first)
    (second,) = await scene.claim("w2")
    set_back(scene, second, 100_000)
    await scene.complete(first, evidence=ran(900_000))
    times = await spent(scene)
    superseded = times.pop("wasted duplicate")
    assert 100_000 <= superseded < 100_000 + SLACK_MS
    assert times == {"useful": 900_000, "saved late": wasted, "wasted loss": wasted}
    # It went on until its own success was refused; told twice, that is the same.
    for _ in range(2):
        assert await scene.complete(second, "w2", evidence=ran(superseded + 5000)) is Verdict.DUPLICATE
        assert (await spent(scene))["wasted duplicate"] == superseded + 5000
    # A shorter word of it takes nothing back, and is no new beginning.
    await resend(scene, lambda: scene.complete(second, "w2", evidence=ran(1000)))
    await resend(scene, lambda: scene.complete(second, "w2", evidence=ran(superseded + 5000)))


async def test_a_holder_that_had_come_back_is_superseded_from_its_checkpoint_on(scene: Scene) -> None:
    first = await lease_ago(scene)
    await scene.expire_all()
    (second,) = await scene.claim("w2")
    set_back(scene, second, 100_000)
    set_kept(scene, second, 60_000)
    await scene.expire_all()
    assert await scene.renew(second, "w2") is RenewVerdict.READOPTED
    assert await scene.complete(first, evidence=ran(900_000)) is Verdict.OK
    assert 40_000 <= (await spent(scene))["wasted duplicate"] < 40_000 + SLACK_MS


async def test_what_was_given_back_is_not_given_back_again(scene: Scene) -> None:
    grant = await expired(scene)
    await scene.renew(grant)
    await scene.release(grant, evidence=ran(900_000))
    before = await spent(scene)
    assert await scene.complete(grant, evidence=ran(900_000)) is Verdict.OK
    assert await spent(scene) == {**before, "useful": 900_000}


async def test_a_late_success_of_an_older_lease_than_the_last_is_useful_only(scene: Scene) -> None:
    first = await expired(scene)
    (second,) = await scene.claim("w2")
    set_back(scene, second, HOUR_MS)
    await scene.expire_all()
    before = await spent(scene)
    await scene.complete(first, evidence=ran(900_000))
    assert await spent(scene) == {**before, "useful": 900_000}


async def test_a_late_success_without_a_word_ran_until_it_was_heard_last(scene: Scene) -> None:
    grant = await expired(scene)
    run, _, _ = lost(scene, grant)
    await scene.complete(grant)
    assert (await spent(scene))["useful"] == run


async def test_a_late_success_ran_no_longer_than_its_task_is_old(scene: Scene) -> None:
    grant = await expired(scene)
    await scene.complete(grant, evidence=ran(1000 * HOUR_MS))
    assert (await spent(scene))["useful"] < HOUR_MS + SLACK_MS


async def test_a_refused_run_went_on_no_longer_than_its_task_is_old(scene: Scene) -> None:
    grant = await expired(scene)
    await scene.claim("w2")
    assert (await scene.fail(grant, evidence=ran(1000 * HOUR_MS)))[0] is Verdict.STALE
    assert (await spent(scene))["wasted stale"] < SLACK_MS


async def test_a_stale_report_adds_what_its_run_went_on_for(scene: Scene) -> None:
    first = await expired(scene)
    run, wasted, _ = lost(scene, first)
    (second,) = await scene.claim("w2")
    for _ in range(2):
        assert (await scene.fail(first, evidence=ran(run + 7000)))[0] is Verdict.STALE
        assert await spent(scene) == {"wasted loss": wasted, "wasted stale": 7000}
    await resend(scene, lambda: scene.release(first, evidence=ran(run + 7000)))
    await resend(scene, lambda: scene.fail(replace(first, token=STRANGER), evidence=ran(HOUR_MS)))
    await resend(scene, lambda: scene.fail(first, evidence=ran(run + 1)))
    await scene.complete(second, "w2", evidence=ran(1))
    assert (await scene.complete(first, evidence=ran(run + 9000))) is Verdict.DUPLICATE
    times = await spent(scene)
    assert (times["wasted stale"], times["wasted duplicate"]) == (7000, 2000)


# ---- stores, old and broken ----------------------------------------------------------------------------------------


async def test_tasks_of_earlier_versions_are_counted_as_far_as_is_known(scene: Scene) -> None:
    """Their records have none of these fields, and a lease of theirs was lost unnoticed."""
    grant = await expired(scene, kept_ms=400_000)
    scene.client.hdel(scene.key(f"task:{grant.task_id}"), "lost", "kept", "worth", "queued", "cut")
    for name in scene.client.hkeys(scene.key("search:s")):
        if b"_ms" in name:
            scene.client.hdel(scene.key("search:s"), name)
    assert await scene.renew(grant) is RenewVerdict.READOPTED
    assert await spent(scene) == {}
    await scene.complete(grant, evidence=ran(900_000))
    assert await spent(scene) == {"useful": 900_000}
    assert await scene.violations() == []


async def test_what_a_rollback_lost_is_counted_from_the_holder_s_return(scene: Scene) -> None:
    (task_id,) = await scene.submit()
    before = scene.snapshot()
    (grant,) = await scene.claim()
    scene.roll_back(before)
    assert await scene.tasks.renew(renewal(grant)) is RenewVerdict.AHEAD
    await scene.complete(grant, evidence=ran(HOUR_MS))
    assert (await spent(scene)).get("useful", 0) < SLACK_MS
    assert await scene.state(task_id) is TaskState.SUCCEEDED


async def test_a_legacy_worker_s_late_success_is_known_by_its_id(scene: Scene) -> None:
    (task_id,) = await scene.submit()
    (grant,) = await scene.claim("old worker", legacy=True)
    set_back(scene, grant, HOUR_MS)
    await scene.expire_all()
    run, wasted, _ = lost(scene, grant)
    # Another's is not.
    (other,) = await scene.claim("w2")
    assert await scene.complete(replace(grant, token=""), "old worker", evidence=ran(900_000)) is Verdict.OK
    times = await spent(scene)
    assert (times["useful"], times["saved late"], times["wasted loss"]) == (900_000, wasted, wasted)
    assert wasted == run
    assert (await scene.view(task_id)).fields["worker"] == "old worker"
    await resend(scene, lambda: scene.complete(replace(other, token=""), "old worker", evidence=ran(900_000)))


async def test_what_is_remembered_of_a_lost_lease_is_short(scene: Scene) -> None:
    """One value of more than 64 bytes makes the server keep the whole hash in another, larger form."""
    (task_id,) = await scene.submit()
    (grant,) = await scene.claim("w" * 128, legacy=True)
    set_back(scene, grant, 10**9)
    await scene.expire_all()
    assert len(read(scene, grant, "lost")) <= 64
    assert await scene.state(task_id) is TaskState.QUEUED
