"""Checkpoints over a session stream: registered under their lease, in order, kept and deleted by the master's word."""

from __future__ import annotations

import pytest
from processes import eventually
from raw_peers import Broker, OpenSession, checkpoint_of, outcome_of, renewal_of

from tenure.proto import tenure_pb2, worker_pb2

SUCCESS, FAILURE = worker_pb2.OUTCOME_SUCCESS, worker_pb2.OUTCOME_FAILURE
LOSS, OUT_OF_MEMORY, RELEASE = (
    worker_pb2.OUTCOME_LOSS,
    worker_pb2.OUTCOME_OUT_OF_MEMORY,
    worker_pb2.OUTCOME_RELEASE,
)
OK, STALE = worker_pb2.VERDICT_OK, worker_pb2.VERDICT_STALE


async def test_a_checkpoint_before_a_release_is_in_the_next_request(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    await broker.submit(search)
    first = await open_session(want=1)
    task = await first.hear_task()
    # Not waited for: messages of one stream are carried out in order.
    await first.say(checkpoint=checkpoint_of(task, "file:///ck/1", step=5, score=0.25))
    await first.say(outcomes=worker_pb2.Outcomes(outcomes=[outcome_of(task, RELEASE)]))
    second = await open_session(want=1)
    again = await second.hear_task()
    (checkpoint,) = again.checkpoints
    assert (checkpoint.url, checkpoint.step, checkpoint.epoch, checkpoint.score) == ("file:///ck/1", 5, 1, 0.25)
    assert checkpoint.digest == "d" * 64
    assert (await first.hear("checkpoint_verdict")).checkpoint_verdict.verdict == OK


async def test_the_order_holds_for_every_one_of_many(open_session: OpenSession, broker: Broker, search: str) -> None:
    await broker.submit(search, 30)
    first = await open_session(want=30, slots=30)
    for task in await first.hear_tasks(30):
        await first.say(renewals=worker_pb2.Renewals(renewals=[renewal_of(task, sequence=1, step=1)]))
        await first.say(checkpoint=checkpoint_of(task, f"file:///{task.task_id}"))
        await first.say(outcomes=worker_pb2.Outcomes(outcomes=[outcome_of(task, RELEASE)]))
    second = await open_session(want=30, slots=30)
    for task in await second.hear_tasks(30):
        assert [checkpoint.url for checkpoint in task.checkpoints] == [f"file:///{task.task_id}"]
    await first.heartbeat()
    await first.expect_silence("revocations")


async def test_checkpoints_are_kept_and_deleted_by_the_masters_word(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    deleted: list[str] = []
    for step, score in [(1, 0.9), (2, 0.1), (3, float("nan")), (4, 0.2)]:
        verdict = await session.register_checkpoint(task, f"file:///{step}", step, score=score)
        assert verdict.verdict == OK
        deleted += verdict.delete_urls
    # The last two and the best stay.
    assert deleted == ["file:///2"]
    # Announced again, it is answered as before, and what was retired is named again.
    for url in ("file:///2", "file:///4"):
        again = await session.register_checkpoint(task, url, 4)
        assert (again.verdict, list(again.delete_urls)) == (OK, ["file:///2"])
    assert (await broker.task(task_id)).checkpoint.url == "file:///4"
    verdict = await session.end(task)
    assert sorted(verdict.delete_urls) == ["file:///1", "file:///3", "file:///4"]


async def test_a_checkpoint_under_an_outdated_lease_is_stale(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    first = await open_session(want=1)
    old = await first.hear_task()
    await first.end(old, RELEASE)
    second = await open_session(want=1)
    new = await second.hear_task()
    assert (await first.register_checkpoint(old, "file:///old")).verdict == STALE
    assert (await second.register_checkpoint(new, "file:///new")).verdict == OK
    assert (await broker.task(task_id)).checkpoint.url == "file:///new"
    unknown = worker_pb2.EvaluateRequest(task_id="0-" + "z" * 26, lease_token="t")
    assert (await first.register_checkpoint(unknown, "file:///x")).verdict == worker_pb2.VERDICT_UNKNOWN_TASK


@pytest.mark.parametrize(
    "harm", [{"url": ""}, {"url": "file:///" + "u" * 10_000}, {"url": "file:///a\nb"}, {"digest": "d" * 10_000}]
)
async def test_a_bad_checkpoint_is_invalid_and_costs_no_other_task_anything(
    open_session: OpenSession, broker: Broker, search: str, harm: dict[str, str]
) -> None:
    await broker.submit(search, 2)
    session = await open_session(want=2)
    bad, good = await session.hear_tasks(2)
    message = checkpoint_of(bad, "file:///x")
    message.checkpoint.MergeFrom(worker_pb2.Checkpoint(**harm))
    if not harm.get("url", "file"):
        message.checkpoint.url = ""
    await session.say(checkpoint=message)
    verdict = (await session.hear("checkpoint_verdict")).checkpoint_verdict
    assert (verdict.task_id, verdict.verdict) == (bad.task_id, worker_pb2.VERDICT_INVALID)
    assert (await session.end(good)).verdict == OK


async def test_checkpoints_of_cancelled_tasks_are_given_to_some_worker_to_delete(
    open_session: OpenSession, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    await session.register_checkpoint(task, "file:///discarded")
    await session.end(task, RELEASE)
    await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[task_id]))

    async def discarded() -> bool:
        return "file:///discarded" in (await session.hear("discard")).discard.urls

    await eventually(discarded)
