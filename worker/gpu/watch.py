"""Watches GPUs for XID errors and for their loss, in a thread of its own: NVML's wait blocks.

A GPU that doesn't support events, or may not be asked for them, is watched for its loss alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from tenure.worker.gpu.nvml import Gpu, fault_of
from tenure.worker.gpu.xids import meaning_of

log = structlog.get_logger()

# How long one wait for events blocks, so how long the thread may outlive stop().
WAIT_MS = 500
_FAULTS_EVERY_SECONDS = 5.0
# After an error of the wait itself, which may come back at once and for ever.
_ERROR_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Incident:
    """Something is wrong with one GPU.

    Attributes:
        gpu: Its name.
        xid: The driver's number of the error; 0: NVML itself says that the GPU is unusable.
        fault: What NVML says; empty beside an XID.
    """

    gpu: str
    xid: int = 0
    fault: str = ""

    @property
    def text(self) -> str:
        """For people."""
        if self.xid:
            return f"GPU {self.gpu}: XID {self.xid}, {meaning_of(self.xid)}"
        return f"GPU {self.gpu} {self.fault}"


class GpuWatch:
    """The watch over a worker's GPUs. Start it once.

    Args:
        nvml: The ``pynvml`` module or what behaves like it.
        gpus: Those to watch.
        report: Called, in the event loop that it was started in, with every incident; a GPU's fault is reported when it
            begins.
    """

    def __init__(self, nvml: Any, gpus: Sequence[Gpu], report: Callable[[Incident], None]) -> None:
        self._nvml = nvml
        self._gpus = gpus
        self._report = report
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[int]] = {}
        self._last: dict[str, int] = {}
        self._faults: dict[str, str] = {}

    def start(self) -> None:
        """Begin to watch, if there is anything to."""
        if self._gpus:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._watch, name="tenure-gpu-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the watch; its thread follows within moments."""
        self._ending.set()

    def xid_counts(self) -> dict[str, Counter[int]]:
        """XID errors since the start, by GPU and number."""
        with self._lock:
            return {gpu: Counter(counts) for gpu, counts in self._counts.items()}

    def last_xid(self, gpu: str) -> int:
        """The last XID error of a GPU; 0 if there was none."""
        return self._last.get(gpu, 0)

    def _watch(self) -> None:
        events = self._register()
        looked_at = 0.0
        while not self._ending.is_set():
            if time.monotonic() - looked_at >= _FAULTS_EVERY_SECONDS:
                looked_at = time.monotonic()
                self._look_for_faults()
            if events is None:
                self._ending.wait(WAIT_MS / 1000)
            else:
                self._wait(events)
        if events is not None:
            self._free(events)

    def _register(self) -> Any:
        """An event set with every GPU that takes part; None if none does."""
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as error:
            log.warning("gpu.unwatched", reason=str(error))
            return None
        watched = False
        for gpu in {gpu.index: gpu for gpu in self._gpus}.values():
            try:
                nvml.nvmlDeviceRegisterEvents(gpu.board, nvml.nvmlEventTypeXidCriticalError, events)
                watched = True
            except nvml.NVMLError as error:
                log.warning("gpu.unwatched", gpu=gpu.name, reason=str(error))
        if watched:
            return events
        self._free(events)
        return None

    def _wait(self, events: Any) -> None:
        nvml = self._nvml
        try:
            event = nvml.nvmlEventSetWait_v2(events, WAIT_MS)
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_TIMEOUT:
                # Mostly a lost GPU, which the next look will name.
                log.warning("gpu.watch_interrupted", reason=str(error))
                self._look_for_faults()
                self._ending.wait(_ERROR_PAUSE_SECONDS)
            return
        if event.eventType & nvml.nvmlEventTypeXidCriticalError:
            self._take(event)

    def _take(self, event: Any) -> None:
        xid = int(event.eventData)
        try:
            index = int(self._nvml.nvmlDeviceGetIndex(event.device))
        except self._nvml.NVMLError:
            # It is too far gone to say who it is; the handles are told apart, too.
            index = next((gpu.index for gpu in self._gpus if _same(gpu.board, event.device)), -1)
        struck = [gpu for gpu in self._gpus if gpu.is_struck(index, int(event.gpuInstanceId))]
        if not struck:
            log.warning("gpu.xid_elsewhere", xid=xid, gpu_index=index)
        for gpu in struck:
            with self._lock:
                self._counts.setdefault(gpu.name, Counter())[xid] += 1
                self._last[gpu.name] = xid
            self._say(Incident(gpu.name, xid))

    def _look_for_faults(self) -> None:
        for gpu in self._gpus:
            fault = fault_of(self._nvml, gpu)
            if fault and self._faults.get(gpu.name) != fault:
                self._say(Incident(gpu.name, fault=fault))
            self._faults[gpu.name] = fault

    def _say(self, incident: Incident) -> None:
        if self._loop is not None:
            # Closed: the worker has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._report, incident)

    def _free(self, events: Any) -> None:
        try:
            self._nvml.nvmlEventSetFree(events)
        except self._nvml.NVMLError as error:
            log.debug("gpu.event_set_left", reason=str(error))


def _same(one: Any, other: Any) -> bool:
    """Whether two handles are one: NVML's are pointers, which ctypes wraps anew each time."""
    if hasattr(one, "contents") and hasattr(other, "contents"):
        return ctypes.addressof(one.contents) == ctypes.addressof(other.contents)
    return bool(one == other)
