"""The client API's calls about tasks."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from raw_peers import GRAPH, Broker, OpenSession, refused

from tenure.common.spec import Config, content_key
from tenure.proto import tenure_pb2, worker_pb2

QUEUED, LEASED = tenure_pb2.QUEUED, tenure_pb2.LEASED


def spec(**fields: Any) -> tenure_pb2.TaskSpec:
    return tenure_pb2.TaskSpec(**{"architecture": GRAPH, **fields})


async def submit(broker: Broker, search: str, *tasks: tenure_pb2.TaskSpec) -> list[tenure_pb2.Submitted]:
    response = await broker.api.Submit(tenure_pb2.SubmitRequest(search=search, tasks=tasks))
    return list(response.tasks)


async def cancel(broker: Broker, *task_ids: str) -> list[tuple[str, int]]:
    response = await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=task_ids))
    assert [verdict.task_id for verdict in response.verdicts] == list(dict.fromkeys(task_ids))
    return [(verdict.verdict, verdict.state) for verdict in response.verdicts]


async def requeue(broker: Broker, *task_ids: str) -> list[tuple[str, int]]:
    response = await broker.api.RequeueTasks(tenure_pb2.TaskIds(task_ids=task_ids))
    return [(verdict.verdict, verdict.state) for verdict in response.verdicts]


async def page(broker: Broker, search: str, **fields: Any) -> tuple[list[str], str]:
    response = await broker.api.ListTasks(tenure_pb2.ListTasksRequest(search=search, **fields))
    return [task.task_id for task in response.tasks], response.next_page_token


# ---- submit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 100])
async def test_submit(broker: Broker, search: str, count: int) -> None:
    submitted = await submit(broker, search, *(spec(key=f"k{number}") for number in range(count)))
    assert [(task.key, task.created, task.state) for task in submitted] == [
        (f"k{number}", True, QUEUED) for number in range(count)
    ]
    assert len({task.task_id for task in submitted}) == count
    found = await broker.api.GetSearch(tenure_pb2.SearchName(name=search))
    assert (found.tasks["QUEUED"], found.status, found.architecture_format) == (count, "active", "graph")


async def test_everything_submitted_is_shown(broker: Broker, search: str) -> None:
    config = tenure_pb2.Config(
        num_epochs=5, batch_size=32, learning_rate=0.001, dataset="mine.data:load", extra={"seed": "7", "ü": "é"}
    )
    requirements = tenure_pb2.Requirements(gpus=1, labels={"zone": "a"})
    (submitted,) = await submit(
        broker,
        search,
        spec(
            key="ключ",
            config=config,
            priority=-7,
            max_attempts=4,
            max_losses=6,
            timeout_ms=1000,
            progress_deadline_ms=2000,
            requirements=requirements,
        ),
    )
    task = await broker.task(submitted.task_id)
    assert (task.search, task.key, task.state, task.priority) == (search, "ключ", QUEUED, -7)
    assert (task.max_attempts, task.max_losses, task.attempts, task.losses, task.epoch) == (4, 6, 0, 0, 0)
    assert (task.architecture, task.config, task.requirements) == (GRAPH, config, requirements)
    assert task.submitted_unix_ms > 0
    assert (task.leased_unix_ms, task.ended_unix_ms, task.worker_id) == (0, 0, "")
    brief = (await broker.api.GetTasks(tenure_pb2.GetTasksRequest(task_ids=[submitted.task_id]))).tasks[0]
    assert (brief.architecture, brief.key) == ("", "ключ")


async def test_absent_budgets_are_the_defaults(broker: Broker, search: str) -> None:
    (submitted,) = await submit(broker, search, spec())
    task = await broker.task(submitted.task_id)
    assert (task.max_attempts, task.max_losses) == (3, 5)


async def test_a_known_key_returns_the_task_that_exists(broker: Broker, search: str, open_session: OpenSession) -> None:
    (first,) = await submit(broker, search, spec(key="same"))
    session = await open_session(want=1)
    await session.end(await session.hear_task())
    # Whatever else it says: the key decides.
    again, new = await submit(broker, search, spec(key="same", priority=5), spec(key="other"))
    assert (again.task_id, again.created, again.state) == (first.task_id, False, tenure_pb2.SUCCEEDED)
    assert new.created
    assert (await broker.task(first.task_id)).priority == 0


async def test_one_key_twice_in_a_batch_is_one_task(broker: Broker, search: str) -> None:
    first, second = await submit(broker, search, spec(key="same"), spec(key="same"))
    assert (first.task_id, first.created, second.created) == (second.task_id, True, False)


async def test_without_a_key_equal_content_is_one_task(broker: Broker, search: str) -> None:
    blanks = GRAPH.replace(" ", "  ")
    config = tenure_pb2.Config(num_epochs=1)
    submitted = await submit(broker, search, spec(), spec(architecture=blanks), spec(config=config), spec(priority=3))
    assert [task.created for task in submitted] == [True, False, True, False]
    assert submitted[0].key == content_key(GRAPH, Config())
    assert submitted[1].task_id == submitted[0].task_id == submitted[3].task_id


async def test_keys_are_of_their_search(broker: Broker, search: str) -> None:
    (here,) = await submit(broker, search, spec(key="same"))
    (there,) = await submit(broker, f"{search}-2", spec(key="same"))
    assert here.task_id != there.task_id
    await broker.api.CancelSearch(tenure_pb2.SearchName(name=f"{search}-2"))


async def test_a_delayed_task_waits_on_the_lease_clock(broker: Broker, search: str, open_session: OpenSession) -> None:
    (later, much_later) = await submit(broker, search, spec(key="a", delay_ms=300), spec(key="b", delay_ms=3_600_000))
    assert (later.state, much_later.state) == (tenure_pb2.SCHEDULED, tenure_pb2.SCHEDULED)
    assert 3_500_000 < (await broker.task(much_later.task_id)).scheduled_in_ms <= 3_600_000
    session = await open_session(want=2)
    assert (await session.hear_task()).task_id == later.task_id
    await session.expect_silence("tasks")
    assert await cancel(broker, much_later.task_id) == [("ok", tenure_pb2.CANCELLED)]


async def test_priority_within_a_search(broker: Broker, search: str, open_session: OpenSession) -> None:
    submitted = await submit(broker, search, *(spec(key=f"{p}", priority=p) for p in (-100, 0, 100, 50)))
    session = await open_session(want=4)
    tasks = await session.hear_tasks(4)
    assert [task.task_id for task in tasks] == [submitted[n].task_id for n in (2, 3, 1, 0)]


# ---- list ----------------------------------------------------------------------------------------------------------


async def test_pages_in_the_order_of_submission(broker: Broker, search: str) -> None:
    task_ids = await broker.submit(search, 25)
    seen: list[str] = []
    token, sizes = "", []
    while True:
        ids, token = await page(broker, search, page_size=10, page_token=token)
        seen += ids
        sizes.append(len(ids))
        if not token:
            break
    assert seen == task_ids
    assert sizes[:3] == [10, 10, 5]
    assert (await page(broker, search))[0] == task_ids


async def test_pages_by_state(broker: Broker, search: str, open_session: OpenSession) -> None:
    task_ids = await broker.submit(search, 12)
    session = await open_session(want=3)
    leased = [task.task_id for task in await session.hear_tasks(3)]
    await cancel(broker, *task_ids[6:8])
    assert (await page(broker, search, states=[LEASED]))[0] == leased
    assert (await page(broker, search, states=[tenure_pb2.CANCELLED, LEASED]))[0] == [*leased, *task_ids[6:8]]
    assert (await page(broker, search, states=[tenure_pb2.SUCCEEDED])) == ([], "")
    # A state whose tasks are few is found beyond many others.
    ids, _ = await page(broker, search, states=[tenure_pb2.CANCELLED], page_size=1)
    assert ids == task_ids[6:7]


async def test_an_empty_search_has_an_empty_page(broker: Broker, search: str) -> None:
    await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=search))
    assert await page(broker, search) == ([], "")


# ---- cancel and requeue --------------------------------------------------------------------------------------------


async def test_cancel(broker: Broker, search: str, open_session: OpenSession) -> None:
    task_ids = await broker.submit(search, 3)
    session = await open_session(want=2)
    held, done = await session.hear_tasks(2)
    await session.end(done)
    assert await cancel(broker, task_ids[2], held.task_id, done.task_id, task_ids[2]) == [
        ("ok", tenure_pb2.CANCELLED),
        ("cancel_requested", LEASED),
        ("wrong_state", tenure_pb2.SUCCEEDED),
    ]
    assert await cancel(broker, task_ids[2], held.task_id) == [
        ("already", tenure_pb2.CANCELLED),
        ("cancel_requested", LEASED),
    ]
    await session.end(held, worker_pb2.OUTCOME_RELEASE)
    assert await cancel(broker, held.task_id) == [("already", tenure_pb2.CANCELLED)]
    assert (await broker.task(held.task_id)).ended_unix_ms > 0


async def test_a_cancelled_holder_that_dies_leaves_a_cancelled_task(
    broker: Broker, search: str, open_session: OpenSession
) -> None:
    (task_id,) = await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    await cancel(broker, task_id)
    await session.end(task, worker_pb2.OUTCOME_LOSS)
    assert (await broker.task(task_id)).state == tenure_pb2.CANCELLED


async def test_requeue_gives_fresh_budgets_and_keeps_the_evidence(
    broker: Broker, search: str, open_session: OpenSession
) -> None:
    (failed, cancelled) = await broker.submit(search, 2, max_attempts=1)
    await cancel(broker, cancelled)
    session = await open_session(want=1)
    task = await session.hear_task()
    await session.register_checkpoint(task, "file:///kept", step=3)
    await session.end(task, worker_pb2.OUTCOME_FAILURE, error_class="E", retryable=True)
    assert (await broker.task(failed)).state == tenure_pb2.FAILED
    assert await requeue(broker, failed, cancelled) == [("ok", QUEUED)] * 2
    assert await requeue(broker, failed) == [("already", QUEUED)]
    found = await broker.task(failed)
    assert (found.attempts, found.ended_unix_ms, len(found.attempt_records)) == (0, 0, 1)
    assert found.failure.error_class == ""
    await session.want(2)
    again = (await session.hear_tasks(2))[0]
    assert (again.task_id, again.epoch, again.attempt) == (failed, 2, 1)
    assert [checkpoint.url for checkpoint in again.checkpoints] == ["file:///kept"]
    assert await requeue(broker, failed) == [("already", LEASED)]
    await session.end(again)
    assert await requeue(broker, failed) == [("wrong_state", tenure_pb2.SUCCEEDED)]
    assert (await broker.task(failed)).resumes == 1


async def test_a_cancelled_search_takes_nothing_and_requeues_nothing(broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    await broker.api.CancelSearch(tenure_pb2.SearchName(name=search))
    assert (await broker.task(task_id)).state == tenure_pb2.CANCELLED
    assert await requeue(broker, task_id) == [("wrong_state", tenure_pb2.CANCELLED)]
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", "search", search):
        await submit(broker, search, spec(key="new"))
    await broker.api.ResumeSearch(tenure_pb2.SearchName(name=search))
    assert await requeue(broker, task_id) == [("ok", QUEUED)]
    assert (await submit(broker, search, spec(key="new")))[0].created
