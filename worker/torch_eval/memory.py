"""How much memory an evaluation took at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """The peak since it was made: of torch's GPU memory on CUDA, else of this process's resident memory.

    The process's holds everything in it, torch (some 200 MB) and the data set too, but not the processes that read
    batches ahead. Where the kernel can't begin to count anew (``clear_refs`` asks it to), it is the highest since the
    process began, so an earlier evaluation's may show.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            _CLEAR.write_text("5")
        except OSError:
            # Not Linux, or not allowed.
            return

    @property
    def bytes(self) -> int:
        """So far."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        try:
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
