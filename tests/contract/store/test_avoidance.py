"""What a worker lost goes to another worker, if there is one; but nobody waits for that longer than a lease's time."""

from __future__ import annotations

import itertools

import pytest
from store_scene import Scene

from tenure.master.store.records import DEFAULT_CLASS, ClaimRequest, FailureKind, Grants, RenewVerdict

TTL_MS = 30_000
_numbers = itertools.count(10**6)


async def ask(scene: Scene, worker: str, count: int = 1, *, alone: bool = False) -> Grants:
    """A claim of a worker that is not the only one, unless ``alone``."""
    tokens = [f"{next(_numbers):032x}" for _ in range(count)]
    elsewhere = [] if alone else [DEFAULT_CLASS]
    return await scene.tasks.claim(ClaimRequest(worker, tokens, [DEFAULT_CLASS], elsewhere=elsewhere))


async def lose(scene: Scene, how: str, count: int = 1, **spec: int) -> list[str]:
    """Tasks that w1 lost."""
    task_ids = await scene.submit(count, **spec)
    for start in range(0, count, 100):
        for grant in await ask(scene, "w1", min(100, count - start), alone=True):
            if how == "loss":
                await scene.fail(grant, kind=FailureKind.LOSS)
    if how == "expire":
        await scene.expire_all()
    return task_ids


@pytest.mark.parametrize("how", ["loss", "expire"])
async def test_another_worker_is_given_what_one_lost(scene: Scene, how: str) -> None:
    (task_id,) = await lose(scene, how)
    passed = await ask(scene, "w1")
    assert (passed, passed.passed_over) == ([], True)
    assert await scene.violations() == []
    (grant,) = taken = await ask(scene, "w2")
    assert (grant.task_id, taken.passed_over) == (task_id, False)
    assert "avoid" not in (await scene.view(task_id)).fields


async def test_a_worker_alone_is_given_it_at_once(scene: Scene) -> None:
    (task_id,) = await lose(scene, "loss")
    assert [grant.task_id for grant in await ask(scene, "w1", alone=True)] == [task_id]


async def test_after_a_lease_s_time_it_is_given_to_whoever_asks(scene: Scene) -> None:
    (task_id,) = await lose(scene, "loss")
    await scene.advance(TTL_MS - 1)
    assert await ask(scene, "w1") == []
    await scene.advance(1)
    assert [grant.task_id for grant in await ask(scene, "w1")] == [task_id]


@pytest.mark.parametrize("end", ["failure", "release"])
async def test_only_a_loss_counts(scene: Scene, end: str) -> None:
    grant = await scene.lease()
    await (scene.fail(grant) if end == "failure" else scene.release(grant))
    assert [each.task_id for each in await ask(scene, "w1")] == [grant.task_id]


async def test_what_it_is_passed_over_for_keeps_its_place_and_holds_up_nobody(scene: Scene) -> None:
    lost = await lose(scene, "loss", 2, priority=5)
    later = await scene.submit(2)
    given = await ask(scene, "w1", 4)
    assert ([grant.task_id for grant in given], given.passed_over) == (later, True)
    assert await scene.violations() == []
    more = await scene.submit(1)
    assert [grant.task_id for grant in await ask(scene, "w2", 9)] == [*lost, *more]


async def test_a_search_that_has_nothing_else_does_not_hide_the_next_one(scene: Scene) -> None:
    await scene.store.searches.put("s", {"priority": 9})
    await lose(scene, "loss", 2)
    (other,) = await scene.submit(1, search="another")
    assert [grant.task_id for grant in await ask(scene, "w1", 3)] == [other]
    assert await scene.violations() == []


async def test_what_one_call_passes_over_is_bounded(scene: Scene) -> None:
    """The last in line waits behind a hundred others, for a lease's time at most; nothing is lost on the way."""
    lost = await lose(scene, "loss", 150)
    (last,) = await scene.submit(1)
    passed = await ask(scene, "w1", 2)
    assert (passed, passed.passed_over) == ([], True)
    assert await scene.violations() == []
    await scene.advance(TTL_MS)
    given = [grant.task_id for _ in range(2) for grant in await ask(scene, "w1", 100)]
    assert given == [*lost, last]


async def test_a_holder_that_is_back_has_not_lost_it(scene: Scene) -> None:
    grant = await scene.lease()
    await scene.expire_all()
    assert await scene.renew(grant) == RenewVerdict.READOPTED
    await scene.release(grant)
    assert [each.task_id for each in await ask(scene, "w1")] == [grant.task_id]
