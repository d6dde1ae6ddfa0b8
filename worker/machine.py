"""Figures of this machine: CPU and memory by psutil, GPUs by NVML.

A machine without NVIDIA's driver is normal: it has no GPUs. A figure that a GPU doesn't offer is left out.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import pynvml
import structlog

from tenure.proto import worker_pb2

log = structlog.get_logger()


@dataclass(frozen=True)
class GpuFigures:
    """One GPU now; None where it doesn't say.

    Attributes:
        name: As in ``CUDA_VISIBLE_DEVICES``: its index or its UUID.
        utilization_ratio: 0 to 1, of the last sampling period.
        memory_used_bytes: Of all processes.
        memory_total_bytes: What it has.
        temperature_celsius: Of the chip.
        power_watts: Drawn now.
    """

    name: str
    utilization_ratio: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


@dataclass(frozen=True)
class Figures:
    """The machine now; ratios are 0 to 1."""

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
        self._handles = self._find_gpus(environment.get("CUDA_VISIBLE_DEVICES"))
        # The first call has nothing to compare with and says 0.
        psutil.cpu_percent()

    @property
    def gpus(self) -> tuple[str, ...]:
        """The visible GPUs, as ``CUDA_VISIBLE_DEVICES`` names them (with CUDA_DEVICE_ORDER=PCI_BUS_ID)."""
        return tuple(self._handles)

    def figures(self) -> Figures:
        """Everything, now."""
        memory = psutil.virtual_memory()
        return Figures(
            cpu_ratio=psutil.cpu_percent() / 100,
            memory_ratio=memory.percent / 100,
            memory_used_bytes=int(memory.total - memory.available),
            gpus=tuple(self._gpu(name, handle) for name, handle in self._handles.items()),
        )

    def _find_gpus(self, visible: str | None) -> dict[str, Any]:
        nvml = self._nvml
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            by_index = {str(index): nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)}
        except nvml.NVMLError as error:
            # No driver, no GPU, no permission: whoever misses one finds the reason here.
            log.debug("machine.no_gpus", reason=str(error))
            return {}
        if visible is None:
            return by_index
        handles: dict[str, Any] = {}
        for name in filter(None, (part.strip() for part in visible.split(","))):
            handle = by_index.get(name) or self._by_uuid(name, by_index)
            if handle is None:
                # As CUDA does: what stands behind an unknown device is not visible.
                log.warning("machine.unknown_gpu", gpu=name, known=list(by_index))
                break
            handles[name] = handle
        return handles

    def _by_uuid(self, name: str, by_index: Mapping[str, Any]) -> Any:
        if not name.startswith(("GPU-", "MIG-")):
            return None
        for handle in by_index.values():
            uuid = _ask(self._nvml, functools.partial(self._nvml.nvmlDeviceGetUUID, handle))
            text = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
            if text.startswith(name):
                return handle
        return None

    def _gpu(self, name: str, handle: Any) -> GpuFigures:
        nvml = self._nvml
        rates = _ask(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = _ask(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        celsius = _ask(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        milliwatts = _ask(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return GpuFigures(
            name=name,
            utilization_ratio=None if rates is None else rates.gpu / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            temperature_celsius=None if celsius is None else float(celsius),
            power_watts=None if milliwatts is None else milliwatts / 1000,
        )


def _ask(nvml: Any, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except nvml.NVMLError:
        # This figure isn't offered by this GPU, or not now; the others may be.
        return None


def wire_metrics(
    figures: Figures, *, completed: int, failed: int, slots_busy: int, spooled: int
) -> worker_pb2.WorkerMetrics:
    """The figures as heartbeats carry them: percent, GPUs on average."""
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
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
