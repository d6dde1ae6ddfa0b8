"""How a worker starts, is refused, and leaves: signals, drains, exit codes."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import grpc
import pytest
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually, is_alive

from tenure.common.exits import ExitCode
from tenure.proto import worker_pb2 as pb


async def test_sigterm_saves_releases_and_says_goodbye_in_this_order(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=1000, seconds=100, checkpoint=1)
    await master.offer(task)
    await worker.journaled("step")
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    outcome = await master.outcome_of(task)
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_RELEASE, "WorkerDrained")
    stopped = worker.journal("stopped")[0]["step"]
    assert master.heard.checkpoints[-1].checkpoint.step == stopped
    assert master.heard.order.index("outcomes") < master.heard.order.index("goodbye")
    assert not list((worker.work_dir / "spool").glob("*.outcome"))
    assert not list((worker.work_dir / "runs" / "slot-0").iterdir())


async def test_a_run_deaf_to_the_drain_is_killed_within_the_grace(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address, drain_grace_seconds=1)
    task = make_task("t1", fate="hang", fate_step=0)
    await master.offer(task)
    pid = (await worker.journaled("start"))["pid"]
    worker.signal(signal.SIGINT)
    assert await worker.wait() == 0
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_RELEASE
    assert not is_alive(pid)


async def test_a_second_signal_kills_and_the_lease_is_still_handed_back_later(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address, drain_grace_seconds=600)
    task = make_task("t1", fate="hang", fate_step=0)
    await master.offer(task)
    pid = (await worker.journaled("start"))["pid"]
    master.verdict = lambda outcome: None
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.log_lines("task.stopping"))
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 1
    assert not is_alive(pid)
    assert len(list((worker.work_dir / "spool").glob("*.outcome"))) == 1
    master.verdict = lambda outcome: pb.VERDICT_OK
    before = len(master.heard.outcomes)
    await worker.start(master.address)
    await master.until(lambda heard: len(heard.outcomes) > before)
    assert master.heard.outcomes[-1].kind == pb.OUTCOME_RELEASE


async def test_a_drain_without_a_master_ends_in_time_and_keeps_the_outcome(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address, drain_grace_seconds=2)
    task = make_task("t1", seconds=100)
    await master.offer(task)
    await worker.journaled("start")
    await master.vanish()
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    assert worker.log_lines("spool.left")[0]["outcomes"] == 1


async def test_sighup_changes_nothing(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    worker.signal(signal.SIGHUP)
    task = make_task("t1")
    await master.offer(task)
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS
    assert worker.returncode is None


async def test_a_signal_while_starting_ends_the_worker(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    (tmp_path / "slow.py").write_text(f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)\n")
    await worker.spawn(master.address, evaluator="slow:evaluate", python_path=tmp_path)
    await eventually(started.exists)
    pids = [executor.pid for executor in worker.executors()]
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    assert pids
    await eventually(lambda: not any(map(is_alive, pids)))
    assert master.heard.hellos == []


async def test_a_master_may_cordon_drain_and_take_back(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    task = make_task("t1", gate=tmp_path / "gate")
    await master.offer(task)
    await worker.journaled("gate")
    await master.say(pb.SessionDown(drain=pb.Drain(active=True, cordon=True, reason="update")))
    await eventually(lambda: worker.log_lines("worker.drain"))
    (tmp_path / "gate").touch()
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS
    second = make_task("t2", seconds=100)
    await master.offer(second)
    await master.until(lambda heard: len(heard.heartbeats) >= 2)
    assert not worker.journal("start", "t2"), "cordoned"
    await master.say(pb.SessionDown(drain=pb.Drain(active=False)))
    await worker.journaled("start", "t2")
    await master.say(pb.SessionDown(drain=pb.Drain(active=True, reason="gone tonight")))
    assert (await master.outcome_of(second)).kind == pb.OUTCOME_RELEASE
    assert worker.returncode is None, "a drained worker stays, until it is told otherwise"


async def test_an_older_process_of_one_worker_id_stops_and_exits(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    task = make_task("t1", seconds=100)
    await master.offer(task)
    await worker.journaled("start")
    master.refuse_sessions = grpc.StatusCode.ABORTED
    await master.vanish()
    await master.start()
    assert await worker.wait() == ExitCode.SUPERSEDED
    await worker.journaled("stopped")
    assert master.heard.outcomes == []


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT]
)
async def test_a_master_that_refuses_the_worker_ends_it(
    master: ScriptedMaster, worker: WorkerProcess, code: grpc.StatusCode
) -> None:
    master.refuse_sessions = code
    await worker.spawn(master.address)
    assert await worker.wait() == ExitCode.REFUSED
    assert code.name in worker.log_lines("worker.refused")[0]["error"]


async def test_a_master_that_refuses_for_a_while_is_asked_again(master: ScriptedMaster, worker: WorkerProcess) -> None:
    master.refuse_sessions = grpc.StatusCode.UNAVAILABLE
    await worker.start(master.address)
    await eventually(lambda: worker.log_lines("session.unreachable"))
    master.refuse_sessions = None
    await master.until(lambda heard: heard.hellos)
    # Once it was welcomed, even a refusal is passing trouble.
    master.refuse_sessions = grpc.StatusCode.PERMISSION_DENIED
    await master.vanish()
    await master.start()
    await eventually(lambda: len(worker.log_lines("session.unreachable")) >= 2)
    master.refuse_sessions = None
    await master.until(lambda heard: len(heard.hellos) == 2)


async def test_what_cannot_work_is_refused_with_its_name_and_the_remedy(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('this module is broken')\n")
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    with taken:
        for settings, field, said in (
            ({"evaluator": "no_such_module:evaluate"}, "evaluator", "No module named 'no_such_module'"),
            ({"evaluator": "evaluators:no_such_function"}, "evaluator", "no_such_function"),
            ({"evaluator": "evaluators:not_callable"}, "evaluator", "is int, not a function"),
            ({"evaluator": "broken:evaluate", "python_path": tmp_path}, "evaluator", "this module is broken"),
            ({"listen": address}, "listen", "in use"),
            ({"http": address}, "http", "can't listen"),
            ({"work_dir": "/proc/nothing"}, "work_dir", "can't be written"),
        ):
            await worker.spawn(master.address, **settings)
            code = ExitCode.REFUSED if field in ("listen", "http") else ExitCode.USAGE
            assert await worker.wait() == code, settings
            (told,) = [line for line in worker.log_text().splitlines() if line.startswith("error: ")]
            assert told.startswith(f"error: {field}: ")
            if "no_such_module" in str(settings):
                assert "Traceback" not in worker.log_text()
            line = worker.log_lines("worker.refused")[-1]
            assert line["field"] == field
            assert said in line["error"]
            assert line["remedy"]
            worker.log_path.unlink()
    assert master.heard.hellos == []
    assert not worker.executors()


async def test_a_setting_that_is_no_value_is_refused_before_anything_starts(worker: WorkerProcess) -> None:
    await worker.spawn("127.0.0.1:1", slots="many")
    assert await worker.wait() == ExitCode.USAGE
    assert "slots: input should be a valid integer" in worker.log_text()


async def test_default_ports_move_on_when_they_are_taken(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    first, second = worker, WorkerProcess(tmp_path, "second")
    try:
        for one in (first, second):
            # None leaves the default; see spawn().
            await one.start(master.address, listen=None, http=None)
        ports = [int(one.ready[which].split(":")[1]) for one in (first, second) for which in ("grpc", "http")]
        assert len(set(ports)) == 4
        assert all(50052 <= port < 50152 for port in ports[::2])
        assert all(9152 <= port < 9252 for port in ports[1::2])
        assert json.loads((tmp_path / "second.ready").read_text())["pid"] == second.pid
    finally:
        await second.destroy()


async def test_two_workers_of_one_directory_are_refused(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    second = WorkerProcess(tmp_path, "second")
    try:
        await second.spawn(master.address, work_dir=worker.work_dir)
        assert await second.wait() == ExitCode.REFUSED
        assert "another worker runs in this directory" in second.log_text()
    finally:
        await second.destroy()
