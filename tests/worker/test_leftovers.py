"""What evaluations leave behind between two runs of an executor: memory, processes, threads."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually, is_alive

from tenure.proto import worker_pb2 as pb

EVALUATOR = "leaving_evaluators:evaluate"


async def carry_out(master: ScriptedMaster, name: str, **extra: Any) -> dict[str, Any]:
    """One task; what its result says."""
    outcome = await master.carry_out(make_task(name, **extra))
    assert outcome.kind == pb.OUTCOME_SUCCESS, outcome
    detail: dict[str, Any] = json.loads(outcome.detail)
    return detail


def reasons(worker: WorkerProcess) -> list[str]:
    """Why executors were replaced so far."""
    return [line["reason"] for line in worker.log_lines("executor.replaced")]


async def test_an_executor_whose_host_memory_grows_is_replaced(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, evaluator=EVALUATOR, executor_leak_max="100MiB")
    # The first two runs may fill caches: what they keep is what later ones are compared with.
    pids = [(await carry_out(master, f"t{n}", does="host", mib=60))["pid"] for n in range(6)]
    assert pids[0] == pids[3]
    assert pids[3] != pids[4], "the fourth run left 120 MiB more than the second"
    await eventually(lambda: reasons(worker) == ["host_memory_leak"])
    (line,) = worker.log_lines("executor.leaked")
    assert 100 << 20 < line["host_bytes"] < 200 << 20


async def test_memory_that_is_free_again_is_no_leak(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, evaluator=EVALUATOR, executor_leak_max="60MiB")
    pids = [(await carry_out(master, f"t{n}", does="nothing"))["pid"] for n in range(3)]
    pids += [(await carry_out(master, f"u{n}", does="freed", mib=150))["pid"] for n in range(2)]
    pids.append((await carry_out(master, "last", does="nothing"))["pid"])
    assert len(set(pids)) == 1
    assert worker.log_lines("executor.leaked") == []


async def test_files_that_stay_mapped_are_no_leak(master: ScriptedMaster, worker: WorkerProcess) -> None:
    """As a data set larger than memory is: the kernel drops what it wants, however much of it was read."""
    library = importlib.util.find_spec("grpc._cython.cygrpc")
    assert library is not None
    await worker.start(master.address, evaluator=EVALUATOR, executor_leak_max="100MiB")
    pids = [(await carry_out(master, f"t{n}", does="mapped", file=library.origin, mib=60 * n))["pid"] for n in range(6)]
    assert len(set(pids)) == 1
    assert worker.log_lines("executor.leaked") == []


async def test_a_process_that_a_run_leaves_is_ended_wherever_it_went(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address, evaluator=EVALUATOR)
    for does in ("process", "daemon"):
        (left,) = (await carry_out(master, does, does=does))["pids"]
        await eventually(lambda pid=left: not is_alive(pid))
    await carry_out(master, "next", does="nothing")
    assert reasons(worker) == ["processes_left"] * 2
    lines = worker.log_lines("executor.left_behind")
    assert [len(line["processes"]) for line in lines] == [1, 1]
    assert "time.sleep(3600)" in lines[1]["processes"][0]


@pytest.mark.parametrize("does", ["moves", "closes", "diverts"])
async def test_directory_environment_and_streams_are_put_back(
    master: ScriptedMaster, worker: WorkerProcess, does: str
) -> None:
    await worker.start(master.address, evaluator=EVALUATOR)
    before = await carry_out(master, "before", does="nothing")
    await carry_out(master, "changes", does=does)
    assert await carry_out(master, "prints", does="prints") == before, "the same process, and it stands as it stood"
    (output,) = (worker.work_dir / "logs").glob("prints.*.log")
    assert output.read_text() == "to stdout\nto stderr\n"
    assert reasons(worker) == []


async def test_an_evaluator_that_keeps_a_pool_still_works(master: ScriptedMaster, worker: WorkerProcess) -> None:
    """Ending the pool's workers alone would break it for the next run; a new executor makes a new pool."""
    await worker.start(master.address, evaluator=EVALUATOR)
    for number in range(2):
        (left,) = (await carry_out(master, f"t{number}", does="pool"))["pids"]
        await eventually(lambda pid=left: not is_alive(pid))
    await eventually(lambda: reasons(worker) == ["processes_left"] * 2)


async def test_workers_of_joblib_are_left_for_the_next_run(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, evaluator=EVALUATOR)
    first = await carry_out(master, "t1", does="joblib")
    second = await carry_out(master, "t2", does="joblib")
    assert first["pid"] == second["pid"]
    assert first["pid"] not in second["pids"]
    assert set(first["pids"]) & set(second["pids"]), "they are the same"
    assert [line["processes"] for line in worker.log_lines("executor.left_behind") if line["processes"]] == []
    assert reasons(worker) == []


async def test_threads_are_told_of_and_too_many_cost_the_executor(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address, evaluator=EVALUATOR)
    first = await carry_out(master, "few", does="thread", count=3)
    second = await carry_out(master, "many", does="thread", count=62)
    third = await carry_out(master, "next", does="nothing")
    assert first["pid"] == second["pid"] != third["pid"]
    assert reasons(worker) == ["threads_left"]
    lines = worker.log_lines("executor.left_behind")
    assert lines[0]["threads"] == ["left-0", "left-1", "left-2"]
    assert len(lines) == 2
