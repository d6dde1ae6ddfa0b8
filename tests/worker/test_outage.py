"""Masters that vanish, fall silent or were never there, and workers that die in the meantime."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import scripted_master
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually, found

from tenure.proto import worker_pb2 as pb


def local(url: str) -> Path:
    return Path(url.removeprefix("file://"))


async def test_without_a_master_evaluations_go_on_and_results_wait_on_disk(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address, slots=2)
    gate = tmp_path / "gate"
    ends, goes_on = make_task("ends", gate=gate), make_task("goes-on", steps=10, gate=tmp_path / "later", gate_step=5)
    await master.offer(ends, goes_on)
    await worker.journaled("gate", "ends")
    await worker.journaled("gate", "goes-on")
    await master.vanish()
    gate.touch()
    await eventually(lambda: list((worker.work_dir / "spool").glob("*.outcome")))
    await eventually(lambda: worker.log_lines("session.unreachable"))
    await master.start()
    outcome = await master.outcome_of(ends)
    assert outcome.kind == pb.OUTCOME_SUCCESS
    held = {one.lease_token for one in master.heard.hellos[1].held}
    assert held == {ends.lease_token, goes_on.lease_token}, "leases with an outcome on disk are held too"
    assert len({hello.worker.instance_id for hello in master.heard.hellos}) == 1
    (tmp_path / "later").touch()
    assert (await master.outcome_of(goes_on)).kind == pb.OUTCOME_SUCCESS
    assert len(worker.journal("start")) == 2, "no evaluation was started twice"
    await eventually(lambda: not list((worker.work_dir / "spool").glob("*.outcome")))


async def test_a_worker_outlives_its_leases_time_and_still_delivers(worker: WorkerProcess, tmp_path: Path) -> None:
    master = await ScriptedMaster(ttl_ms=600, heartbeat_ms=150).start()
    await worker.start(master.address)
    task = make_task("t1", steps=100, seconds=3)
    await master.offer(task)
    first = await worker.journaled("step")
    await master.vanish()
    await eventually(lambda: worker.journal("step")[-1]["time"] > first["time"] + 1.5)
    await master.start()
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS
    await master.vanish()


async def test_what_was_lost_meanwhile_is_stopped_on_return(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    task = make_task("t1", seconds=100)
    await master.offer(task)
    await worker.journaled("start")
    await master.vanish()
    await master.start()
    await master.until(lambda heard: len(heard.hellos) == 2)
    await master.revoke(task, "lost")
    await worker.journaled("stopped")
    following = make_task("t2")
    await master.offer(following)
    await master.outcome_of(following)
    assert [one.task_id for one in master.heard.outcomes] == ["t2"]


async def test_the_newest_checkpoint_of_an_outage_is_announced_afterwards(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=6, checkpoint=1, gate=tmp_path / "gate", gate_step=2)
    await master.offer(task)
    await worker.journaled("gate")
    registered = await master.until(
        lambda heard: [one for one in heard.checkpoints if one.checkpoint.step == 2] and list(heard.checkpoints)
    )
    await master.vanish()
    (tmp_path / "gate").touch()
    await worker.journaled("end")
    await eventually(lambda: list((worker.work_dir / "spool").glob("*.outcome")))
    await master.start()
    await master.outcome_of(task)
    announced = [one.checkpoint for one in master.heard.checkpoints[len(registered) :]]
    # Those that were registered again, should the store have lost them.
    assert [one.step for one in announced] == [1, 2, 6], "those in between no master has seen: they are superseded"
    order = master.heard.order
    assert order.index("checkpoint", order.index("hello", 1)) < order.index("outcomes")
    left = {path.name.split("-")[1] for path in found(worker.checkpoints, "step-*")}
    await eventually(
        lambda: (
            {path.name.split("-")[1] for path in found(worker.checkpoints, "step-*")}
            == {"00000001", "00000002", "00000006"}
        ),
        what=str(left),
    )


async def test_a_checkpoint_that_may_be_registered_is_not_deleted_when_it_turns_out_stale(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    """The verdict was lost with the connection; by now another worker may go on from this very checkpoint."""
    master.checkpoint_verdict = lambda checkpoint: None
    await worker.start(master.address)
    task = make_task("t1", steps=5, checkpoint=1, gate=tmp_path / "gate", gate_step=1)
    await master.offer(task)
    url = (await master.until(lambda heard: heard.checkpoints))[0].checkpoint.url
    await master.vanish()
    master.checkpoint_verdict = lambda checkpoint: pb.VERDICT_STALE
    await master.start()
    await worker.journaled("stopped")
    assert [one.checkpoint.url for one in master.heard.checkpoints] == [url, url]
    following = make_task("t2")
    await master.offer(following)
    await master.outcome_of(following)
    assert local(url).exists()


async def test_a_result_survives_the_death_of_its_worker(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    task = make_task("t1", gate=tmp_path / "gate")
    await master.offer(task)
    await worker.journaled("gate")
    await master.vanish()
    (tmp_path / "gate").touch()
    await eventually(lambda: list((worker.work_dir / "spool").glob("*.outcome")))
    worker.signal(signal.SIGKILL)
    await worker.wait()
    await master.start()
    await worker.start(master.address)
    outcome = await master.outcome_of(task)
    assert outcome.kind == pb.OUTCOME_SUCCESS
    assert [one.task_id for one in master.heard.outcomes] == ["t1"], "and it is no left-over run besides"
    assert len({hello.worker.instance_id for hello in master.heard.hellos}) == 2


async def test_a_restarted_worker_reports_the_run_it_died_under_with_its_last_checkpoint(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=9, checkpoint=1, gate=tmp_path / "gate", gate_step=3)
    await master.offer(task)
    await worker.journaled("gate")
    worker.signal(signal.SIGKILL)
    await worker.wait()
    await worker.start(master.address)
    outcome = await master.outcome_of(task)
    assert (outcome.kind, outcome.error_class, outcome.epoch, outcome.steps_end) == (
        pb.OUTCOME_LOSS,
        "WorkerDied",
        1,
        3,
    )
    assert [one.lease_token for one in master.heard.hellos[-1].held] == [task.lease_token]
    # Announced again, in case nobody had registered it; before the loss, so that the next worker goes on from there.
    assert master.heard.checkpoints[-1].checkpoint.step == 3
    order = master.heard.order
    last_hello = len(order) - 1 - order[::-1].index("hello")
    assert "checkpoint" in order[last_hello : order.index("outcomes", last_hello)]
    assert not [path for path in (worker.work_dir / "runs").iterdir() if path.name.endswith(".lease")]


async def test_a_silent_master_is_left_for_another(worker: WorkerProcess) -> None:
    silent = await ScriptedMaster(ttl_ms=2_000, heartbeat_ms=200).start()
    spare = await ScriptedMaster(ttl_ms=2_000, heartbeat_ms=200).start()
    await worker.start(f"{silent.address},{spare.address}")
    await eventually(lambda: silent.heard.hellos or spare.heard.hellos)
    if spare.heard.hellos:
        silent, spare = spare, silent
    task = make_task("t1", steps=1000, seconds=100)
    await silent.offer(task)
    await worker.journaled("start")
    silent.muted = True
    hello = (await spare.until(lambda heard: heard.hellos))[0]
    assert [one.lease_token for one in hello.held] == [task.lease_token]
    await spare.revoke(task, "cancelled")
    assert (await spare.outcome_of(task)).kind == pb.OUTCOME_RELEASE
    assert "has said nothing" in worker.log_text()
    await silent.vanish()
    await spare.vanish()


async def test_a_worker_waits_for_its_first_master(worker: WorkerProcess) -> None:
    master = await ScriptedMaster().start()
    await master.vanish()
    await worker.start(master.address)
    await eventually(lambda: worker.log_lines("session.unreachable"))
    assert worker.returncode is None
    await master.start()
    task = make_task("t1")
    await master.offer(task)
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS
    await master.vanish()


async def test_a_master_whose_store_is_away_is_not_left(master: ScriptedMaster, worker: WorkerProcess) -> None:
    """Its silence says nothing about this worker's leases; a broken stream would cut them to the grace."""
    await worker.start(master.address)
    task = make_task("t1", seconds=100)
    await master.offer(task)
    await worker.journaled("start")
    await master.lose_store()
    await eventually(lambda: len(worker.log_lines("session.silent")) >= 2)
    assert {line["health"] for line in worker.log_lines("session.silent")} == {"not_serving"}
    master.muted = False
    await master.revoke(task, "cancelled")
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_RELEASE
    assert len(master.heard.hellos) == 1


