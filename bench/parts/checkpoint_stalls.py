"""How long one save holds a training up, beside a plain ``torch.save`` of the same state to the same disk."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tenure.worker.checkpoint import ExecutorCheckpoints, delete_checkpoint
from tenure.worker.checkpoint.writer import WrittenCheckpoint

_MEGABYTE = 1_000_000
# Of the state of Adam: weights and two moments, in tensors of this many numbers at most.
_TENSOR_NUMBERS_MAX = 4_000_000


@dataclass
class Stalls:
    """Seconds, one of each kind a round.

    Attributes:
        plain: ``torch.save`` to a file, which leaves it to the kernel when it is written.
        durable: The same and an fsync.
        stall: ``save`` of a checkpoint: until the training goes on.
        write: Until that is whole on disk and announced, beside the training.
        first: The stall of the first save, whose memory is new.
    """

    size_megabytes: int
    plain: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)
    stall: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)
    first: float = 0.0

    def line(self) -> str:
        """Medians, and the stall's ratio to plain ``torch.save`` (median of the rounds' ratios)."""
        pairs = zip(self.stall, self.plain, strict=True)
        ratios = sorted(stall / plain for stall, plain in pairs)
        medians = [1000 * statistics.median(each) for each in (self.plain, self.durable, self.stall, self.write)]
        return (
            f"{self.size_megabytes:>6} MB"
            + "".join(f"{value:>14.1f}" for value in medians)
            + f"{1000 * self.first:>14.1f}{statistics.median(ratios):>10.3f}   {ratios[0]:.3f} to {ratios[-1]:.3f}"
        )


HEADER = (
    f"{'state':>9}{'torch.save ms':>14}{'and fsync ms':>14}{'stall ms':>14}{'written ms':>14}{'first ms':>14}"
    f"{'ratio':>10}   of all rounds"
)


def make_state(megabytes: int) -> dict[str, Any]:
    """Weights and Adam's two moments for them, of so many megabytes together."""
    numbers = megabytes * _MEGABYTE // 4 // 3
    count = -(-numbers // _TENSOR_NUMBERS_MAX)
    shapes = [numbers // count] * count

    def tensors() -> dict[str, torch.Tensor]:
        return {f"layer{index}.weight": torch.randn(shape) for index, shape in enumerate(shapes)}

    return {"model": tensors(), "exp_avg": tensors(), "exp_avg_sq": tensors(), "epoch": 3}


def measure(directory: Path, megabytes: int, rounds: int) -> Stalls:
    """Plain, durable and background saves in turns; what is not measured is waited for."""
    state, found = make_state(megabytes), Stalls(megabytes)
    announced: list[WrittenCheckpoint] = []
    handle = ExecutorCheckpoints(
        base_url=str(directory / "checkpoints"),
        search="bench",
        task_id="task",
        epoch=1,
        registered=[],
        announce=announced.append,
        log=lambda event, **fields: None,
    )
    file = directory / "plain.pt"
    try:
        for index in range(rounds + 1):
            plain, durable = _plain(state, file), _durable(state, file)
            started = time.perf_counter()
            handle.save(state, step=index)
            stalled = time.perf_counter() - started
            handle.wait()
            written = time.perf_counter() - started
            delete_checkpoint(announced[-1].url)
            if index == 0:
                found.first = stalled
                continue
            found.plain.append(plain)
            found.durable.append(durable)
            found.stall.append(stalled)
            found.write.append(written)
    finally:
        handle.close()
        file.unlink(missing_ok=True)
    return found


def _plain(state: dict[str, Any], file: Path) -> float:
    os.sync()
    started = time.perf_counter()
    torch.save(state, file)
    seconds = time.perf_counter() - started
    file.unlink()
    return seconds


def _durable(state: dict[str, Any], file: Path) -> float:
    os.sync()
    started = time.perf_counter()
    with file.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - started
    file.unlink()
    os.sync()
    return seconds
