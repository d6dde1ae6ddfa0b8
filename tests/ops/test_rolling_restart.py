"""rolling-restart on real processes, under a search that goes on."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ops_scripts import FAILED, KEPT, REFUSED, UNAVAILABLE, USAGE, Scripts, pid_of
from processes import DEADLINE_SECONDS, eventually, is_alive
from restarting import rolling
from rolling_scene import Fleet, SearchProgram, Supervisor, shutdown_command
from store_server import StoreServer
from worker_process import TESTS

from tenure.client import Client, TaskRecord
from tenure.common.directory_lock import DirectoryLock


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """To be started by the test."""
    made = Fleet(tmp_path)
    yield made
    await made.destroy()


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """A server of the store's own, which is started again whenever it ends."""
    server = StoreServer(tmp_path / "store").start()
    supervisor = Supervisor(server.start, lambda: server._process)
    yield server
    supervisor.stop()
    server.remove()


async def some_results(program: SearchProgram) -> None:
    """The search is under way."""
    await eventually(lambda: len(program.results) >= 2 or program.errors, what="the first results")
    assert program.errors == []


def assert_nothing_burned(program: SearchProgram, records: dict[str, TaskRecord]) -> None:
    """By the store's own evidence."""
    assert program.errors == []
    assert records.keys() == program.results.keys()
    for record in records.values():
        assert record.state == "SUCCEEDED"
        assert (record.attempts, record.losses, record.out_of_memory) == (0, 0, 0)
        ends = [attempt.outcome for attempt in record.attempt_records]
        assert ends[-1] == "success"
        assert set(ends[:-1]) <= {"release"}, "a lease ended in another way than by handing its task back"
        assert record.metrics["fitness"] == program.results[record.task_id]


def assert_proved(report: Any) -> None:
    """By the script's account."""
    assert report["kept"], report
    for name in ("lost", "results changed", "leases expired", "attempts burned", "losses burned"):
        assert report["figures"][name] == 0, name
    assert report["figures"]["errors seen by clients"] == 0
    assert report["clients"]["errors"] == []
    assert report["clients"]["calls"] > 0


def exit_code_of(arguments: list[str]) -> Any:
    """Of the command in this process."""
    try:
        return rolling.main(arguments)
    except SystemExit as stop:
        return stop.code


@pytest.mark.slow
async def test_everything_is_restarted_and_the_search_notices_nothing(
    fleet: Fleet, store: StoreServer, scripts: Scripts, tmp_path: Path
) -> None:
    await fleet.start(masters=2, workers=3, store=store.url)
    program = SearchProgram(fleet.addresses).start()
    await some_results(program)
    before = {path: pid_of(path) for path in fleet.ready_files}
    store_pid = store.pid

    options = ("--store-via", shutdown_command(str(store.socket)), "--state-dir", tmp_path / "state")
    said = await scripts("rolling-restart", "--ready-file", *fleet.ready_files, *options, "--output", "json")
    assert said.code == KEPT, said
    assert_proved(said.report)
    assert [step.split()[0] for step in said.report["steps"]] == ["store", *["master"] * 2, *["workers"] * 3]
    assert said.report["clients"]["clients"] == 2, "one that begins with each master"
    assert said.report["clients"]["by_step"].keys() >= set(said.report["steps"])
    assert store.pid != store_pid
    assert {path: pid_of(path) for path in before} != before
    for path, pid in before.items():
        assert pid_of(path) != pid
        assert not is_alive(pid)

    records = await program.finish()
    assert_nothing_burned(program, records)
    assert any(len(record.attempt_records) > 1 for record in records.values()), "nothing ran while a worker drained"
    assert not list((tmp_path / "state").glob("*.json")), "a run that came to its end leaves no word"


@pytest.mark.slow
async def test_the_only_master_with_its_own_store_is_waited_for(fleet: Fleet, scripts: Scripts, tmp_path: Path) -> None:
    await fleet.start(masters=1, workers=1)
    program = SearchProgram(fleet.addresses).start()
    await some_results(program)
    options = ("--ready-file", *fleet.masters_ready, "--state-dir", tmp_path / "state", "--probe", "writes")

    (master,) = fleet.masters
    store_pid = master.store_pid
    said = await scripts("rolling-restart", "store", *options)
    assert said.code == KEPT, said
    assert is_alive(master.pid)
    assert not is_alive(store_pid)
    assert master.store_pid != store_pid

    said = await scripts("rolling-restart", "masters", "store", *options)
    assert said.code == KEPT, said
    assert "left out: the embedded store is restarted with its master" in said.out
    assert "longest unavailability seen by a client: " in said.out
    assert f" s, during master {master.address} (" in said.out
    assert not is_alive(master.pid)
    assert_nothing_burned(program, await program.finish())

    # What the probe wrote: one task, which nobody was given.
    with Client(master.address, timeout_seconds=DEADLINE_SECONDS) as client:
        (left,) = await asyncio.to_thread(lambda: list(client.tasks("rolling-restart-probe")))
        assert left.state == "CANCELLED"
        assert left.epoch == 0


