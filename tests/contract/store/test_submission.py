"""Submits: idempotent by key, all or none, payloads shared, classes of requirements matched by claims."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from store_scene import Scene
from store_server import OpenStore

from tenure.common.errors import InvalidInput, UnknownSearch, WrongState
from tenure.common.spec import Config, Requirements, TaskSpec, content_key
from tenure.common.states import TaskState
from tenure.master.core.matching import Capabilities, servable_classes
from tenure.master.store.records import ClaimRequest, requirement_class

CONFIG = Config(3, 16, 0.01, "digits", {"b": "2", "ä": "\u0000\n\U0001f600"})


class TestContent:
    async def test_comes_out_as_it_went_in(self, scene: Scene) -> None:
        architecture = json.dumps({"nodes": ["ä", "\u0000", "\U0001f600", "'\"\\"]}, ensure_ascii=False)
        spec = TaskSpec(
            architecture,
            CONFIG,
            key="key ä",
            priority=-7,
            max_attempts=2,
            max_losses=4,
            max_out_of_memory=5,
            timeout_ms=1000,
            progress_deadline_ms=2000,
            requirements=Requirements(1, {"zone": "a", "kind": "x y"}),
        )
        (submitted,) = await scene.tasks.submit("s", [spec])
        assert (submitted.created, submitted.state, submitted.key) == (True, TaskState.QUEUED, "key ä")
        view = await scene.view(submitted.task_id)
        assert (view.architecture, view.config, view.requirements) == (architecture, CONFIG, spec.requirements)
        numbers = ("priority", "max_attempts", "max_losses", "max_ooms", "timeout", "progress")
        assert [view.number(name) for name in numbers] == [-7, 2, 4, 5, 1000, 2000]
        class_name, _ = requirement_class(spec.requirements)
        (grant,) = await scene.claim(classes=[class_name])
        assert (grant.architecture, grant.config) == (architecture, CONFIG)
        assert (grant.timeout_ms, grant.progress_deadline_ms, grant.search) == (1000, 2000, "s")

    async def test_a_large_architecture(self, scene: Scene) -> None:
        architecture = json.dumps({"nodes": [str(number) * 50 for number in range(20_000)]})
        await scene.submit(architecture=architecture)
        (grant,) = await scene.claim()
        assert grant.architecture == architecture

    async def test_names_of_searches_may_hold_anything_printable(self, scene: Scene) -> None:
        for name in ("a|b", "a:QUEUED", "{x}", "ä é 😀", "-", "0", "s:SUCCEEDED"):
            (task_id,) = await scene.submit(search=name)
            (grant,) = await scene.claim()
            assert (grant.search, grant.task_id) == (name, task_id)
            await scene.complete(grant)
            assert (await scene.store.searches.get(name)).counts[TaskState.SUCCEEDED] == 1
        assert await scene.violations() == []


class TestKeys:
    async def test_a_known_key_is_the_task_that_has_it(self, scene: Scene) -> None:
        specs = [scene.spec() for _ in range(3)]
        first = await scene.tasks.submit("s", specs)
        before = scene.dump(without=[])
        again = await scene.tasks.submit("s", specs)
        assert [each.task_id for each in again] == [each.task_id for each in first]
        assert [each.created for each in again] == [False] * 3
        assert scene.dump(without=[]) == before

    async def test_whatever_state_it_is_in(self, scene: Scene) -> None:
        spec = scene.spec()
        (first,) = await scene.tasks.submit("s", [spec])
        (grant,) = await scene.claim()
        await scene.complete(grant)
        (again,) = await scene.tasks.submit("s", [replace(spec, architecture='{"other": 1}')])
        assert (again.task_id, again.created, again.state) == (first.task_id, False, TaskState.SUCCEEDED)

    async def test_new_and_known_in_one_request(self, scene: Scene) -> None:
        known = scene.spec()
        (first,) = await scene.tasks.submit("s", [known])
        replies = await scene.tasks.submit("s", [scene.spec(), known, scene.spec()])
        assert [each.created for each in replies] == [True, False, True]
        assert replies[1].task_id == first.task_id

    async def test_the_same_twice_in_one_request_is_one_task(self, scene: Scene) -> None:
        spec = scene.spec()
        one, two = await scene.tasks.submit("s", [spec, spec])
        assert (one.created, two.created) == (True, False)
        assert one.task_id == two.task_id

    async def test_without_a_key_the_content_is_the_key(self, scene: Scene) -> None:
        one = TaskSpec('{"a": 1, "b": 2}', Config(extra={"x": "1", "y": "2"}))
        same = TaskSpec('{"b":2,"a":1}', Config(extra={"y": "2", "x": "1"}))
        other = TaskSpec('{"a": 1, "b": 2}', Config(num_epochs=1))
        replies = await scene.tasks.submit("s", [one, same, other])
        assert [each.created for each in replies] == [True, False, True]
        assert replies[0].key == content_key(one.architecture, one.config)

    async def test_keys_are_a_search_s_own(self, scene: Scene) -> None:
        spec = scene.spec()
        (one,) = await scene.tasks.submit("s", [spec])
        (two,) = await scene.tasks.submit("t", [spec])
        assert two.created
        assert one.task_id != two.task_id

    async def test_two_clients_at_once_make_one_task(self, open_test_store: OpenStore, scene: Scene) -> None:
        other = await open_test_store()
        specs = [scene.spec() for _ in range(20)]
        replies = await asyncio.gather(
            *(store.tasks.submit("s", specs) for store in (scene.store, other) for _ in range(5))
        )
        assert len({tuple(each.task_id for each in reply) for reply in replies}) == 1
        assert sum(each.created for reply in replies for each in reply) == 20


class TestRefusal:
    """All of a request, or nothing of it."""

    async def test_of_a_cancelled_search(self, scene: Scene) -> None:
        await scene.submit()
        await scene.store.searches.put("s", {}, status="cancelled")
        before = scene.dump(without=[])
        with pytest.raises(WrongState, match=r"search: the search is cancelled .*resume it, or use another name"):
            await scene.submit(5)
        assert scene.dump(without=[]) == before

    async def test_of_too_many_different_requirements(self, scene: Scene) -> None:
        specs = [scene.spec(requirements=Requirements(gpus)) for gpus in range(64)]
        await scene.tasks.submit("s", specs)
        before = scene.dump(without=[])
        with pytest.raises(InvalidInput) as caught:
            await scene.tasks.submit("s", [scene.spec(), scene.spec(requirements=Requirements(99))])
        assert caught.value.field == "requirements"
        assert scene.dump(without=[]) == before
        await scene.submit(requirements=Requirements(63))

    async def test_requirements_that_no_task_has_any_more_make_room(self, scene: Scene) -> None:
        specs = [scene.spec(requirements=Requirements(gpus)) for gpus in range(64)]
        ids = [each.task_id for each in await scene.tasks.submit("s", specs)]
        await scene.tasks.cancel(ids[:1])
        await scene.tasks.forget("s", 0, 10**12)
        assert len(await scene.store.searches.requirement_classes()) == 63
        await scene.submit(requirements=Requirements(99))


class TestClasses:
    async def test_a_claim_is_given_what_its_classes_allow(self, scene: Scene) -> None:
        (plain,) = await scene.submit()
        (gpu,) = await scene.submit(requirements=Requirements(1))
        (zone,) = await scene.submit(requirements=Requirements(1, {"zone": "a"}))
        classes = await scene.store.searches.requirement_classes()
        assert len(classes) == 3

        async def given(capabilities: Capabilities) -> list[str]:
            grants = await scene.claim(count=9, classes=servable_classes(classes, capabilities))
            return [each.task_id for each in grants]

        assert await given(Capabilities(0, {"zone": "b"})) == [plain]
        assert await given(Capabilities(1)) == [gpu]
        assert await given(Capabilities(4, {"zone": "b"})) == []
        assert await given(Capabilities(4, {"zone": "a", "more": "c"})) == [zone]

    async def test_a_claim_without_classes_gets_nothing(self, scene: Scene) -> None:
        await scene.submit()
        assert await scene.claim(classes=[]) == []

    async def test_a_claim_gets_at_most_its_tokens(self, scene: Scene) -> None:
        await scene.submit(5)
        assert len(await scene.claim(count=3)) == 3
        assert len(await scene.claim(count=3)) == 2
        assert await scene.claim() == []

    async def test_claims_of_one_batch_share_no_task(self, scene: Scene) -> None:
        await scene.submit(50)
        grants = [each for part in await asyncio.gather(*(scene.claim(f"w{n}", 2) for n in range(40))) for each in part]
        assert len({each.task_id for each in grants}) == len(grants) == 50

    async def test_equal_requirements_are_one_class(self) -> None:
        one, _ = requirement_class(Requirements(1, {"a": "1", "b": "2"}))
        two, _ = requirement_class(Requirements(1, {"b": "2", "a": "1"}))
        assert one == two
        assert requirement_class(Requirements())[0] == "-"


class TestGiveBack:
    async def test_leases_of_a_claim_whose_answer_was_lost(self, scene: Scene) -> None:
        task_ids = await scene.submit(4)
        tokens = [f"{number:032x}" for number in range(3)]
        await scene.tasks.claim(ClaimRequest("w1", tokens, ["-"]))
        (other,) = await scene.claim("w2")
        assert await scene.tasks.give_back([*tokens, "never used"]) == 3
        assert other.task_id == task_ids[3]
        assert await scene.state(other.task_id) is TaskState.LEASED
        for task_id in task_ids[:3]:
            view = await scene.view(task_id)
            assert (view.state, view.number("losses"), view.attempt_records) == (TaskState.QUEUED, 0, [])
        assert await scene.tasks.give_back(tokens) == 0

    async def test_however_many_leases_there_are(self, scene: Scene) -> None:
        """The search for them goes in steps of 500, and giving back shortens what it goes through."""
        for _ in range(11):
            await scene.submit(100)
        tokens = [f"{number:032x}" for number in range(1100)]
        for start in range(0, 1100, 100):
            await scene.tasks.claim(ClaimRequest("w1", tokens[start : start + 100], ["-"]))
        assert await scene.tasks.give_back(tokens) == 1100


class TestShards:
    async def test_searches_are_spread_and_claims_take_from_all(self, open_test_store: OpenStore) -> None:
        store = await open_test_store(shards=4)
        ids = []
        for number in range(12):
            spec = TaskSpec("{}", key=f"k{number}")
            ids += [each.task_id for each in await store.tasks.submit(f"s{number}", [spec])]
        assert {task_id.partition("-")[0] for task_id in ids} == {"0", "1", "2", "3"}
        tokens = [f"{number:032x}" for number in range(12)]
        grants = await store.tasks.claim(ClaimRequest("w1", tokens, ["-"]))
        assert sorted(each.task_id for each in grants) == sorted(ids)
        assert await store.tasks.cut([(each.task_id, each.token) for each in grants], 10) == 12
        assert set((await store.tasks.cancel(ids)).values()) == {("cancel_requested", "LEASED")}
        assert set(await store.tasks.show(ids)) == set(ids)
        assert await store.tasks.give_back(tokens) == 12
        checked, violations = await store.fsck.run()
        assert (checked, violations) == (12, [])
        cursor = await store.events.now()
        assert len(await store.events.check(cursor)) == 4


class TestListing:
    async def test_pages_in_the_order_of_submission(self, scene: Scene) -> None:
        task_ids = await scene.submit(10)
        cursor, found = "", []
        while True:
            cursor, ids = await scene.tasks.page("s", [], cursor, 3)
            assert len(ids) <= 3
            found += ids
            if not cursor:
                break
        assert found == task_ids

    async def test_by_state_even_when_those_are_far_apart(self, scene: Scene) -> None:
        for _ in range(11):
            last = (await scene.submit(100))[-1]
        await scene.tasks.cancel([last])
        cursor, ids = await scene.tasks.page("s", [TaskState.CANCELLED], "", 10)
        assert (ids, bool(cursor)) == ([], True)
        assert await scene.tasks.page("s", [TaskState.CANCELLED, TaskState.FAILED], cursor, 10) == ("", [last])

    async def test_of_an_unknown_search_is_empty(self, scene: Scene) -> None:
        assert await scene.tasks.page("nowhere", [], "", 10) == ("", [])
        with pytest.raises(UnknownSearch, match=r"search: no search of this name \(given: nowhere"):
            await scene.store.searches.get("nowhere")

    @pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "²", "inf", "nan", "(1"])
    async def test_what_is_no_cursor_is_refused_by_name(self, scene: Scene, cursor: str) -> None:
        with pytest.raises(InvalidInput, match="page_token: is no page token"):
            await scene.tasks.page("s", [], cursor, 10)

    async def test_unknown_tasks_are_left_out_of_a_show(self, scene: Scene) -> None:
        (task_id,) = await scene.submit()
        assert set(await scene.tasks.show([task_id, "0-" + "0" * 26, "x", ""])) == {task_id}
