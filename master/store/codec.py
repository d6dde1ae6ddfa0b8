"""Between the store's values and what the Lua scripts take and give."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from tenure.common.states import TaskState
from tenure.master.store.compute import Compute
from tenure.master.store.lease_facts import LeaseFacts
from tenure.master.store.origins import origin
from tenure.master.store.payload import DamagedPayload, decode_payload, encode_payload
from tenure.master.store.pipeline import Arguments
from tenure.master.store.records import (
    Answer,
    CheckpointRecord,
    ClaimRequest,
    Evidence,
    Failure,
    Grant,
    Grants,
    Lease,
    NewTask,
    Release,
    Renewal,
    RetryPolicy,
    SearchView,
    Success,
    TaskEvent,
    Verdict,
    requirement_class,
)

T = TypeVar("T")

_RUN_SECONDS_MAX = 10**9


def text(value: bytes | str | None) -> str:
    """A reply's bytes as text."""
    if value is None:
        return ""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def pairs(flat: Sequence[bytes]) -> dict[str, str]:
    """A flat HGETALL reply as a mapping."""
    return {text(flat[index]): text(flat[index + 1]) for index in range(0, len(flat), 2)}


def submit_arguments(search: str, architecture_format: str, tasks: Sequence[NewTask]) -> Arguments:
    """For submit.lua."""
    blobs: list[bytes] = []
    numbers: dict[str, int] = {}
    items: list[dict[str, Any]] = []
    for task in tasks:
        spec = task.spec
        digest, blob = encode_payload(spec)
        if digest not in numbers:
            blobs.append(blob)
            numbers[digest] = len(blobs)
        class_name, requirements = requirement_class(spec.requirements, accepts_code=bool(spec.evaluator))
        items.append(
            {
                "id": task.task_id,
                "key": task.key,
                "class": class_name,
                "requirements": requirements,
                "priority": spec.priority,
                "max_attempts": spec.max_attempts,
                "max_losses": spec.max_losses,
                "max_ooms": spec.max_out_of_memory,
                "timeout": spec.timeout_ms,
                "progress": spec.progress_deadline_ms,
                "delay": spec.delay_ms,
                "payload": digest,
                "origin": origin(search, task.key, digest),
                **({"code": spec.code} if spec.code else {}),
                **({"trace": spec.trace} if spec.trace else {}),
            }
        )
    head = {"search": search, "format": architecture_format, "blobs": numbers, "tasks": items}
    return [json.dumps(head), *blobs]


def claim_arguments(ttl_ms: int, requests: Sequence[ClaimRequest]) -> Arguments:
    """For claim.lua."""
    return [
        json.dumps(
            {
                "ttl": ttl_ms,
                "requests": [
                    {
                        "worker": request.worker_id,
                        "instance": request.instance_id,
                        "legacy": request.legacy,
                        "classes": request.classes,
                        "tokens": request.tokens,
                        **({"elsewhere": list(request.elsewhere)} if request.elsewhere else {}),
                    }
                    for request in requests
                ],
            }
        )
    ]


def grants(reply: list[Any], worker_id: str) -> Grants:
    """From the part of claim.lua's reply that answers one request of this worker's."""
    granted = Grants()
    if reply and reply[-1] == b"PASSED_OVER":
        granted.passed_over = True
        reply = reply[:-1]
    for row in reply:
        task_id, token, epoch, attempt, search, timeout, progress, payload, checkpoints, *rest = row
        key, digest, ooms, waited, trace = rest
        try:
            architecture, config, evaluator, code = decode_payload(payload)
        except DamagedPayload:
            granted.damaged += (Lease(text(task_id), text(token), worker_id, ""),)
            continue
        granted.append(
            Grant(
                task_id=text(task_id),
                token=text(token),
                epoch=int(epoch),
                attempt=int(attempt),
                search=text(search),
                architecture=architecture,
                config=config,
                timeout_ms=int(timeout or 0),
                progress_deadline_ms=int(progress or 0),
                checkpoints=[CheckpointRecord.from_json(item) for item in checkpoints],
                origin=origin(text(search), text(key), text(digest)),
                out_of_memory=int(ooms),
                waited_ms=int(waited),
                trace=text(trace),
                evaluator=evaluator,
                code=code,
            )
        )
    return granted


def complete_arguments(items: list[Success]) -> Arguments:
    """For complete.lua."""
    rows = []
    for item in items:
        result = {
            "metrics": dict(item.metrics),
            "detail": item.detail,
            "architecture": item.architecture,
            "duration_seconds": item.evidence.duration_seconds,
        }
        row: dict[str, Any] = {
            "id": item.task_id,
            "token": item.token,
            "epoch": item.epoch,
            "worker": item.worker_id,
            "result": json.dumps({name: value for name, value in result.items() if value}),
            "record": item.evidence.to_json(),
        }
        if "fitness" in item.metrics:
            row["fitness"] = item.metrics["fitness"]
        if item.origin:
            row["origin"] = item.origin
        rows.append(row | _ran(item.evidence))
    return [json.dumps(rows)]


def _ran(evidence: Evidence) -> dict[str, int]:
    return {"ran": _ran_ms(evidence)} if evidence.duration_seconds > 0 else {}


