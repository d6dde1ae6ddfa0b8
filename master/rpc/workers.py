"""What RegisterWorker, Heartbeat and the session share: a worker's messages as registry fields, and its admission."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from tenure.common import ids, limits
from tenure.common.errors import InvalidInput
from tenure.master.core.matching import Capabilities
from tenure.master.rpc.devices import device_fields, gpus_per_slot
from tenure.master.store.records import Renewal
from tenure.proto import worker_pb2

PUSH, PULL, SESSION = "push", "pull", "session"


@dataclass(frozen=True)
class Registration:
    """A checked RegisterRequest."""

    worker_id: str
    instance_id: str
    host: str
    port: int
    slots: int
    capabilities: Capabilities
    dispatch: str
    fields: dict[str, str]


def read_registration(request: worker_pb2.RegisterRequest, peer: str, *, session: bool = False) -> Registration:
    """Check a registration.

    Raises:
        InvalidInput: With the field, what was given and what would be right.
    """
    worker_id = ids.check_id(request.worker_id, "worker_id")
    if request.instance_id:
        ids.check_id(request.instance_id, "instance_id")
    _check_range(request.port, "port", 0, 65535)
    _check_range(request.num_gpus, "num_gpus", 0, limits.SLOTS_MAX)
    _check_range(request.slots, "slots", 0, limits.SLOTS_MAX)
    _check_range(request.gpus_per_slot, "gpus_per_slot", 0, limits.SLOTS_MAX)
    _check_range(request.slot_memory_bytes, "slot_memory_bytes", 0, limits.SLOT_MEMORY_BYTES_MAX)
    _check_labels(request.labels)
    if len(request.host.encode()) > 255 or not request.host.isprintable():
        raise InvalidInput("is no host name", field="host", given=request.host, expected="at most 255 bytes")
    slots = request.slots or 1
    if session:
        dispatch = SESSION
    elif request.dispatch == worker_pb2.DISPATCH_PULL or request.port == 0:
        dispatch = PULL
    else:
        dispatch = PUSH
    fields = {
        "host": request.host,
        "peer": peer,
        "port": str(request.port),
        "slots": str(slots),
        "num_gpus": str(request.num_gpus),
        "gpu_ids": ",".join(str(gpu) for gpu in request.gpu_ids[: limits.SLOTS_MAX]),
        "labels": "\n".join(f"{name}={value}" for name, value in sorted(request.labels.items())),
        "dispatch": dispatch,
        "version": request.version[:50],
        "accepts_code": "1" if request.accepts_code else "",
        "slot_memory_bytes": str(request.slot_memory_bytes),
        "tails": "1" if session and request.tails else "0",
        # Of the process before; the first heartbeat says them anew.
        "gpus": "",
        "slot_list": "",
        "slots_cordoned": "0",
    }
    if session:
        fields["session"] = secrets.token_hex(8)
    gpus = gpus_per_slot(request.num_gpus, slots, request.gpus_per_slot)
    fields["gpus_per_slot"] = str(gpus)
    capabilities = Capabilities(gpus, dict(request.labels), request.accepts_code, request.slot_memory_bytes)
    return Registration(
        worker_id, request.instance_id, request.host, request.port, slots, capabilities, dispatch, fields
    )


def heartbeat_fields(request: worker_pb2.HeartbeatRequest) -> dict[str, str]:
    """A heartbeat's figures as registry fields. Figures that are no finite numbers are left out."""
    metrics = request.metrics
    figures = {
        "cpu": metrics.cpu_usage,
        "memory": metrics.memory_usage,
        "gpu": metrics.gpu_usage,
        "gpu_memory": metrics.gpu_memory,
    }
    fields = {name: f"{value:.1f}" for name, value in figures.items() if math.isfinite(value)}
    busy = metrics.slots_busy or (1 if request.current_task_id else 0)
    fields |= {
        "tasks_completed": str(metrics.tasks_completed),
        "tasks_failed": str(metrics.tasks_failed),
        "slots_busy": str(busy),
        "spooled": str(metrics.spooled_results),
        "current_task": request.current_task_id[: limits.ID_BYTES_MAX],
        "status": request.status[:20],
        **device_fields(metrics),
    }
    return fields


def read_renewal(message: worker_pb2.Renewal, worker_id: str, instance_id: str) -> Renewal:
    """A lease that its holder still has. Progress metrics that are no finite numbers, or have names too long, are left
    out."""
    progress = ""
    if message.HasField("progress") and message.progress.sequence > 0:
        report = message.progress
        metrics = {
            name: value
            for name, value in report.metrics.items()
            if math.isfinite(value) and len(name.encode()) <= limits.METRIC_NAME_BYTES_MAX
        }
        progress = json.dumps(
            {
                "step": report.step,
                "total_steps": report.total_steps,
                "metrics": dict(list(metrics.items())[: limits.METRICS_ENTRIES_MAX]),
            }
        )
    return Renewal(
        message.task_id,
        message.lease_token,
        message.epoch,
        worker_id,
        progress,
        message.origin,
        instance_id,
        message.attempt,
    )


def _check_range(value: int, field: str, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput("out of range", field=field, given=value, expected=f"an integer from {least} to {most}")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > limits.LABELS_MAX:
        raise InvalidInput(f"has {len(labels)} entries", field="labels", expected=f"at most {limits.LABELS_MAX}")
    for name, value in labels.items():
        size = len(name.encode()) + len(value.encode())
        if not name or size > limits.LABEL_BYTES_MAX or "\n" in name + value or "=" in name:
            raise InvalidInput(
                "can't be kept",
                field=f"labels.{name[:50]}",
                given=value,
                expected=f"name and value of together 1 to {limits.LABEL_BYTES_MAX} bytes, no line breaks, "
                "no '=' in the name",
            )
