"""Tasks that name their evaluator, at a worker whose master gives no code, or that wants none."""

from __future__ import annotations

from pathlib import Path

from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually

from tenure.proto import worker_pb2 as pb

DIGEST = "0" * 64


def named(task_id: str, evaluator: str = "evaluators:noop", code: str = "") -> pb.EvaluateRequest:
    request = make_task(task_id)
    request.evaluator, request.code = evaluator, code
    return request


async def test_a_worker_that_accepts_no_code_hands_it_back(master: ScriptedMaster, worker: WorkerProcess) -> None:
    """Whatever a master thinks of it: nothing of the task is imported."""
    await worker.start(master.address)
    (hello,) = await master.until(lambda heard: heard.hellos)
    assert not hello.worker.accepts_code
    for request in (named("installed"), named("shipped", "m:f", DIGEST)):
        await master.offer(request)
        outcome = await master.outcome_of(request)
        assert outcome.kind == pb.OUTCOME_RELEASE
        assert "this worker runs only its own: start it with --accept-code" in outcome.error_message
    own = make_task("own")
    await master.offer(own)
    assert (await master.outcome_of(own)).kind == pb.OUTCOME_SUCCESS
    assert not (worker.work_dir / "code").exists()


async def test_a_run_that_waits_for_its_code_can_be_taken_back(master: ScriptedMaster, worker: WorkerProcess) -> None:
    """The master knows nothing of GetCode; the task is asked for again and again, and the slot is not stuck in that."""
    await worker.start(master.address, accept_code="true")
    (hello,) = await master.until(lambda heard: heard.hellos)
    assert hello.worker.accepts_code
    waiting = named("waiting", "m:f", DIGEST)
    await master.offer(waiting)
    await eventually(lambda: worker.log_lines("code.not_fetched"), what="it asks for the code")
    await master.revoke(waiting, "lost")
    other = named("other")
    await master.offer(other)
    outcome = await master.outcome_of(other)
    assert (outcome.kind, dict(outcome.metrics)) == (pb.OUTCOME_SUCCESS, {"fitness": 1.0})
    assert master.heard.outcomes == [outcome]


async def test_a_drain_hands_back_what_waits_for_its_code(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    await worker.start(master.address, accept_code="true")
    waiting = named("waiting", "m:f", DIGEST)
    await master.offer(waiting)
    await eventually(lambda: worker.log_lines("code.not_fetched"), what="it asks for the code")
    await master.say(pb.SessionDown(drain=pb.Drain(active=True, reason="a test")))
    outcome = await master.outcome_of(waiting)
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_RELEASE, "NotStarted")


async def test_what_is_no_reference_fails(master: ScriptedMaster, worker: WorkerProcess) -> None:
    await worker.start(master.address, accept_code="true")
    for request in (named("a", "os.system"), named("b", "m:f", "../" * 20)):
        await master.offer(request)
        outcome = await master.outcome_of(request)
        assert (outcome.kind, outcome.error_class, outcome.retryable) == (pb.OUTCOME_FAILURE, "InvalidCode", False)
