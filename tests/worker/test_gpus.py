"""Workers on machines whose GPUs are recordings (tests/nvml): what slots get, and what becomes of faulty GPUs."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually, is_alive

from tenure.proto import worker_pb2 as pb

EVALUATOR = "leaving_evaluators:evaluate"


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    """Where a file lets a recorded event happen."""
    folder = tmp_path / "gates"
    folder.mkdir()
    return folder


def on(recording: str, worker: WorkerProcess, gates: Path) -> WorkerProcess:
    """The worker, on that machine."""
    worker.program = (str(Path(__file__).parents[1] / "worker_with_gpus.py"), recording, str(gates))
    return worker


async def carry_out(master: ScriptedMaster, name: str, **extra: Any) -> pb.Outcome:
    """One task to its end."""
    return await master.carry_out(make_task(name, **extra))


async def get(worker: WorkerProcess, path: str) -> str:
    """A page of the worker's HTTP endpoint."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{worker.ready['http']}{path}", timeout=60) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


def registration(master: ScriptedMaster) -> pb.RegisterRequest:
    """What the worker said of itself."""
    return master.heard.hellos[-1].worker


def slot_figures(master: ScriptedMaster) -> list[tuple[str, str]]:
    """State and reason of each slot by the last heartbeat."""
    beats = master.heard.heartbeats
    return [(slot.state, slot.cordon_reason) for slot in beats[-1].metrics.slots] if beats else []


async def test_a_slot_of_several_gpus_shows_its_runs_all_of_them(
    master: ScriptedMaster, worker: WorkerProcess, gates: Path
) -> None:
    await on("four_gpus", worker, gates).start(master.address, evaluator=EVALUATOR, slot_gpus="3,1/GPU-aaaa,2")
    await master.until(lambda heard: heard.hellos)
    told = registration(master)
    assert (told.num_gpus, list(told.gpu_ids), told.slots, told.gpus_per_slot) == (4, [0, 1, 2, 3], 2, 2)
    await master.offer(*(tasks := [make_task(name, does="wait") for name in "ab"]))
    await eventually(lambda: [state for state, _ in slot_figures(master)] == ["running", "running"])
    assert [list(slot.gpus) for slot in master.heard.heartbeats[-1].metrics.slots] == [["3", "1"], ["0", "2"]]
    for task in tasks:
        await master.revoke(task, "cancelled")
        await master.outcome_of(task)
    detail = json.loads((await carry_out(master, "c")).detail)
    assert detail["visible"] in ("3,1", "0,2")
    assert (detail["device"], detail["devices"]) == ("cuda:0", ["cuda:0", "cuda:1"])


async def test_mig_devices_are_given_by_their_uuids(master: ScriptedMaster, worker: WorkerProcess, gates: Path) -> None:
    await on("mig", worker, gates).start(master.address, evaluator=EVALUATOR, slot_gpus="MIG-2222")
    detail = json.loads((await carry_out(master, "a")).detail)
    assert detail["visible"] == "MIG-22222222-0000-0000-0000-000000000000"
    assert detail["devices"] == ["cuda:0"]


async def test_the_cpu_stands_for_several_devices(master: ScriptedMaster, worker: WorkerProcess, gates: Path) -> None:
    await on("no_driver", worker, gates).start(master.address, evaluator=EVALUATOR, cpu_ranks_per_slot=2)
    detail = json.loads((await carry_out(master, "a")).detail)
    assert (detail["visible"], detail["device"], detail["devices"]) == ("", "cpu", ["cpu", "cpu"])
    assert (registration(master).num_gpus, registration(master).gpus_per_slot) == (0, 2)


async def test_gpus_that_are_not_there_are_refused_at_the_start(
    master: ScriptedMaster, worker: WorkerProcess, gates: Path
) -> None:
    await on("two_gpus", worker, gates).spawn(master.address, gpus_per_slot=3)
    assert await worker.wait() == 2
    assert "error: gpus_per_slot: is more than there are (given: 3); this machine shows 2 GPUs" in worker.log_text()


