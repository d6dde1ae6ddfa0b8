"""A training over all devices of a slot: one rank for each, each with its part of every batch.

The rows of a batch, their order and their augmentation are those of a training on one device, and so is the loss that
its gradients are of: the mean over the whole batch. What differs is the order in which numbers are added; that batch
normalisation sees the rows of one rank at a time, and keeps the statistics of rank 0's; and that each rank draws its
own numbers for dropout. With the same number of ranks a resumed training is the same to the last bit.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tenure.common.errors import CheckpointError
from tenure.worker.torch_eval.builder import build_module
from tenure.worker.torch_eval.loader import BatchPlan
from tenure.worker.torch_eval.numerics import (
    capture_generators,
    derived_seed,
    reproducible,
    restore_generators,
    seed_everything,
)
from tenure.worker.torch_eval.options import Settings
from tenure.worker.torch_eval.precision import compilation, compiled
from tenure.worker.torch_eval.ranks import RankDied, Ranks, join_group, receive
from tenure.worker.torch_eval.split import Split, load_split
from tenure.worker.torch_eval.training import Training


class ParallelTraining(Training):
    """What all ranks do alike. Made within a process group; the group is given up by whoever made it."""

    def __init__(self, settings: Settings, split: Split, module: nn.Module, device: torch.device) -> None:
        super().__init__(settings, split, module, device)
        self._rank, self._ranks_count = dist.get_rank(), dist.get_world_size()
        self._whole = self._network
        # Gradients of parameters that this network doesn't use stay absent, as on one device. Besides, without looking
        # for them the buckets, and with them the order of sums, would depend on whether the training was resumed.
        self._parallel = DistributedDataParallel(
            self.module, device_ids=[device] if device.type == "cuda" else None, find_unused_parameters=True
        )
        self._network = compiled(self._parallel, device) if settings.compile == "on" else self._parallel

    def rank_state(self) -> dict[str, Any]:
        """What each rank has of its own."""
        return {
            "rows_seen": self._rows_seen,
            "loss_sum": self._loss_sum.cpu(),
            "correct": self._correct.cpu(),
            "generators": capture_generators(self.device),
        }

    def _predict(self, inputs: Tensor) -> Tensor:
        if self.module.training:
            return super()._predict(inputs)
        # Ranks validate without each other, and may have different numbers of batches.
        with self._precision.autocast():
            logits = self._whole(inputs)
        return logits.float()

    def _train_on(self, inputs: Tensor, targets: Tensor) -> None:
        rows, count = len(targets), self._ranks_count
        # At least two rows for a rank: batch normalisation can't take one. Whoever gets none takes part in the sums.
        active = min(count, max(1, rows // 2))
        self._optimizer.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # Of a tensor with a dimension of 1, whose strides can be written in two ways.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            if self._rank < active:
                mine = inputs.tensor_split(active)[self._rank], targets.tensor_split(active)[self._rank]
                # Gradients are averaged over the ranks: of the sum over the batch each counts for so much.
                self._accumulate(self._send(mine[0]), self._send(mine[1]), rows / count)
            else:
                before = self._rows_seen, self._loss_sum.clone(), self._correct.clone()
                self._accumulate(self._send(inputs[:2]), self._send(targets[:2]), float("inf"))
                self._rows_seen, self._loss_sum, self._correct = before
        self._precision.step(self._optimizer, self._parameters, self.settings.gradient_clip)

    def _part(self, *, last: bool) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if last else self._parallel.no_sync()

    def _val_plans(self) -> list[BatchPlan]:
        return super()._val_plans()[self._rank :: self._ranks_count]

    def _share_buffers(self) -> None:
        """Rank 0's, for everybody; before a forward pass in training torch does the same."""
        for buffer in self.module.buffers():
            dist.broadcast(buffer, 0)

    def _add_up(self, numbers: list[float]) -> list[float]:
        """The sums over all ranks, in float64."""
        sums = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        total: list[float] = sums.tolist()
        return total

    def _own_sums(self) -> list[float]:
        return [float(self._loss_sum), float(self._rows_seen), float(self._correct)]


