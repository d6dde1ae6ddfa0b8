"""The client against real masters and a real worker: kills on the way, failover, a search program's own death."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluators import JOURNAL_ENV, read_journal
from store_server import StoreServer

from tenure.client import Client, Search, TaskFailed, TaskState
from tenure.client.demo.processes import Fleet, Process
from tenure.common.errors import CursorExpired, InvalidInput, UnknownSearch, WrongState

TESTS = Path(__file__).resolve().parents[1]
GRAPH = {"nodes": [{"id": "a", "operation": "dense", "params": {"units": 10}}]}
WORKER = ("--evaluator", "evaluators:evaluate", "--python-path", str(TESTS))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A master and a worker for the tests that kill nobody."""
    with Fleet(tmp_path_factory.mktemp("broker")) as fleet:
        fleet.start_master().wait_ready()
        fleet.start_worker(*WORKER).wait_ready()
        yield fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A master that a test may kill."""
    with Fleet(tmp_path) as fleet:
        fleet.start_master().wait_ready()
        yield fleet


@pytest.fixture
def client(shared: Fleet) -> Iterator[Client]:
    with Client(shared.master.facts["grpc"], timeout_seconds=60) as client:
        yield client


@pytest.fixture
def search(client: Client, request: pytest.FixtureRequest) -> Search:
    return client.search(request.node.name)


def task(key: str, **extra: str) -> dict[str, Any]:
    return {"architecture": GRAPH, "key": key, "config": {"extra": extra}}


def test_submit_wait_and_read_back(search: Search) -> None:
    handles = search.submit_many(task(f"k{n}", fitness=f"0.{n}") for n in range(5))
    results = {handle.key: handle.result(60).metrics["fitness"] for handle in search.as_completed(handles, 60)}
    assert results == {f"k{n}": n / 10 for n in range(5)}
    assert [record.key for record in search.tasks([TaskState.SUCCEEDED])] == [f"k{n}" for n in range(5)]
    status = search.status()
    assert (status.open, status.best_fitness) == (0, 0.4)
    assert [handle.key for handle in search.as_completed()] == [f"k{n}" for n in range(5)]


def test_equal_content_in_one_request_is_one_task(search: Search) -> None:
    handles = search.submit_many({"architecture": GRAPH} for _ in range(3))
    assert [handle.created for handle in handles] == [True, False, False]
    assert len({handle.task_id for handle in handles}) == 1


def test_a_failure_brings_its_evidence(search: Search) -> None:
    handle = search.submit(GRAPH, {"extra": {"fate": "error"}}, max_attempts=1)
    with pytest.raises(TaskFailed, match="RuntimeError: the evaluation failed at step 1") as caught:
        handle.result(60)
    assert caught.value.task.attempt_records[0].outcome == "failure"
    assert handle.requeue().verdict == "ok"
    assert not handle.done() or handle.record().attempts == 1


def test_cancelling_a_search_ends_every_wait(search: Search) -> None:
    search.put()
    search.pause()
    handles = search.submit_many(task(f"k{n}") for n in range(3))
    futures = search.futures(handles)
    assert search.cancel_search().status == "cancelled"
    for future in futures:
        with pytest.raises(TaskFailed, match="cancelled"):
            future.result(60)
    with pytest.raises(WrongState):
        search.submit(GRAPH)
    search.resume()
    assert search.submit(GRAPH).result(60).metrics


def test_a_watch_goes_on_from_its_cursor(client: Client, search: Search) -> None:
    search.put()
    watch = client.watch(search.name)
    cursor = next(watch).cursor
    search.submit(GRAPH).result(60)
    seen: list[str] = []
    while seen != ["submit", "claim", "complete"]:
        seen += [event.transition for event in next(watch).events]
    watch.close()
    again: list[str] = []
    watch = client.watch(search.name, cursor)
    while again != seen:
        again += [event.transition for event in next(watch).events]
    watch.close()
    with pytest.raises(InvalidInput):
        next(client.watch(search.name, "nonsense"))
    with pytest.raises(CursorExpired):
        next(client.watch(search.name, "99999999999999-0"))
    with pytest.raises(UnknownSearch):
        next(client.watch("unknown"))


def test_workers_stats_and_fsck(client: Client, search: Search) -> None:
    search.submit(GRAPH).result(60)
    assert [worker.worker_id for worker in client.workers()] == ["worker-1"]
    assert client.stats().workers_live == 1
    assert client.fsck().violations == ()
    assert search.name in [status.name for status in client.searches()]


def test_as_completed_outlives_the_master_and_its_store(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal.jsonl"
    monkeypatch.setenv(JOURNAL_ENV, str(journal))
    fleet.start_worker(*WORKER).wait_ready()
    gate = tmp_path / "gate"
    with Client(fleet.master.facts["grpc"], timeout_seconds=120) as client:
        search = client.search("s")
        handles = search.submit_many([task("first"), task("second", gate=str(gate))])
        completed = search.as_completed(handles, timeout=120)
        assert next(completed) is handles[0]
        _wait_for_gate(journal)
        fleet.master.kill()
        gate.touch()
        fleet.start_master().wait_ready()
        assert next(completed) is handles[1]
        assert handles[1].record().epoch == 1


def test_another_master_of_the_same_store_takes_over(tmp_path: Path) -> None:
    server = StoreServer(tmp_path / "store").start()
    options = ["master", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", server.url]
    masters = [Process(f"master-{n}", options, tmp_path, {}) for n in range(2)]
    try:
        for master in masters:
            master.wait_ready()
        addresses = ",".join(master.facts["grpc"] for master in masters)
        with Client(addresses, timeout_seconds=60) as client:
            search = client.search("s")
            search.put()
            search.pause()
            handles = search.submit_many(task(f"k{n}") for n in range(3))
            futures = search.futures(handles)
            assert client.stats().master_id == masters[0].facts["master_id"]
            masters[0].kill()
            again = search.submit_many(task(f"k{n}") for n in range(3))
            assert [handle.created for handle in again] == [False] * 3
            client.cancel_tasks([handle.task_id for handle in handles])
            for future in futures:
                with pytest.raises(TaskFailed):
                    future.result(60)
            assert client.stats().master_id == masters[1].facts["master_id"]
    finally:
        for master in masters:
            master.kill()
        server.remove()


SEARCH_PROGRAM = """
import sys
import optuna
from tenure.client import Client
from tenure.client.optuna_search import OptunaSearch

