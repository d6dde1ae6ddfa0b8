"""The client API's calls about searches, workers and the broker as a whole."""

from __future__ import annotations

import grpc
import pytest
from processes import MasterProcess, eventually
from raw_peers import GRAPH, Broker, OpenBroker, OpenSession, refused

from tenure import __version__
from tenure.proto import tenure_pb2, worker_pb2


async def put(broker: Broker, name: str, **fields: object) -> tenure_pb2.Search:
    search: tenure_pb2.Search = await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=name, **fields))
    return search


async def get(broker: Broker, name: str) -> tenure_pb2.Search:
    search: tenure_pb2.Search = await broker.api.GetSearch(tenure_pb2.SearchName(name=name))
    return search


# ---- searches ------------------------------------------------------------------------------------------------------


async def test_a_search_is_created_and_changed_field_by_field(broker: Broker, search: str) -> None:
    created = await put(broker, search)
    assert (created.name, created.priority, created.weight, created.max_leased) == (search, 0, 1.0, 0)
    assert (created.status, created.architecture_format, created.best_task_id) == ("active", "graph", "")
    assert not created.HasField("best_fitness")
    assert created.created_unix_ms > 0
    await put(broker, search, priority=-5, weight=0.5)
    changed = await put(broker, search, max_leased=7)
    assert (changed.priority, changed.weight, changed.max_leased) == (-5, 0.5, 7)
    # Present and zero is not absent.
    assert (await put(broker, search, priority=0, max_leased=0)).max_leased == 0
    assert await get(broker, search) == await put(broker, search)


async def test_the_list_has_the_newest_first(broker: Broker, search: str) -> None:
    names = [f"{search}-{number}" for number in range(3)]
    for name in names:
        await put(broker, name)
        # Unix milliseconds: two creations must not fall into the same one.
        made = (await get(broker, name)).created_unix_ms
        await eventually(lambda made=made: _later_than(broker, made))
    listed = [each.name for each in (await broker.api.ListSearches(tenure_pb2.ListSearchesRequest())).searches]
    assert [name for name in listed if name in names] == names[::-1]


async def _later_than(broker: Broker, unix_ms: int) -> bool:
    probe = await put(broker, f"clock-{unix_ms}-{id(broker)}")
    return bool(probe.created_unix_ms > unix_ms)


async def test_figures_of_a_search(broker: Broker, search: str, open_session: OpenSession) -> None:
    await broker.submit(search, 5)
    session = await open_session(want=3)
    tasks = await session.hear_tasks(3)
    await session.end(tasks[0], metrics={"fitness": 0.2})
    await session.end(tasks[1], metrics={"fitness": 0.9})
    await session.end(tasks[2], metrics={"other": 1.0})
    found = await get(broker, search)
    assert {state: count for state, count in found.tasks.items() if count} == {"QUEUED": 2, "SUCCEEDED": 3}
    assert set(found.tasks) == set(tenure_pb2.TaskState.keys()) - {"TASK_STATE_UNSPECIFIED"}
    assert (found.best_fitness, found.best_task_id) == (0.9, tasks[1].task_id)
    assert found.last_ended_unix_ms >= found.created_unix_ms
    assert found.oldest_queued_ms >= 0


async def test_pause_and_resume(broker: Broker, search: str, open_session: OpenSession) -> None:
    first, second = await broker.submit(search, 2)
    session = await open_session(want=1)
    running = await session.hear_task()
    for _ in range(2):
        assert (await broker.api.PauseSearch(tenure_pb2.SearchName(name=search))).status == "paused"
    # What runs goes on, what comes waits.
    await session.want(2)
    assert (await session.end(running)).verdict == worker_pb2.VERDICT_OK
    (third,) = await broker.submit(search)
    await session.expect_silence("tasks")
    for _ in range(2):
        assert (await broker.api.ResumeSearch(tenure_pb2.SearchName(name=search))).status == "active"
    assert [task.task_id for task in await session.hear_tasks(2)] == [second, third]
    assert running.task_id == first


async def test_cancel_and_resume(broker: Broker, search: str, open_session: OpenSession) -> None:
    task_ids = [*await broker.submit(search, 100), *await broker.submit(search, 100)]
    task_ids += await broker.submit(search, 50, delay_ms=3_600_000)
    session = await open_session(want=1)
    held = await session.hear_task()
    for _ in range(2):
        assert (await broker.api.CancelSearch(tenure_pb2.SearchName(name=search))).status == "cancelled"
    assert (await session.hear_revocation()).reason == "cancelled"
    await session.end(held, worker_pb2.OUTCOME_RELEASE)
    assert (await get(broker, search)).tasks["CANCELLED"] == len(task_ids)
    assert (await broker.api.ResumeSearch(tenure_pb2.SearchName(name=search))).status == "active"