async def test_a_stopped_master_is_left(worker: WorkerProcess) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(scripted_master.__file__)), stdout=asyncio.subprocess.PIPE
    )
    spare = await ScriptedMaster(ttl_ms=3_000, heartbeat_ms=300).start()
    await spare.vanish()
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        await worker.start(f"127.0.0.1:{port},{spare.address}")
        await eventually(lambda: worker.log_lines("session.up"))
        process.send_signal(signal.SIGSTOP)
        await eventually(lambda: worker.log_lines("session.lost"))
        assert "nor does it answer when asked" in worker.log_lines("session.lost")[0]["error"]
        await spare.start()
        await spare.until(lambda heard: heard.hellos)
    finally:
        process.kill()
        await process.wait()
        await spare.vanish()


async def test_discarded_checkpoints_are_deleted_and_nothing_else(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=2, checkpoint=1)
    await master.offer(task)
    await master.outcome_of(task)
    urls = [one.checkpoint.url for one in master.heard.checkpoints]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    await master.say(pb.SessionDown(discard=pb.Discard(urls=[precious.as_uri(), "http://x/y", *urls])))
    await eventually(lambda: not any(local(url).exists() for url in urls))
    assert (precious / "file").exists()
    assert len(worker.log_lines("checkpoint.not_deleted")) == 2
