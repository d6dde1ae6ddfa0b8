"""What workers say of their GPUs and slots, as registry fields and back as messages for clients."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format

from tenure.common import limits
from tenure.master.core.matching import Capabilities
from tenure.master.store.records import WorkerView
from tenure.proto import tenure_pb2, worker_pb2

# In front of what a worker can make up; the largest machines have 16 GPUs of 7 MIG devices each.
_GPUS_MAX = 256
_TEXT_CHARS_MAX = 200
_THROTTLING_MAX = 16


def gpus_per_slot(num_gpus: int, slots: int, said: int) -> int:
    """What a task on one slot may use; a peer that doesn't say so shares its GPUs evenly."""
    return said or num_gpus // max(1, slots)


def capabilities_of(view: WorkerView) -> Capabilities:
    """What a registered worker has for each of its slots."""
    labels = dict(pair.split("=", 1) for pair in view.fields.get("labels", "").split("\n") if "=" in pair)
    gpus = gpus_per_slot(int(view.number("num_gpus")), int(view.number("slots")), int(view.number("gpus_per_slot")))
    memory_bytes = int(view.fields.get("slot_memory_bytes") or 0)
    return Capabilities(gpus, labels, view.fields.get("accepts_code") == "1", memory_bytes)


def device_fields(metrics: worker_pb2.WorkerMetrics) -> dict[str, str]:
    """A heartbeat's GPUs and slots as registry fields; figures that are no finite numbers are left out."""
    slots = metrics.slots[: limits.SLOTS_MAX]
    return {
        "gpus": _text_of(metrics.gpus[:_GPUS_MAX]),
        "slot_list": _text_of(slots),
        "slots_cordoned": str(sum(bool(slot.cordon_reason) for slot in slots)),
    }


def gpu_messages(fields: Mapping[str, str]) -> list[tenure_pb2.GpuStatus]:
    """The GPUs of a worker from its registry fields."""
    return [json_format.ParseDict(one, tenure_pb2.GpuStatus()) for one in json.loads(fields.get("gpus") or "[]")]


def slot_messages(fields: Mapping[str, str]) -> list[tenure_pb2.SlotStatus]:
    """The slots of a worker from its registry fields."""
    return [json_format.ParseDict(one, tenure_pb2.SlotStatus()) for one in json.loads(fields.get("slot_list") or "[]")]


def _text_of(messages: Iterable[Any]) -> str:
    found = [
        {field.name: kept for field, value in message.ListFields() if (kept := _kept(value)) is not None}
        for message in messages
    ]
    return json.dumps(found, separators=(",", ":"))


def _kept(value: Any) -> Any:
    """A field's value as JSON has it; None for what is no finite number."""
    if isinstance(value, str):
        return value[:_TEXT_CHARS_MAX]
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    return [_kept(one) for one in list(value)[:_THROTTLING_MAX]]
