"""Whether a training fits into the memory that there is, and in how many parts its batches must go through the network.

Asked before anything of the network's size is allocated, of the memory that is free then: of the GPU, or what the
executor's limit, its cgroup and the machine leave to this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tenure.common.estimate import Estimate, estimate_plan, show_bytes
from tenure.common.graph import parse_graph
from tenure.common.shapes import check_parameters, make_plan
from tenure.worker import host_memory
from tenure.worker.evaluator import Context, EvaluationTask
from tenure.worker.out_of_memory import ExpectedMemory
from tenure.worker.torch_eval.options import Settings
from tenure.worker.torch_eval.rows import TensorRows
from tenure.worker.torch_eval.split import Split

# Checkpoints are written in the background: one copy of the state is being written and one may wait.
_CHECKPOINT_COPIES = 2
# What the CPU's kernels and the allocator take for themselves in a process's first training.
_FIRST_TRAINING_BYTES = 64 * 2**20
# What the C library's allocator can't use again between tensors, as a share of them; GPUs have an allocator of torch's.
_HOLES_RATIO = 0.3


class DoesNotFit(MemoryError):
    """The training needs more memory than there is; raised before any of it was taken. Counted as out of memory."""


def choose_micro_batches(
    task: EvaluationTask,
    context: Context,
    settings: Settings,
    split: Split,
    device: torch.device,
    saved: Mapping[str, Any] | None,
) -> int:
    """In how many parts each batch is to go through the network; the context is told what that will take.

    With ``on_out_of_memory=accumulate``: as many as it takes to fit, and twice as many for each run of the task that
    has ended for want of memory; never less than the training had before. Else as many as the configuration says.

    Raises:
        DoesNotFit: It fits in no way that the policy allows.
        InvalidArchitecture: It can't be built at all.
    """
    plan = make_plan(parse_graph(task.architecture), split.input_shape, split.num_classes)
    check_parameters(plan, context.max_parameters)
    cost = estimate_plan(plan, optimizer=settings.optimizer, precision=settings.precision)
    # Each of several devices has its part of the batch; on a CPU that stands for several, all are in one memory.
    ranks = len(context.devices[: max(1, settings.batch_size // 2)])
    batch_size = -(-min(settings.batch_size, len(split.train.targets)) // ranks)
    aside = _beside_training(cost, settings, split, device)
    holes = 1.0 if device.type == "cuda" else 1 + _HOLES_RATIO
    free = free_bytes(device)
    if free is not None and device.type != "cuda":
        free //= ranks
    before = settings.micro_batches if saved is None else int(saved["micro_batches"])

    parts: int | None = before
    if settings.on_out_of_memory == "accumulate":
        if free is not None:
            parts = cost.micro_batches_for(batch_size, int((free - aside) / holes), settings.micro_batches)
        if parts is not None:
            parts = max(before, min(parts << min(task.out_of_memory, 20), batch_size // 2 or 1))
    elif free is not None and holes * cost.training_bytes(batch_size, before) + aside > free:
        parts = None

    told = parts if parts is not None else before
    needed = int(holes * cost.training_bytes(batch_size, told)) + aside
    context.expect_memory(
        ExpectedMemory(
            estimated_bytes=needed,
            limit_bytes=free or 0,
            batch_size=batch_size * ranks,
            micro_batches=told,
            on_out_of_memory=settings.on_out_of_memory,
        )
    )
    if parts is None:
        raise DoesNotFit(_explanation(cost, settings, batch_size, needed, free or 0, device))
    return parts


def free_bytes(device: torch.device) -> int | None:
    """What this process could have of the device's memory now; None: unknown."""
    if device.type != "cuda":
        return host_memory.free_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps for itself is free for it, too.
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _beside_training(cost: Estimate, settings: Settings, split: Split, device: torch.device) -> int:
    """What lies in the same memory: rows on a GPU; copies for checkpoints on the CPU, where the rows are already."""
    if device.type != "cuda":
        return _FIRST_TRAINING_BYTES + _CHECKPOINT_COPIES * (cost.weight_bytes + cost.optimizer_bytes)
    if settings.loader_workers:
        return 0
    sides = [side.inputs.nbytes for side in (split.train, split.val) if isinstance(side, TensorRows)]
    return sum(size for size in sides if size <= 2**30)


def _explanation(
    cost: Estimate, settings: Settings, batch_size: int, needed: int, free: int, device: torch.device
) -> str:
    place = f"{device}'s memory" if device.type == "cuda" else "this process's memory"
    if settings.on_out_of_memory == "accumulate":
        most = cost.training_bytes(batch_size, batch_size // 2 or 1)
        hint = f"; in as many parts as there can be, its batches would still need {show_bytes(most)}"
    else:
        hint = f"; on_out_of_memory is {settings.on_out_of_memory}, so its batches are not divided further"
    return (
        f"training would take about {show_bytes(needed)} and {show_bytes(free)} of {place} are free: weights, "
        f"gradients and optimizer {show_bytes(cost.fixed_bytes)}, each row of a batch of {batch_size} "
        f"{show_bytes(cost.peak_bytes)}{hint}"
    )