async def test_a_cancelled_search_is_not_reopened_by_a_pause(broker: Broker, search: str) -> None:
    await put(broker, search)
    await broker.api.CancelSearch(tenure_pb2.SearchName(name=search))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", "name", search) as parts:
        await broker.api.PauseSearch(tenure_pb2.SearchName(name=search))
    assert parts["expected"]
    assert (await get(broker, search)).status == "cancelled"


async def test_the_format_of_architectures(broker: Broker, search: str) -> None:
    await put(broker, search, architecture_format="json")
    task = tenure_pb2.TaskSpec(architecture='[1, "anything"]', config=tenure_pb2.Config(dataset="my own"))
    await broker.api.Submit(tenure_pb2.SubmitRequest(search=search, tasks=[task]))
    async with refused(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", "architecture_format", "graph"):
        await put(broker, search, architecture_format="graph")
    # Of a search without tasks it can change, and counts from then on.
    other = f"{search}-2"
    await put(broker, other)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT):
        await broker.api.Submit(tenure_pb2.SubmitRequest(search=other, tasks=[task]))
    await put(broker, other, architecture_format="json")
    await broker.api.Submit(tenure_pb2.SubmitRequest(search=other, tasks=[task]))
    await broker.api.CancelSearch(tenure_pb2.SearchName(name=other))


async def test_a_cap_on_leased_tasks(broker: Broker, search: str, open_session: OpenSession) -> None:
    await put(broker, search, max_leased=2)
    await broker.submit(search, 4)
    session = await open_session(want=4)
    first, _ = await session.hear_tasks(2)
    await session.expect_silence("tasks")
    await session.end(first)
    await session.hear_tasks(1)
    await session.expect_silence("tasks")
    await put(broker, search, max_leased=0)
    await session.hear_tasks(1)


async def test_the_search_of_higher_priority_is_served_first(
    broker: Broker, search: str, open_session: OpenSession
) -> None:
    low, high = f"{search}-low", f"{search}-high"
    await put(broker, low, priority=-1)
    await put(broker, high, priority=1)
    await broker.submit(low, 2)
    await broker.submit(high, 2)
    session = await open_session(want=4)
    tasks = await session.hear_tasks(4)
    assert [task.search for task in tasks] == [high, high, low, low]
    for task in tasks:
        await session.end(task)


# ---- workers -------------------------------------------------------------------------------------------------------


async def test_the_list_of_workers(broker: Broker, search: str, open_session: OpenSession) -> None:
    session = await open_session(f"{search}-a", labels={"zone": "b"})
    gone = await open_session(f"{search}-b")
    await gone.goodbye()
    response = await broker.api.ListWorkers(tenure_pb2.ListWorkersRequest())
    names = [worker.worker_id for worker in response.workers]
    assert session.worker_id in names
    assert gone.worker_id not in names
    everybody = await broker.api.ListWorkers(tenure_pb2.ListWorkersRequest(all=True))
    listed = [worker for worker in everybody.workers if worker.worker_id.startswith(search)]
    assert [(worker.worker_id, worker.status) for worker in listed] == [
        (session.worker_id, "live"),
        (gone.worker_id, "gone"),
    ]
    assert listed[0].last_seen_ms_ago < 30_000


async def test_a_worker_that_misses_its_heartbeats_is_silent_then_gone(
    short_master: MasterProcess, open_broker: OpenBroker
) -> None:
    broker = open_broker(short_master.address)
    await broker.workers.RegisterWorker(worker_pb2.RegisterRequest(worker_id="quiet"))
    assert (await broker.worker("quiet")).status == "live"

    async def silent() -> bool:
        return (await broker.worker("quiet")).status == "silent"

    await eventually(silent)
    response = await broker.workers.Heartbeat(worker_pb2.HeartbeatRequest(worker_id="quiet"))
    assert response.acknowledged
    assert (await broker.worker("quiet")).status == "live"


