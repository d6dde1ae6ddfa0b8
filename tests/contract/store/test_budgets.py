"""What a bad end costs: attempts, losses and out-of-memory ends counted apart, backoff, requests to stop, requeue."""

from __future__ import annotations

import json
import statistics

import pytest
from store_scene import STRANGER, Scene

from tenure.common.limits import ATTEMPT_RECORDS_MAX
from tenure.common.states import TaskState
from tenure.master.store.records import Evidence, FailureKind, Grant, RenewVerdict, RetryPolicy, Verdict


async def again(scene: Scene, worker: str = "w1") -> Grant:
    (grant,) = await scene.claim(worker)
    return grant


class TestBudgets:
    @pytest.mark.parametrize(
        ("kind", "budget", "counted"),
        [
            (FailureKind.FAILURE, "max_attempts", "attempts"),
            (FailureKind.LOSS, "max_losses", "losses"),
            (FailureKind.OUT_OF_MEMORY, "max_out_of_memory", "ooms"),
        ],
    )
    async def test_the_last_of_a_budget_ends_the_task(
        self, scene: Scene, kind: FailureKind, budget: str, counted: str
    ) -> None:
        (task_id,) = await scene.submit(**{budget: 3})
        for spent in (1, 2):
            assert await scene.fail(await again(scene), kind=kind) == (Verdict.OK, "QUEUED")
            assert (await scene.view(task_id)).number(counted) == spent
        assert await scene.fail(await again(scene), kind=kind) == (Verdict.OK, "FAILED")
        view = await scene.view(task_id)
        assert {name: view.number(name) for name in ("attempts", "losses", "ooms")} == {
            "attempts": 0,
            "losses": 0,
            "ooms": 0,
            counted: 3,
        }
        assert [each.outcome for each in view.attempt_records] == [kind.value] * 3

    async def test_the_budgets_are_apart(self, scene: Scene) -> None:
        (task_id,) = await scene.submit(max_attempts=2, max_losses=2)
        for kind in (FailureKind.FAILURE, FailureKind.LOSS, FailureKind.OUT_OF_MEMORY):
            assert (await scene.fail(await again(scene), kind=kind))[1] == "QUEUED"
        assert (await scene.fail(await again(scene), kind=FailureKind.LOSS))[1] == "FAILED"
        assert (await scene.view(task_id)).number("attempts") == 1

    async def test_a_task_of_a_version_without_a_budget_for_memory_is_bounded_as_it_was(self, scene: Scene) -> None:
        (task_id,) = await scene.submit(max_attempts=2, max_out_of_memory=9)
        scene.client.hdel(scene.key(f"task:{task_id}"), "max_ooms")
        assert (await scene.fail(await again(scene), kind=FailureKind.OUT_OF_MEMORY))[1] == "QUEUED"
        assert (await scene.fail(await again(scene), kind=FailureKind.OUT_OF_MEMORY))[1] == "FAILED"

    async def test_an_expired_lease_burns_a_loss(self, scene: Scene) -> None:
        (task_id,) = await scene.submit(max_losses=2)
        await again(scene)
        await scene.expire_all()
        assert await scene.state(task_id) is TaskState.QUEUED
        await again(scene)
        await scene.expire_all()
        view = await scene.view(task_id)
        assert view.state is TaskState.FAILED
        assert (view.number("losses"), view.number("attempts")) == (2, 0)
        assert [each.outcome for each in view.attempt_records] == ["expired", "expired"]

    @pytest.mark.parametrize("kind", list(FailureKind))
    async def test_what_no_retry_can_help_ends_at_once(self, scene: Scene, kind: FailureKind) -> None:
        grant = await scene.lease()
        assert await scene.fail(grant, kind=kind, retryable=False) == (Verdict.OK, "FAILED")

    async def test_a_release_burns_nothing(self, scene: Scene) -> None:
        (task_id,) = await scene.submit(max_attempts=1, max_losses=1)
        for _ in range(10):
            assert await scene.release(await again(scene)) == Verdict.OK
        view = await scene.view(task_id)
        assert (view.state, view.number("attempts"), view.number("losses")) == (TaskState.QUEUED, 0, 0)
        assert [each.outcome for each in view.attempt_records] == ["release"] * 10

    async def test_a_lease_that_never_reached_its_worker_leaves_no_record(self, scene: Scene) -> None:
        grant = await scene.lease()
        assert await scene.release(grant, evidence=None) == Verdict.OK
        assert (await scene.view(grant.task_id)).attempt_records == []

    async def test_a_released_task_is_served_at_its_old_place(self, scene: Scene) -> None:
        first, second, third = await scene.submit(3)
        grant = await again(scene)
        assert grant.task_id == first
        await scene.release(grant)
        assert [(await again(scene)).task_id for _ in range(3)] == [first, second, third]

    async def test_attempt_numbers_count_failures_only(self, scene: Scene) -> None:
        grant = await scene.lease()
        assert (grant.attempt, grant.epoch) == (1, 1)
        await scene.release(grant)
        grant = await again(scene)
        assert (grant.attempt, grant.epoch) == (1, 2)
        await scene.fail(grant)
        grant = await again(scene)
        assert (grant.attempt, grant.epoch) == (2, 3)


