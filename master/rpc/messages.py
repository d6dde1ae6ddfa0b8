"""From the store's records to messages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tenure.common import ids, limits
from tenure.common.errors import InvalidInput
from tenure.common.retry import DAMAGED_PAYLOAD
from tenure.common.states import TaskState
from tenure.common.traceparent import lease_traceparent
from tenure.master.core.liveness import worker_status
from tenure.master.rpc.devices import capabilities_of, gpu_messages, slot_messages
from tenure.master.store.compute import Compute
from tenure.master.store.payload import PAYLOAD_DAMAGED
from tenure.master.store.records import (
    AttemptRecord,
    CheckpointRecord,
    Grant,
    SearchView,
    TaskEvent,
    TaskView,
    WorkerView,
)
from tenure.master.store.views import DAMAGED
from tenure.proto import convert, tenure_pb2, worker_pb2

_RESULT_DAMAGED = (
    "how it ended can't be read any more: a disk's damage, or somebody wrote to the store; requeued, it is run again"
)


def evaluate_request(grant: Grant, lease_ttl_ms: int) -> worker_pb2.EvaluateRequest:
    """What a worker is sent for a task under a fresh lease."""
    return worker_pb2.EvaluateRequest(
        task_id=grant.task_id,
        architecture=grant.architecture,
        config=convert.evaluation_config(grant.config),
        lease_token=grant.token,
        epoch=grant.epoch,
        search=grant.search,
        attempt=grant.attempt,
        out_of_memory=grant.out_of_memory,
        checkpoints=[checkpoint_message(each) for each in grant.checkpoints],
        timeout_ms=grant.timeout_ms,
        progress_deadline_ms=grant.progress_deadline_ms,
        lease_ttl_ms=lease_ttl_ms,
        origin=grant.origin,
        evaluator=grant.evaluator,
        code=grant.code,
        trace=lease_traceparent(grant.trace, grant.token, "lease"),
    )


def checkpoint_message(record: CheckpointRecord) -> worker_pb2.Checkpoint:
    """A registered checkpoint, for a worker."""
    message = worker_pb2.Checkpoint(
        url=record.url, step=record.step, digest=record.digest, size_bytes=record.size_bytes, epoch=record.epoch
    )
    if record.score is not None:
        message.score = record.score
    return message


def task_message(view: TaskView) -> tenure_pb2.Task:
    """A task for clients; architecture, config and attempt records only where the view has them."""
    message = tenure_pb2.Task(
        task_id=view.task_id,
        search=view.search,
        key=view.fields.get("key", ""),
        state=view.state.value,
        priority=view.number("priority"),
        attempts=view.number("attempts"),
        max_attempts=view.number("max_attempts"),
        losses=view.number("losses"),
        max_losses=view.number("max_losses"),
        max_out_of_memory=view.number("max_ooms") or view.number("max_attempts"),
        rule_attempts=json.loads(view.fields.get("rule_spent") or "{}"),
        out_of_memory=view.number("ooms"),
        epoch=view.number("epoch"),
        worker_id=view.fields.get("worker", ""),
        cancel_requested=view.fields.get("cancel") == "1",
        submitted_unix_ms=view.number("submitted"),
        leased_unix_ms=view.number("leased"),
        ended_unix_ms=view.number("ended"),
        lease_left_ms=max(0, view.lease_left_ms or 0),
        scheduled_in_ms=max(0, view.scheduled_in_ms or 0),
        resumes=view.number("resumes"),
        requirements=convert.requirements_to_message(view.requirements),
        architecture=view.architecture,
        attempt_records=[attempt_message(record) for record in view.attempt_records],
        evaluator=view.evaluator,
        code=view.code,
        trace=view.fields.get("trace", ""),
    )
    if view.config is not None:
        message.config.CopyFrom(convert.config_to_message(view.config))
    _add_end(message, view)
    if view.progress is not None:
        message.progress.step = view.progress.get("step", 0)
        message.progress.total_steps = view.progress.get("total_steps", 0)
        message.progress.metrics.update(view.progress.get("metrics", {}))
        message.progress.reported_unix_ms = view.number("progress_at")
    if view.checkpoint is not None:
        message.checkpoint.url = view.checkpoint.url
        message.checkpoint.step = view.checkpoint.step
        message.checkpoint.size_bytes = view.checkpoint.size_bytes
        message.checkpoint.epoch = view.checkpoint.epoch
    return message


def _add_end(message: tenure_pb2.Task, view: TaskView) -> None:
    """How the task ended, or why it can't go on."""
    outcome: Mapping[str, Any] = view.outcome or {}
    if DAMAGED in outcome:
        message.failure.error_class = "ResultDamaged"
        message.failure.message = _RESULT_DAMAGED
        message.failure.retryable = True
    elif view.state == TaskState.SUCCEEDED:
        message.metrics.update(outcome.get("metrics", {}))
        message.detail = outcome.get("detail", "")
        message.duration_seconds = outcome.get("duration_seconds", 0.0)
        if outcome.get("architecture"):
            message.architecture = outcome["architecture"]
    elif "error_class" in outcome:
        message.failure.error_class = outcome["error_class"]
        message.failure.message = outcome["error_message"]
        message.failure.retryable = outcome["retryable"]
    elif view.state == TaskState.FAILED:
        message.failure.error_class = "LeaseExpired"
        message.failure.message = "its workers vanished: the loss budget is spent"
    elif view.payload_damaged and not view.state.terminal:
        message.failure.error_class = DAMAGED_PAYLOAD
        message.failure.message = PAYLOAD_DAMAGED