async def test_a_critical_xid_cordons_the_slot_and_its_run_is_a_loss_until_an_operator_says_otherwise(
    master: ScriptedMaster, worker: WorkerProcess, gates: Path
) -> None:
    await on("xid", worker, gates).start(master.address, evaluator=EVALUATOR)
    tasks = [make_task(name, does="wait") for name in "ab"]
    await master.offer(*tasks)
    await eventually(lambda: [state for state, _ in slot_figures(master)] == ["running", "running"])
    executors = worker.executors()
    (gates / "xid-31").touch()
    (gates / "xid-94").touch()
    (gates / "xid-79").touch()
    # Of XID 31 and 94 nobody takes notice; 79 is the first GPU's end.
    struck, well = [slot.task_id for slot in master.heard.heartbeats[-1].metrics.slots]
    outcome = await master.outcome_of(next(task for task in tasks if task.task_id == struck))
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_LOSS, "DeviceLost")
    assert outcome.error_message.startswith("GPU 0: XID 79, the GPU has fallen off the bus")
    reason = "GPU 0: XID 79, the GPU has fallen off the bus"
    await eventually(lambda: slot_figures(master) == [("cordoned", reason), ("running", "")])
    assert sum(is_alive(executor.pid) for executor in executors) == 1, "the other slot's"
    assert [line["cause"] for line in worker.log_lines("slot.cordoned")] == ["xid"]
    assert [line["xid"] for line in worker.log_lines("gpu.incident")] == [31, 94, 79]
    assert master.sessions[0].wanted == 0, "it wants nothing for the cordoned slot"
    text = await get(worker, "/metrics")
    assert 'tenure_worker_slot_cordoned{cause="xid",slot="0"} 1.0' in text
    assert 'tenure_worker_gpu_xid_errors_total{gpu="0",slot="0",xid="79"} 1.0' in text
    assert 'tenure_worker_slots{state="cordoned"} 1.0' in text
    gpu = master.heard.heartbeats[-1].metrics.gpus[0]
    assert (gpu.xid_errors, gpu.last_xid) == (2, 79)

    await master.say(pb.SessionDown(drain=pb.Drain(active=False, reason="an operator asked for it")))
    await eventually(lambda: slot_figures(master) == [("free", ""), ("running", "")])
    assert worker.log_lines("slot.uncordoned")
    assert (await carry_out(master, "c")).kind == pb.OUTCOME_SUCCESS
    await master.revoke(next(task for task in tasks if task.task_id == well), "cancelled")


async def test_an_idle_slot_on_a_gpu_that_is_lost_is_cordoned_and_the_other_works_on(
    master: ScriptedMaster, worker: WorkerProcess, gates: Path
) -> None:
    await on("gpu_lost", worker, gates).start(master.address, evaluator=EVALUATOR)
    await eventually(lambda: [state for state, _ in slot_figures(master)] == ["cordoned", "free"])
    assert slot_figures(master)[0][1].startswith("GPU 0 is lost")
    assert master.heard.heartbeats[-1].metrics.gpus[0].fault.startswith("is lost")
    for name in "ab":
        outcome = await carry_out(master, name)
        assert json.loads(outcome.detail)["visible"] == "1"
    ready = json.loads(await get(worker, "/readyz"))
    assert ready["slots"] == ["cordoned", "free"]


async def test_tasks_that_lose_their_device_in_a_row_cordon_the_slot_and_failures_of_their_own_do_not(
    master: ScriptedMaster, worker: WorkerProcess, gates: Path
) -> None:
    await on("two_gpus", worker, gates).start(master.address, evaluator=EVALUATOR, slot_gpus="0")
    for number in range(4):
        own = await carry_out(master, f"own{number}", does="lose", message="CUDA error: device-side assert triggered")
        assert own.kind == pb.OUTCOME_FAILURE
    for number in range(3):
        lost = await carry_out(master, f"lost{number}", does="lose")
        assert (lost.kind, lost.error_class) == (pb.OUTCOME_FAILURE, "RuntimeError"), "nobody but the task said so"
    await eventually(lambda: [state for state, _ in slot_figures(master)] == ["cordoned"])
    assert "3 evaluations in a row lost it" in slot_figures(master)[0][1]


async def test_trouble_that_cordons_nothing_makes_a_lost_device_a_loss(
    master: ScriptedMaster, worker: WorkerProcess, gates: Path
) -> None:
    (gates / "xid-31").touch()
    await on("xid", worker, gates).start(master.address, evaluator=EVALUATOR, slot_gpus="1", xids_ignored="79")
    await eventually(lambda: worker.log_lines("gpu.incident"))
    task = make_task("a", does="lose", gate=gates / "xid-94")
    await master.offer(task)
    await eventually(lambda: worker.log_lines("task.started"))
    (gates / "xid-94").touch()
    outcome = await master.outcome_of(task)
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_LOSS, "DeviceLost")
    assert outcome.error_message == (
        "GPU 1: XID 94, an uncorrected memory error, contained in one application; "
        "CUDA error: unspecified launch failure"
    )
    assert (await carry_out(master, "b")).kind == pb.OUTCOME_SUCCESS, "the slot goes on"
