"""A pulling worker against a scripted master: the session from hello to goodbye."""

from __future__ import annotations

import signal
from pathlib import Path

from scripted_master import Heard, ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually

from tenure.proto import worker_pb2 as pb


async def test_a_task_is_pulled_run_and_reported(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, labels="zone=east")
    hello = (await master.until(lambda heard: heard.hellos))[0]
    assert (hello.worker.worker_id, hello.worker.slots) == ("worker", 1)
    assert hello.worker.dispatch == pb.DISPATCH_PULL
    assert hello.worker.labels["zone"] == "east"
    assert hello.worker.instance_id
    assert f"{hello.worker.host}:{hello.worker.port}" == worker.ready["grpc"]
    assert list(hello.held) == []
    task = make_task("t1", steps=3)
    await master.offer(task)
    outcome = await master.outcome_of(task)
    assert outcome.kind == pb.OUTCOME_SUCCESS
    assert outcome.metrics["fitness"] == 0.5
    assert outcome.steps_end == 3
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == 0
    assert [goodbye.reason for goodbye in master.heard.goodbyes] == ["drained"]
    assert master.heard.order[-1] == "goodbye"
    started, ended = worker.log_lines("task.started")[0], worker.log_lines("task.ended")[0]
    for line in (started, ended):
        assert (line["search"], line["task"], line["worker"], line["epoch"]) == ("tests", "t1", "worker", 1)
    assert ended["outcome"] == "success"


async def test_slots_are_claimed_as_they_become_free(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address, slots=2)
    await master.until(lambda heard: heard.wants == [2])
    gate = tmp_path / "gate"
    tasks = [make_task(f"t{n}", gate=gate) for n in range(2)] + [make_task(f"t{n}") for n in range(2, 6)]
    await master.offer(*tasks)
    await worker.journaled("gate", count=2)
    assert len(worker.journal("start")) == 2, "nothing is taken ahead of a free slot"
    gate.touch()
    for task in tasks:
        assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS
    assert len(worker.journal("start")) == 6
    assert len({line["pid"] for line in worker.journal("start")}) == 2, "executors stay warm"
    assert "want" in master.heard.order
    # What completes also claims: after the first want, numbers come with outcomes.
    assert master.heard.order.count("want") <= 2


async def test_a_task_beyond_the_free_slots_is_handed_back(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    await master.until(lambda heard: heard.wants)
    running, extra = make_task("t1", gate=tmp_path / "gate"), make_task("t2")
    await master.say(pb.SessionDown(tasks=pb.Tasks(tasks=[running, extra])))
    outcome = await master.outcome_of(extra)
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_RELEASE, "NotStarted")
    assert not worker.journal("start", "t2")
    (tmp_path / "gate").touch()
    assert (await master.outcome_of(running)).kind == pb.OUTCOME_SUCCESS


async def test_a_task_that_crossed_with_the_number_wanted_waits_a_moment_for_a_slot(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    await master.until(lambda heard: heard.wants)
    ends: list[int] = []
    # On a busy machine a run may take longer than that moment.
    while pb.OUTCOME_SUCCESS not in ends[1::2] and len(ends) < 20:
        tasks = [make_task(f"t{len(ends) + number}") for number in range(2)]
        await master.say(pb.SessionDown(tasks=pb.Tasks(tasks=tasks)))
        ends += [(await master.outcome_of(task)).kind for task in tasks]
    assert ends[0] == ends[-1] == pb.OUTCOME_SUCCESS


async def test_the_same_lease_twice_is_one_run(master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path) -> None:
    await worker.start(master.address, slots=2)
    await master.until(lambda heard: heard.wants)
    task = make_task("t1", gate=tmp_path / "gate")
    await master.say(pb.SessionDown(tasks=pb.Tasks(tasks=[task, task])))
    await worker.journaled("gate")
    (tmp_path / "gate").touch()
    await master.outcome_of(task)
    other = make_task("t2")
    await master.offer(other)
    await master.outcome_of(other)
    assert len(worker.journal("start", "t1")) == 1
    assert len([one for one in master.heard.outcomes if one.task_id == "t1"]) == 1


async def test_a_newer_lease_of_a_running_task_ends_the_older_run(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address, slots=2)
    await master.until(lambda heard: heard.wants)
    older, newer = make_task("t1", gate=tmp_path / "gate"), make_task("t1", epoch=2)
    await master.offer(older)
    await worker.journaled("gate")
    await master.say(pb.SessionDown(tasks=pb.Tasks(tasks=[newer])))
    assert (await master.outcome_of(newer)).kind == pb.OUTCOME_SUCCESS
    await worker.journaled("stopped", "t1")
    await eventually(lambda: worker.log_lines("task.ended")[1:])
    assert [one.lease_token for one in master.heard.outcomes] == [newer.lease_token]


async def test_heartbeats_renew_every_lease_with_its_progress(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=5, gate=tmp_path / "gate", gate_step=2)
    await master.offer(task)
    await worker.journaled("gate")

    def renewed(heard: Heard) -> object:
        return [
            beat
            for beat in heard.heartbeats
            if any(one.lease_token == task.lease_token and one.progress.step == 2 for one in beat.renewals)
        ]

    beats = await master.until(renewed)
    assert beats[0].status == "busy"
    assert beats[0].current_task_id == "t1"
    assert beats[0].metrics.memory_usage > 0
    assert beats[0].metrics.slots_busy == 1
    renewal = beats[0].renewals[0]
    assert (renewal.task_id, renewal.epoch, renewal.progress.sequence) == ("t1", 1, 2)
    assert renewal.progress.total_steps == 5
    assert renewal.progress.metrics["samples_per_second"] == 100.0
    assert "renewals" in master.heard.order, "progress is told between heartbeats"
    (tmp_path / "gate").touch()
    await master.outcome_of(task)


async def test_a_cancelled_run_stops_with_its_checkpoint_and_is_released(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=1000, seconds=100, checkpoint=1)
    await master.offer(task)
    await worker.journaled("step", "t1", count=2)
    await master.revoke(task, "cancelled")
    outcome = await master.outcome_of(task)
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_RELEASE, "Cancelled")
    await worker.journaled("stopped", "t1")


