"""Who is served next: strictly by a search's priority, then by weight, then by a task's priority, then by age."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from store_scene import Scene

from tenure.common.errors import UnknownSearch, WrongState
from tenure.common.spec import Requirements
from tenure.common.states import TaskState
from tenure.master.store.records import Grant, RenewVerdict, requirement_class


async def put(scene: Scene, search: str, tasks: int = 0, **settings: Any) -> None:
    await scene.store.searches.put(search, settings)
    if tasks:
        await scene.submit(tasks, search=search)


async def served(scene: Scene, count: int, **claim: Any) -> list[str]:
    """The searches whose tasks are given out next, one claim at a time."""
    return [grant.search for _ in range(count) for grant in await scene.claim(**claim)]


class TestWeights:
    @pytest.mark.parametrize(
        "weights", [{"a": 1, "b": 3}, {"a": 1, "b": 1}, {"a": 0.5, "b": 2, "c": 1.5}, {"a": 0.01, "b": 0.99}]
    )
    async def test_shares_follow_weights(self, scene: Scene, weights: dict[str, float]) -> None:
        for name, weight in weights.items():
            await put(scene, name, 60, weight=weight)
        counts = Counter(await served(scene, 60))
        for name, weight in weights.items():
            share = 60 * weight / sum(weights.values())
            assert abs(counts[name] - share) <= 1, counts

    async def test_they_are_interleaved_not_in_bursts(self, scene: Scene) -> None:
        await put(scene, "a", 40, weight=1)
        await put(scene, "b", 40, weight=3)
        order = await served(scene, 40)
        for start in range(36):
            assert 2 <= order[start : start + 4].count("b") <= 4
        assert "aa" not in "".join(order)

    async def test_one_claim_for_many_slots_is_as_fair(self, scene: Scene) -> None:
        await put(scene, "a", 60, weight=1)
        await put(scene, "b", 60, weight=3)
        counts = Counter(grant.search for grant in await scene.claim(count=40))
        assert abs(counts["b"] - 30) <= 1

    async def test_a_search_alone_gets_everything(self, scene: Scene) -> None:
        await put(scene, "a", 10, weight=0.01)
        assert len(await scene.claim(count=10)) == 10

    async def test_who_joins_late_gets_no_credit(self, scene: Scene) -> None:
        await put(scene, "a", 80)
        await served(scene, 40)
        await put(scene, "b", 40)
        counts = Counter(await served(scene, 20))
        assert abs(counts["b"] - 10) <= 1

    async def test_who_was_idle_gets_no_credit(self, scene: Scene) -> None:
        await put(scene, "a", 80)
        await put(scene, "b", 5)
        await served(scene, 50)
        await scene.submit(40, search="b")
        counts = Counter(await served(scene, 20))
        assert abs(counts["b"] - 10) <= 1

    async def test_who_was_paused_gets_no_credit(self, scene: Scene) -> None:
        await put(scene, "a", 80)
        await put(scene, "b", 40)
        await scene.store.searches.put("b", {}, status="paused")
        await served(scene, 30)
        await scene.store.searches.put("b", {}, status="active")
        counts = Counter(await served(scene, 20))
        assert abs(counts["b"] - 10) <= 1

    async def test_a_new_weight_counts_from_now_on(self, scene: Scene) -> None:
        await put(scene, "a", 80)
        await put(scene, "b", 80)
        await served(scene, 20)
        await put(scene, "b", weight=3)
        counts = Counter(await served(scene, 40))
        assert abs(counts["b"] - 30) <= 1

    async def test_saying_the_same_priority_again_wins_nothing(self, scene: Scene) -> None:
        await put(scene, "a", 40)
        await put(scene, "b", 40, weight=0.5)
        for _ in range(10):
            await put(scene, "b", priority=0)
            await served(scene, 3)
        view = {search.name: search for search in (await scene.store.searches.overview())[0].searches}
        assert abs(view["b"].counts[TaskState.LEASED] - 10) <= 1


class TestPriorities:
    async def test_of_searches_are_strict(self, scene: Scene) -> None:
        for name, priority in (("low", -5), ("mid", 0), ("high", 100)):
            await put(scene, name, 3, priority=priority, weight=1)
        assert await served(scene, 9) == ["high"] * 3 + ["mid"] * 3 + ["low"] * 3

    async def test_a_higher_one_takes_over_at_once(self, scene: Scene) -> None:
        await put(scene, "a", 6)
        assert await served(scene, 2) == ["a", "a"]
        await put(scene, "b", 2, priority=1)
        assert await served(scene, 4) == ["b", "b", "a", "a"]

    async def test_they_can_be_changed_while_tasks_wait(self, scene: Scene) -> None:
        await put(scene, "a", 4)
        await put(scene, "b", 4)
        await put(scene, "b", priority=2)
        assert await served(scene, 2) == ["b", "b"]
        await put(scene, "b", priority=-2)
        assert await served(scene, 6) == ["a"] * 4 + ["b"] * 2

    async def test_who_changes_its_priority_gets_no_credit_there(self, scene: Scene) -> None:
        await put(scene, "a", 80, priority=1)
        await served(scene, 30)
        await put(scene, "b", 40)
        await put(scene, "b", priority=1)
        counts = Counter(await served(scene, 20))
        assert abs(counts["b"] - 10) <= 1

    async def test_of_tasks_within_a_search(self, scene: Scene) -> None:
        expected = []
        for priority in (0, 100, -100, 7, 0, 7):
            (task_id,) = await scene.submit(priority=priority)
            expected.append((-priority, task_id))
        order = [(await scene.claim())[0].task_id for _ in expected]
        assert order == [task_id for _, task_id in sorted(expected, key=lambda pair: pair[0])]

    async def test_equal_tasks_in_the_order_of_submission(self, scene: Scene) -> None:
        task_ids = await scene.submit(100)
        task_ids += await scene.submit(20)
        grants = await scene.claim(count=50) + await scene.claim(count=70)
        assert [grant.task_id for grant in grants] == task_ids


class TestCap:
    async def filled(self, scene: Scene, most: int, **spec: Any) -> list[Grant]:
        await put(scene, "s", max_leased=most)
        await scene.submit(10, **spec)
        grants = await scene.claim(count=10)
        assert len(grants) == most
        return grants

    async def test_bounds_what_is_leased_at_once(self, scene: Scene) -> None:
        await self.filled(scene, 3)
        assert await scene.claim() == []

    @pytest.mark.parametrize("end", ["complete", "fail", "fail for good", "release", "expire", "cancel"])
    async def test_each_end_makes_room_for_one(self, scene: Scene, end: str) -> None:
        grant, *_ = await self.filled(scene, 3)
        if end == "complete":
            await scene.complete(grant)
        elif end.startswith("fail"):
            await scene.fail(grant, retryable=end == "fail")
        elif end == "release":
            await scene.release(grant)
        elif end == "cancel":
            await scene.tasks.cancel([grant.task_id])
            await scene.release(grant)
        else:
            await scene.advance(scene.store.options.lease_ttl_ms)
            await scene.tasks.expire(0, 1)
        assert len(await scene.claim(count=5)) == 1

    async def test_a_late_success_of_another_makes_room(self, scene: Scene) -> None:
        await put(scene, "s", max_leased=1)
        outdated = await scene.lease()
        await scene.submit()
        await scene.expire_all()
        assert len(await scene.claim("w2")) == 1
        await scene.complete(outdated)
        assert len(await scene.claim("w2", 5)) == 1

    async def test_a_holder_that_comes_back_has_its_lease_all_the_same(self, scene: Scene) -> None:
        """Work isn't thrown away for a cap. Nothing is given out until the leases are fewer than it."""
        await put(scene, "s", max_leased=1)
        back = await scene.lease("w1")
        await scene.submit(priority=9)
        await scene.submit(priority=8)
        await scene.expire_all()
        (other,) = await scene.claim("w2")
        assert other.task_id != back.task_id
        assert await scene.renew(back, "w1") == RenewVerdict.READOPTED
        assert await scene.claim("w3") == []
        await scene.complete(other, "w2")
        assert await scene.claim("w3") == []
        await scene.complete(back, "w1")
        assert len(await scene.claim("w3", 5)) == 1
        assert await scene.violations() == []

    async def test_can_be_raised_lowered_and_lifted(self, scene: Scene) -> None:
        await self.filled(scene, 2)
        await put(scene, "s", max_leased=4)
        grants = await scene.claim(count=10)
        assert len(grants) == 2
        await put(scene, "s", max_leased=1)
        await scene.complete(grants[0])
        assert await scene.claim() == []
        await put(scene, "s", max_leased=0)
        assert len(await scene.claim(count=10)) == 6

    async def test_leaves_the_others_their_turn(self, scene: Scene) -> None:
        await put(scene, "a", 10, max_leased=1, priority=9)
        await put(scene, "b", 10)
        assert await served(scene, 4) == ["a", "b", "b", "b"]

    async def test_counts_over_all_classes(self, scene: Scene) -> None:
        await put(scene, "s", max_leased=2)
        await scene.submit(2)
        await scene.submit(2, requirements=Requirements(1))
        both = [requirement_class(Requirements(gpus))[0] for gpus in (1, 0)]
        assert len(await scene.claim(count=4, classes=both)) == 2
        assert await scene.claim(classes=both[1:]) == []

    async def test_what_is_given_back_to_its_holder_counts(self, scene: Scene) -> None:
        grant, *_ = await self.filled(scene, 1)
        await scene.expire_all()
        await scene.renew(grant)
        assert await scene.claim("w2") == []


