"""What a MorphML 1.0 worker is owed, sentence by sentence, by a worker that speaks its fields only and never pulls."""

from __future__ import annotations

import contextlib

import grpc
import morphml_worker
import pytest
from morphml_worker import Ending, MakeWorker
from processes import MasterProcess, eventually
from raw_peers import Broker

from tenure.proto import tenure_pb2, worker_pb2


async def test_evaluate_is_pushed_one_at_a_time(make_worker: MakeWorker, broker: Broker, search: str) -> None:
    task_ids = await broker.submit(search, 3, config=tenure_pb2.Config(num_epochs=2, dataset="digits"))
    worker = make_worker().start()
    for number, task_id in enumerate(task_ids, start=1):
        request = worker.wait_for_request(number)
        assert (request.task_id, request.config.num_epochs, request.config.dataset) == (task_id, 2, "digits")
        found = await broker.task(task_id)
        assert (found.state, found.worker_id) == (tenure_pb2.LEASED, worker.worker_id)
        # Not even heartbeats that say nothing of it bring the next one.
        assert worker.heartbeat(status="idle", current_task_id="").acknowledged
        worker.end(task_id)
    for task_id in task_ids:
        assert (await broker.until(task_id, tenure_pb2.SUCCEEDED)).epoch == 1
    assert worker.at_once_max == 1


@pytest.mark.parametrize("submit", [True, False])
async def test_a_success_is_taken_once_whichever_way_it_comes(
    make_worker: MakeWorker, broker: Broker, search: str, submit: bool
) -> None:
    (task_id,) = await broker.submit(search)
    before = await broker.counters()
    worker = make_worker().start()
    worker.wait_for_request(1)
    worker.end(task_id, submit=submit, metrics={"fitness": 0.75})
    found = await broker.until(task_id, tenure_pb2.SUCCEEDED)
    assert (dict(found.metrics), found.worker_id, len(found.attempt_records)) == (
        {"fitness": 0.75},
        worker.worker_id,
        1,
    )
    # The next push shows that the call's end was seen, too: no duplicate was counted.
    (second,) = await broker.submit(search)
    assert worker.wait_for_request(2).task_id == second
    worker.end(second)
    await broker.until(second, tenure_pb2.SUCCEEDED)
    after = await broker.counters()
    for name in ("duplicates", "stale_refused", "late_accepted"):
        assert after.get(name, 0) == before.get(name, 0)


@pytest.mark.parametrize("submit", [True, False])
async def test_a_failure_burns_one_attempt_whichever_way_it_comes(
    make_worker: MakeWorker, broker: Broker, search: str, submit: bool
) -> None:
    (task_id,) = await broker.submit(search, max_attempts=3)
    worker = make_worker().start()
    for attempt in (1, 2, 3):
        worker.wait_for_request(attempt)
        worker.end(task_id, submit=submit, success=False, error=f"no {attempt}")
    found = await broker.until(task_id, tenure_pb2.FAILED)
    assert (found.attempts, found.losses, found.failure.message) == (3, 0, "no 3")
    assert [record.outcome for record in found.attempt_records] == ["failure"] * 3


async def test_a_result_stands_whatever_the_call_says_afterwards(
    make_worker: MakeWorker, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    worker = make_worker().start()
    worker.wait_for_request(1)
    worker.end(task_id, abort=grpc.StatusCode.INTERNAL, error="after the result")
    found = await broker.until(task_id, tenure_pb2.SUCCEEDED)
    assert (found.attempts, found.losses) == (0, 0)


async def test_a_call_that_ends_with_an_error_burns_an_attempt(
    make_worker: MakeWorker, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search, max_attempts=1)
    worker = make_worker().start()
    worker.wait_for_request(1)
    worker.end(task_id, submit=False, abort=grpc.StatusCode.INTERNAL, error="it raised")
    found = await broker.until(task_id, tenure_pb2.FAILED)
    assert (found.attempts, found.failure.error_class) == (1, "EvaluateCallFailed")
    assert "it raised" in found.failure.message


async def test_the_unpatched_morphml_is_explained(make_worker: MakeWorker, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search, max_attempts=1)
    worker = make_worker().start()
    worker.wait_for_request(1)
    worker.end(task_id, submit=False, success=False, error="must be real number, not str")
    found = await broker.until(task_id, tenure_pb2.FAILED)
    assert "MorphML 1.0" in found.failure.message


@pytest.mark.parametrize("host", ["no-such-host.invalid", "", "127.0.0.1"])
async def test_it_is_reached_by_its_peers_address_if_its_host_is_unresolvable(
    make_worker: MakeWorker, broker: Broker, search: str, host: str
) -> None:
    (task_id,) = await broker.submit(search)
    worker = make_worker(host=host).start()
    assert worker.wait_for_request(1).task_id == task_id
    worker.end(task_id)
    await broker.until(task_id, tenure_pb2.SUCCEEDED)


async def test_a_worker_whose_slots_are_taken_costs_nothing(
    make_worker: MakeWorker, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    worker = make_worker().start()
    worker.wait_for_request(1)
    worker.end(task_id, submit=False, abort=grpc.StatusCode.RESOURCE_EXHAUSTED, error="busy")
    worker.wait_for_request(2)
    worker.end(task_id)
    found = await broker.until(task_id, tenure_pb2.SUCCEEDED)
    assert (found.attempts, found.losses, found.epoch) == (0, 0, 2)


async def test_cancel_task_is_called_and_a_late_result_does_no_harm(
    make_worker: MakeWorker, broker: Broker, search: str
) -> None:
    (task_id,) = await broker.submit(search)
    worker = make_worker().start()
    worker.wait_for_request(1)
    await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[task_id]))
    await eventually(lambda: worker.cancels)
    assert worker.cancels[0].task_id == task_id
    # It said success, and went on.
    assert (await broker.task(task_id)).state == tenure_pb2.LEASED
    worker.end(task_id, submit=False, success=False, error="stopped, late")
    found = await broker.until(task_id, tenure_pb2.CANCELLED)
    assert worker.submit_result(task_id, Ending(success=False, error="again")) is not None
    assert (await broker.task(task_id)).state == found.state


