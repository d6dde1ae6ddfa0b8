"""What a run's end means to the master, and when its limits pass."""

from __future__ import annotations

import math

import pytest

from tenure.common import limits
from tenure.proto import worker_pb2 as pb
from tenure.worker.pipe import Message
from tenure.worker.runs import Run, StopReason, finite_metrics, outcome_of, outcome_of_leftover, release_of
from tenure.worker.slots.executor_process import Exited

DONE: Message = {"type": "done", "metrics": {"fitness": 1.0}, "detail": "d", "architecture": "a"}
FAILED: Message = {
    "type": "failed",
    "error_class": "ValueError",
    "message": "no",
    "retryable": True,
    "out_of_memory": False,
}
STOPPED: Message = {"type": "stopped"}
KILLED = Exited(signal=9, code=0, killed=True, reason="did not stop within 2 s and was killed")
CRASHED = Exited(signal=11, code=0, killed=False, reason="")


async def make_run(**fields: object) -> Run:
    request = pb.EvaluateRequest(task_id="t", lease_token="k", epoch=3, search="s", **fields)  # type: ignore[arg-type]
    return Run(1, request)


async def test_a_success_carries_what_the_evaluator_returned() -> None:
    run = await make_run(checkpoints=[pb.Checkpoint(step=4), pb.Checkpoint(step=2)])
    run.report({"sequence": 7, "step": 9, "total_steps": 9, "metrics": {}})
    outcome = outcome_of(run, DONE, "log")
    assert outcome is not None
    assert outcome.kind == pb.OUTCOME_SUCCESS
    assert (outcome.task_id, outcome.lease_token, outcome.epoch) == ("t", "k", 3)
    assert (outcome.metrics["fitness"], outcome.detail, outcome.architecture) == (1.0, "d", "a")
    assert (outcome.steps_start, outcome.steps_end) == (4, 9)
    assert outcome.log_tail == "", "only evidence of failures is kept"


@pytest.mark.parametrize(
    ("ending", "kind", "error_class", "retryable"),
    [
        (FAILED, pb.OUTCOME_FAILURE, "ValueError", True),
        ({**FAILED, "retryable": False}, pb.OUTCOME_FAILURE, "ValueError", False),
        ({**FAILED, "out_of_memory": True}, pb.OUTCOME_OUT_OF_MEMORY, "ValueError", True),
        (STOPPED, pb.OUTCOME_FAILURE, "Stopped", True),
        (CRASHED, pb.OUTCOME_LOSS, "ExecutorDied", True),
        (Exited(signal=0, code=7, killed=False, reason=""), pb.OUTCOME_LOSS, "ExecutorDied", True),
    ],
)
async def test_ends_nobody_asked_for(
    ending: Message | Exited, kind: pb.OutcomeKind, error_class: str, retryable: bool
) -> None:
    outcome = outcome_of(await make_run(), ending, "the log")
    assert outcome is not None
    assert (outcome.kind, outcome.error_class, outcome.retryable) == (kind, error_class, retryable)
    assert outcome.log_tail == "the log"


async def test_a_dead_executor_is_reported_with_its_signal_or_code() -> None:
    by_signal = outcome_of(await make_run(), CRASHED, "")
    by_kernel = outcome_of(await make_run(), Exited(signal=9, code=0, killed=False, reason=""), "")
    by_code = outcome_of(await make_run(), Exited(signal=0, code=7, killed=False, reason=""), "")
    assert by_signal is not None
    assert by_kernel is not None
    assert by_code is not None
    assert (by_signal.exit_signal, by_signal.exit_code) == (11, 0)
    assert "SIGSEGV" in by_signal.error_message
    assert by_kernel.exit_signal == 9
    assert "memory" in by_kernel.error_message
    assert (by_code.exit_signal, by_code.exit_code) == (0, 7)
    assert "exit code 7" in by_code.error_message


REPORTED = {
    StopReason.CANCELLED: (pb.OUTCOME_RELEASE, "Cancelled"),
    StopReason.DRAIN: (pb.OUTCOME_RELEASE, "WorkerDrained"),
    StopReason.PREEMPTED: (pb.OUTCOME_RELEASE, "WorkerPreempted"),
    StopReason.TIMEOUT: (pb.OUTCOME_FAILURE, "TaskTimeout"),
    StopReason.NO_PROGRESS: (pb.OUTCOME_FAILURE, "ProgressDeadlineExceeded"),
}


@pytest.mark.parametrize("reason", list(StopReason))
@pytest.mark.parametrize("ending", [STOPPED, FAILED, KILLED, CRASHED, DONE], ids=lambda ending: str(ending)[:24])
async def test_ends_that_were_asked_for(reason: StopReason, ending: Message | Exited) -> None:
    run = await make_run()
    run.stop(reason, 1.0)
    outcome = outcome_of(run, ending, "the log")
    if reason not in REPORTED:
        assert outcome is None, "the lease is gone: nothing is sent"
        assert not run.holds_lease
    else:
        assert outcome is not None
        assert run.holds_lease
        if ending is DONE:
            assert outcome.kind == pb.OUTCOME_SUCCESS, "work that is done is not thrown away"
        else:
            assert (outcome.kind, outcome.error_class) == REPORTED[reason]
            assert ("killed" in outcome.error_message) == isinstance(ending, Exited)


async def test_a_second_reason_counts_only_if_the_lease_is_gone() -> None:
    run = await make_run()
    run.stop(StopReason.DRAIN, 10.0)
    run.stop(StopReason.CANCELLED, 20.0)
    assert run.stop_reason is StopReason.DRAIN
    assert run.grace_seconds == 10.0
    run.stop(StopReason.LOST, 1.0)
    assert run.stop_reason is StopReason.LOST
    assert run.grace_seconds == 1.0
    run.stop(StopReason.DRAIN, 5.0)
    assert run.stop_reason is StopReason.LOST


async def test_limits_count_from_the_start_and_from_the_last_report(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    run = Run(1, pb.EvaluateRequest(task_id="t", timeout_ms=10_000, progress_deadline_ms=3_000))
    now = 200.0
    assert run.overdue() is None, "waiting for an executor doesn't count"
    assert run.look_up_at() == math.inf
    run.start(None, lambda: None)  # type: ignore[arg-type]
    assert run.look_up_at() == 203.0
    now = 202.0
    run.report({"sequence": 1, "step": 1, "total_steps": 0, "metrics": {}})
    now = 204.0
    assert run.overdue() is None
    now = 205.0
    assert run.overdue() is StopReason.NO_PROGRESS
    now = 210.0
    assert run.overdue() is StopReason.TIMEOUT
    run.stop(StopReason.TIMEOUT, 2.0)
    assert run.look_up_at() == 212.0
    assert not run.grace_is_over()
    now = 212.0
    assert run.grace_is_over()


def test_metrics_are_what_the_wire_may_carry() -> None:
    given = {"a": 1, "b": math.nan, "c": math.inf, "x" * 200: 1.0, "d": "text", "e": True, "\ud800": 1.0}
    assert finite_metrics(given) == {"a": 1.0, "e": 1.0}  # type: ignore[arg-type]
    assert len(finite_metrics({str(n): 1.0 for n in range(1000)})) == limits.METRICS_ENTRIES_MAX


async def test_long_error_messages_are_cut_to_the_limit() -> None:
    failed = {**FAILED, "message": "ü" * 10_000 + "\ud800", "error_class": "E\ud800" * 500}
    outcome = outcome_of(await make_run(), failed, "")
    assert outcome is not None
    assert len(outcome.error_class.encode()) <= 200
    assert len(outcome.error_message.encode()) <= limits.ERROR_MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("cancelled", StopReason.CANCELLED),
        ("lost", StopReason.LOST),
        ("finished_elsewhere", StopReason.FINISHED_ELSEWHERE),
        ("unknown", StopReason.UNKNOWN),
        ("a word of a newer master", StopReason.LOST),
        ("drain", StopReason.LOST),
    ],
)
def test_revocations_by_word(word: str, reason: StopReason) -> None:
    assert StopReason.of_revocation(word) is reason


async def test_leases_that_never_ran_are_released_and_left_over_ones_are_losses() -> None:
    run = await make_run(checkpoints=[pb.Checkpoint(step=4)])
    released = release_of(run, "no room")
    assert (released.kind, released.steps_start, released.steps_end) == (pb.OUTCOME_RELEASE, 4, 4)
    left = outcome_of_leftover(run.request)
    assert (left.kind, left.error_class, left.lease_token) == (pb.OUTCOME_LOSS, "WorkerDied", "k")