class TestPause:
    async def test_nothing_is_given_out_until_it_is_resumed(self, scene: Scene) -> None:
        running = await scene.lease()
        await scene.submit(2)
        await scene.store.searches.put("s", {}, status="paused")
        await scene.submit(2)
        assert await scene.claim(count=9) == []
        assert await scene.renew(running) == "OK"
        assert await scene.complete(running) == "OK"
        await scene.store.searches.put("s", {}, status="active")
        assert len(await scene.claim(count=9)) == 4

    async def test_a_task_that_comes_back_meanwhile_waits_too(self, scene: Scene) -> None:
        running = await scene.lease()
        await scene.store.searches.put("s", {}, status="paused")
        await scene.release(running)
        assert await scene.claim() == []
        await scene.store.searches.put("s", {}, status="active")
        assert len(await scene.claim()) == 1

    async def test_a_cancelled_search_gives_out_nothing_until_it_is_resumed(self, scene: Scene) -> None:
        await scene.submit(2)
        await scene.store.searches.put("s", {}, status="cancelled")
        assert await scene.claim() == []
        await scene.store.searches.put("s", {}, status="active")
        assert len(await scene.claim(count=9)) == 2


class TestSettings:
    async def test_come_out_as_they_went_in(self, scene: Scene) -> None:
        settings = {"priority": -100, "weight": 0.01, "max_leased": 10**9, "format": "json"}
        await scene.store.searches.put("s", settings)
        view = await scene.store.searches.get("s")
        assert (view.priority, view.weight, view.max_leased) == (-100, 0.01, 10**9)
        assert (view.architecture_format, view.status) == ("json", "active")
        await scene.store.searches.put("s", {"weight": 99.5}, status="paused")
        view = await scene.store.searches.get("s")
        assert (view.priority, view.weight, view.status) == (-100, 99.5, "paused")

    async def test_the_format_stays_once_there_are_tasks(self, scene: Scene) -> None:
        await put(scene, "s", format="json")
        await put(scene, "s", format="graph")
        await scene.submit()
        before = scene.dump()
        with pytest.raises(WrongState, match=r"architecture_format: .*given: json"):
            await put(scene, "s", format="json", weight=7)
        assert scene.dump() == before
        await put(scene, "s", format="graph")

    async def test_an_unknown_search_is_not_made_by_a_command_to_it(self, scene: Scene) -> None:
        before = scene.dump(without=[])
        with pytest.raises(UnknownSearch):
            await scene.store.searches.put("nowhere", {}, status="paused", create=False)
        assert scene.dump(without=[]) == before

    async def test_the_oldest_wait_is_that_of_the_longest_queued(self, scene: Scene) -> None:
        first, *_ = await scene.submit(3)
        await scene.submit(priority=50)
        await scene.submit(requirements=Requirements(2))
        scene.client.hincrby(scene.key(f"task:{first}"), "submitted", -60_000)
        oldest = (await scene.store.searches.get("s")).oldest_queued_ms
        assert oldest is not None
        assert 60_000 <= oldest < 120_000
        for with_waits in (True, False):
            (overview,) = await scene.store.searches.overview(with_waits=with_waits)
            (view,) = overview.searches
            assert (view.oldest_queued_ms is not None, view.counts[TaskState.QUEUED]) == (with_waits, 5)
        await scene.tasks.cancel([first])
        assert ((await scene.store.searches.get("s")).oldest_queued_ms or 0) < 60_000
        await scene.claim(count=9)
        await scene.claim(count=9, classes=[requirement_class(Requirements(2))[0]])
        assert (await scene.store.searches.get("s")).oldest_queued_ms is None


