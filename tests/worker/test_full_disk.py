"""A worker whose directory can't be written: its tasks go back to others, and it works again when there is room."""

from __future__ import annotations

from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess

from tenure.proto import worker_pb2 as pb


async def test_a_run_that_cannot_begin_is_handed_back_and_burns_nothing(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    """Found by the chaos suite, seed 11 (``worker_disk_full``): it burned an attempt, and the slot's next task waited a
    minute for an executor to clear away what it had never been given."""
    await worker.start(master.address)
    # Where the note of the slot's lease would be written: an error of the file system, whoever runs the test.
    obstacle = worker.work_dir / "runs" / "slot-0.lease"
    obstacle.mkdir()
    first, second = make_task("first"), make_task("second")
    await master.offer(first)
    outcome = await master.outcome_of(first)
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_RELEASE, "NotStarted")
    assert "could not be started" in outcome.error_message
    assert worker.journal() == []

    obstacle.rmdir()
    await master.offer(second)
    assert (await master.outcome_of(second)).kind == pb.OUTCOME_SUCCESS
    assert worker.log_lines("executor.replaced") == []
