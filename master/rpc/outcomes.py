"""Carries judged outcomes into the store and words the answer. One way in for the session, SubmitResult and pushes."""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from tenure.common.errors import StoreUnavailable
from tenure.common.retry import DAMAGED_PAYLOAD
from tenure.master.core.outcomes import Judged, judge_by
from tenure.master.metrics import MasterMetrics
from tenure.master.store import Store
from tenure.master.store.lease_facts import LeaseFacts
from tenure.master.store.payload import PAYLOAD_DAMAGED
from tenure.master.store.records import (
    Answer,
    Evidence,
    Failure,
    FailureKind,
    Grant,
    Lease,
    Release,
    RetryPolicy,
    Success,
    Verdict,
)
from tenure.master.task_spans import tell_lease, tell_transition
from tenure.proto import worker_pb2

log = structlog.get_logger()

GIVE_BACK_SECONDS = 30.0
# A policy that changes between judging and writing is asked for again: not for ever.
JUDGEMENTS_MAX = 10

_MESSAGES = {
    Verdict.OK: "",
    Verdict.DUPLICATE: "the task had ended already; this outcome is not needed",
    Verdict.STALE: "the lease is outdated: another worker has the task; stop that run",
    Verdict.UNKNOWN_TASK: "no task of this id; a success that says its origin is kept until it is submitted again",
    Verdict.POLICY: "the search's retry policy changed: send it again",
}


_WORDS = {
    Verdict.OK: "accepted",
    Verdict.DUPLICATE: "duplicate",
    Verdict.STALE: "stale",
    Verdict.UNKNOWN_TASK: "unknown",
    Verdict.POLICY: "policy",
}


@dataclass(frozen=True)
class Taken:
    """What became of an outcome: the verdict, and URLs of checkpoints that the worker deletes now.

    Attributes:
        run_ms: How long the run took that it ended; None if it ended none.
        word: The verdict as the metrics have it; more of them than the protocol has.
        lease: The lease that the task was under until then, or last.
    """

    verdict: Verdict
    delete_urls: list[str] = field(default_factory=list)
    run_ms: int | None = None
    word: str = ""
    lease: LeaseFacts | None = None

    @staticmethod
    def of(answer: Answer[Any], delete_urls: list[str]) -> Taken:
        """From the store's answer."""
        word = _WORDS[answer[0]]
        if answer[0] is Verdict.OK and (answer.late or answer.resent):
            word = "late" if answer.late else "resent"
        return Taken(answer[0], delete_urls, answer.run_ms, word, answer.lease)

    @property
    def message(self) -> str:
        """The verdict for people."""
        return _MESSAGES[self.verdict]


async def take_outcome(store: Store, metrics: MasterMetrics, judged: Judged) -> Taken:
    """Put an outcome into the store. Safe to call again: the answer is the same.

    Raises:
        StoreUnavailable: Whether it was taken is unknown; call again.
    """
    return (await take_outcomes(store, metrics, [judged]))[0]


async def take_outcomes(
    store: Store, metrics: MasterMetrics, outcomes: Sequence[Judged], taken: MutableMapping[int, Taken] | None = None
) -> list[Taken]:
    """Put at most 100 outcomes of different tasks into the store; answers in order. Safe to call again.

    Args:
        taken: For whoever calls again with the same outcomes: what became of those that the store has taken, by their
            places. Kept up here; they are neither sent nor counted again.

    Raises:
        StoreUnavailable: Whether they were taken is unknown; call again.
    """
    # Shielded: what the store takes is counted even if nobody waits for it any more.
    known = {} if taken is None else taken
    return await asyncio.shield(asyncio.create_task(_take_all(store, metrics, outcomes, known)))


