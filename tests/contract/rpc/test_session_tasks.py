"""What goes over a session stream while it is up: wants, tasks, outcomes and their verdicts."""

from __future__ import annotations

from typing import Any

import pytest
from raw_peers import GRAPH, Broker, OpenSession, outcome_of, renewal_of

from tenure.proto import tenure_pb2, worker_pb2

SUCCESS, FAILURE = worker_pb2.OUTCOME_SUCCESS, worker_pb2.OUTCOME_FAILURE
LOSS, OUT_OF_MEMORY, RELEASE = (
    worker_pb2.OUTCOME_LOSS,
    worker_pb2.OUTCOME_OUT_OF_MEMORY,
    worker_pb2.OUTCOME_RELEASE,
)
OK, STALE = worker_pb2.VERDICT_OK, worker_pb2.VERDICT_STALE


async def test_a_task_is_sent_the_moment_it_exists(open_session: OpenSession, broker: Broker, search: str) -> None:
    session = await open_session(want=1)
    await session.heartbeat()
    (task_id,) = await broker.submit(search)
    assert (await session.hear_task()).task_id == task_id


async def test_a_task_says_all_that_a_worker_needs(open_session: OpenSession, broker: Broker, search: str) -> None:
    config = tenure_pb2.Config(num_epochs=3, batch_size=16, learning_rate=0.01, dataset="digits", extra={"seed": "1"})
    (task_id,) = await broker.submit(search, config=config, timeout_ms=60_000, progress_deadline_ms=5_000)
    session = await open_session(want=1)
    task = await session.hear_task()
    assert (task.task_id, task.search, task.architecture) == (task_id, search, GRAPH)
    assert (task.config.num_epochs, task.config.batch_size, task.config.learning_rate) == (3, 16, 0.01)
    assert (task.config.dataset, dict(task.config.extra)) == ("digits", {"seed": "1"})
    assert (task.epoch, task.attempt, len(task.lease_token), len(task.checkpoints)) == (1, 1, 32, 0)
    assert (task.timeout_ms, task.progress_deadline_ms, task.lease_ttl_ms) == (60_000, 5_000, 30_000)


async def test_no_more_tasks_come_than_are_wanted(open_session: OpenSession, broker: Broker, search: str) -> None:
    await broker.submit(search, 5)
    session = await open_session(want=2)
    await session.hear_tasks(2)
    await session.expect_silence("tasks")
    # The number replaces what was said before.
    await session.want(1)
    await session.hear_tasks(1)
    await session.expect_silence("tasks")


async def test_a_want_of_zero_takes_the_number_back(open_session: OpenSession, broker: Broker, search: str) -> None:
    session = await open_session(want=4)
    await session.want(0)
    await session.heartbeat()
    await broker.submit(search)
    await session.expect_silence("tasks")


async def test_outcome_and_want_in_one_message(open_session: OpenSession, broker: Broker, search: str) -> None:
    first_id, second_id = await broker.submit(search, 2)
    session = await open_session(want=1)
    task = await session.hear_task()
    await session.say(outcomes=worker_pb2.Outcomes(outcomes=[outcome_of(task, SUCCESS)], want_slots=1))
    (verdict,) = (await session.hear("outcome_verdicts")).outcome_verdicts.verdicts
    assert (task.task_id, verdict.verdict) == (first_id, OK)
    assert (await session.hear_task()).task_id == second_id


