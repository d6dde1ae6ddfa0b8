"""This machine's GPUs by NVML: which there are, how they are named, and their figures.

NVML's documentation: https://docs.nvidia.com/deploy/nvml-api/. A machine without NVIDIA's driver is normal: it has no
GPUs. A figure that a GPU doesn't offer is left out. A GPU in MIG mode counts as its MIG devices, since a process that
is shown the GPU can use one of them only; what a MIG device doesn't say (temperature, power, ECC errors, clocks) is
asked of its GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

log = structlog.get_logger()

_ALL_INSTANCES = 0xFFFFFFFF
# Reasons by NVML's constant, without its prefix nvmlClocksThrottleReason. Idle clocks and clocks that somebody has set
# are no trouble; the rest costs speed.
_THROTTLING = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SyncBoost": "sync boost",
    "SwThermalSlowdown": "temperature",
    "HwThermalSlowdown": "temperature, by hardware",
    "HwPowerBrakeSlowdown": "power brake",
}


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
        ecc_corrected: Memory errors since the driver was loaded.
        ecc_uncorrected: The same of those that corrupted something.
        throttling: Why its clocks are lower than they could be.
        model: As its maker calls it.
        fault: Why nothing can be asked of it any more; empty while all is well.
    """

    name: str
    utilization_ratio: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    throttling: tuple[str, ...] = ()
    model: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Gpu:
    """A device that a slot can have.

    Attributes:
        name: As in ``CUDA_VISIBLE_DEVICES``; a MIG device by its UUID.
        index: NVML's number of the GPU, also of a MIG device's.
        uuid: Its own; empty if NVML doesn't tell.
        handle: NVML's, of the device itself.
        board: NVML's, of the GPU that it is, or that it is a part of.
        instance: A MIG device's GPU instance; None: not one.
    """

    name: str
    index: int
    uuid: str
    handle: Any = field(compare=False)
    board: Any = field(compare=False)
    instance: int | None = None

    def is_struck(self, index: int, instance: int) -> bool:
        """Whether an event on GPU ``index`` that names this GPU instance (or none) is about this device."""
        return index == self.index and (self.instance is None or instance in (self.instance, _ALL_INSTANCES))