def attempt_message(record: AttemptRecord) -> tenure_pb2.AttemptRecord:
    """One lease and how it ended."""
    evidence = record.evidence
    return tenure_pb2.AttemptRecord(
        epoch=record.epoch,
        worker_id=record.worker_id,
        outcome=record.outcome,
        leased_unix_ms=record.leased_unix_ms,
        ended_unix_ms=record.ended_unix_ms,
        error_class=evidence.error_class,
        error_message=evidence.error_message,
        exit_signal=evidence.exit_signal,
        exit_code=evidence.exit_code,
        log_tail=evidence.log_tail,
        steps_start=evidence.steps_start,
        steps_end=evidence.steps_end,
        duration_seconds=evidence.duration_seconds,
        memory=_memory_report(evidence.memory) if evidence.memory else None,
    )


def _memory_report(memory: Mapping[str, int]) -> tenure_pb2.MemoryReport:
    # A newer master of the same store may have kept more.
    known = tenure_pb2.MemoryReport.DESCRIPTOR.fields_by_name
    return tenure_pb2.MemoryReport(**{name: value for name, value in memory.items() if name in known})


def search_message(view: SearchView) -> tenure_pb2.Search:
    """A search with its counts."""
    message = tenure_pb2.Search(
        name=view.name,
        priority=view.priority,
        weight=view.weight,
        max_leased=view.max_leased,
        architecture_format=view.architecture_format,
        status=view.status,
        created_unix_ms=view.created_unix_ms,
        tasks={state.value: count for state, count in view.counts.items()},
        oldest_queued_ms=view.oldest_queued_ms or 0,
        last_ended_unix_ms=view.last_ended_unix_ms,
        best_task_id=view.best_task_id,
        evaluator=view.evaluator,
        code=view.code,
        compute=compute_message(view.compute),
    )
    if view.retry is not None:
        message.retry.CopyFrom(convert.retry_to_message(view.retry))
    if view.best_fitness is not None:
        message.best_fitness = view.best_fitness
    return message


def compute_message(compute: Compute) -> tenure_pb2.ComputeTime:
    """What became of the time that runs took."""
    return tenure_pb2.ComputeTime(
        useful_ms=compute.useful_ms, saved_ms=dict(compute.saved_ms), wasted_ms=dict(compute.wasted_ms)
    )


def worker_message(view: WorkerView, leases: int, lease_ttl_ms: int) -> tenure_pb2.Worker:
    """A registered worker with its last figures, and how many leases it holds."""
    fields = view.fields
    return tenure_pb2.Worker(
        worker_id=view.worker_id,
        instance_id=fields.get("instance", ""),
        status=worker_status(seen_ms_ago=view.seen_ms_ago, left=fields.get("left") == "1", lease_ttl_ms=lease_ttl_ms),
        mode=fields.get("mode", "active"),
        host=fields.get("host", ""),
        port=int(view.number("port")),
        slots=int(view.number("slots")),
        slots_busy=int(view.number("slots_busy")),
        num_gpus=int(view.number("num_gpus")),
        gpu_ids=[int(part) for part in fields.get("gpu_ids", "").split(",") if part],
        labels=dict(pair.split("=", 1) for pair in fields.get("labels", "").split("\n") if "=" in pair),
        dispatch=fields.get("dispatch", ""),
        version=fields.get("version", ""),
        registered_unix_ms=int(view.number("registered")),
        last_seen_ms_ago=view.seen_ms_ago,
        cpu_percent=view.number("cpu"),
        memory_percent=view.number("memory"),
        gpu_percent=view.number("gpu"),
        gpu_memory_percent=view.number("gpu_memory"),
        tasks_completed=int(view.number("tasks_completed")),
        tasks_failed=int(view.number("tasks_failed")),
        current_task_id=fields.get("current_task", ""),
        leases=leases,
        gpus_per_slot=capabilities_of(view).gpus,
        gpus=gpu_messages(fields),
        slot_list=slot_messages(fields),
        accepts_code=fields.get("accepts_code") == "1",
        slot_memory_bytes=capabilities_of(view).memory_bytes,
    )


def event_message(event: TaskEvent) -> tenure_pb2.TaskEvent:
    """One transition, for a watcher."""
    return tenure_pb2.TaskEvent(
        task_id=event.task_id,
        search=event.search,
        transition=event.transition,
        state=event.state if event.state in TaskState.__members__ else "TASK_STATE_UNSPECIFIED",
        at_unix_ms=event.at_unix_ms,
        worker_id=event.worker_id,
        epoch=event.epoch,
    )


def checkpoint_record(message: worker_pb2.Checkpoint) -> CheckpointRecord:
    """What a worker wants registered. A score that is no finite number counts as absent, so as the worst.

    Raises:
        InvalidInput: With the field, what was given and what would be right.
    """
    ids.check_text(message.url, "checkpoint.url", limits.URL_BYTES_MAX)
    if len(message.digest) > limits.ID_BYTES_MAX:
        raise InvalidInput("is no digest", field="checkpoint.digest", given=message.digest, expected="64 hex digits")
    scored = message.HasField("score") and math.isfinite(message.score)
    return CheckpointRecord(
        message.url,
        message.step,
        message.digest,
        message.size_bytes,
        message.epoch,
        message.score if scored else None,
    )