async def test_a_success_ends_the_task_with_its_result(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    verdict = await session.end(
        await session.hear_task(),
        metrics={"fitness": 0.9, "val_loss": 0.1},
        detail='{"note": 1}',
        duration_seconds=1.5,
        steps_end=3,
        log_tail="the last line",
    )
    assert verdict.verdict == OK
    task = await broker.task(task_id)
    assert task.state == tenure_pb2.SUCCEEDED
    assert dict(task.metrics) == {"fitness": 0.9, "val_loss": 0.1}
    assert (task.detail, task.duration_seconds, task.worker_id) == ('{"note": 1}', 1.5, session.worker_id)
    (record,) = task.attempt_records
    assert (record.outcome, record.epoch, record.worker_id) == ("success", 1, session.worker_id)
    assert (record.steps_end, record.log_tail) == (3, "the last line")
    found = await broker.api.GetSearch(tenure_pb2.SearchName(name=search))
    assert (found.best_fitness, found.best_task_id) == (0.9, task_id)


@pytest.mark.parametrize(
    ("kind", "fields", "spent", "state"),
    [
        (FAILURE, {"retryable": True}, (1, 0, 0), tenure_pb2.QUEUED),
        (FAILURE, {"retryable": False}, (1, 0, 0), tenure_pb2.FAILED),
        (LOSS, {"exit_signal": 9}, (0, 1, 0), tenure_pb2.QUEUED),
        (OUT_OF_MEMORY, {"retryable": True}, (0, 0, 1), tenure_pb2.QUEUED),
        (OUT_OF_MEMORY, {"retryable": False}, (0, 0, 1), tenure_pb2.FAILED),
        (RELEASE, {}, (0, 0, 0), tenure_pb2.QUEUED),
    ],
)
async def test_every_other_end_is_charged_to_its_own_budget(
    open_session: OpenSession,
    broker: Broker,
    search: str,
    kind: Any,
    fields: dict[str, Any],
    spent: tuple[int, int, int],
    state: int,
) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    verdict = await session.end(
        await session.hear_task(), kind, error_class="ValueError", error_message="no", log_tail="last", **fields
    )
    assert verdict.verdict == OK
    task = await broker.task(task_id)
    assert (task.attempts, task.losses, task.out_of_memory) == spent
    assert task.state == state
    (record,) = task.attempt_records
    assert (record.error_class, record.error_message, record.log_tail) == ("ValueError", "no", "last")
    assert record.exit_signal == fields.get("exit_signal", 0)


async def test_a_budget_that_is_spent_ends_the_task(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search, max_attempts=2)
    session = await open_session(want=2)
    for epoch in (1, 2):
        task = await session.hear_task()
        assert (task.epoch, task.attempt) == (epoch, epoch)
        await session.end(task, FAILURE, error_class="ValueError", error_message=f"no {epoch}", retryable=True)
    found = await broker.task(task_id)
    assert (found.state, found.attempts) == (tenure_pb2.FAILED, 2)
    assert (found.failure.error_class, found.failure.message) == ("ValueError", "no 2")
    assert [record.epoch for record in found.attempt_records] == [1, 2]


@pytest.mark.parametrize("kind", [SUCCESS, FAILURE, LOSS, OUT_OF_MEMORY, RELEASE])
async def test_an_outcome_sent_again_is_answered_the_same_and_changes_nothing(
    open_session: OpenSession, broker: Broker, search: str, kind: Any
) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    assert (await session.end(task, kind, retryable=True)).verdict == OK
    before = await broker.task(task_id)
    assert (await session.end(task, kind, retryable=True)).verdict == OK
    assert await broker.task(task_id) == before


async def test_verdicts_for_outdated_leases(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=2)
    old = await session.hear_task()
    await session.end(old, RELEASE)
    middle = await session.hear_task()
    await session.end(middle, RELEASE)
    holder = await open_session(want=1)
    new = await holder.hear_task()
    assert [each.epoch for each in (old, middle, new)] == [1, 2, 3]
    assert len({each.lease_token for each in (old, middle, new)}) == 3
    for kind in (FAILURE, LOSS, OUT_OF_MEMORY, RELEASE):
        assert (await session.end(old, kind, retryable=True)).verdict == STALE
    assert (await broker.task(task_id)).attempts == 0
    # A success is taken all the same, and the holder is told to stop.
    assert (await session.end(old, SUCCESS)).verdict == OK
    revocation = await holder.hear_revocation()
    assert (revocation.lease_token, revocation.reason) == (new.lease_token, "finished_elsewhere")
    assert (await holder.end(new, SUCCESS)).verdict == worker_pb2.VERDICT_DUPLICATE
    assert (await holder.end(new, FAILURE)).verdict == STALE
    found = await broker.task(task_id)
    assert (found.state, found.worker_id) == (tenure_pb2.SUCCEEDED, session.worker_id)


@pytest.mark.parametrize("task_id", ["", "nonsense", "0-" + "z" * 26, "0-" + "t" * 10_240, "7-" + "z" * 26])
async def test_an_outcome_of_an_unknown_task(open_session: OpenSession, task_id: str) -> None:
    session = await open_session()
    unknown = worker_pb2.EvaluateRequest(task_id=task_id, lease_token="t" * 32, epoch=1)
    verdict = await session.end(unknown)
    assert verdict.verdict == worker_pb2.VERDICT_UNKNOWN_TASK
    assert verdict.message


async def test_an_outcome_without_a_token_is_invalid(open_session: OpenSession, broker: Broker, search: str) -> None:
    """Else it would be taken for a legacy peer's, and a zombie of this worker id would pass for the holder."""
    task_ids = await broker.submit(search, 2)
    session = await open_session(want=2)
    tasks = await session.hear_tasks(2)
    bare = outcome_of(tasks[0], FAILURE)
    bare.lease_token = ""
    await session.say(outcomes=worker_pb2.Outcomes(outcomes=[bare, outcome_of(tasks[1], SUCCESS)]))
    verdicts = (await session.hear("outcome_verdicts")).outcome_verdicts.verdicts
    assert [each.verdict for each in verdicts] == [worker_pb2.VERDICT_INVALID, OK]
    assert "lease_token" in verdicts[0].message
    assert {(await broker.task(task_id)).state for task_id in task_ids} == {tenure_pb2.LEASED, tenure_pb2.SUCCEEDED}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"metrics": {"fitness": float("nan")}}, "fitness"),
        ({"metrics": {"loss": float("inf")}}, "loss"),
        ({"metrics": {f"m{n}": 1.0 for n in range(300)}}, "300 metrics"),
        ({"metrics": {"m" * 1000: 1.0}}, "metric name"),
        ({"detail": "d" * 100_000}, "detail"),
    ],
)
async def test_a_success_that_cant_be_kept_is_a_failure_that_says_so(
    open_session: OpenSession, broker: Broker, search: str, fields: dict[str, Any], problem: str
) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    assert (await session.end(await session.hear_task(), SUCCESS, **fields)).verdict == OK
    task = await broker.task(task_id)
    assert (task.state, task.attempts) == (tenure_pb2.QUEUED, 1)
    assert task.failure.error_class == "InvalidResult"
    assert problem in task.failure.message