def _ran_ms(evidence: Evidence) -> int:
    # What a peer says may be any finite number.
    return round(1000 * min(evidence.duration_seconds, _RUN_SECONDS_MAX))


def success_answer(reply: list[Any] | None) -> Answer[list[str]]:
    """From one item's part of complete.lua's reply; None: the id can't be Tenure's."""
    if reply is None:
        return Answer((Verdict.UNKNOWN_TASK, []))
    verdict, _, urls, how, run_ms, lease = reply
    answer = _answer(verdict, [text(url) for url in urls], run_ms, lease)
    answer.late = how == b"LATE"
    return answer


def failure_answer(reply: list[Any]) -> Answer[str]:
    """From one item's part of fail.lua's reply."""
    verdict, state, run_ms, lease = reply
    return _answer(verdict, text(state), run_ms, lease)


def release_answer(reply: list[Any]) -> Answer[list[str]]:
    """From one item's part of release.lua's reply."""
    verdict, _, urls, run_ms, lease = reply
    return _answer(verdict, [text(url) for url in urls], run_ms, lease)


def _answer(verdict: bytes, more: T, run_ms: bytes, lease: Any) -> Answer[T]:
    answer = Answer((Verdict(text(verdict)), more))
    answer.run_ms = int(run_ms) if run_ms else None
    answer.lease = LeaseFacts.of(lease) if lease else None
    answer.resent = answer[0] is Verdict.OK and answer.run_ms is None
    return answer


def fail_arguments(items: list[Failure]) -> Arguments:
    """For fail.lua."""
    rows = [
        {
            "id": item.task_id,
            "token": item.token,
            "worker": item.worker_id,
            "kind": item.kind.value,
            "retryable": item.retryable,
            "failure": json.dumps(
                {
                    "error_class": item.evidence.error_class,
                    "error_message": item.evidence.error_message,
                    "retryable": item.retryable,
                }
            ),
            "record": item.evidence.to_json(),
            "policy": _policy(item.retry),
            "policy_id": item.policy,
            "rule": item.rule,
            "rule_budget": item.rule_budget,
            **({"memory": str(item.memory_needed_bytes)} if item.memory_needed_bytes else {}),
            **_ran(item.evidence),
        }
        for item in items
    ]
    return [json.dumps(rows)]


def _policy(retry: RetryPolicy) -> dict[str, float | str]:
    # Jitter against herds, not a secret.
    return {
        "base_ms": retry.base_ms,
        "max_ms": retry.max_ms,
        "multiplier": retry.multiplier,
        "jitter": retry.jitter.value,
        "random": random.random(),
    }


def release_arguments(items: list[Release]) -> Arguments:
    """For release.lua."""
    return [
        json.dumps(
            [
                {
                    "id": item.task_id,
                    "token": item.token,
                    "worker": item.worker_id,
                    "record": item.evidence.to_json() if item.evidence else "",
                    # Who hands a task back says how long it ran; one that never began didn't.
                    "ran": _ran_ms(item.evidence) if item.evidence else 0,
                }
                for item in items
            ]
        )
    ]


def renew_arguments(ttl_ms: int, items: list[Renewal]) -> Arguments:
    """For renew.lua and readopt.lua."""
    rows = []
    for item in items:
        row: dict[str, Any] = {
            "id": item.task_id,
            "token": item.token,
            "epoch": item.epoch,
            "worker": item.worker_id,
            "instance": item.instance_id,
        }
        if item.progress:
            row["progress"] = item.progress
        if item.origin:
            row["origin"] = item.origin
        rows.append(row)
    return [json.dumps({"ttl": ttl_ms, "items": rows})]


def search_view(name: bytes, flat: Sequence[bytes], oldest_queued_ms: bytes) -> SearchView:
    """From one search's part of overview.lua's reply."""
    fields = pairs(flat)
    oldest = int(oldest_queued_ms)
    best = fields.get("best_fitness")
    return SearchView(
        name=text(name),
        status=fields.get("status", "active"),
        priority=int(fields.get("priority", 0)),
        weight=float(fields.get("weight", 1)),
        max_leased=int(fields.get("max_leased", 0)),
        architecture_format=fields.get("format", "graph"),
        created_unix_ms=int(fields.get("created", 0)),
        last_ended_unix_ms=int(fields.get("last_ended", 0)),
        counts={state: int(fields.get(f"n:{state}", 0)) for state in TaskState},
        oldest_queued_ms=oldest if oldest >= 0 else None,
        best_fitness=float(best) if best else None,
        best_task_id=fields.get("best_task", ""),
        # Absent in searches of earlier versions, and in those that leave it to the masters.
        retry=RetryPolicy.from_plain(json.loads(fields["retry"])) if fields.get("retry") else None,
        evaluator=fields.get("evaluator", ""),
        code=fields.get("code", ""),
        compute=Compute.from_fields(fields),
    )


def task_event(cursor: bytes, flat: Sequence[bytes]) -> TaskEvent:
    """From one entry of an event stream."""
    fields = pairs(flat)
    return TaskEvent(
        cursor=text(cursor),
        at_unix_ms=int(text(cursor).partition("-")[0]),
        task_id=fields["task"],
        search=fields["search"],
        transition=fields["transition"],
        state=fields["state"],
        worker_id=fields["worker"],
        epoch=int(fields["epoch"] or 0),
    )
