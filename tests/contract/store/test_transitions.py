"""Every way into every state × every row of the state table, by the last holder and by a stranger.

What the table forbids changes nothing at all; what it allows ends in one of its targets; indexes agree afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from store_scene import STRANGER, Scene

from tenure.common.states import TRANSITIONS, TRANSITIONS_BY_NAME, TaskState
from tenure.master.store.records import Grant, RetryPolicy, Verdict

SOON = RetryPolicy(10**6, 10**6)


# ---- ways into the states: each ends with one task and the grant of its last holder (or one that never was) ----------


async def never_held(scene: Scene, **fields: int) -> Grant:
    (task_id,) = await scene.submit(**fields)
    return Grant(task_id, "e" * 32, 0, 1, scene.search, "", (await scene.view(task_id)).config, 0, 0, [])


async def delayed(scene: Scene) -> Grant:
    return await never_held(scene, delay_ms=60_000)


async def backed_off(scene: Scene) -> Grant:
    grant = await scene.lease(max_attempts=1000)
    # The jitter may come to no delay at all.
    while (await scene.fail(grant, retry=SOON))[1] != TaskState.SCHEDULED:
        (grant,) = await scene.claim()
    return grant


async def fresh(scene: Scene) -> Grant:
    return await never_held(scene)


async def released(scene: Scene) -> Grant:
    grant = await scene.lease()
    await scene.release(grant)
    return grant


async def failed_once(scene: Scene) -> Grant:
    grant = await scene.lease()
    await scene.fail(grant)
    return grant


async def expired(scene: Scene) -> Grant:
    grant = await scene.lease()
    await scene.expire_all()
    return grant


async def requeued(scene: Scene) -> Grant:
    grant = await failed(scene)
    await scene.tasks.requeue([grant.task_id])
    return grant


async def leased(scene: Scene) -> Grant:
    return await scene.lease()


async def leased_again(scene: Scene) -> Grant:
    await failed_once(scene)
    (grant,) = await scene.claim("w1")
    return grant


async def readopted(scene: Scene) -> Grant:
    grant = await expired(scene)
    await scene.renew(grant)
    return grant


async def cancel_requested(scene: Scene) -> Grant:
    grant = await scene.lease()
    await scene.tasks.cancel([grant.task_id])
    return grant


async def succeeded(scene: Scene) -> Grant:
    grant = await scene.lease()
    await scene.complete(grant)
    return grant


async def failed(scene: Scene) -> Grant:
    grant = await scene.lease()
    await scene.fail(grant, retryable=False)
    return grant


async def lost_too_often(scene: Scene) -> Grant:
    grant = await scene.lease(max_losses=1)
    await scene.expire_all()
    return grant


async def cancelled(scene: Scene) -> Grant:
    grant = await never_held(scene)
    await scene.tasks.cancel([grant.task_id])
    return grant


async def cancelled_while_held(scene: Scene) -> Grant:
    grant = await cancel_requested(scene)
    await scene.release(grant)
    return grant


WAYS = {
    TaskState.SCHEDULED: (delayed, backed_off),
    TaskState.QUEUED: (fresh, released, failed_once, expired, requeued),
    TaskState.LEASED: (leased, leased_again, readopted, cancel_requested),
    TaskState.SUCCEEDED: (succeeded,),
    TaskState.FAILED: (failed, lost_too_often),
    TaskState.CANCELLED: (cancelled, cancelled_while_held),
}
# Where the last holder itself reported the end of its run: what it sends again under that token is answered OK.
REPORTED = {backed_off, released, failed_once, succeeded, failed, cancelled_while_held}


# ---- the rows: each tries its transition on the task and returns the word that the caller is told --------------------


async def submit(scene: Scene, grant: Grant) -> str:
    key = (await scene.view(grant.task_id)).fields["key"]
    (again,) = await scene.tasks.submit(scene.search, [replace(scene.spec(), key=key)])
    assert again.task_id == grant.task_id
    return "created" if again.created else "known"


async def promote(scene: Scene, grant: Grant) -> str:
    # Without reaping: leases that run out meanwhile stay.
    return str(await scene.promote_all())


async def claim(scene: Scene, grant: Grant) -> str:
    return str(len(await scene.claim("w2")))


async def complete(scene: Scene, grant: Grant) -> str:
    return await scene.complete(grant)


async def fail(scene: Scene, grant: Grant) -> str:
    return (await scene.fail(grant))[0]


async def release(scene: Scene, grant: Grant) -> str:
    return await scene.release(grant)


async def expire(scene: Scene, grant: Grant) -> str:
    await scene.advance(scene.store.options.lease_ttl_ms)
    return str(len(await scene.tasks.expire(0, 100)))


async def readopt(scene: Scene, grant: Grant) -> str:
    return await scene.renew(grant)


async def cancel(scene: Scene, grant: Grant) -> str:
    return (await scene.tasks.cancel([grant.task_id]))[grant.task_id][0]


async def requeue(scene: Scene, grant: Grant) -> str:
    return (await scene.tasks.requeue([grant.task_id]))[grant.task_id][0]


async def forget(scene: Scene, grant: Grant) -> str:
    return str(await scene.tasks.forget(scene.search, 0, 10**12))


TRIES: dict[str, Callable[[Scene, Grant], Awaitable[str]]] = {
    each.__name__: each
    for each in (submit, promote, claim, complete, fail, release, expire, readopt, cancel, requeue, forget)
}


def expected_word(row: str, way: Callable[..., object], state: TaskState, *, stranger: bool) -> str:
    """What the caller is told."""
    holder, held = not stranger, state is TaskState.LEASED
    match row:
        case "submit":
            return "known"
        case "promote" | "claim" | "expire" | "forget":
            return "1" if state in TRANSITIONS_BY_NAME[row].sources else "0"
        case "complete":
            repeated = way is succeeded and holder
            return Verdict.OK if not state.terminal or repeated else Verdict.DUPLICATE
        case "fail" | "release":
            return Verdict.OK if holder and (held or way in REPORTED or way is expired) else Verdict.STALE
        case "readopt" if state.terminal:
            return "FINISHED"
        case "readopt" if held:
            return "LOST" if stranger else "CANCEL" if way is cancel_requested else "OK"
        case "readopt":
            return "READOPTED" if way is expired and holder else "LOST"
        case "cancel":
            return {
                TaskState.LEASED: "cancel_requested",
                TaskState.CANCELLED: "already",
                TaskState.SUCCEEDED: "wrong_state",
                TaskState.FAILED: "wrong_state",
            }.get(state, "ok")
        case "requeue":
            return {
                TaskState.FAILED: "ok",
                TaskState.CANCELLED: "ok",
                TaskState.SUCCEEDED: "wrong_state",
            }.get(state, "already")
    raise AssertionError(row)


# Words by which nothing was changed.
REFUSALS = {"known", "0", "DUPLICATE", "STALE", "LOST", "FINISHED", "already", "wrong_state"}


@pytest.mark.parametrize("stranger", [False, True], ids=["holder", "stranger"])
@pytest.mark.parametrize("row", [row.name for row in TRANSITIONS])
@pytest.mark.parametrize(
    ("state", "way"),
    [pytest.param(state, way, id=way.__name__) for state, ways in WAYS.items() for way in ways],
)
async def test_each_row_from_each_state(
    scene: Scene, state: TaskState, way: Callable[[Scene], Awaitable[Grant]], row: str, stranger: bool
) -> None:
    grant = await way(scene)
    assert await scene.state(grant.task_id) is state
    if stranger:
        grant = replace(grant, token=STRANGER)
    if row == "submit":
        # What an equal submission saves is counted once, as test_compute.py shows.
        scene.client.hdel(scene.key(f"task:{grant.task_id}"), "worth")
    before = scene.dump()

    word = await TRIES[row](scene, grant)

    assert word == expected_word(row, way, state, stranger=stranger)
    views = await scene.tasks.show([grant.task_id])
    after = views[grant.task_id].state if views else None
    # A report that the reaper was quicker than: its holder is readopted first.
    late = way is expired and not stranger and row in ("fail", "release")
    repeated = word == "OK" and state is not TaskState.LEASED and row in ("complete", "fail", "release") and not late
    if late:
        assert (TaskState.LEASED, after) in TRANSITIONS_BY_NAME[row].edges
    elif word in REFUSALS or (repeated and after is state):
        assert scene.dump() == before
    elif row != "readopt" or state is not TaskState.LEASED:
        assert (state, after) in TRANSITIONS_BY_NAME[row].edges
    assert await scene.violations() == []


@pytest.mark.parametrize("row", ["complete", "fail", "release", "readopt", "cancel", "requeue"])
@pytest.mark.parametrize("task_id", ["0-01m86jwv1de06fj3sb3q23h607", "1-01m86jwv1de06fj3sb3q23h607", "nonsense", "é"])
async def test_an_unknown_task_is_said_to_be_unknown(scene: Scene, row: str, task_id: str) -> None:
    grant = replace(await scene.lease(), task_id=task_id)
    before = scene.dump()
    assert (await TRIES[row](scene, grant)).upper().startswith("UNKNOWN")
    assert scene.dump() == before


def test_the_ways_and_tries_cover_the_table() -> None:
    assert set(WAYS) == set(TaskState)
    assert set(TRIES) == {row.name for row in TRANSITIONS}


async def test_every_target_of_the_table_is_reached(scene: Scene) -> None:
    """No row promises an end that its script never makes."""
    cursor = await scene.store.events.now()
    for way in (way for ways in WAYS.values() for way in ways):
        for row in ("promote", "cancel", "expire", "release", "fail"):
            grant = await way(scene)
            await TRIES[row](scene, grant)
            await end(scene, grant)
    reached: dict[str, set[str]] = {row.name: set() for row in TRANSITIONS}
    async for _, events in scene.store.events.between(cursor, await scene.store.events.now()):
        for event in events:
            reached[event.transition].add(event.state)
    del reached["forget"]  # it has no state to end in
    assert reached == {row.name: set(row.targets) for row in TRANSITIONS if row.targets}


async def end(scene: Scene, grant: Grant) -> None:
    """So that nothing is ready, nor leased, for the next one."""
    await scene.tasks.cancel([grant.task_id])
    if await scene.state(grant.task_id) is TaskState.LEASED:
        await scene.expire_all()
