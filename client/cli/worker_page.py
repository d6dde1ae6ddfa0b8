"""``tenure workers show``: one worker with its slots and GPUs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tenure.client.cli.output import clock, print_pairs, print_table, printable, span
from tenure.common.estimate import show_bytes

if TYPE_CHECKING:
    from tenure.client import WorkerRecord
    from tenure.client.device_records import GpuRecord, SlotRecord

_SLOT_COLUMNS = (">SLOT", "STATE", "GPUS", "TASK", "WHY CORDONED")
_GPU_COLUMNS = ("GPU", "MODEL", "SLOTS", ">BUSY", ">MEMORY", ">TEMP", ">POWER", ">ECC", ">XIDS", "REMARKS")
_GIB = 1 << 30


def print_worker(worker: WorkerRecord) -> None:
    """Everything that is known of it, for people."""
    ago = f"{span(worker.last_seen_ms_ago)} ago"
    then = "" if worker.status == "live" else f", as it said {ago}"
    labels = ", ".join(f"{name}={value}" for name, value in sorted(worker.labels.items()))
    print_pairs(
        (
            ("worker", worker.worker_id),
            ("status", f"{worker.status}, last heard {ago}"),
            ("mode", worker.mode),
            ("slots", f"{slots_held(worker)} of {worker.slots} busy"),
            ("gpus", _gpus_of(worker)),
            ("slot memory", show_bytes(worker.slot_memory_bytes) if worker.slot_memory_bytes else ""),
            ("leases", str(worker.leases)),
            ("ended", f"{worker.tasks_completed} succeeded, {worker.tasks_failed} failed"),
            ("machine", f"CPU {worker.cpu_percent:.0f} %, memory {worker.memory_percent:.0f} %{then}"),
            ("address", f"{worker.host}:{worker.port}, by {worker.dispatch}"),
            ("labels", labels),
            ("version", worker.version),
            ("instance", worker.instance_id),
            ("registered", clock(worker.registered_unix_ms)),
        )
    )
    if then and (worker.slot_list or worker.gpus):
        sys.stdout.write(f"\nAs it said {ago}; what it held then may run elsewhere:\n")
    if worker.slot_list:
        sys.stdout.write("\n")
        print_table(_SLOT_COLUMNS, map(_slot_row, worker.slot_list), empty="")
    if worker.gpus:
        sys.stdout.write("\n")
        print_table(_GPU_COLUMNS, map(_gpu_row, worker.gpus), empty="")


def slots_held(worker: WorkerRecord) -> int:
    """How many slots its leases fill, by the store: its own word is of its last heartbeat, however long ago."""
    return min(worker.leases, worker.slots)


def slots_cordoned(worker: WorkerRecord) -> int:
    """How many slots it has cordoned itself."""
    return sum(bool(slot.cordon_reason) for slot in worker.slot_list)


def _gpus_of(worker: WorkerRecord) -> str:
    if worker.num_gpus:
        return f"{worker.num_gpus}, {worker.gpus_per_slot} for each slot"
    return f"none; the CPU stands for {worker.gpus_per_slot} for each slot" if worker.gpus_per_slot else ""


def _slot_row(slot: SlotRecord) -> tuple[str, ...]:
    texts = (slot.state, ", ".join(slot.gpus) or "none", slot.task_id, slot.cordon_reason)
    return (str(slot.slot), *map(printable, texts))


def _gpu_row(gpu: GpuRecord) -> tuple[str, ...]:
    memory = ""
    if gpu.memory_used_bytes is not None and gpu.memory_total_bytes:
        memory = f"{gpu.memory_used_bytes / _GIB:.1f} of {gpu.memory_total_bytes / _GIB:.0f} GiB"
    ecc = ""
    if gpu.ecc_corrected is not None or gpu.ecc_uncorrected is not None:
        ecc = f"{_number(gpu.ecc_corrected)} + {_number(gpu.ecc_uncorrected)}"
    xids = f"{gpu.xid_errors}, last {gpu.last_xid}" if gpu.xid_errors else "0"
    remarks = ", ".join(filter(None, (gpu.fault, *(f"slowed: {reason}" for reason in gpu.throttling))))
    texts = (
        gpu.gpu,
        gpu.model,
        ", ".join(map(str, gpu.slots)),
        _figure(gpu.utilization, "%"),
        memory,
        _figure(gpu.temperature_celsius, "°C"),
        _figure(gpu.power_watts, "W"),
        ecc,
        xids,
        remarks,
    )
    return tuple(map(printable, texts))


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.0f} {unit}"


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)