class TestCost:
    async def commands(self, scene: Scene) -> Counter[str]:
        """How often each command ran so far, in scripts too."""
        stats = scene.client.info("commandstats")
        # The first call of a script on this server sends its text, too.
        return Counter(
            {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items() if name != "cmdstat_eval"}
        )

    async def cost_of_a_claim(self, scene: Scene) -> Counter[str]:
        before = await self.commands(scene)
        assert len(await scene.claim()) == 1
        spent = await self.commands(scene) - before
        return Counter({name: spent[name] for name in spent if name not in ("info", "ping")})

    async def test_a_claim_costs_the_same_however_much_waits(self, scene: Scene) -> None:
        await scene.submit(10)
        few = await self.cost_of_a_claim(scene)
        for number in range(30):
            await put(scene, f"search {number}", 100)
        many = await self.cost_of_a_claim(scene)
        assert few["evalsha"] == 1
        assert many == few

    async def test_so_do_the_others(self, scene: Scene) -> None:
        await scene.complete(await scene.lease())  # the best so far: none below writes that again
        costs = []
        for waiting in (3, 1000):
            for _ in range(waiting // 100 + 1):
                await scene.submit(min(waiting, 100))
            spent = []
            for end in (scene.complete, scene.fail, scene.release, scene.renew):
                (grant,) = await scene.claim()
                # A run of less than a millisecond would write no compute time.
                await asyncio.sleep(0.002)
                before = await self.commands(scene)
                await end(grant)
                spent.append(await self.commands(scene) - before)
            costs.append(spent)
        assert costs[0] == costs[1]
