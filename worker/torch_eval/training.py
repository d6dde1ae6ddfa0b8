"""One training: everything that changes while a network learns, batch by batch, and its snapshot."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenure.common.errors import CheckpointError, DivergedTraining, InvalidArchitecture, InvalidConfig
from tenure.worker.torch_eval.numerics import capture_generators, derived_seed, restore_generators
from tenure.worker.torch_eval.options import Settings
from tenure.worker.torch_eval.split import Split

# Data sets up to this size lie on the GPU as a whole; larger ones are sent batch by batch.
_ON_DEVICE_BYTES_MAX = 2**30
# Looking at the loss makes the CPU wait for the GPU.
_LOOK_EVERY_BATCHES = 50


class Training:
    """A network, its optimizer, and how far both have come.

    The order of the rows follows from (seed, epoch) and augmentation from (seed, epoch, batch), so ``epochs_done`` and
    ``batches_done`` say exactly where in the data a training stands.

    Args:
        settings: What to do.
        split: What to learn from.
        module: The network, freshly initialised.
        device: Where to do it.

    Raises:
        InvalidArchitecture: The network has nothing that could learn.
        InvalidConfig: A setting doesn't fit the data.
    """

    def __init__(self, settings: Settings, split: Split, module: nn.Module, device: torch.device) -> None:
        self.settings = settings
        self.split = split
        self.device = device
        self.module = module.to(device)
        self.epochs_done = 0
        self.batches_done = 0
        self.metrics: dict[str, float] = {}
        self.best_accuracy = 0.0
        self.best_epoch = 0
        self._parameters = [one for one in self.module.parameters() if one.requires_grad]
        if not self._parameters:
            raise InvalidArchitecture("has no parameters that training could change", field="architecture")
        if settings.augment == "shift" and len(split.input_shape) != 3:
            raise InvalidConfig(
                "only images can be shifted",
                field="config.extra.augment",
                given=settings.augment,
                expected=f"none: a row of {split.name} has shape {split.input_shape}",
            )
        self._optimizer = _make_optimizer(self._parameters, settings)
        self._scheduler = _make_scheduler(self._optimizer, settings)
        self._train_inputs, self._train_targets = _place(split.train_inputs, split.train_targets, device)
        self._val_inputs, self._val_targets = _place(split.val_inputs, split.val_targets, device)
        self._begin_sums()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epochs_done >= self.settings.num_epochs

    @property
    def batch_count(self) -> int:
        """Batches in one epoch. A last batch of a single row is left out: batch normalisation can't take it."""
        rows, size = len(self.split.train_targets), self.settings.batch_size
        full, rest = divmod(rows, size)
        return full + (rest > 1 or (rest == 1 and full == 0))

    @property
    def running_metrics(self) -> dict[str, float]:
        """Of the epoch in progress, over the batches done; DivergedTraining if the loss isn't finite."""
        loss = float(self._loss_sum) / max(self._rows_seen, 1)
        if not math.isfinite(loss):
            raise DivergedTraining(
                f"the loss became {loss} in epoch {self.epochs_done + 1}",
                field="config.learning_rate",
                given=self.settings.learning_rate,
                expected="try a smaller one, gradient_clip, or batch normalisation",
            )
        return {"train_loss": loss, "train_accuracy": int(self._correct) / max(self._rows_seen, 1)}

    def train_batches(self) -> Iterator[int]:
        """Train on the rest of the epoch; yields the rows of each batch once it is done.

        Between two batches :meth:`to_state` is exact. After the last one the epoch wants :meth:`finish_epoch`.
        """
        self.module.train()
        order = self._order()
        for batch in range(self.batches_done, self.batch_count):
            rows = order[batch * self.settings.batch_size : (batch + 1) * self.settings.batch_size]
            self._train_on(rows, batch)
            self.batches_done = batch + 1
            if self.batches_done == self.batch_count and self._scheduler is not None:
                # Here and not in finish_epoch: a snapshot between the two must not step twice or never.
                self._scheduler.step()
            if self.batches_done % _LOOK_EVERY_BATCHES == 0:
                _ = self.running_metrics
            yield len(rows)

    def validate_batches(self) -> Iterator[tuple[float, int, int]]:
        """(sum of the losses, rows right, rows) of each batch of the rows held out. Changes nothing."""
        self.module.eval()
        size = 2 * self.settings.batch_size
        with torch.no_grad():
            for first in range(0, len(self._val_targets), size):
                targets = self._send(self._val_targets[first : first + size])
                logits = self.module(self._send(self._val_inputs[first : first + size]))
                loss = F.cross_entropy(logits, targets, reduction="sum")
                yield float(loss), int((logits.argmax(dim=1) == targets).sum()), len(targets)

    def finish_epoch(self, loss_sum: float, correct: int) -> None:
        """Take the sums over the rows held out, and stand before the next epoch."""
        rows = len(self._val_targets)
        metrics = self.running_metrics | {"val_loss": loss_sum / rows, "val_accuracy": correct / rows}
        if not math.isfinite(loss_sum):
            raise DivergedTraining(f"the validation loss became {loss_sum} in epoch {self.epochs_done + 1}")
        self.metrics = metrics
        self.epochs_done += 1
        self.batches_done = 0
        self._begin_sums()
        if self.best_epoch == 0 or metrics["val_accuracy"] > self.best_accuracy:
            self.best_accuracy, self.best_epoch = metrics["val_accuracy"], self.epochs_done

    def to_state(self) -> dict[str, Any]:
        """Everything a training needs to go on as if never interrupted: copies, on the CPU."""
        return {
            "epochs_done": self.epochs_done,
            "batches_done": self.batches_done,
            "rows_seen": self._rows_seen,
            "loss_sum": _copied(self._loss_sum),
            "correct": _copied(self._correct),
            "metrics": dict(self.metrics),
            "best_accuracy": self.best_accuracy,
            "best_epoch": self.best_epoch,
            "model": _copied(self.module.state_dict()),
            "optimizer": _copied(self._optimizer.state_dict()),
            "scheduler": None if self._scheduler is None else _copied(self._scheduler.state_dict()),
            "generators": capture_generators(self.device),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where :meth:`to_state` was called.

        Raises:
            CheckpointError: The state is of another network or another version of Tenure.
        """
        try:
            self.module.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self._scheduler is not None:
                self._scheduler.load_state_dict(state["scheduler"])
            self.epochs_done = state["epochs_done"]
            self.batches_done = state["batches_done"]
            self._rows_seen = state["rows_seen"]
            self._loss_sum = state["loss_sum"].to(self.device)
            self._correct = state["correct"].to(self.device)
            self.metrics = dict(state["metrics"])
            self.best_accuracy = state["best_accuracy"]
            self.best_epoch = state["best_epoch"]
            # Last: building and loading may have drawn from the generators.
            restore_generators(state["generators"], self.device)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"doesn't fit this training: {error}",
                field="state",
                expected="let a worker of the version that began this training finish it",
            ) from error

    def _begin_sums(self) -> None:
        self._rows_seen = 0
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)

    def _order(self) -> Tensor:
        generator = torch.Generator().manual_seed(derived_seed(self.settings.seed, "order", self.epochs_done))
        order = torch.randperm(len(self.split.train_targets), generator=generator)
        return order.to(self._train_targets.device)

    def _train_on(self, rows: Tensor, batch: int) -> None:
        inputs, targets = self._send(self._train_inputs[rows]), self._send(self._train_targets[rows])
        if self.settings.augment == "shift":
            inputs = shifted(inputs, derived_seed(self.settings.seed, "shift", self.epochs_done, batch))
        logits = self.module(inputs)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.settings.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self._parameters, self.settings.gradient_clip)
        self._optimizer.step()
        self._rows_seen += len(targets)
        self._loss_sum += loss.detach().double() * len(targets)
        self._correct += (logits.detach().argmax(dim=1) == targets).sum()

    def _send(self, batch: Tensor) -> Tensor:
        if batch.device == self.device:
            return batch
        return batch.pin_memory().to(self.device, non_blocking=True)


def shifted(images: Tensor, seed: int) -> Tensor:
    """Each image moved by up to an eighth of its height and of its width; its border is repeated behind it."""
    count, _, height, width = images.shape
    generator = torch.Generator().manual_seed(seed)

    def places(size: int) -> Tensor:
        reach = max(1, size // 8)
        moves = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
        return (torch.arange(size) + moves).clamp(0, size - 1).to(images.device)

    rows, columns = places(height), places(width)
    return images[
        torch.arange(count, device=images.device)[:, None, None],
        :,
        rows[:, :, None],
        columns[:, None, :],
    ].permute(0, 3, 1, 2)


def _make_optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    raise AssertionError(f"no optimizer {settings.optimizer}")


def _make_scheduler(
    optimizer: torch.optim.Optimizer, settings: Settings
) -> torch.optim.lr_scheduler.LRScheduler | None:
    match settings.schedule:
        case "none":
            return None
        case "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.num_epochs)
        case "step":
            size = settings.step_size or max(1, settings.num_epochs // 3)
            return torch.optim.lr_scheduler.StepLR(optimizer, step_size=size, gamma=settings.gamma)
    raise AssertionError(f"no schedule {settings.schedule}")


def _place(inputs: Tensor, targets: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    if inputs.nbytes > _ON_DEVICE_BYTES_MAX:
        return inputs, targets
    return inputs.to(device), targets.to(device)


def _copied(value: Any) -> Any:
    """A copy that later batches don't change, with every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        # copy.copy keeps what a state dict carries beside its items: the versions of its modules.
        copied = copy.copy(value)
        for key, inner in copied.items():
            copied[key] = _copied(inner)
        return copied
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value