async def _take_all(
    store: Store, metrics: MasterMetrics, outcomes: Sequence[Judged], taken: MutableMapping[int, Taken]
) -> list[Taken]:
    start_ns = time.time_ns()
    parts = _parts(store, outcomes, [place for place in range(len(outcomes)) if place not in taken])
    # Started together, so that all of them are on board of one pipeline.
    answers = await asyncio.gather(
        *(_take(store, [outcomes[place] for place in part]) for part in parts), return_exceptions=True
    )
    for part, answer in zip(parts, answers, strict=True):
        if not isinstance(answer, BaseException):
            for place, end in zip(part, answer, strict=True):
                taken[place] = end
                _note(metrics, outcomes[place], end, start_ns)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [taken[place] for place in range(len(outcomes))]


def _parts(store: Store, outcomes: Sequence[Judged], places: Iterable[int]) -> list[list[int]]:
    """The places in parts that the store takes or doesn't: successes of a shard, each other outcome by itself."""
    successes: dict[int | None, list[int]] = {}
    others = []
    for place in places:
        judged = outcomes[place]
        if isinstance(judged, Success):
            successes.setdefault(store.keys.shard_of_task(judged.task_id), []).append(place)
        else:
            others.append([place])
    return [*successes.values(), *others]


def _note(metrics: MasterMetrics, judged: Judged, end: Taken, start_ns: int) -> None:
    """Count an outcome that the store has answered, and tell of it."""
    kind = _kind(judged)
    metrics.outcomes.labels(kind, _cause(judged, metrics), end.word).inc()
    if end.run_ms is not None:
        metrics.run_seconds.labels(kind).observe(end.run_ms / 1000)
    log.debug("task.outcome", **_fields(judged, end.lease), kind=kind, verdict=end.word)
    _tell(judged, kind, end, start_ns)


async def give_back(store: Store, worker_id: str, leases: Sequence[Grant | Lease]) -> None:
    """Release leases that never reached their worker: burns nothing.

    Raises:
        StoreUnavailable: It was away for long; the leases run out by themselves.
    """
    for lease in leases:
        release = Release(lease.task_id, lease.token, worker_id)
        await store.patience.repeat(functools.partial(store.tasks.release, release), GIVE_BACK_SECONDS)


async def end_orphans(store: Store, metrics: MasterMetrics, leases: Sequence[Lease], retry: RetryPolicy) -> None:
    """Count leases as lost whose process a newer one of its worker id has replaced. Safe to call again.

    Not left to the reaper: that would hold back when many workers are started anew at once.

    Raises:
        StoreUnavailable: Call again.
    """
    evidence = Evidence(error_class="WorkerRestarted", error_message="a newer process has its worker's id")
    for lease in leases:
        loss = Failure(lease.task_id, lease.token, lease.worker_id, FailureKind.LOSS, True, evidence, retry)
        await take_outcome(store, metrics, loss)


async def end_damaged(store: Store, metrics: MasterMetrics, leases: Sequence[Lease]) -> None:
    """Park tasks of which the store can't read what a worker needs; nobody can be given them. Safe to call again.

    Raises:
        StoreUnavailable: Call again, or leave it to the lease's end.
    """
    evidence = Evidence(error_class=DAMAGED_PAYLOAD, error_message=PAYLOAD_DAMAGED)
    for lease in leases:
        failure = Failure(lease.task_id, lease.token, lease.worker_id, FailureKind.FAILURE, False, evidence)
        taken = await take_outcome(store, metrics, failure)
        log.error("store.payload_damaged", **_fields(failure, taken.lease))


async def _take(store: Store, part: Sequence[Judged]) -> list[Taken]:
    successes = [each for each in part if isinstance(each, Success)]
    completed = await store.tasks.complete_all(successes)
    others = [await _take_other(store, each) for each in part if not isinstance(each, Success)]
    return [Taken.of(reply, reply[1]) for reply in completed] + others


