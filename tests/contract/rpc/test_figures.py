"""What a real master counts: each figure moves for what it says, and for nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from morphml_worker import MakeWorker
from processes import MasterProcess, eventually
from prometheus_client import generate_latest
from raw_peers import Broker, OpenBroker, OpenSession, RawSession, StartMaster, outcome_of
from scrapes import Scrape, growth, scrape
from store_server import OpenStore

from tenure.common.errors import StoreUnavailable
from tenure.common.registry import OTHER
from tenure.master.master import Master
from tenure.master.metrics import CAUSE_LABELS_MAX, SEARCH_LABELS_MAX, MasterMetrics
from tenure.master.settings import load_settings
from tenure.master.store.records import Answer, Failure, Success
from tenure.proto import tenure_pb2, worker_pb2


class NearMaster(NamedTuple):
    """A master in this process."""

    master: Master
    address: str
    metrics: MasterMetrics

    def scrape(self) -> Scrape:
        """What it counts."""
        return Scrape(generate_latest(self.metrics.registry).decode())


SUCCESS, FAILURE = worker_pb2.OUTCOME_SUCCESS, worker_pb2.OUTCOME_FAILURE
LOSS, RELEASE = worker_pb2.OUTCOME_LOSS, worker_pb2.OUTCOME_RELEASE


async def test_outcomes_by_kind_cause_and_verdict(
    broker: Broker, search: str, open_session: OpenSession, master: MasterProcess
) -> None:
    await broker.submit(search, 6)
    session = await open_session(want=6, slots=6)
    tasks = await session.hear_tasks(6)
    before = await scrape(master)
    await session.end(tasks[0], duration_seconds=0.001)
    await session.end(tasks[0], duration_seconds=0.001)
    await session.end(tasks[1], FAILURE, error_class="builtins.ValueError")
    await session.end(tasks[2], LOSS, exit_signal=9, error_class="ExecutorKilled")
    await session.end(tasks[3], LOSS, error_class="WorkerDied")
    await session.end(tasks[4], LOSS, exit_signal=1234)
    await session.end(tasks[5], RELEASE, error_class="WorkerPreempted", duration_seconds=0.001)
    stale = worker_pb2.EvaluateRequest(task_id=tasks[1].task_id, lease_token="0" * 32, epoch=9)
    await session.end(stale, worker_pb2.OUTCOME_OUT_OF_MEMORY, error_class="torch.OutOfMemoryError")
    again = worker_pb2.EvaluateRequest(task_id=tasks[0].task_id, lease_token="0" * 32, epoch=9)
    await session.end(again)
    nobody = worker_pb2.EvaluateRequest(task_id="0-01m86jwv1de06fj3sb3q23h607", lease_token="0" * 32)
    await session.end(nobody)
    assert await growth(master, before, "tenure_outcomes_total", "kind", "cause", "verdict") == {
        ("success", "", "accepted"): 1,
        ("success", "", "resent"): 1,
        ("failure", "builtins.ValueError", "accepted"): 1,
        ("loss", "SIGKILL", "accepted"): 1,
        ("loss", "WorkerDied", "accepted"): 1,
        ("loss", "signal 1234", "accepted"): 1,
        ("release", "WorkerPreempted", "accepted"): 1,
        ("out_of_memory", "torch.OutOfMemoryError", "stale"): 1,
        ("success", "", "duplicate"): 1,
        ("success", "", "unknown"): 1,
    }
    # Each run that ended, once.
    assert await growth(master, before, "tenure_run_seconds_count", "kind") == {
        ("success",): 1,
        ("failure",): 1,
        ("loss",): 3,
        ("release",): 1,
    }
    assert await growth(master, before, "tenure_schedule_to_start_seconds_count", "search") == {}


async def test_a_late_success(own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession) -> None:
    master = own_master(lease_ttl_seconds=1, heartbeat_seconds=0.1, grace_seconds=0)
    broker = open_broker(master.address)
    await broker.submit("s")
    session = await open_session("w1", at=master, want=1)
    task = await session.hear_task()
    await broker.until(task.task_id, tenure_pb2.QUEUED)
    assert (await scrape(master)).by("tenure_leases_expired_total", "cause") == {("silent",): 1}
    assert (await session.end(task, duration_seconds=60)).verdict == worker_pb2.VERDICT_OK
    assert (await scrape(master)).by("tenure_outcomes_total", "kind", "verdict") == {("success", "late"): 1}


async def test_leases_that_expire_by_cause(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    master = own_master(grace_seconds=0.2)
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("s")
    session = await open_session("w1", at=master, want=1)
    await session.hear_task()
    await session.hang_up()
    await broker.until(task_id, tenure_pb2.QUEUED)
    assert (await scrape(master)).by("tenure_leases_expired_total", "cause") == {("disconnected",): 1}
    (line,) = master.logged("task.expire")
    assert line["cause"] == "disconnected"


async def test_waits_runs_and_compute_time(
    broker: Broker, search: str, open_session: OpenSession, master: MasterProcess
) -> None:
    before = await scrape(master)
    await broker.submit(search)
    session = await open_session(want=1)
    task = await session.hear_task()
    assert await growth(master, before, "tenure_schedule_to_start_seconds_count", "search", search=search) == {
        (search,): 1
    }
    await session.end(task, metrics={"fitness": 0.75})
    status = await broker.api.GetSearch(tenure_pb2.SearchName(name=search))
    assert status.compute.useful_ms >= 0
    useful = status.compute.useful_ms / 1000
    await broker.submit(search, 1, key="another")
    stats = await broker.api.GetStats(tenure_pb2.StatsRequest())
    assert stats.compute.useful_ms >= status.compute.useful_ms

    async def shown() -> bool:
        now = await scrape(master)
        return (
            now.value("tenure_best_fitness", search=search) == 0.75
            and now.value("tenure_compute_useful_seconds_total", search=search) == pytest.approx(useful)
            and now.by("tenure_queue_depth", "requirements", search=search) == {("any",): 1}
        )

    await eventually(shown, what="a round of the sweeper")


async def test_queues_and_slots_by_what_they_require_and_have(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    master = own_master()
    broker = open_broker(master.address)
    await broker.submit("s", 2)
    needs = tenure_pb2.Requirements(gpus=2, labels={"arch": "a100"}, memory_bytes=16 << 30)
    await broker.submit("s", 3, requirements=needs)
    session = await open_session("w1", at=master, slots=4, num_gpus=8, gpus_per_slot=2, labels={"zone": "b", "x": ""})
    await session.heartbeat(metrics=worker_pb2.WorkerMetrics(slots_busy=1))

    async def shown() -> bool:
        now = await scrape(master)
        return now.by("tenure_queue_depth", "search", "requirements") == {
            ("s", "any"): 2,
            ("s", "gpus=2,memory=16GiB,labels=arch:a100"): 3,
        } and now.by("tenure_slots", "use") == {("busy",): 1, ("free",): 3}

    await eventually(shown, what="a round of the sweeper")
    now = await scrape(master)
    assert set(now.by("tenure_queue_oldest_seconds", "requirements")) == {
        ("any",),
        ("gpus=2,memory=16GiB,labels=arch:a100",),
    }
    assert now.by("tenure_gpus", "use") == {("busy",): 2, ("free",): 6}
    for label in ("zone=b", "x"):
        assert now.by("tenure_label_slots", "use", label=label) == {("busy",): 1, ("free",): 3}
        assert now.by("tenure_label_gpus", "use", label=label) == {("busy",): 2, ("free",): 6}


async def test_the_store_s_health_build_and_checks(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    master = own_master()
    broker = open_broker(master.address)

    async def swept() -> bool:
        return (await scrape(master)).value("tenure_store_info") == 1

    await eventually(swept, what="a round of the sweeper")
    now = await scrape(master)
    assert now.by("tenure_store_info", "server", "durability") == {("valkey", "strict"): 1}
    assert now.value("tenure_store_aof_ok") == 1
    assert now.value("tenure_store_aof_bytes", kind="current") > 0
    assert now.value("tenure_store_clients") >= 1
    assert now.value("tenure_store_memory_bytes", kind="used") > 0
    assert now.value("tenure_store_replicas") == now.value("tenure_store_aof_rewrite_failed") == 0
    assert now.value("tenure_build_info") == 1
    assert now.value("tenure_store_fsck_timestamp_seconds") == 0
    assert now.value("tenure_lease_clock_lag_seconds") > 0
    assert await broker.fsck() == []
    assert (await scrape(master)).value("tenure_store_fsck_timestamp_seconds") > 0


async def test_the_lag_of_the_lease_clock_grows_while_the_store_is_away(own_master: StartMaster) -> None:
    master = own_master()

    async def lags() -> bool:
        return (await scrape(master)).value("tenure_lease_clock_lag_seconds") > 3

    async def ticks() -> bool:
        return not await lags()

    os.kill(master.store_pid, signal.SIGSTOP)
    await eventually(lags, what="a lag of more than some ticks")
    os.kill(master.store_pid, signal.SIGCONT)
    await eventually(ticks, what="a tick")


async def test_floods_stay_within_the_bounds(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """Whoever makes up searches and error classes makes the series no more than so many."""
    master = own_master()
    broker = open_broker(master.address)
    searches = SEARCH_LABELS_MAX + 20
    await asyncio.gather(*(broker.submit(f"flood-{number}") for number in range(searches)))
    session = await open_session("w1", at=master, want=searches, slots=searches)
    tasks = await session.hear_tasks(searches)
    ends = [
        outcome_of(task, FAILURE, error_class=f"made.up.Error{number}", retryable=False)
        for number, task in enumerate(tasks)
    ]
    for start in range(0, searches, 100):
        await session.say(outcomes=worker_pb2.Outcomes(outcomes=ends[start : start + 100]))
        await session.hear("outcome_verdicts")
    causes = (await scrape(master)).by("tenure_outcomes_total", "cause", kind="failure", verdict="accepted")
    assert len(causes) == CAUSE_LABELS_MAX + 1
    assert (causes[(OTHER,)], sum(causes.values())) == (searches - CAUSE_LABELS_MAX, searches)

    async def swept() -> bool:
        return (await scrape(master)).value("tenure_tasks", state="FAILED") == searches

    await eventually(swept, what="a round of the sweeper")
    now = await scrape(master)
    for name in ("tenure_tasks", "tenure_compute_wasted_seconds_total", "tenure_schedule_to_start_seconds_count"):
        assert len({sample.labels["search"] for sample in now.samples if sample.name == name}) <= SEARCH_LABELS_MAX + 1
    assert now.value("tenure_tasks", search=OTHER, state="FAILED") == 20


async def test_masters_that_inherit_one_multiprocess_directory_mix_nothing(
    own_master: StartMaster, open_broker: OpenBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """prometheus_client would keep values in files by process id, which a later process of that id goes on from."""
    folder = tmp_path / "multiprocess"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    first, second = own_master("first"), own_master("second")
    await open_broker(first.address).submit("s", 3)
    calls = {"tenure_rpc_seconds_count": {"method": "Submit", "code": "OK"}}

    async def counted() -> bool:
        return (await scrape(first)).value("tenure_tasks", state="QUEUED") == 3

    await eventually(counted, what="a round of the sweeper")
    for name, labels in calls.items():
        assert ((await scrape(first)).value(name, **labels), (await scrape(second)).value(name, **labels)) == (1, 0)
    assert (await scrape(second)).value("tenure_tasks") == 0
    assert list(folder.iterdir()) == []


async def test_pushes_by_how_they_ended(
    make_worker: MakeWorker, own_master: StartMaster, open_broker: OpenBroker
) -> None:
    master = await asyncio.to_thread(own_master)
    broker = open_broker(master.address)
    worker = make_worker(at=master).start()
    (answered,) = await broker.submit("s")
    await asyncio.to_thread(worker.wait_for_request, 1)
    await asyncio.to_thread(worker.end, answered)
    (given_up,) = await broker.submit("s")
    await asyncio.to_thread(worker.wait_for_request, 2)
    # It pulls from now on, so the master hangs up.
    await broker.workers.RequestTask(worker_pb2.TaskRequest(worker_id=worker.worker_id, wait_ms=1))

    async def ended() -> dict[tuple[str, ...], float]:
        ends = (await scrape(master)).by("tenure_pushes_total", "end")
        return ends if sum(ends.values()) == 2 else {}

    assert await eventually(ended) == {("response",): 1, ("cancelled",): 1}
    assert (await broker.task(given_up)).state == tenure_pb2.LEASED


@pytest.fixture
async def near_master(open_test_store: OpenStore) -> AsyncIterator[NearMaster]:
    """A master in this process on a real store, whose answers the test can hold up."""
    metrics = MasterMetrics()
    master = Master(load_settings(listen="127.0.0.1:0", tick_seconds=0.1), await open_test_store(), metrics)
    address = str(await master.start())
    yield NearMaster(master, address, metrics)
    await master.stop()


async def test_outcomes_are_counted_once_though_the_store_fails_for_some_of_a_message(
    near_master: NearMaster, open_broker: OpenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one of a cluster's nodes is away: what the others took is not sent to them again."""
    tasks = near_master.master.store.tasks
    await open_broker(near_master.address).submit("s", 2)
    session = await RawSession.open(near_master.address, "w", want=2)
    first, second = await session.hear_tasks(2)
    fail, fails = tasks.fail, 0

    async def fail_at_first(failure: Failure) -> Answer[str]:
        nonlocal fails
        fails += 1
        # The successes have gone to the store by then.
        await tasks.show([first.task_id])
        if fails <= 2:
            raise StoreUnavailable("is away, as asked")
        return await fail(failure)

    monkeypatch.setattr(tasks, "fail", fail_at_first)
    outcomes = [outcome_of(first, SUCCESS), outcome_of(second, FAILURE, error_class="builtins.ValueError")]
    await session.say(outcomes=worker_pb2.Outcomes(outcomes=outcomes))
    verdicts = (await session.hear("outcome_verdicts")).outcome_verdicts.verdicts
    assert [verdict.verdict for verdict in verdicts] == [worker_pb2.VERDICT_OK] * 2
    now = near_master.scrape()
    assert now.by("tenure_outcomes_total", "kind", "cause", "verdict") == {
        ("success", "", "accepted"): 1,
        ("failure", "builtins.ValueError", "accepted"): 1,
    }
    assert now.by("tenure_run_seconds_count", "kind") == {("success",): 1, ("failure",): 1}
    await session.hang_up()