async def test_evidence_is_shortened_to_its_limits(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    verdict = await session.end(
        await session.hear_task(),
        FAILURE,
        error_class="E" * 1000,
        error_message="é" * 100_000,
        log_tail="x" * 100_000 + "the end",
        duration_seconds=float("nan"),
    )
    assert verdict.verdict == OK
    (record,) = (await broker.task(task_id)).attempt_records
    assert len(record.error_class) <= 200
    assert len(record.error_message.encode()) <= 8192
    assert len(record.log_tail.encode()) <= 16_384
    assert record.log_tail.endswith("the end")
    assert record.duration_seconds == 0


async def test_a_hundred_outcomes_in_one_message(open_session: OpenSession, broker: Broker, search: str) -> None:
    task_ids = await broker.submit(search, 100)
    session = await open_session(slots=100, want=100)
    tasks = await session.hear_tasks(100)
    kinds = [(SUCCESS, FAILURE, RELEASE)[number % 3] for number in range(100)]
    outcomes = [outcome_of(task, kind) for task, kind in zip(tasks, kinds, strict=True)]
    await session.say(outcomes=worker_pb2.Outcomes(outcomes=outcomes))
    verdicts = (await session.hear("outcome_verdicts")).outcome_verdicts.verdicts
    assert [verdict.task_id for verdict in verdicts] == [task.task_id for task in tasks]
    assert {verdict.verdict for verdict in verdicts} == {OK}
    response = await broker.api.GetTasks(tenure_pb2.GetTasksRequest(task_ids=task_ids))
    states = [task.state for task in response.tasks]
    assert states.count(tenure_pb2.SUCCEEDED) == 34
    assert states.count(tenure_pb2.FAILED) == 33


async def test_requirements_choose_the_worker(open_session: OpenSession, broker: Broker, search: str) -> None:
    requirements = tenure_pb2.Requirements(gpus=2, labels={"zone": search[-20:]})
    (task_id,) = await broker.submit(search, requirements=requirements)
    for registration in ({}, {"num_gpus": 2, "slots": 1}, {"labels": {"zone": search[-20:]}}):
        unfit = await open_session(want=1, **registration)
        await unfit.expect_silence("tasks")
    # Two slots share the four GPUs.
    fit = await open_session(want=1, num_gpus=4, slots=2, labels={"zone": search[-20:]})
    assert (await fit.hear_task()).task_id == task_id


async def test_renewals_carry_progress(open_session: OpenSession, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    metrics = {"loss": 0.5, "bad": float("nan"), "n" * 1000: 1.0}
    report = renewal_of(task, sequence=1, step=7, total_steps=9, metrics=metrics)
    await session.say(renewals=worker_pb2.Renewals(renewals=[report]))
    assert (await session.hear("renewals_done")).renewals_done.renewed == 1
    progress = (await broker.task(task_id)).progress
    assert (progress.step, progress.total_steps, dict(progress.metrics)) == (7, 9, {"loss": 0.5})
    # A renewal without news keeps it.
    assert (await session.heartbeat(renewal_of(task))).renewed == 1
    assert (await broker.task(task_id)).progress.step == 7