def find_gpus(nvml: Any, visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs that the worker may use.

    Args:
        nvml: The ``pynvml`` module or what behaves like it.
        visible: ``CUDA_VISIBLE_DEVICES``; None: all of them. Indices are NVML's, in PCI order.
    """
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        _say_there_are_none(nvml, error)
        return ()
    boards: dict[int, list[Gpu]] = {}
    for index in range(count):
        try:
            boards[index] = _devices_of(nvml, index)
        except nvml.NVMLError as error:
            log.warning("machine.gpu_unusable", gpu=index, reason=str(error))
    if visible is None:
        return tuple(gpu for devices in boards.values() for gpu in devices)
    found: list[Gpu] = []
    for name in filter(None, (part.strip() for part in visible.split(","))):
        gpu = _named(boards, name)
        if gpu is None or (gpu.index, gpu.instance) in {(other.index, other.instance) for other in found}:
            # As CUDA does: what stands behind an unknown device, or one named before, is not visible.
            log.warning("machine.unknown_gpu", gpu=name, known=[gpu.name for group in boards.values() for gpu in group])
            break
        found.append(gpu)
    return tuple(found)


def resolve(gpus: Sequence[Gpu], name: str) -> str | None:
    """The name in use of the GPU that somebody calls ``name``: its index, its UUID or the beginning of that."""
    for gpu in gpus:
        if name == gpu.name or (name.isdigit() and gpu.instance is None and int(name) == gpu.index):
            return gpu.name
    if name.startswith(("GPU-", "MIG-")):
        matching = [gpu.name for gpu in gpus if gpu.uuid.startswith(name)]
        return matching[0] if len(matching) == 1 else None
    return None


def fault_of(nvml: Any, gpu: Gpu) -> str:
    """Why the GPU is unusable by NVML's word; empty if it isn't. Cheap."""
    try:
        nvml.nvmlDeviceGetMemoryInfo(gpu.handle)
    except nvml.NVMLError as error:
        return _fault_in(nvml, error)
    return ""


def figures_of(nvml: Any, gpu: Gpu) -> GpuFigures:
    """Everything that the GPU says now."""
    faults: list[str] = []

    def ask(call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except nvml.NVMLError as error:
            # This figure isn't offered by this GPU, or not now; the others may be.
            if fault := _fault_in(nvml, error):
                faults.append(fault)
            return None

    rates = ask(nvml.nvmlDeviceGetUtilizationRates, gpu.handle)
    memory = ask(nvml.nvmlDeviceGetMemoryInfo, gpu.handle)
    celsius = ask(nvml.nvmlDeviceGetTemperature, gpu.board, nvml.NVML_TEMPERATURE_GPU)
    milliwatts = ask(nvml.nvmlDeviceGetPowerUsage, gpu.board)
    ecc = (
        ask(nvml.nvmlDeviceGetTotalEccErrors, gpu.board, kind, nvml.NVML_VOLATILE_ECC)
        for kind in (nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
    )
    corrected, uncorrected = ecc
    reasons = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu.board)
    model = ask(nvml.nvmlDeviceGetName, gpu.handle)
    return GpuFigures(
        name=gpu.name,
        utilization_ratio=None if rates is None else rates.gpu / 100,
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        temperature_celsius=None if celsius is None else float(celsius),
        power_watts=None if milliwatts is None else milliwatts / 1000,
        ecc_corrected=corrected,
        ecc_uncorrected=uncorrected,
        throttling=tuple(_throttling(nvml, reasons or 0)),
        model=_text(model) if model is not None else "",
        fault=faults[0] if faults else "",
    )


def _devices_of(nvml: Any, index: int) -> list[Gpu]:
    """The GPU itself, or its MIG devices."""
    board = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        in_mig_mode = nvml.nvmlDeviceGetMigMode(board)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:
        in_mig_mode = False
    if not in_mig_mode:
        return [Gpu(str(index), index, _uuid_of(nvml, board), board, board)]
    devices = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(board)):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, number)
        except nvml.NVMLError:
            # A place that no device was made in.
            continue
        uuid = _uuid_of(nvml, handle)
        devices.append(Gpu(uuid, index, uuid, handle, board, nvml.nvmlDeviceGetGpuInstanceId(handle)))
    if not devices:
        log.warning("machine.mig_without_devices", gpu=index)
    return devices


def _named(boards: dict[int, list[Gpu]], name: str) -> Gpu | None:
    """The device that CUDA takes for this name; of a GPU in MIG mode by its index, its first."""
    if name.isdigit():
        gpu = next(iter(boards.get(int(name), ())), None)
    elif name.startswith(("GPU-", "MIG-")):
        matching = [gpu for devices in boards.values() for gpu in devices if gpu.uuid.startswith(name)]
        gpu = matching[0] if len(matching) == 1 else None
    else:
        gpu = None
    if gpu is None or gpu.instance is not None:
        return gpu
    return Gpu(name, gpu.index, gpu.uuid, gpu.handle, gpu.board)


def _uuid_of(nvml: Any, handle: Any) -> str:
    try:
        return _text(nvml.nvmlDeviceGetUUID(handle))
    except nvml.NVMLError:
        return ""


def _throttling(nvml: Any, reasons: int) -> Iterator[str]:
    for name, word in _THROTTLING.items():
        if reasons & getattr(nvml, f"nvmlClocksThrottleReason{name}"):
            yield word


def _fault_in(nvml: Any, error: Any) -> str:
    """What an error says of the GPU as a whole; empty for one that is about a single figure."""
    if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
        return "is lost: it has fallen off the bus or is otherwise inaccessible"
    if error.value == nvml.NVML_ERROR_RESET_REQUIRED:
        return "needs a reset before it can be used"
    return ""


def _say_there_are_none(nvml: Any, error: Any) -> None:
    """No driver is what machines without GPUs have; anything else is trouble that somebody should hear of."""
    if error.value in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
        log.debug("machine.no_gpus", reason=str(error))
    else:
        log.warning("machine.no_gpus", reason=str(error))


def _text(value: Any) -> str:
    """Older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