async def test_a_heartbeat_tells_a_push_worker_to_drain(broker: Broker, search: str) -> None:
    await broker.workers.RegisterWorker(worker_pb2.RegisterRequest(worker_id=search, instance_id="i"))
    await broker.api.DrainWorker(tenure_pb2.WorkerName(worker_id=search))
    request = worker_pb2.HeartbeatRequest(worker_id=search, instance_id="i")
    assert (await broker.workers.Heartbeat(request)).drain
    await broker.api.UncordonWorker(tenure_pb2.WorkerName(worker_id=search))
    assert not (await broker.workers.Heartbeat(request)).drain


# ---- the whole -----------------------------------------------------------------------------------------------------


async def test_stats(broker: Broker, search: str, open_session: OpenSession, master: MasterProcess) -> None:
    before = await broker.api.GetStats(tenure_pb2.StatsRequest())
    await broker.submit(search, 3)
    session = await open_session(want=1, slots=2)
    task = await session.hear_task()
    await session.heartbeat(metrics=worker_pb2.WorkerMetrics(slots_busy=1))
    stats = await broker.api.GetStats(tenure_pb2.StatsRequest())
    assert stats.tasks["QUEUED"] - before.tasks["QUEUED"] == 2
    assert stats.tasks["LEASED"] >= 1
    assert stats.leases_live >= 1
    assert stats.workers_live >= 1
    assert stats.slots >= 2
    assert stats.slots_busy >= 1
    assert stats.lease_clock_ms >= before.lease_clock_ms > 0
    assert (stats.master_id, stats.version, stats.durability) == (master.master_id, __version__, "strict")
    assert stats.store.startswith("valkey ")
    await session.end(task)
    await session.end(task, metrics={"fitness": 1.0})
    await session.end(task, worker_pb2.OUTCOME_FAILURE)
    after = await broker.api.GetStats(tenure_pb2.StatsRequest())
    assert after.counters["stale_refused"] >= before.counters["stale_refused"]


async def test_fsck_finds_nothing_and_says_how_much_it_checked(broker: Broker, search: str) -> None:
    await broker.submit(search, 7)
    response = await broker.api.Fsck(tenure_pb2.FsckRequest())
    assert response.tasks_checked >= 7
    assert list(response.violations) == []


@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_messages_of_any_size_up_to_the_limit(broker: Broker, search: str, size: int) -> None:
    """Many megabytes in one request, and in one answer."""
    padding = " " * size
    tasks = [tenure_pb2.TaskSpec(architecture=GRAPH + padding, key=f"k{number}") for number in range(20)]
    response = await broker.api.Submit(tenure_pb2.SubmitRequest(search=search, tasks=tasks))
    ids = [task.task_id for task in response.tasks]
    found = await broker.api.GetTasks(tenure_pb2.GetTasksRequest(task_ids=ids, full=True))
    assert {len(task.architecture) for task in found.tasks} == {len(GRAPH) + size}


# ---- retry policies ------------------------------------------------------------------------------------------------


async def test_a_retry_policy_is_kept_replaced_as_a_whole_and_taken_back(broker: Broker, search: str) -> None:
    assert not (await put(broker, search)).HasField("retry")
    rule = {"error_class": "torch.*", "retryable": False, "max_attempts": 2, "jitter": "equal"}
    policy = tenure_pb2.RetryPolicy(base_ms=0, max_ms=50, multiplier=1.5, jitter="none", rules=[rule])
    assert (await put(broker, search, retry=policy)).retry == policy
    assert (await put(broker, search, priority=1)).retry == policy
    replaced = (await put(broker, search, retry=tenure_pb2.RetryPolicy(base_ms=7))).retry
    assert (replaced.base_ms, replaced.max_ms, replaced.jitter, len(replaced.rules)) == (7, 300_000, "full", 0)
    assert not (await put(broker, search, default_retry=True)).HasField("retry")


async def test_a_retry_policy_that_can_not_be_is_refused_and_changes_nothing(broker: Broker, search: str) -> None:
    await put(broker, search)
    rule = {"error_class": "InvalidArchitecture", "retryable": True}
    bad = tenure_pb2.PutSearchRequest(name=search, priority=5, retry=tenure_pb2.RetryPolicy(rules=[rule]))
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", "retry.rules[0].retryable", "True"):
        await broker.api.PutSearch(bad)
    both = tenure_pb2.PutSearchRequest(name=search, retry=tenure_pb2.RetryPolicy(), default_retry=True)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", "retry"):
        await broker.api.PutSearch(both)
    assert (await get(broker, search)).priority == 0
