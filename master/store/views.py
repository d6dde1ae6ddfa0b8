"""Reads what the store keeps of a task. What can't be read any more hides nothing else: whoever looks at a task wants
to see the rest, and fsck names it."""

from __future__ import annotations

import json
from typing import Any

from tenure.common.spec import Config, Requirements
from tenure.common.states import TaskState
from tenure.master.store.codec import pairs
from tenure.master.store.payload import DamagedPayload, decode_payload
from tenure.master.store.records import (
    ACCEPTS_CODE_LABEL,
    AttemptRecord,
    CheckpointRecord,
    Evidence,
    TaskView,
    requirements_from_json,
)

# Instead of an outcome that can't be read, and as that of an attempt record.
DAMAGED = "damaged"


def task_view(task_id: str, reply: list[Any], *, full: bool) -> TaskView:
    """From one task's part of show.lua's reply; ``full``: as it was asked for, with payload and attempt records."""
    flat, outcome, progress, checkpoint, lease_left, scheduled_in, requirements, payload, attempts = reply
    fields = pairs(flat)
    architecture, config, evaluator, code, damaged = "", Config(), "", "", False
    if full:
        try:
            architecture, config, evaluator, code = decode_payload(payload)
        except DamagedPayload:
            damaged = True
    return TaskView(
        task_id=task_id,
        state=TaskState(fields["state"]),
        search=fields["search"],
        fields=fields,
        outcome=_outcome(outcome, fields["state"]),
        progress=_kept_object(progress),
        checkpoint=_checkpoint(checkpoint),
        lease_left_ms=int(lease_left) if lease_left else None,
        scheduled_in_ms=int(scheduled_in) if scheduled_in else None,
        requirements=_asked_for(requirements),
        architecture=architecture,
        config=config,
        attempt_records=[_attempt_record(item) for item in attempts],
        evaluator=evaluator,
        code=code,
        payload_damaged=damaged,
    )


def _outcome(content: bytes | None, state: str) -> dict[str, Any] | None:
    """How it ended: there may be none, unless it succeeded."""
    found = _kept_object(content)
    if found is None and (content or state == TaskState.SUCCEEDED):
        return {DAMAGED: True}
    return found


def _kept_object(content: bytes | None) -> dict[str, Any] | None:
    """What is kept as a JSON object; None if there is none, or none that can be read."""
    try:
        found = json.loads(content or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _checkpoint(content: bytes | None) -> CheckpointRecord | None:
    try:
        return CheckpointRecord.from_json(content) if content else None
    except (ValueError, TypeError, KeyError):
        return None


def _asked_for(requirements: bytes) -> Requirements:
    """What the task's submitter required: not what follows from the rest of the task."""
    known = requirements_from_json(requirements)
    labels = {name: value for name, value in known.labels.items() if name != ACCEPTS_CODE_LABEL}
    return Requirements(known.gpus, labels, known.memory_bytes)


def _evidence(parts: dict[str, Any]) -> Evidence:
    # A newer master of the same store may have kept more.
    return Evidence(**{name: value for name, value in parts.items() if name in Evidence.__dataclass_fields__})


def _attempt_record(item: bytes) -> AttemptRecord:
    try:
        epoch, worker, outcome, leased, ended, inner = json.loads(item)
        return AttemptRecord(
            epoch=int(epoch),
            worker_id=str(worker),
            outcome=str(outcome),
            leased_unix_ms=int(leased or 0),
            ended_unix_ms=int(ended),
            evidence=_evidence(json.loads(inner)),
        )
    except (ValueError, TypeError, AttributeError):
        return AttemptRecord(0, "", DAMAGED, 0, 0, Evidence())
