"""The wire's enums as the words that logs, metrics and traces use."""

from __future__ import annotations

from tenure.proto import worker_pb2


def kind_name(kind: worker_pb2.OutcomeKind) -> str:
    """``OUTCOME_SUCCESS`` as ``success``."""
    return worker_pb2.OutcomeKind.Name(kind).removeprefix("OUTCOME_").lower()


def verdict_name(verdict: worker_pb2.Verdict) -> str:
    """``VERDICT_STALE`` as ``stale``; the number of one that a newer master sends."""
    try:
        return worker_pb2.Verdict.Name(verdict).removeprefix("VERDICT_").lower()
    except ValueError:
        return str(verdict)
