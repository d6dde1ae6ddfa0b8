"""Executors that crash, hang, leak or hog, and supervisors that die: real processes, real signals."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually, is_alive

from tenure.proto import worker_pb2 as pb


async def test_every_fate_of_an_evaluation_is_reported_as_what_it_is(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    expected: dict[str, dict[str, Any]] = {
        "error": {"kind": pb.OUTCOME_FAILURE, "error_class": "RuntimeError", "retryable": True},
        "fatal": {"kind": pb.OUTCOME_FAILURE, "error_class": "FatalError", "retryable": False},
        "invalid_architecture": {
            "kind": pb.OUTCOME_FAILURE,
            "error_class": "InvalidArchitecture",
            "retryable": False,
            "error_message": "nodes[0]: is wrong, as asked (given: ?)",
        },
        "memory": {"kind": pb.OUTCOME_OUT_OF_MEMORY, "error_class": "MemoryError"},
        "exit": {"kind": pb.OUTCOME_LOSS, "exit_code": 7, "exit_signal": 0},
        "sys_exit": {"kind": pb.OUTCOME_FAILURE, "error_class": "SystemExit"},
        "kill": {"kind": pb.OUTCOME_LOSS, "exit_signal": signal.SIGKILL},
        "segfault": {"kind": pb.OUTCOME_LOSS, "exit_signal": signal.SIGSEGV},
        "nan": {"kind": pb.OUTCOME_FAILURE, "error_class": "InvalidResult", "retryable": False},
        "nan_loss": {"kind": pb.OUTCOME_SUCCESS},
        "text": {"kind": pb.OUTCOME_FAILURE, "error_class": "InvalidResult"},
        "nothing": {"kind": pb.OUTCOME_FAILURE, "error_class": "InvalidResult"},
        "flood": {"kind": pb.OUTCOME_SUCCESS},
        "garbage": {"kind": pb.OUTCOME_LOSS, "error_class": "ExecutorDied", "exit_signal": signal.SIGKILL},
        "surrogates": {"kind": pb.OUTCOME_FAILURE, "error_class": "InvalidResult"},
        "unprintable": {"kind": pb.OUTCOME_FAILURE, "error_class": "UnprintableError"},
        "ok": {"kind": pb.OUTCOME_SUCCESS},
    }
    tasks = {fate: make_task(fate, fate=fate, steps=2) for fate in expected}
    await master.offer(*tasks.values())
    outcomes = {fate: await master.outcome_of(task) for fate, task in tasks.items()}
    for fate, fields in expected.items():
        told = {name: getattr(outcomes[fate], name) for name in fields}
        assert told == fields, fate
        # A report is held back for up to 50 ms, so a sudden death may take the last one with it.
        assert outcomes[fate].steps_end in ((0, 1, 2) if outcomes[fate].kind == pb.OUTCOME_LOSS else (2,)), fate
    assert dict(outcomes["nan_loss"].metrics) == {"fitness": 0.5}
    assert "about to leave by os._exit" in outcomes["exit"].log_tail
    assert "Fatal Python error: Segmentation fault" in outcomes["segfault"].log_tail
    assert "as asked" in outcomes["error"].log_tail
    assert "Traceback" in outcomes["error"].log_tail
    assert "Traceback" not in outcomes["invalid_architecture"].log_tail
    pids = [line["pid"] for line in worker.journal("start")]
    assert "broke the protocol" in outcomes["garbage"].error_message
    # memory, exit, kill, segfault and garbage cost the executor; everything else leaves it warm.
    assert len(set(pids)) == 6
    reasons = [line["reason"] for line in worker.log_lines("executor.replaced")]
    assert sorted(reasons) == ["crash", "crash", "crash", "killed", "out_of_memory"]
    log_file = worker.work_dir / "logs" / "flood.1.log"
    assert log_file.read_text().endswith("the last line\n")


async def test_a_dead_executor_is_reported_at_once_and_costs_nobody_else(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address, slots=2)
    victim, neighbour = make_task("t1", gate=tmp_path / "gate"), make_task("t2", gate=tmp_path / "gate")
    await master.offer(victim, neighbour)
    pid = (await worker.journaled("gate", "t1"))["pid"]
    await worker.journaled("gate", "t2")
    os.killpg(os.getpgid(pid), signal.SIGKILL)
    outcome = await master.outcome_of(victim)
    assert (outcome.kind, outcome.exit_signal) == (pb.OUTCOME_LOSS, signal.SIGKILL)
    (tmp_path / "gate").touch()
    assert (await master.outcome_of(neighbour)).kind == pb.OUTCOME_SUCCESS
    following = make_task("t3")
    await master.offer(following)
    assert (await master.outcome_of(following)).kind == pb.OUTCOME_SUCCESS


async def test_an_idle_executor_that_dies_is_replaced_and_no_task_is_lost(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    await master.until(lambda heard: heard.wants)
    (executor,) = worker.executors()
    executor.kill()
    await eventually(lambda: worker.log_lines("executor.died_idle"))
    assert (await master.carry_out(make_task("t1"))).kind == pb.OUTCOME_SUCCESS


async def test_an_executor_is_replaced_after_its_number_of_tasks(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, tasks_per_executor=2)
    tasks = [make_task(f"t{n}") for n in range(4)]
    await master.offer(*tasks)
    for task in tasks:
        assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS
    pids = [line["pid"] for line in worker.journal("start")]
    assert pids[0] == pids[1]
    assert pids[2] == pids[3]
    assert pids[1] != pids[2]


@pytest.mark.parametrize(
    ("limit", "error_class"),
    [("timeout_ms", "TaskTimeout"), ("progress_deadline_ms", "ProgressDeadlineExceeded")],
)
@pytest.mark.parametrize(
    ("extra", "grace_seconds"),
    # Who listens has all the time that a busy machine may need.
    [({"fate": "hang", "fate_step": 0}, 0.5), ({"seconds": 100}, 60)],
    ids=["deaf", "obedient"],
)
async def test_an_evaluation_over_a_limit_is_stopped_then_killed_and_burns_an_attempt(
    master: ScriptedMaster,
    worker: WorkerProcess,
    limit: str,
    error_class: str,
    extra: dict[str, Any],
    grace_seconds: float,
) -> None:
    await worker.start(master.address, stop_grace_seconds=grace_seconds)
    task = make_task("t1", **extra)
    setattr(task, limit, 300)
    await master.offer(task)
    outcome = await master.outcome_of(task)
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_FAILURE, error_class)
    assert outcome.retryable
    assert ("killed" in outcome.error_message) == ("fate" in extra)
    if "fate" not in extra:
        await worker.journaled("stopped", "t1")


async def test_reports_keep_a_long_run_within_its_progress_deadline(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=40, seconds=4)
    task.progress_deadline_ms = 2000
    await master.offer(task)
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS


async def test_a_stopped_executor_makes_no_progress(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, stop_grace_seconds=0.3)
    task = make_task("t1", steps=1000, seconds=100)
    task.progress_deadline_ms = 1000
    await master.offer(task)
    pid = (await worker.journaled("step"))["pid"]
    os.kill(pid, signal.SIGSTOP)
    outcome = await master.outcome_of(task)
    assert outcome.error_class == "ProgressDeadlineExceeded"
    await eventually(lambda: not is_alive(pid))


async def test_a_supervisor_that_was_stopped_itself_blames_nobody(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=60, seconds=6)
    task.progress_deadline_ms = 1500
    await master.offer(task)
    line = await worker.journaled("step")
    worker.signal(signal.SIGSTOP)
    # The evaluation goes on reporting to a supervisor that can't listen, for longer than its deadline.
    await eventually(lambda: worker.journal("step")[-1]["time"] > line["time"] + 2.5)
    worker.signal(signal.SIGCONT)
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS
    assert len(worker.journal("start")) == 1


async def test_heartbeats_go_on_while_the_gil_is_held(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    task = make_task("t1", fate="gil", fate_step=0, seconds=3)
    await master.offer(task)
    await worker.journaled("start")
    before = len(master.heard.heartbeats)
    await master.until(lambda heard: len(heard.heartbeats) >= before + 5)
    assert not worker.journal("end")
    assert all(task.lease_token in {one.lease_token for one in beat.renewals} for beat in master.heard.heartbeats[-3:])
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS


@pytest.mark.parametrize("fate", ["hang", "gil", "orphan"])
async def test_nothing_outlives_a_supervisor_killed_by_sigkill(
    master: ScriptedMaster, worker: WorkerProcess, fate: str
) -> None:
    await worker.start(master.address)
    await master.offer(make_task("t1", fate=fate, fate_step=0, seconds=60))
    pids = [(await worker.journaled("start"))["pid"]]
    if fate == "orphan":
        pids.append((await worker.journaled("orphan"))["orphan"])
    (executor,) = worker.executors()
    pids += [child.pid for child in executor.children(recursive=True)]
    assert len(pids) >= 2, "the watchdog at least"
    worker.signal(signal.SIGKILL)
    await worker.wait()
    await eventually(lambda: not any(is_alive(pid) for pid in pids))


async def test_a_killed_run_takes_its_children_with_it(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, stop_grace_seconds=0.2)
    task = make_task("t1", fate="orphan", fate_step=0)
    await master.offer(task)
    orphan = (await worker.journaled("orphan"))["orphan"]
    await master.revoke(task, "lost")
    await eventually(lambda: not is_alive(orphan))


async def test_signals_to_the_whole_group_leave_evaluations_to_the_supervisor(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    """systemd sends SIGTERM to every process of a unit: executors must live to save their state."""
    await worker.start(master.address)
    task = make_task("t1", steps=1000, seconds=100, checkpoint=1)
    await master.offer(task)
    pid = (await worker.journaled("step"))["pid"]
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    steps = len(worker.journal("step"))
    await worker.journaled("step", count=steps + 3)
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_RELEASE
    assert worker.journal("stopped", "t1")


async def test_an_executor_that_cannot_come_back_makes_the_slot_broken_not_the_worker(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    module = tmp_path / "vanishing.py"
    module.write_text("from evaluators import evaluate\n")
    path = f"{Path(__file__).parent.parent}:{tmp_path}"
    await worker.start(master.address, evaluator="vanishing:evaluate", python_path=path)
    module.rename(tmp_path / "kept.py")
    task = make_task("t1", fate="exit")
    await master.offer(task)
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_LOSS
    await eventually(lambda: worker.log_lines("executor.unusable"))
    assert "vanishing" in worker.log_lines("executor.unusable")[0]["error"]
    assert master.heard.wants[-1] == 0 or master.sessions[0].wanted == 0
    (tmp_path / "kept.py").rename(module)
    second = make_task("t2")
    await master.offer(second)
    assert (await master.outcome_of(second)).kind == pb.OUTCOME_SUCCESS