async def test_a_timeout_is_the_calls_deadline(make_worker: MakeWorker, broker: Broker, search: str) -> None:
    worker = make_worker().start()
    # One that is over before the call has come, as on a busy machine, shows nothing.
    for timeout_ms in (300, 3_000, 30_000):
        (task_id,) = await broker.submit(search, timeout_ms=timeout_ms, max_attempts=1)
        found = await broker.until(task_id, tenure_pb2.FAILED, deadline=60)
        if worker.requests:
            break
    assert (found.attempts, found.failure.error_class) == (1, "TaskTimeout")
    assert [cancel.task_id for cancel in worker.cancels if cancel.task_id == task_id] == [task_id]
    # Its work goes on all the same: the next one waits until it says that it is free.
    (second,) = await broker.submit(search)
    worker.heartbeat()
    assert len(worker.requests) == 1
    worker.end(task_id, submit=False)
    worker.heartbeat()
    worker.wait_for_request(2)
    worker.end(second)
    await broker.until(second, tenure_pb2.SUCCEEDED)
    assert worker.at_once_max == 1


async def test_the_task_id_of_a_heartbeat_is_believed_and_not_its_status(
    make_worker: MakeWorker, broker: Broker, search: str
) -> None:
    worker = make_worker()
    worker.register()
    assert worker.heartbeat(status="idle", current_task_id="0-of-before").acknowledged
    worker.listen()
    (task_id,) = await broker.submit(search)
    for _ in range(3):
        worker.heartbeat(status="idle", current_task_id="0-of-before")
    assert (await broker.task(task_id)).state == tenure_pb2.QUEUED
    worker.heartbeat(status="idle", current_task_id="")
    worker.wait_for_request(1)
    worker.end(task_id)


async def test_a_worker_that_pulls_is_no_longer_pushed_to(make_worker: MakeWorker, broker: Broker, search: str) -> None:
    worker = make_worker().start()
    request = morphml_worker.m.TaskRequest(worker_id=worker.worker_id, max_tasks=1)
    # Nothing is there; on a busy machine that is said too late to be heard.
    with contextlib.suppress(grpc.RpcError):
        assert not worker.master.RequestTask(request, timeout=0.5).has_task
    (task_id,) = await broker.submit(search)
    worker.heartbeat()
    response = worker.master.RequestTask(request, timeout=60)
    assert [task.task_id for task in response.tasks] == [task_id]
    assert (await broker.worker(worker.worker_id)).dispatch == "pull"
    assert worker.requests == []
    assert worker.submit_result(task_id).acknowledged


async def test_a_cordoned_worker_is_not_pushed_to(make_worker: MakeWorker, broker: Broker, search: str) -> None:
    worker = make_worker().start()
    (first,) = await broker.submit(search)
    worker.wait_for_request(1)
    name = tenure_pb2.WorkerName(worker_id=worker.worker_id)
    await broker.api.CordonWorker(name)
    worker.end(first)
    (second,) = await broker.submit(search)
    worker.heartbeat()
    assert (await broker.until(first, tenure_pb2.SUCCEEDED)).epoch == 1
    assert (await broker.task(second)).state == tenure_pb2.QUEUED
    await broker.api.UncordonWorker(name)
    worker.wait_for_request(2)
    worker.end(second)
    await broker.until(second, tenure_pb2.SUCCEEDED)


async def test_slots_are_filled_one_by_one(
    make_worker: MakeWorker, broker: Broker, search: str, master: MasterProcess
) -> None:
    """Of a Tenure worker in push mode: a slot that is free waits for no other."""
    task_ids = await broker.submit(search, 4)
    worker = make_worker()
    worker.listen()
    await broker.workers.RegisterWorker(
        worker_pb2.RegisterRequest(
            worker_id=worker.worker_id,
            host="127.0.0.1",
            port=worker.port,
            instance_id="one",
            slots=2,
            dispatch=worker_pb2.DISPATCH_PUSH,
        )
    )
    worker.wait_for_request(2)
    worker.end(task_ids[0], submit=False)
    worker.wait_for_request(3)
    worker.end(task_ids[2], submit=False)
    worker.wait_for_request(4)
    assert worker.running == [task_ids[1], task_ids[3]]
    for task_id in worker.running:
        worker.end(task_id, submit=False)
    for task_id in task_ids:
        assert (await broker.until(task_id, tenure_pb2.SUCCEEDED)).epoch == 1
    assert worker.at_once_max == 2