class TestEvidence:
    async def test_every_attempt_is_recorded_whole(self, scene: Scene) -> None:
        evidence = Evidence("RuntimeError", "böse \u0001", 9, 137, "last\nlines", 3, 8, 1.5)
        grant = await scene.lease()
        await scene.fail(grant, evidence=evidence)
        (record,) = (await scene.view(grant.task_id)).attempt_records
        assert record.evidence == evidence
        assert (record.epoch, record.worker_id, record.outcome) == (1, "w1", "failure")
        assert 0 < record.leased_unix_ms <= record.ended_unix_ms

    async def test_the_last_failure_is_the_outcome(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.fail(grant, evidence=Evidence("ValueError", "one"))
        await scene.fail(await again(scene), evidence=Evidence("KeyError", "two"), retryable=False)
        assert (await scene.view(grant.task_id)).outcome == {
            "error_class": "KeyError",
            "error_message": "two",
            "retryable": False,
        }

    async def test_a_dead_letter_of_vanished_workers_does_not_show_an_older_failure(self, scene: Scene) -> None:
        """What ended the task is told, not what happened to it before."""
        grant = await scene.lease(max_losses=1)
        await scene.fail(grant, evidence=Evidence("ValueError", "one"))
        await again(scene)
        await scene.expire_all()
        view = await scene.view(grant.task_id)
        assert view.state is TaskState.FAILED
        assert view.outcome is None or view.outcome["error_class"] != "ValueError"

    async def test_only_the_newest_records_are_kept(self, scene: Scene) -> None:
        (task_id,) = await scene.submit()
        for step in range(ATTEMPT_RECORDS_MAX + 3):
            await scene.release(await again(scene), evidence=Evidence(steps_end=step))
        records = (await scene.view(task_id)).attempt_records
        assert [each.evidence.steps_end for each in records] == list(range(3, ATTEMPT_RECORDS_MAX + 3))


class TestBackoff:
    async def delays(self, scene: Scene, policy: RetryPolicy, failures: int, samples: int) -> list[int]:
        """Milliseconds until they are queued, of tasks that have failed this often; 0 = queued at once."""
        task_ids = await scene.submit(samples, max_attempts=1000)
        for _ in range(failures - 1):
            for grant in await scene.claim(count=samples):
                await scene.fail(grant)
        for grant in await scene.claim(count=samples):
            await scene.fail(grant, retry=policy)
        return [view.scheduled_in_ms or 0 for view in (await scene.tasks.show(task_ids)).values()]

    @pytest.mark.parametrize(("failures", "bound"), [(1, 1000), (2, 2000), (4, 8000)])
    async def test_doubles_with_full_jitter(self, scene: Scene, failures: int, bound: int) -> None:
        delays = await self.delays(scene, RetryPolicy(1000, 60_000), failures, 60)
        assert max(delays) < bound
        # A uniform distribution from 0 to the bound: these are missed once in millions of runs.
        assert 0.2 * bound < statistics.mean(delays) < 0.8 * bound
        assert len(set(delays)) > 30

    async def test_is_capped(self, scene: Scene) -> None:
        delays = await self.delays(scene, RetryPolicy(1000, 1500), 4, 60)
        assert 750 < max(delays) < 1500

    async def test_a_vanished_worker_needs_no_backoff(self, scene: Scene) -> None:
        grant = await scene.lease()
        assert await scene.fail(grant, kind=FailureKind.LOSS, retry=RetryPolicy(10**6, 10**6)) == (
            Verdict.OK,
            "QUEUED",
        )

    async def test_is_waited_for_on_the_lease_clock(self, scene: Scene) -> None:
        grant = await scene.lease(max_attempts=1000)
        while (await scene.fail(grant, retry=RetryPolicy(10_000, 10_000)))[1] == "QUEUED":
            grant = await again(scene)
        wait = (await scene.view(grant.task_id)).scheduled_in_ms
        assert wait is not None
        await scene.advance(wait - 1)
        assert await scene.tasks.promote(0, 100) == 0
        await scene.advance(1)
        assert await scene.tasks.promote(0, 100) == 1
        assert (await again(scene)).task_id == grant.task_id

    async def test_a_delayed_task_is_not_given_before_its_time(self, scene: Scene) -> None:
        (task_id,) = await scene.submit(delay_ms=5000)
        assert (await scene.view(task_id)).scheduled_in_ms == 5000
        assert await scene.claim() == []
        await scene.advance(5000)
        assert await scene.tasks.promote(0, 100) == 1
        assert (await again(scene)).task_id == task_id

    async def test_promotion_is_bounded(self, scene: Scene) -> None:
        await scene.submit(5, delay_ms=1)
        await scene.advance(1)
        assert [await scene.tasks.promote(0, 3) for _ in range(3)] == [3, 2, 0]


class TestCancelRequest:
    async def test_the_holder_is_told_and_its_end_cancels(self, scene: Scene) -> None:
        for end in ("release", "fail", "fail for good", "expire"):
            grant = await scene.lease()
            verdicts = await scene.tasks.cancel([grant.task_id])
            assert verdicts == {grant.task_id: ("cancel_requested", "LEASED")}
            assert await scene.renew(grant) == RenewVerdict.CANCEL
            if end == "release":
                assert await scene.release(grant) == Verdict.OK
            elif end == "expire":
                await scene.expire_all()
            else:
                assert await scene.fail(grant, retryable=end == "fail") == (Verdict.OK, "CANCELLED")
            view = await scene.view(grant.task_id)
            assert view.state is TaskState.CANCELLED, end
            assert "cancel" not in view.fields

    async def test_a_requeued_task_is_not_asked_to_stop_any_more(self, scene: Scene) -> None:
        grant = await scene.lease()
        await scene.tasks.cancel([grant.task_id])
        await scene.release(grant)
        await scene.tasks.requeue([grant.task_id])
        assert await scene.renew(await again(scene)) == RenewVerdict.OK

    async def test_many_at_once(self, scene: Scene) -> None:
        task_ids = await scene.submit(100)
        task_ids += await scene.submit(50)
        (grant,) = await scene.claim()
        verdicts = await scene.tasks.cancel([*task_ids, "0-" + "0" * 26, "not an id"])
        assert verdicts.pop(grant.task_id) == ("cancel_requested", "LEASED")
        assert verdicts.pop("not an id") == verdicts.pop("0-" + "0" * 26) == ("unknown", "")
        assert set(verdicts.values()) == {("ok", "CANCELLED")}
        assert len(verdicts) == 149


class TestRequeue:
    async def test_gives_fresh_budgets_and_keeps_the_evidence(self, scene: Scene) -> None:
        grant = await scene.lease(max_attempts=1)
        await scene.checkpoint(grant, 4)
        await scene.fail(grant)
        assert await scene.tasks.requeue([grant.task_id]) == {grant.task_id: ("ok", "QUEUED")}
        view = await scene.view(grant.task_id)
        assert (view.number("attempts"), view.outcome, view.number("ended")) == (0, None, 0)
        assert len(view.attempt_records) == 1
        second = await again(scene)
        assert (second.epoch, second.attempt) == (2, 1)
        assert [each.step for each in second.checkpoints] == [4]
        assert await scene.fail(second) == (Verdict.OK, "FAILED")

    async def test_the_old_failure_sent_again_changes_nothing(self, scene: Scene) -> None:
        grant = await scene.lease(max_attempts=1)
        await scene.fail(grant)
        await scene.tasks.requeue([grant.task_id])
        before = scene.dump()
        assert await scene.fail(grant) == (Verdict.STALE, "QUEUED")
        assert scene.dump() == before

    async def test_not_in_a_cancelled_search(self, scene: Scene) -> None:
        (task_id,) = await scene.submit()
        await scene.store.searches.put("s", {}, status="cancelled")
        await scene.tasks.cancel([task_id])
        before = scene.dump()
        assert await scene.tasks.requeue([task_id]) == {task_id: ("wrong_state", "CANCELLED")}
        assert scene.dump() == before


async def test_progress_is_shown_while_leased_and_gone_afterwards(scene: Scene) -> None:
    grant = await scene.lease()
    report = {"step": 3, "total_steps": 9, "metrics": {"loss": 0.5}}
    assert await scene.renew(grant, progress=json.dumps(report)) == RenewVerdict.OK
    view = await scene.view(grant.task_id)
    assert view.progress == report
    assert view.number("progress_at") > 0
    await scene.release(grant)
    assert (await scene.view(grant.task_id)).progress is None
    assert await scene.renew(grant, token=STRANGER, progress="{}") == RenewVerdict.LOST
    assert (await scene.view(grant.task_id)).progress is None
