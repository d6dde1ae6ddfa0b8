"""How much memory an evaluation took at most."""

from __future__ import annotations

import torch

from tenure.worker import host_memory


class PeakMemory:
    """The peak since it was made: of torch's GPU memory on CUDA, else of this process's resident memory.

    The process's holds everything in it, torch (some 200 MB) and the data set too, but not the processes that read
    batches ahead. Where the kernel can't begin to count anew, it is the highest since the process began, so an earlier
    evaluation's may show.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            host_memory.forget_peak()

    @property
    def bytes(self) -> int:
        """So far."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return host_memory.peak_bytes()