async def test_an_outcome_whose_stream_breaks_before_the_stores_answer_is_counted(
    near_master: NearMaster, open_broker: OpenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = near_master.master.store.tasks
    await open_broker(near_master.address).submit("s")
    session = await RawSession.open(near_master.address, "w", want=1)
    task = await session.hear_task()
    complete_all = tasks.complete_all
    taken, answered = asyncio.Event(), asyncio.Event()

    async def answer_late(successes: Sequence[Success]) -> list[Answer[list[str]]]:
        answers = await complete_all(successes)
        taken.set()
        await answered.wait()
        return answers

    monkeypatch.setattr(tasks, "complete_all", answer_late)
    await session.say(outcomes=worker_pb2.Outcomes(outcomes=[outcome_of(task, SUCCESS)]))
    await taken.wait()
    await session.hang_up()
    await eventually(lambda: near_master.master.sessions.all() == [], what="the stream's end")
    await eventually(lambda: near_master.scrape().value("tenure_rpc_streams_open") == 0)
    answered.set()
    await eventually(lambda: near_master.scrape().value("tenure_outcomes_total", verdict="accepted") == 1)
    assert near_master.scrape().value("tenure_run_seconds_count") == 1


async def test_renewals_of_workers_that_only_heartbeat(
    make_worker: MakeWorker, own_master: StartMaster, open_broker: OpenBroker
) -> None:
    """A MorphML worker's heartbeat renews what a master before this one pushed to it."""
    master = await asyncio.to_thread(own_master)
    worker = make_worker(at=master).start()
    (task_id,) = await open_broker(master.address).submit("s")
    await asyncio.to_thread(worker.wait_for_request, 1)
    await asyncio.to_thread(master.kill)
    await asyncio.to_thread(master.restart)
    await asyncio.to_thread(worker.heartbeat)
    assert (await scrape(master)).by("tenure_lease_renewals_total", "verdict") == {("OK",): 1}
    await asyncio.to_thread(worker.end, task_id)
    await asyncio.to_thread(worker.heartbeat, "busy", task_id)
    assert (await scrape(master)).by("tenure_lease_renewals_total", "verdict") == {("OK",): 1, ("FINISHED",): 1}