async def test_revoked_runs_stop_and_nothing_is_sent(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address)
    for number, reason in enumerate(("lost", "finished_elsewhere", "unknown")):
        task = make_task(f"t{number}", seconds=100)
        await master.offer(task)
        await worker.journaled("start", f"t{number}")
        await master.revoke(task, reason)
        await worker.journaled("stopped", f"t{number}")
    last = make_task("last")
    await master.offer(last)
    await master.outcome_of(last)
    assert [one.task_id for one in master.heard.outcomes] == ["last"]
    reasons = [line["stop_reason"] for line in worker.log_lines("task.ended") if "stop_reason" in line]
    assert reasons == ["lost", "finished_elsewhere", "unknown"]


async def test_a_run_deaf_to_its_revocation_is_killed(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, stop_grace_seconds=0.3)
    task = make_task("t1", fate="hang", fate_step=0)
    await master.offer(task)
    pid = (await worker.journaled("start", "t1"))["pid"]
    await master.revoke(task, "lost")
    following = make_task("t2")
    await master.offer(following)
    await master.outcome_of(following)
    assert worker.journal("start", "t2")[0]["pid"] != pid
    assert [one.task_id for one in master.heard.outcomes] == ["t2"]


async def test_checkpoints_are_registered_in_order_and_what_is_superfluous_is_deleted(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address)
    gate = tmp_path / "gate"
    task = make_task("t1", steps=3, checkpoint=1, gate=gate, gate_step=1)
    await master.offer(task)
    first = (await master.until(lambda heard: heard.checkpoints))[0]
    assert (first.task_id, first.lease_token) == ("t1", task.lease_token)
    assert (first.checkpoint.step, first.checkpoint.epoch) == (1, 1)
    assert first.checkpoint.score > 0.3
    assert len(first.checkpoint.digest) == 64
    assert first.checkpoint.size_bytes > 0
    assert [str(path) for path in worker.checkpoints.rglob("step-*")] == [first.checkpoint.url.removeprefix("file://")]
    master.delete_urls = [first.checkpoint.url]
    gate.touch()
    outcome = await master.outcome_of(task)
    assert (outcome.kind, outcome.steps_end) == (pb.OUTCOME_SUCCESS, 3)
    steps = [one.checkpoint.step for one in master.heard.checkpoints]
    assert steps[-1] == 3
    assert master.heard.order.index("outcomes") > max(
        number for number, what in enumerate(master.heard.order) if what == "checkpoint"
    )
    await eventually(lambda: not Path(first.checkpoint.url.removeprefix("file://")).exists())


async def test_a_run_goes_on_from_the_checkpoint_that_comes_with_the_task(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    first = make_task("t1", steps=4, checkpoint=2, fate="exit", fate_step=3)
    await master.offer(first)
    assert (await master.outcome_of(first)).kind == pb.OUTCOME_LOSS
    registered = master.heard.checkpoints[-1].checkpoint
    second = make_task("t1", epoch=2, steps=4, checkpoint=2)
    second.checkpoints.append(registered)
    await master.offer(second)
    outcome = await master.outcome_of(second)
    assert (outcome.kind, outcome.steps_start, outcome.steps_end) == (pb.OUTCOME_SUCCESS, 2, 4)
    assert [line["resumed_from"] for line in worker.journal("start", "t1")] == [-1, 2]
    assert [line["step"] for line in worker.journal("step", "t1") if line["epoch"] == 2] == [3, 4]


async def test_a_stale_checkpoint_stops_the_run_and_is_deleted(master: ScriptedMaster, worker: WorkerProcess) -> None:
    master.checkpoint_verdict = lambda checkpoint: pb.VERDICT_STALE
    await worker.start(master.address)
    task = make_task("t1", steps=1000, seconds=100, checkpoint=1)
    await master.offer(task)
    await worker.journaled("stopped", "t1")
    urls = {one.checkpoint.url for one in master.heard.checkpoints}
    assert urls
    await eventually(lambda: not any(Path(url.removeprefix("file://")).exists() for url in urls))
    assert master.heard.outcomes == []


async def test_a_master_that_cannot_judge_is_told_again_on_the_next_session(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    master.verdict = lambda outcome: pb.VERDICT_UNSPECIFIED
    await worker.start(master.address)
    task = make_task("t1")
    await master.offer(task)
    await master.outcome_of(task)
    assert list((worker.work_dir / "spool").glob("*.outcome"))
    await master.vanish()
    master.verdict = lambda outcome: pb.VERDICT_DUPLICATE
    await master.start()
    await master.until(lambda heard: len(heard.outcomes) == 2)
    assert [held.lease_token for held in master.heard.hellos[1].held] == [task.lease_token], "the lease is still held"
    await eventually(lambda: not list((worker.work_dir / "spool").glob("*.outcome")))


async def test_gzip_and_big_architectures_pass(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, compression="gzip")
    task = make_task("t1")
    task.architecture = '{"text": "' + '"'.join(["\\n"] * 500_000) + '"}'
    await master.offer(task)
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS
