"""What a worker's outcome means for its task."""

from __future__ import annotations

import math

import pytest

from tenure.common import limits
from tenure.master.core.outcomes import judge_legacy, judge_outcome
from tenure.master.store.records import Failure, FailureKind, Release, RetryPolicy, Success
from tenure.proto import worker_pb2

RETRY = RetryPolicy(7, 70)


def outcome(kind: int, **fields: object) -> worker_pb2.Outcome:
    return worker_pb2.Outcome(**{"task_id": "t", "lease_token": "k", "epoch": 3, "kind": kind, **fields})


def success(**fields: object) -> Success | Failure | Release:
    return judge_outcome(outcome(worker_pb2.OUTCOME_SUCCESS, **fields), "w", RETRY)


class TestMemory:
    def judged(self, kind: int = worker_pb2.OUTCOME_OUT_OF_MEMORY, **fields: object) -> Failure:
        failure = judge_outcome(outcome(kind, **fields), "w", RETRY)
        assert isinstance(failure, Failure)
        return failure

    def test_the_report_is_evidence_as_far_as_it_is_known(self) -> None:
        memory = worker_pb2.MemoryReport(estimated_bytes=5, peak_bytes=-1, micro_batches=2)
        assert self.judged(memory=memory).evidence.memory == {"estimated_bytes": 5, "micro_batches": 2}
        assert self.judged().evidence.memory == {}
        done = success(memory=memory)
        assert isinstance(done, Success)
        assert done.evidence.memory == {"estimated_bytes": 5, "micro_batches": 2}

    @pytest.mark.parametrize(
        ("needed", "step"),
        [
            *((-1, 0), (0, 0), (1, 1), (15, 15), (17, 18), (2**30, 2**30), (2**30 + 1, 2**30 + 2**27)),
            *((2**50 - 1, 2**50), (2**60, 2**50)),
        ],
    )
    def test_what_is_needed_goes_up_in_steps(self, needed: int, step: int) -> None:
        assert self.judged(memory_needed_bytes=needed).memory_needed_bytes == step

    def test_other_ends_need_no_other_slot(self) -> None:
        assert self.judged(worker_pb2.OUTCOME_FAILURE, memory_needed_bytes=7).memory_needed_bytes == 0


class TestSuccess:
    def test_is_taken_as_it_is(self) -> None:
        judged = success(
            metrics={"fitness": 0.5, "loss": -1e300},
            detail="more",
            architecture="{}",
            duration_seconds=2.5,
            steps_start=1,
            steps_end=9,
        )
        assert isinstance(judged, Success)
        assert (judged.task_id, judged.token, judged.epoch, judged.worker_id) == ("t", "k", 3, "w")
        assert judged.metrics == {"fitness": 0.5, "loss": -1e300}
        assert (judged.detail, judged.architecture) == ("more", "{}")
        assert (judged.evidence.duration_seconds, judged.evidence.steps_end) == (2.5, 9)

    def test_needs_no_metric(self) -> None:
        assert isinstance(success(), Success)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_with_a_metric_that_is_no_finite_number_is_a_failure_that_says_so(self, value: float) -> None:
        judged = success(metrics={"fitness": 0.5, "loss": value})
        assert isinstance(judged, Failure)
        assert (judged.kind, judged.retryable, judged.token) == (FailureKind.FAILURE, True, "k")
        assert judged.evidence.error_class == "InvalidResult"
        assert judged.evidence.error_message == f"the metric 'loss' is {value}: metrics must be finite numbers"

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"metrics": {str(n): 0.0 for n in range(257)}}, "257 metrics; at most 256 are allowed"),
            ({"metrics": {"": 0.0}}, "the metric name '' must have 1 to 128 bytes"),
            ({"metrics": {"é" * 65: 0.0}}, "must have 1 to 128 bytes"),
            ({"detail": "x" * 65_537}, "the result's detail is above 65536 bytes"),
            ({"architecture": "x" * (limits.ARCHITECTURE_BYTES_MAX + 1)}, "architecture is above 8388608 bytes"),
        ],
    )
    def test_beyond_a_limit_is_a_failure_that_says_so(self, fields: dict[str, object], told: str) -> None:
        judged = success(**fields)
        assert isinstance(judged, Failure)
        assert told in judged.evidence.error_message

    def test_at_every_limit_it_is_taken(self) -> None:
        judged = success(
            metrics={**{str(n): 0.0 for n in range(255)}, "é" * 64: 1.0},
            detail="é" * 32_768,
            architecture="x" * limits.ARCHITECTURE_BYTES_MAX,
        )
        assert isinstance(judged, Success)


class TestFailure:
    @pytest.mark.parametrize(
        ("kind", "charged"),
        [
            (worker_pb2.OUTCOME_FAILURE, FailureKind.FAILURE),
            (worker_pb2.OUTCOME_LOSS, FailureKind.LOSS),
            (worker_pb2.OUTCOME_OUT_OF_MEMORY, FailureKind.OUT_OF_MEMORY),
            (worker_pb2.OUTCOME_UNSPECIFIED, FailureKind.FAILURE),
        ],
    )
    def test_is_charged_to_its_budget(self, kind: int, charged: FailureKind) -> None:
        judged = judge_outcome(outcome(kind, error_class="E", error_message="m", exit_signal=9), "w", RETRY)
        assert isinstance(judged, Failure)
        assert (judged.kind, judged.retry) == (charged, RETRY)
        assert (judged.evidence.error_class, judged.evidence.error_message, judged.evidence.exit_signal) == (
            "E",
            "m",
            9,
        )

    @pytest.mark.parametrize(
        ("kind", "said", "retryable"),
        [
            (worker_pb2.OUTCOME_FAILURE, True, True),
            (worker_pb2.OUTCOME_FAILURE, False, False),
            # The evaluator is not to blame for this, so it has no say.
            (worker_pb2.OUTCOME_LOSS, False, True),
            # A task's policy may be not to try again (on_out_of_memory).
            (worker_pb2.OUTCOME_OUT_OF_MEMORY, False, False),
        ],
    )
    def test_is_retried_if_that_can_help(self, kind: int, said: bool, retryable: bool) -> None:
        judged = judge_outcome(outcome(kind, retryable=said), "w", RETRY)
        assert isinstance(judged, Failure)
        assert judged.retryable is retryable

    def test_texts_are_shortened_to_their_limits(self) -> None:
        judged = judge_outcome(
            outcome(
                worker_pb2.OUTCOME_FAILURE,
                error_class="C" * 1000,
                error_message="é" * limits.ERROR_MESSAGE_BYTES_MAX,
                log_tail="first" + "é" * limits.LOG_TAIL_BYTES_MAX + "last",
            ),
            "w",
            RETRY,
        )
        evidence = judged.evidence
        assert evidence is not None
        assert len(evidence.error_class.encode()) <= 200
        assert len(evidence.error_message.encode()) <= limits.ERROR_MESSAGE_BYTES_MAX
        assert evidence.error_message.startswith("éé")
        assert evidence.error_message.endswith("é…")
        # Of a log the end is worth most.
        assert len(evidence.log_tail.encode()) <= limits.LOG_TAIL_BYTES_MAX
        assert evidence.log_tail.startswith("…é")
        assert evidence.log_tail.endswith("last")

    @pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
    def test_a_duration_that_can_not_be_is_none(self, seconds: float) -> None:
        judged = judge_outcome(outcome(worker_pb2.OUTCOME_FAILURE, duration_seconds=seconds), "w", RETRY)
        assert judged.evidence is not None
        assert judged.evidence.duration_seconds == 0.0


def test_a_release_keeps_what_was_done() -> None:
    judged = judge_outcome(outcome(worker_pb2.OUTCOME_RELEASE, steps_end=4), "w", RETRY)
    assert isinstance(judged, Release)
    assert (judged.task_id, judged.token, judged.worker_id) == ("t", "k", "w")
    assert judged.evidence is not None
    assert judged.evidence.steps_end == 4


class TestMorphMl:
    """Results in MorphML's own fields."""

    def judge(
        self, *, success: bool, error: str = "", token: str = "", **metrics: float
    ) -> Success | Failure | Release:
        return judge_legacy(
            task_id="t",
            worker_id="old",
            success=success,
            metrics=metrics,
            error=error,
            duration=1.5,
            architecture="",
            retry=RETRY,
            token=token,
        )

    def test_success(self) -> None:
        judged = self.judge(success=True, fitness=0.75)
        assert isinstance(judged, Success)
        assert (judged.token, judged.epoch, judged.worker_id) == ("", 0, "old")
        assert judged.metrics == {"fitness": 0.75}
        assert judged.evidence.duration_seconds == 1.5

    def test_the_token_of_a_push_is_used(self) -> None:
        assert self.judge(success=True, token="known").token == "known"

    def test_failure_can_be_retried(self) -> None:
        judged = self.judge(success=False, error="boom")
        assert isinstance(judged, Failure)
        assert (judged.kind, judged.retryable) == (FailureKind.FAILURE, True)
        assert (judged.evidence.error_class, judged.evidence.error_message) == ("EvaluationError", "boom")

    def test_the_type_error_of_an_unpatched_worker_is_explained(self) -> None:
        judged = self.judge(success=False, error="Worker error: must be real number, not str")
        assert isinstance(judged, Failure)
        assert judged.evidence.error_message.startswith("Worker error: must be real number, not str [")
        assert "unpatched MorphML 1.0" in judged.evidence.error_message
        assert "update MorphML" in judged.evidence.error_message

    def test_other_errors_are_left_alone(self) -> None:
        assert "MorphML" not in self.judge(success=False, error="not a str").evidence.error_message  # type: ignore[union-attr]