def space(trial):
    units = trial.suggest_int("units", 1, 10**6)
    return {"nodes": [{"id": "a", "operation": "dense", "params": {"units": units}}]}

with Client(sys.argv[1]) as client:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=int(sys.argv[3])))
    config = {"extra": {"gate": sys.argv[2]}}
    driver = OptunaSearch(client.search("optuna"), space, study, config=config, parallelism=3)
    print(sorted(trial.number for trial in driver.run(8).trials if trial.state.name == "COMPLETE"))
"""


def test_a_search_program_that_is_killed_goes_on_from_the_broker(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    journal, gate = tmp_path / "journal.jsonl", tmp_path / "gate"
    monkeypatch.setenv(JOURNAL_ENV, str(journal))
    fleet.start_worker(*WORKER).wait_ready()
    address = fleet.master.facts["grpc"]

    def program(seed: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SEARCH_PROGRAM, address, str(gate), str(seed)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with Client(address, timeout_seconds=60) as client:
        search = client.search("optuna")
        with program(0) as first:
            submitted = _wait_for_tasks(search, 3)
            first.kill()
        gate.touch()
        with program(1) as second:
            output, _ = second.communicate(timeout=120)
        records = {record.key: record for record in search.tasks()}
    assert output == f"{list(range(8))}\n"
    assert records.keys() == {f"trial-{n}" for n in range(8)}
    assert {record.state for record in records.values()} == {TaskState.SUCCEEDED}
    assert {records[f"trial-{n}"].task_id for n in range(3)} == submitted
    assert len(read_journal(journal, event="end")) == 8


def _wait_for_gate(journal: Path) -> None:
    """Until an evaluation stands at its gate: a lease may be lost with the master before its worker heard of it."""
    deadline = time.monotonic() + 60
    while not read_journal(journal, event="gate"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _wait_for_tasks(search: Search, number: int) -> set[str]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if search.exists() and len(found := list(search.tasks())) >= number:
            return {record.task_id for record in found}
        time.sleep(0.05)
    raise AssertionError(f"no {number} tasks were submitted")