@pytest.mark.slow
async def test_it_stops_at_the_first_trouble_and_goes_on_where_it_stopped(
    fleet: Fleet, scripts: Scripts, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    for name in ("evaluators.py", "pure_training.py"):
        shutil.copy(TESTS / name, code)
    await fleet.start(masters=1, workers=2)
    broken = fleet.workers[1]
    broken.signal(signal.SIGTERM)
    await broken.wait()
    await broken.start(fleet.addresses, python_path=code)
    before = {path: pid_of(path) for path in fleet.workers_ready}
    options = ("--ready-file", *fleet.ready_files, "--state-dir", tmp_path / "state")

    said = await scripts("rolling-restart", "workers", *options, "--dry-run")
    assert said.code == KEPT, said
    assert f"worker w1, pid {before[fleet.workers_ready[0]]}, to be drained by SIGTERM" in said.out
    assert {path: pid_of(path) for path in before} == before
    assert not (tmp_path / "state").exists(), "a dry run writes nothing"

    (code / "evaluators.py").rename(code / "elsewhere.py")
    said = await scripts("rolling-restart", "workers", *options, "--output", "json")
    assert said.code == FAILED, said
    assert "error: worker w2 ended with status" in said.err
    assert "start it by hand" in said.err
    assert "NOT BACK: worker w2 is down; once it can, start it by hand:" in said.err
    assert f"output to {broken.log_path}" in said.err
    assert "TENURE_WORKER_WORKER_ID=w2" in said.err
    assert "stopped: worker w2 is not back; to go on, run the same command again: it starts first what is" in said.err
    assert said.report["stopped"].startswith("worker w2 ended")
    first = pid_of(fleet.workers_ready[0])
    assert first != before[fleet.workers_ready[0]]

    (code / "elsewhere.py").rename(code / "evaluators.py")
    await broken.start(fleet.addresses, python_path=code)
    second = pid_of(fleet.workers_ready[1])
    said = await scripts("rolling-restart", "workers", *options)
    assert said.code == KEPT, said
    assert "left out: worker w1 was restarted by the run that began at " in said.out
    assert pid_of(fleet.workers_ready[0]) == first
    assert pid_of(fleet.workers_ready[1]) != second

    said = await scripts("rolling-restart", "workers", *options, "--max-unavailable", "100%", "--dry-run")
    assert "step 1: workers w1, w2" in said.out, said


async def test_what_can_not_be_done_is_said_before_anything_is_changed(
    fleet: Fleet,
    store: StoreServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await fleet.start(masters=1, workers=1, store=store.url)
    state = tmp_path / "state"
    state.mkdir()
    pids = [pid_of(path) for path in fleet.ready_files]

    async def refused(*arguments: str | Path, code: int = USAGE, master: str = fleet.addresses) -> str:
        """What it says; in this process, which need not be started each time."""
        given = [str(each) for each in (*arguments, "--state-dir", state, "--master", master)]
        assert await asyncio.to_thread(exit_code_of, given) == code
        return capsys.readouterr().err

    workers = ("workers", "--ready-file", *fleet.workers_ready)
    via = ("--store-via", shutdown_command(str(store.socket)), "--store", store.url)
    assert "give --store-via" in await refused("all", "--ready-file", *fleet.ready_files)
    assert "no master is named" in await refused("masters")
    assert "choose from masters, workers, store, all" in await refused("slaves")
    assert "is not there" in await refused("workers", "--ready-file", tmp_path / "none.json")
    assert "no worker nobody is registered" in await refused("workers", "--workers-via", "ssh", "--worker", "nobody")
    assert "{port} stand for nothing" in await refused("workers", "--workers-via", "restart {port}")
    assert "leave one of them out" in await refused(*workers, "--workers-via", "systemd")
    assert "is no amount" in await refused(*workers, "--max-unavailable", "0")
    assert "is no selector" in await refused(*workers, "--group", "=")
    assert "is no time" in await refused("masters", "--since", "yesterday")
    assert "give TARGET=NAME" in await refused("masters", "--name", "a")
    with store.client() as client:
        client.config_set("appendonly", "no")
    assert "a restart would lose everything" in await refused("store", *via)

    lock = DirectoryLock(state, "running.lock")
    assert lock.acquire()
    assert "another run is going on" in await refused(*workers, code=REFUSED)
    lock.release()
    (state / "rolling-restart.json").write_text("{}")
    assert "is no record of a run" in await refused(*workers)
    (state / "rolling-restart.json").unlink()
    monkeypatch.setattr(rolling, "_PATIENCE_SECONDS", 0.5)
    assert "no master answers" in await refused(*workers, master="127.0.0.1:1", code=UNAVAILABLE)
    assert [pid_of(path) for path in fleet.ready_files] == pids
    assert all(map(is_alive, pids))
