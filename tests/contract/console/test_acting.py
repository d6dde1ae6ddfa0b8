"""The buttons: what they do in the store, and what they say they did."""

from __future__ import annotations

import pytest
from console_page import ConsolePage
from processes import MasterProcess
from raw_peers import Broker, OpenSession

from tenure.proto import tenure_pb2, worker_pb2


async def status_of(broker: Broker, search: str) -> tenure_pb2.Search:
    return await broker.api.GetSearch(tenure_pb2.SearchName(name=search))


def done(console: ConsolePage, **action: str) -> str:
    answer = console.act(**action)
    assert answer.status == 200, answer
    return str(answer.json["said"])


async def test_a_search_is_paused_resumed_and_cancelled(console: ConsolePage, broker: Broker, search: str) -> None:
    await broker.submit(search, 2)
    assert "paused" in done(console, action="pause_search", search=search)
    assert (await status_of(broker, search)).status == "paused"
    assert "2 tasks of it wait" in done(console, action="resume_search", search=search)
    assert (await status_of(broker, search)).status == "active"
    assert "2 tasks of it are" in done(console, action="cancel_search", search=search)
    assert (await status_of(broker, search)).tasks["CANCELLED"] == 2


async def test_a_worker_is_cordoned_drained_and_uncordoned(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    await broker.submit(search)
    worker = await open_session(want=1)
    await worker.hear_task()
    for action, mode in (("cordon_worker", "cordoned"), ("drain_worker", "draining"), ("uncordon_worker", "active")):
        said = done(console, action=action, worker_id=worker.worker_id)
        assert worker.worker_id in said
        assert (await broker.worker(worker.worker_id)).mode == mode
    assert "1 task" in done(console, action="drain_worker", worker_id=worker.worker_id)


async def test_a_dead_letter_is_requeued(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    (task_id,) = await broker.submit(search)
    worker = await open_session(want=1)
    await worker.end(await worker.hear_task(), worker_pb2.OUTCOME_FAILURE, retryable=False, error_class="ValueError")
    assert task_id in done(console, action="requeue_task", task_id=task_id)
    assert (await broker.task(task_id)).state == tenure_pb2.QUEUED
    assert "cancelled" in done(console, action="cancel_task", task_id=task_id)
    assert (await broker.task(task_id)).state == tenure_pb2.CANCELLED


async def test_all_dead_letters_of_a_search_are_requeued_in_batches(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    await broker.submit(search, 60)
    await broker.submit(search, 70)
    worker = await open_session(slots=130, want=130)
    for task in await worker.hear_tasks(130):
        await worker.end(task, worker_pb2.OUTCOME_FAILURE, retryable=False, error_class="ValueError")
    assert (await status_of(broker, search)).tasks["FAILED"] == 130
    said = done(console, action="requeue_dead", search=search)
    assert said == f"130 tasks of {search} are in the queue again, with fresh budgets"
    assert (await status_of(broker, search)).tasks["QUEUED"] == 130


async def test_a_running_task_is_told_to_stop(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    (task_id,) = await broker.submit(search)
    worker = await open_session(want=1)
    await worker.hear_task()
    assert "told to stop" in done(console, action="cancel_task", task_id=task_id)
    assert (await worker.hear_revocation()).task_id == task_id


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        ({"action": "pause_search", "search": "unheard of"}, 404, "UNKNOWN_SEARCH"),
        ({"action": "requeue_dead", "search": "unheard of"}, 404, "UNKNOWN_SEARCH"),
        ({"action": "drain_worker", "worker_id": "unheard of"}, 404, "UNKNOWN_WORKER"),
        ({"action": "requeue_task", "task_id": "0-unheard"}, 409, "WRONG_STATE"),
        ({"action": "format_disk", "search": "s"}, 400, "INVALID_INPUT"),
        ({"action": "pause_search"}, 400, "INVALID_INPUT"),
        ({"action": "pause_search", "search": 7}, 400, "INVALID_INPUT"),
        ({"action": "pause_search", "search": ""}, 400, "INVALID_INPUT"),
        ({"action": "pause_search", "search": "s", "worker_id": "w"}, 400, "INVALID_INPUT"),
        ({"action": ["pause_search"], "search": "s"}, 400, "INVALID_INPUT"),
        ({}, 400, "INVALID_INPUT"),
    ],
)
def test_what_cannot_be_done_is_an_error_and_changes_nothing(
    console: ConsolePage, action: dict[str, object], status: int, code: str
) -> None:
    answer = console.act(**action)
    assert (answer.status, answer.json["error"]["code"]) == (status, code), answer
    assert answer.json["error"]["text"]


async def test_a_task_in_the_wrong_state_is_left_alone(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    (task_id,) = await broker.submit(search)
    worker = await open_session(want=1)
    await worker.end(await worker.hear_task())
    for action in ("requeue_task", "cancel_task"):
        answer = console.act(action=action, task_id=task_id)
        assert (answer.status, answer.json["error"]["code"]) == (409, "WRONG_STATE"), answer
        assert "SUCCEEDED" in answer.json["error"]["text"]
    assert (await broker.task(task_id)).state == tenure_pb2.SUCCEEDED


async def test_every_press_is_in_the_log(
    console: ConsolePage, console_master: MasterProcess, broker: Broker, search: str
) -> None:
    done(console, action="pause_search", search=search)
    (line,) = console_master.logged("console.action", action="pause_search", search=search)
    assert line["client"] == "127.0.0.1"