async def _take_other(store: Store, judged: Failure | Release) -> Taken:
    if isinstance(judged, Release):
        released = await store.tasks.release(judged)
        return Taken.of(released, released[1])
    answer = await _fail(store, judged)
    verdict, state = answer
    log.warning(
        "task.fail",
        **_fields(judged, answer.lease),
        kind=judged.kind.value,
        verdict=verdict.value,
        state=state,
        error=judged.evidence.error_class,
        message=judged.evidence.error_message[:500],
        exit_signal=judged.evidence.exit_signal,
    )
    return Taken.of(answer, [])


async def _fail(store: Store, failure: Failure) -> Answer[str]:
    """By the search's policy: the script hands that over where it isn't the one that was judged by."""
    answer = await store.tasks.fail(failure)
    for _ in range(JUDGEMENTS_MAX):
        if answer[0] is not Verdict.POLICY:
            return answer
        policy_id, _, text = answer[1].partition(" ")
        answer = await store.tasks.fail(judge_by(failure, policy_id, text))
    raise StoreUnavailable("the search's retry policy changes all the time", expected="send the outcome again")


def _fields(judged: Judged, lease: LeaseFacts | None) -> dict[str, Any]:
    """What a log line about the outcome carries; of an outdated lease what the worker says of it, if it does."""
    said = {"epoch": judged.epoch, "attempt": judged.attempt}
    known = lease.log_fields(judged.token) if lease is not None else {}
    own = {name: value for name, value in said.items() if value}
    return {"task": judged.task_id, "worker": judged.worker_id, **known, **own}


def _tell(judged: Judged, kind: str, taken: Taken, start_ns: int) -> None:
    """The spans of an outcome: that it was put into the store, and the lease that it ended."""
    transition = "complete" if isinstance(judged, Success) else "release" if kind == "release" else "fail"
    facts = {"worker": judged.worker_id, "verdict": taken.word, "outcome": kind}
    tell_transition(transition, judged.task_id, judged.token, taken.lease, start_ns, **facts)
    if taken.run_ms is None or taken.lease is None:
        return
    evidence = judged.evidence or Evidence()
    if judged.token and taken.lease.token not in ("", judged.token):
        # A late success: who had the task by then works for nothing.
        tell_lease(judged.task_id, taken.lease, "finished_elsewhere")
    else:
        bad = isinstance(judged, Failure)
        error = f"{evidence.error_class}: {evidence.error_message}" if bad else ""
        more = {"error_class": evidence.error_class, "exit_signal": evidence.exit_signal or None}
        tell_lease(judged.task_id, taken.lease, kind, error, **more)


def _kind(judged: Judged) -> str:
    if isinstance(judged, Success):
        return "success"
    return judged.kind.value if isinstance(judged, Failure) else "release"


def _cause(judged: Judged, metrics: MasterMetrics) -> str:
    """What ended the run: the signal of a lost one, else the error class, of which any peer may make up new ones."""
    if isinstance(judged, Success) or judged.evidence is None:
        return ""
    evidence = judged.evidence
    if isinstance(judged, Failure) and judged.kind is FailureKind.LOSS and evidence.exit_signal:
        try:
            return signal.Signals(evidence.exit_signal).name
        except ValueError:
            return metrics.causes.value(f"signal {evidence.exit_signal}")
    return metrics.causes.value(evidence.error_class) if evidence.error_class else ""


def verdict_name(word: str) -> str:
    """What the protocol's enum calls one of the store's verdicts, or INVALID; messages take enum values by name."""
    return f"VERDICT_{word}"


def outcome_verdict(outcome: worker_pb2.Outcome, taken: Taken | None) -> worker_pb2.OutcomeVerdict:
    """The answer on a session; None for an outcome that names no lease."""
    return worker_pb2.OutcomeVerdict(
        task_id=outcome.task_id,
        lease_token=outcome.lease_token,
        verdict=verdict_name(taken.verdict.value if taken else "INVALID"),
        delete_urls=taken.delete_urls if taken else (),
        message=taken.message if taken else "lease_token: must not be empty; send the one that came with the task",
    )
