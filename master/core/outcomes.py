"""What a worker's outcome means for its task."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

from tenure.common import limits
from tenure.common.retry import is_never_retryable
from tenure.master.store.records import Evidence, Failure, FailureKind, Release, RetryPolicy, Success
from tenure.proto import worker_pb2

Judged = Success | Failure | Release

_KINDS = {
    worker_pb2.OUTCOME_FAILURE: FailureKind.FAILURE,
    worker_pb2.OUTCOME_LOSS: FailureKind.LOSS,
    worker_pb2.OUTCOME_OUT_OF_MEMORY: FailureKind.OUT_OF_MEMORY,
}

# MorphML 1.0 puts a text into map<string, double>, so that an unpatched one reports every evaluation like this.
_MORPHML_TYPE_ERROR = "must be real number, not str"
_MORPHML_EXPLANATION = (
    " [this worker is an unpatched MorphML 1.0: it puts a text among the metrics, "
    "which the protocol defines as numbers, so all of its evaluations fail; update MorphML or return numbers only]"
)


def judge_outcome(outcome: worker_pb2.Outcome, worker_id: str, retry: RetryPolicy) -> Judged:
    """A Tenure worker's outcome as a transition. Texts beyond the limits are shortened; what can't be taken as a
    success (a metric that is no finite number, too many metrics) is a failure that says so: the lease must end."""
    evidence = Evidence(
        error_class=_shorten(outcome.error_class, 200),
        error_message=_shorten(outcome.error_message, limits.ERROR_MESSAGE_BYTES_MAX),
        exit_signal=outcome.exit_signal,
        exit_code=outcome.exit_code,
        log_tail=_shorten(outcome.log_tail, limits.LOG_TAIL_BYTES_MAX, keep_end=True),
        steps_start=outcome.steps_start,
        steps_end=outcome.steps_end,
        duration_seconds=_finite_or_zero(outcome.duration_seconds),
        memory={field.name: value for field, value in outcome.memory.ListFields() if value > 0},
    )
    if outcome.kind == worker_pb2.OUTCOME_SUCCESS:
        return _success(outcome, worker_id, evidence, retry)
    if outcome.kind == worker_pb2.OUTCOME_RELEASE:
        return Release(outcome.task_id, outcome.lease_token, worker_id, evidence, outcome.epoch, outcome.attempt)
    return Failure(
        outcome.task_id,
        outcome.lease_token,
        worker_id,
        kind := _KINDS.get(outcome.kind, FailureKind.FAILURE),
        # Of a loss the evaluator can have said nothing.
        (outcome.retryable or kind is FailureKind.LOSS) and not is_never_retryable(evidence.error_class),
        evidence,
        retry,
        memory_needed_bytes=_memory_step(outcome.memory_needed_bytes) if kind is FailureKind.OUT_OF_MEMORY else 0,
        epoch=outcome.epoch,
        attempt=outcome.attempt,
    )


def judge_by(failure: Failure, policy_id: str, text: str) -> Failure:
    """The failure, judged so far by the master's own policy, by its search's.

    Args:
        failure: As :func:`judge_outcome` made it.
        policy_id: Of the search's policy; empty: it has none, and the master's holds.
        text: The policy as the store keeps it.
    """
    if not policy_id:
        return failure
    policy = RetryPolicy.from_plain(json.loads(text))
    error_class = failure.evidence.error_class
    rule = policy.rule_for(error_class)
    if rule is None:
        return replace(failure, retry=policy, policy=policy_id)
    retryable = failure.retryable if rule.retryable is None else rule.retryable
    return replace(
        failure,
        retryable=retryable and not is_never_retryable(error_class),
        retry=policy.with_backoff_of(rule),
        policy=policy_id,
        rule=rule.error_class if rule.max_attempts is not None else "",
        rule_budget=rule.max_attempts or 0,
    )


def judge_legacy(
    *,
    task_id: str,
    worker_id: str,
    success: bool,
    metrics: Mapping[str, float],
    error: str,
    duration: float,
    architecture: str,
    retry: RetryPolicy,
    token: str = "",
) -> Judged:
    """A result in MorphML's own fields as a transition; ``token`` where the master knows it from its own push."""
    message = error + _MORPHML_EXPLANATION if _MORPHML_TYPE_ERROR in error else error
    return judge_outcome(
        worker_pb2.Outcome(
            task_id=task_id,
            lease_token=token,
            kind=worker_pb2.OUTCOME_SUCCESS if success else worker_pb2.OUTCOME_FAILURE,
            metrics=metrics,
            architecture=architecture,
            error_class="" if success else "EvaluationError",
            error_message=message,
            retryable=True,
            duration_seconds=duration,
        ),
        worker_id,
        retry,
    )


def _success(outcome: worker_pb2.Outcome, worker_id: str, evidence: Evidence, retry: RetryPolicy) -> Success | Failure:
    metrics = dict(outcome.metrics)
    problem = _metrics_problem(metrics) or _size_problem(outcome)
    if problem:
        evidence = replace(evidence, error_class="InvalidResult", error_message=problem)
        return Failure(outcome.task_id, outcome.lease_token, worker_id, FailureKind.FAILURE, True, evidence, retry)
    return Success(
        outcome.task_id,
        outcome.lease_token,
        outcome.epoch,
        worker_id,
        metrics,
        outcome.detail,
        outcome.architecture,
        evidence,
        outcome.origin,
        outcome.attempt,
    )


def _memory_step(needed_bytes: int) -> int:
    """Up to the next of eight steps in each power of two: tasks that need about the same share a requirement class."""
    if needed_bytes <= 0:
        return 0
    step = 1 << max(0, needed_bytes.bit_length() - 4)
    return min(-(-needed_bytes // step) * step, limits.SLOT_MEMORY_BYTES_MAX)


def _metrics_problem(metrics: Mapping[str, float]) -> str:
    if len(metrics) > limits.METRICS_ENTRIES_MAX:
        return f"{len(metrics)} metrics; at most {limits.METRICS_ENTRIES_MAX} are allowed"
    for name, value in metrics.items():
        if not math.isfinite(value):
            return f"the metric {name[:100]!r} is {value}: metrics must be finite numbers"
        if not name or len(name.encode()) > limits.METRIC_NAME_BYTES_MAX:
            return f"the metric name {name[:50]!r} must have 1 to {limits.METRIC_NAME_BYTES_MAX} bytes"
    return ""


def _size_problem(outcome: worker_pb2.Outcome) -> str:
    if len(outcome.detail.encode()) > limits.DETAIL_BYTES_MAX:
        return f"the result's detail is above {limits.DETAIL_BYTES_MAX} bytes"
    if len(outcome.architecture.encode()) > limits.ARCHITECTURE_BYTES_MAX:
        return f"the result's architecture is above {limits.ARCHITECTURE_BYTES_MAX} bytes"
    return ""


def _shorten(text: str, bytes_max: int, *, keep_end: bool = False) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= bytes_max:
        return text
    cut = raw[-bytes_max + 3 :] if keep_end else raw[: bytes_max - 3]
    kept = cut.decode("utf-8", "ignore")
    return "…" + kept if keep_end else kept + "…"


def _finite_or_zero(value: float) -> float:
    return value if math.isfinite(value) and value >= 0 else 0.0
