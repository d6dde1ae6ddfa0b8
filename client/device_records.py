"""What a worker has said of its GPUs and slots, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuRecord:
    """One GPU, or one MIG device of a GPU, as of the worker's last heartbeat; None for a figure that it doesn't offer.

    Attributes:
        gpu: As in ``CUDA_VISIBLE_DEVICES``: its index or UUID.
        slots: The slots that use it.
        utilization: Percent, 0 to 100.
        ecc_corrected: Memory errors since its driver was loaded; the same of ``ecc_uncorrected``.
        throttling: Why its clocks are lower than they could be.
        xid_errors: Since the worker started; ``last_xid`` is the last one's number.
        fault: Why nothing can be asked of it any more; empty while all is well.
    """

    gpu: str
    model: str
    slots: tuple[int, ...]
    utilization: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: float | None
    power_watts: float | None
    ecc_corrected: int | None
    ecc_uncorrected: int | None
    throttling: tuple[str, ...]
    xid_errors: int
    last_xid: int
    fault: str

    @classmethod
    def from_message(cls, message: Any) -> GpuRecord:
        """From ``tenure.v1.GpuStatus``."""
        figures = {name: getattr(message, name) if message.HasField(name) else None for name in _FIGURES}
        return cls(
            gpu=message.gpu,
            model=message.model,
            slots=tuple(message.slots),
            throttling=tuple(message.throttling),
            xid_errors=message.xid_errors,
            last_xid=message.last_xid,
            fault=message.fault,
            **figures,
        )


_FIGURES = (
    "utilization",
    "memory_used_bytes",
    "memory_total_bytes",
    "temperature_celsius",
    "power_watts",
    "ecc_corrected",
    "ecc_uncorrected",
)


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """One slot of a worker, as of its last heartbeat.

    Attributes:
        state: ``starting``, ``free``, ``running``, ``cleaning``, ``broken`` or ``cordoned``.
        gpus: What its runs may use.
        cordon_reason: Why the worker itself gives it no tasks; empty unless cordoned.
        task_id: What it runs.
    """

    slot: int
    state: str
    gpus: tuple[str, ...]
    cordon_reason: str
    task_id: str

    @classmethod
    def from_message(cls, message: Any) -> SlotRecord:
        """From ``tenure.v1.SlotStatus``."""
        return cls(message.slot, message.state, tuple(message.gpus), message.cordon_reason, message.task_id)
