"""How much memory a task on one of this worker's slots can count on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tenure.worker.gpu.devices import SlotDevices
from tenure.worker.machine import Figures
from tenure.worker.settings import WorkerSettings


class Memories(Protocol):
    """What is asked of the machine."""

    @property
    def memory_total_bytes(self) -> int:
        """The host's."""

    def figures(self) -> Figures:
        """The GPUs'."""


def executor_bytes_max(settings: WorkerSettings, machine: Memories) -> int:
    """``executor_memory_max`` in bytes; 0: no limit."""
    count, share = settings.memory_max
    return count or int(share * machine.memory_total_bytes)


def slot_memory_bytes(settings: WorkerSettings, machine: Memories, devices: Sequence[SlotDevices]) -> int:
    """The smallest GPU's memory or, on slots without GPUs, the executor's limit or an equal share of the host's.

    0 if a GPU doesn't say. Slots that share a GPU are each told all of it: what the others take isn't known.
    """
    gpus = {gpu for slot in devices for gpu in slot.gpus}
    if gpus:
        sizes = [gpu.memory_total_bytes or 0 for gpu in machine.figures().gpus if gpu.name in gpus]
        return min(sizes, default=0)
    share = machine.memory_total_bytes // len(devices)
    return min(share, executor_bytes_max(settings, machine) or share)
