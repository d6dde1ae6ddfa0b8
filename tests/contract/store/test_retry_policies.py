"""A search's retry policy, from the client to what the store makes of the next failure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from store_scene import Scene, failure

from tenure.common.retry import Jitter, RetryPolicy, RetryRule
from tenure.master.core.outcomes import judge_by
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.outcomes import take_outcome
from tenure.master.store.records import Evidence, FailureKind, Verdict


async def put(scene: Scene, policy: RetryPolicy | None) -> None:
    text = json.dumps(policy.to_plain()) if policy else ""
    policy_id = hashlib.sha256(text.encode()).hexdigest()[:16] if policy else ""
    await scene.store.searches.put(scene.search, {"retry": text, "retry_id": policy_id})


async def end(scene: Scene, error_class: str, **changed: Any) -> str:
    """Claim the task and fail with this error; the state it is in then."""
    (grant,) = await scene.claim()
    evidence = Evidence(error_class=error_class)
    judged = failure(grant, evidence=evidence, **changed)
    assert (await take_outcome(scene.store, MasterMetrics(), judged)).verdict is Verdict.OK
    assert (await take_outcome(scene.store, MasterMetrics(), judged)).verdict is Verdict.OK
    assert await scene.violations() == []
    return await scene.state(grant.task_id)


class TestBudgets:
    async def test_a_changed_policy_holds_for_the_next_failure(self, scene: Scene) -> None:
        await scene.submit(2)
        assert await end(scene, "ValueError") == "QUEUED"
        await put(scene, RetryPolicy(0, 0, rules=(RetryRule("ValueError", retryable=False),)))
        assert await end(scene, "ValueError") == "FAILED"
        await put(scene, None)
        assert await end(scene, "ValueError") == "QUEUED"

    async def test_a_rule_s_own_budget_is_counted_apart(self, scene: Scene) -> None:
        await put(scene, RetryPolicy(0, 0, rules=(RetryRule("*Timeout*", max_attempts=4),)))
        (task_id,) = await scene.submit(max_attempts=2)
        for _ in range(3):
            assert await end(scene, "PoolTimeout") == "QUEUED"
        assert await end(scene, "ValueError") == "QUEUED"
        view = await scene.view(task_id)
        assert (view.number("attempts"), view.fields["rule_spent"]) == (1, '{"*Timeout*":3}')
        assert await end(scene, "PoolTimeout") == "FAILED"
        await scene.tasks.requeue([task_id])
        assert "rule_spent" not in (await scene.view(task_id)).fields
        assert await end(scene, "PoolTimeout") == "QUEUED"

    async def test_a_rule_holds_for_what_ran_out_of_memory_too(self, scene: Scene) -> None:
        await put(scene, RetryPolicy(0, 0, rules=(RetryRule("torch.*", max_attempts=1),)))
        await scene.submit(max_out_of_memory=9)
        assert await end(scene, "torch.OutOfMemoryError", kind=FailureKind.OUT_OF_MEMORY) == "FAILED"

    async def test_a_policy_that_changes_between_judging_and_writing_writes_nothing(self, scene: Scene) -> None:
        grant = await scene.lease()
        old = RetryPolicy(0, 0, rules=(RetryRule("ValueError", retryable=False),))
        await put(scene, old)
        judged = judge_by(failure(grant), "an older one", json.dumps(old.to_plain()))
        before = scene.dump()
        verdict, text = await scene.tasks.fail(judged)
        assert verdict is Verdict.POLICY
        assert RetryPolicy.from_plain(json.loads(text.partition(" ")[2])) == old
        assert scene.dump() == before


@pytest.mark.parametrize(
    ("jitter", "least", "most"), [(Jitter.NONE, 900, 900), (Jitter.EQUAL, 450, 900), (Jitter.FULL, 0, 900)]
)
async def test_the_pause_grows_by_the_multiplier_with_the_jitter_asked_for(
    scene: Scene, jitter: Jitter, least: int, most: int
) -> None:
    """The third failure of base 100 and multiplier 3."""
    await put(scene, RetryPolicy(100, 10_000, 3.0, jitter))
    task_ids = await scene.submit(30, max_attempts=1000)
    for _ in range(3):
        for grant in await scene.claim(count=30):
            await take_outcome(scene.store, MasterMetrics(), failure(grant))
        views = (await scene.tasks.show(task_ids)).values()
        waits = [view.scheduled_in_ms or 0 for view in views]
        await scene.promote_all()
    assert least <= min(waits) <= max(waits) <= most
    assert (len(set(waits)) == 1) is (jitter is Jitter.NONE)


async def test_searches_of_earlier_versions_have_no_policy(scene: Scene) -> None:
    await scene.submit()
    assert (await scene.store.searches.get(scene.search)).retry is None
    assert await end(scene, "ValueError") == "QUEUED"
