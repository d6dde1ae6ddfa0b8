"""Which slot gets which devices.

A slot has one GPU unless somebody says otherwise: ``gpus_per_slot`` deals them out in order, ``slot_gpus`` names them.
With more slots than there are shares of GPUs, slots share. A machine without GPUs has slots of one CPU, which can be
told to stand for several devices (``cpu_ranks_per_slot``), so that evaluations over several devices can be tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenure.common.errors import InvalidSetting
from tenure.proto import worker_pb2
from tenure.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from tenure.worker.slots.slot import Slot


@dataclass(frozen=True)
class SlotDevices:
    """What one slot may use.

    Attributes:
        gpus: As ``CUDA_VISIBLE_DEVICES`` names them; empty: none.
        cpu_ranks: Without GPUs: for how many devices the CPU stands; 0: it counts as no GPU.
        indices: NVML's numbers of the GPUs; of MIG devices those of their GPUs.
    """

    gpus: tuple[str, ...] = ()
    cpu_ranks: int = 0
    indices: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """As torch names them in the executor, which sees only its own: ``cuda:0``, ``cuda:1``; ``cpu``, ``cpu``."""
        if self.gpus:
            return tuple(f"cuda:{rank}" for rank in range(len(self.gpus)))
        return ("cpu",) * max(1, self.cpu_ranks)

    @property
    def gpu_count(self) -> int:
        """What tasks that require GPUs may count on."""
        return len(self.gpus) or self.cpu_ranks


def deal_out(
    settings: WorkerSettings, gpus: Mapping[str, int], resolve: Callable[[str], str | None]
) -> tuple[SlotDevices, ...]:
    """The devices of each slot, in the order of the slots; all have the same number.

    Args:
        settings: What the worker was told.
        gpus: Those that it may use, by name, with NVML's numbers.
        resolve: From any name of a GPU that it may use (index, UUID, the UUID's beginning) to the one in ``gpus``.

    Raises:
        InvalidSetting: They can't be dealt out like that.
    """
    if settings.cpu_ranks_per_slot and gpus:
        raise InvalidSetting(
            "is for machines without GPUs",
            field="cpu_ranks_per_slot",
            given=str(settings.cpu_ranks_per_slot),
            expected=f"this one has {', '.join(gpus)}; hide them by CUDA_VISIBLE_DEVICES= or leave this setting out",
        )
    shares = _named_shares(settings, resolve) or _equal_shares(settings, tuple(gpus))
    for share in shares:
        if len(share) > 1 and any(gpu.startswith("MIG-") for gpu in share):
            raise InvalidSetting(
                "gives a slot several MIG devices, of which CUDA shows a process only one",
                field="slot_gpus" if settings.slot_gpus else "gpus_per_slot",
                given=settings.slot_gpus or str(settings.gpus_per_slot),
                expected="one MIG device for each slot, or whole GPUs",
            )
    count = settings.slots or len(shares) or 1
    if not shares:
        return (SlotDevices(cpu_ranks=settings.cpu_ranks_per_slot),) * count
    dealt = [SlotDevices(share, indices=tuple(gpus[name] for name in share)) for share in shares]
    return tuple(dealt[index % len(dealt)] for index in range(count))


def best_slot(slots: Sequence[Slot], request: worker_pb2.EvaluateRequest) -> Slot | None:
    """Which of the slots that could take a task should take this one; None if none could.

    One that has loaded what the task is evaluated with, then one whose first GPU is the ``gpu_id`` that MorphML masters
    wish for (0 also means no wish). A wish is never waited for: which GPUs are used is the worker's business.
    """
    free = [slot for slot in slots if slot.claimable]
    wished = request.config.gpu_id
    return max(
        free,
        key=lambda slot: (slot.fitting.fits(request), slot.devices.indices[:1] == (wished,), -slot.index),
        default=None,
    )


def _equal_shares(settings: WorkerSettings, gpus: Sequence[str]) -> list[tuple[str, ...]]:
    size = settings.gpus_per_slot
    if settings.is_explicit("gpus_per_slot") and size > len(gpus):
        raise InvalidSetting(
            "is more than there are",
            field="gpus_per_slot",
            given=str(size),
            expected=f"this machine shows {len(gpus)} GPUs to the worker"
            + ("" if gpus else "; without any, cpu_ranks_per_slot lets the CPU stand for several"),
        )
    whole = len(gpus) - len(gpus) % size
    return [tuple(gpus[start : start + size]) for start in range(0, whole, size)]


def _named_shares(settings: WorkerSettings, resolve: Callable[[str], str | None]) -> list[tuple[str, ...]]:
    shares: list[tuple[str, ...]] = []
    for names in settings.slot_gpu_names:
        share = []
        for name in names:
            gpu = resolve(name)
            if gpu is None:
                raise InvalidSetting(
                    f"names {name}, which is no GPU that this worker may use",
                    field="slot_gpus",
                    given=settings.slot_gpus,
                    expected="indices or UUIDs as nvidia-smi -L shows them, within CUDA_VISIBLE_DEVICES if that is set",
                )
            share.append(gpu)
        if len(set(share)) < len(share):
            raise InvalidSetting(
                "gives a slot the same GPU twice", field="slot_gpus", given=settings.slot_gpus, expected="each once"
            )
        shares.append(tuple(share))
    return shares