class LeadingTraining(ParallelTraining):
    """Rank 0's, which the trainer sees: it tells the others, meets them in the collectives, and has everybody's sums.

    Attributes:
        held: What ends with it.
    """

    def __init__(
        self,
        settings: Settings,
        split: Split,
        module: nn.Module,
        device: torch.device,
        ranks: Ranks,
        work_dir: Path,
    ) -> None:
        self.held = ExitStack()
        self._ranks = ranks
        self._work_dir = work_dir
        super().__init__(settings, split, module, device)

    @property
    def running_metrics(self) -> dict[str, float]:
        """See Training."""
        own = self._rows_seen, self._loss_sum, self._correct
        self._rows_seen, self._loss_sum, self._correct = self._sums()
        try:
            return super().running_metrics
        finally:
            self._rows_seen, self._loss_sum, self._correct = own

    def train_batches(self) -> Iterator[int]:
        """See Training."""
        self._ranks.tell("train", micro_batches=self.micro_batches)
        yield from super().train_batches()

    def validate_batches(self) -> Iterator[tuple[float, int, int]]:
        """See Training; the last is what the other ranks have found."""
        with self._ranks.watched():
            self._ranks.tell("validate", micro_batches=self.micro_batches)
            self._share_buffers()
        yield from super().validate_batches()
        with self._ranks.watched():
            self._ranks.tell("sum validation")
            loss_sum, correct, rows = self._add_up([0.0, 0.0, 0.0])
        yield loss_sum, int(correct), int(rows)

    def finish_epoch(self, loss_sum: float, correct: int) -> None:
        """See Training."""
        super().finish_epoch(loss_sum, correct)
        self._ranks.tell("finish epoch")

    def to_state(self) -> dict[str, Any]:
        """See Training; its sums are those of all ranks, so that any number of ranks can go on."""
        rows_seen, loss_sum, correct = self._sums()
        self._ranks.tell("give state")
        others = [_decoded(data) for data in self._ranks.hear()]
        sums = {"rows_seen": rows_seen, "loss_sum": loss_sum, "correct": correct}
        return {**super().to_state(), **sums, "ranks": [self.rank_state(), *others]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See Training."""
        super().restore(state)
        parts = state.get("ranks", ())
        try:
            if len(parts) == self._ranks_count:
                self._restore_rank(parts[0])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"doesn't fit this training: {error}", field="state.ranks") from error
        # By a file: a pipe would be written to and read from in turns, and hold all of it in memory once more.
        path = self._work_dir / f"ranks-{secrets.token_hex(8)}.pt"
        try:
            torch.save(dict(state), path)
            self._ranks.tell("restore", path=str(path))
            self._ranks.hear()
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """See Training. The other ranks are gone on return."""
        self.held.close()
        super().close()

    def _train_on(self, inputs: Tensor, targets: Tensor) -> None:
        with self._ranks.watched():
            self._ranks.tell("batch")
            super()._train_on(inputs, targets)

    def _restore_rank(self, part: Mapping[str, Any]) -> None:
        _restore_sums(self, part)
        restore_generators(part["generators"], self.device)

    def _sums(self) -> tuple[int, Tensor, Tensor]:
        with self._ranks.watched():
            self._ranks.tell("sum")
            loss_sum, rows_seen, correct = self._add_up(self._own_sums())
        return (
            int(rows_seen),
            torch.tensor(loss_sum, dtype=torch.float64, device=self.device),
            torch.tensor(int(correct), dtype=torch.int64, device=self.device),
        )


class FollowingTraining(ParallelTraining):
    """Another rank's: does what it is told."""

    @property
    def running_metrics(self) -> dict[str, float]:
        """Rank 0 looks at the loss."""
        return {}

    def serve(self, pipe: Connection) -> None:
        """Until the pipe ends."""
        batches: Iterator[int] = iter(())
        validated = [0.0, 0.0, 0.0]
        while True:
            message = receive(pipe)
            match message["do"]:
                case "train":
                    self.micro_batches = message["micro_batches"]
                    batches = self.train_batches()
                case "batch":
                    next(batches)
                case "validate":
                    next(batches, None)
                    self.micro_batches = message["micro_batches"]
                    self._share_buffers()
                    validated = [
                        float(sum(column)) for column in zip((0.0, 0, 0), *self.validate_batches(), strict=True)
                    ]
                case "sum validation":
                    self._add_up(validated)
                case "sum":
                    self._add_up(self._own_sums())
                case "finish epoch":
                    self.epochs_done += 1
                    self.batches_done = 0
                    self._begin_sums()
                case "give state":
                    pipe.send_bytes(_encoded(self.rank_state()))
                case "restore":
                    self.restore(torch.load(message["path"], weights_only=True, map_location="cpu"))
                    pipe.send_bytes(b"{}")

    def restore(self, state: Mapping[str, Any]) -> None:
        """See Training."""
        super().restore(state)
        parts = state.get("ranks", ())
        if len(parts) == self._ranks_count:
            _restore_sums(self, parts[self._rank])
            restore_generators(parts[self._rank]["generators"], self.device)
        else:
            # The sums so far are with rank 0, and where this rank's generators would stand nobody knows.
            self._begin_sums()
            seed = derived_seed(self.settings.seed, "rank", self._rank, self.epochs_done, self.batches_done)
            seed_everything(seed)


def lead(
    architecture: str,
    settings: Settings,
    split: Split,
    module: nn.Module,
    devices: tuple[str, ...],
    *,
    threads: int,
    max_parameters: int,
    work_dir: Path,
) -> Training:
    """A training over ``devices``, of which the first is this process's; the others get processes of their own.

    Close it, or they stay (until this process ends: none outlives it). Whatever ends one of them ends the training.

    Raises:
        RankDied: One of them didn't come up.
        InvalidArchitecture, InvalidConfig, InvalidSetting: As :class:`Training`.
    """
    # What can be wrong is wrong here first, before anything is started.
    Training(settings, split, module, torch.device(devices[0])).close()
    meeting_point = work_dir / f"ranks-{secrets.token_hex(8)}"
    with ExitStack() as held:
        held.callback(meeting_point.unlink, missing_ok=True)
        arguments = (architecture, settings, split.digest, devices, threads, max_parameters, str(meeting_point))
        ranks = Ranks(len(devices), _follow, arguments)
        held.callback(ranks.close)
        ranks.hear()
        with ranks.watched():
            join_group(0, devices, meeting_point)
            held.callback(dist.destroy_process_group)
            training = LeadingTraining(settings, split, module, torch.device(devices[0]), ranks, work_dir)
        training.held = held.pop_all()
        return training


def _follow(
    rank: int,
    pipe: Connection,
    architecture: str,
    settings: Settings,
    digest: str,
    devices: tuple[str, ...],
    threads: int,
    max_parameters: int,
    meeting_point: str,
) -> None:
    """The main function of every rank but 0."""
    device = torch.device(devices[rank])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    split = load_split(settings.dataset, settings.dataset_extra, settings.val_fraction, settings.split_seed)
    if split.digest != digest:
        raise RankDied("the data set is another one when it is read once more: it must give the same rows every time")
    compiling = compilation() if settings.compile == "on" else contextlib.nullcontext()
    with reproducible(device, threads, settings.deterministic == "on"), compiling:
        seed_everything(settings.seed)
        module = build_module(architecture, split.input_shape, split.num_classes, max_parameters=max_parameters)
        pipe.send_bytes(b"{}")
        join_group(rank, devices, Path(meeting_point))
        training = FollowingTraining(settings, split, module, device)
        seed_everything(derived_seed(settings.seed, "rank", rank))
        try:
            training.serve(pipe)
        finally:
            training.close()


def _restore_sums(training: ParallelTraining, part: Mapping[str, Any]) -> None:
    training._rows_seen = int(part["rows_seen"])
    training._loss_sum = part["loss_sum"].to(training.device)
    training._correct = part["correct"].to(training.device)


def _encoded(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _decoded(data: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return state
