"""Figures of this machine: CPU and memory by psutil, GPUs by NVML, and what of it heartbeats carry."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pynvml
import structlog

from tenure.proto import worker_pb2
from tenure.worker import host_memory
from tenure.worker.gpu.nvml import GpuFigures, figures_of, find_gpus, resolve
from tenure.worker.gpu.watch import GpuWatch, Incident

if TYPE_CHECKING:
    from tenure.worker.slots.slot import Slot

log = structlog.get_logger()


@dataclass(frozen=True)
class Figures:
    """The machine now; ratios are 0 to 1.

    Attributes:
        memory_ratio: Of the machine's memory, or of what this process's cgroup may have, whichever is fuller; what the
            kernel can drop isn't in use.
    """

    cpu_ratio: float
    memory_ratio: float
    memory_used_bytes: int
    gpus: tuple[GpuFigures, ...]


class Machine:
    """Reads figures. Any thread may.

    Args:
        nvml: The ``pynvml`` module or what behaves like it.
        environment: Where ``CUDA_VISIBLE_DEVICES`` may restrict the GPUs that count.
    """

    def __init__(self, nvml: Any = pynvml, environment: Mapping[str, str] = os.environ) -> None:
        self._nvml = nvml
        self._gpus = find_gpus(nvml, environment.get("CUDA_VISIBLE_DEVICES"))
        order = environment.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        if order != "PCI_BUS_ID" and any(gpu.name.isdigit() for gpu in self._gpus):
            log.warning("machine.gpu_order", given=order, used="PCI_BUS_ID", gpus=list(self.gpus))
        # The first call has nothing to compare with and says 0.
        psutil.cpu_percent()

    @property
    def gpus(self) -> tuple[str, ...]:
        """The visible GPUs, as ``CUDA_VISIBLE_DEVICES`` names them (with CUDA_DEVICE_ORDER=PCI_BUS_ID)."""
        return tuple(gpu.name for gpu in self._gpus)

    @property
    def gpu_indices(self) -> dict[str, int]:
        """NVML's numbers of the visible GPUs; those of MIG devices are their GPUs'."""
        return {gpu.name: gpu.index for gpu in self._gpus}

    @property
    def memory_total_bytes(self) -> int:
        """What this process and its children may use."""
        return host_memory.total_bytes() or int(psutil.virtual_memory().total)

    def resolve(self, name: str) -> str | None:
        """From an index, a UUID or its beginning to the name in ``gpus``."""
        return resolve(self._gpus, name)

    def watch(self, report: Callable[[Incident], None]) -> GpuWatch:
        """A watch over the visible GPUs, to be started."""
        return GpuWatch(self._nvml, self._gpus, report)

    def figures(self) -> Figures:
        """Everything, now."""
        memory = psutil.virtual_memory()
        return Figures(
            cpu_ratio=psutil.cpu_percent() / 100,
            # In a container the kernel kills for the container's limit, however much the machine has left.
            memory_ratio=max(memory.percent / 100, host_memory.cgroup_used_ratio()),
            memory_used_bytes=int(memory.total - memory.available),
            gpus=tuple(figures_of(self._nvml, gpu) for gpu in self._gpus),
        )


def wire_metrics(
    figures: Figures,
    *,
    completed: int,
    failed: int,
    slots_busy: int,
    spooled: int,
    slots: Sequence[Slot] = (),
    watch: GpuWatch | None = None,
) -> worker_pb2.WorkerMetrics:
    """The figures as heartbeats carry them: percent, GPUs on average and each by itself, and the slots."""
    used = [gpu.utilization_ratio for gpu in figures.gpus if gpu.utilization_ratio is not None]
    memory = [
        gpu.memory_used_bytes / gpu.memory_total_bytes
        for gpu in figures.gpus
        if gpu.memory_used_bytes is not None and gpu.memory_total_bytes
    ]
    return worker_pb2.WorkerMetrics(
        cpu_usage=100 * figures.cpu_ratio,
        memory_usage=100 * figures.memory_ratio,
        gpu_usage=100 * _mean(used),
        gpu_memory=100 * _mean(memory),
        tasks_completed=completed,
        tasks_failed=failed,
        slots_busy=slots_busy,
        spooled_results=spooled,
        gpus=[_wire_gpu(gpu, slots, watch) for gpu in figures.gpus],
        slots=[_wire_slot(slot) for slot in slots],
    )


def slots_of(gpu: str, slots: Sequence[Slot]) -> list[int]:
    """The slots that use a GPU."""
    return [slot.index for slot in slots if gpu in slot.devices.gpus]


def _wire_gpu(gpu: GpuFigures, slots: Sequence[Slot], watch: GpuWatch | None) -> worker_pb2.GpuFigures:
    counts = watch.xid_counts().get(gpu.name) if watch is not None else None
    return worker_pb2.GpuFigures(
        gpu=gpu.name,
        model=gpu.model,
        slots=slots_of(gpu.name, slots),
        utilization=None if gpu.utilization_ratio is None else 100 * gpu.utilization_ratio,
        memory_used_bytes=gpu.memory_used_bytes,
        memory_total_bytes=gpu.memory_total_bytes,
        temperature_celsius=gpu.temperature_celsius,
        power_watts=gpu.power_watts,
        ecc_corrected=gpu.ecc_corrected,
        ecc_uncorrected=gpu.ecc_uncorrected,
        throttling=gpu.throttling,
        xid_errors=counts.total() if counts else 0,
        last_xid=watch.last_xid(gpu.name) if watch is not None else 0,
        fault=gpu.fault,
    )


def _wire_slot(slot: Slot) -> worker_pb2.SlotFigures:
    run = slot.run
    return worker_pb2.SlotFigures(
        slot=slot.index,
        state=slot.state.value,
        gpus=slot.devices.gpus,
        cordon_reason=slot.health.reason,
        task_id=run.key.task_id if run is not None else "",
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
