"""One training: everything that changes while a network learns, batch by batch, and its snapshot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenure.common.errors import CheckpointError, DivergedTraining, InvalidArchitecture, InvalidConfig
from tenure.worker.torch_eval.loader import BatchPlan, BatchReader, Loader
from tenure.worker.torch_eval.numerics import capture_generators, derived_seed, restore_generators
from tenure.worker.torch_eval.optimization import learning_rate, make_optimizer, set_learning_rate
from tenure.worker.torch_eval.options import Settings
from tenure.worker.torch_eval.precision import Precision, check_precision, compiled
from tenure.worker.torch_eval.rows import Rows, TensorRows
from tenure.worker.torch_eval.split import Split
from tenure.worker.torch_eval.stopping import EarlyStopping

# Data sets up to this size lie on the GPU as a whole; larger ones are sent batch by batch.
_ON_DEVICE_BYTES_MAX = 2**30
# Looking at the loss makes the CPU wait for the GPU.
_LOOK_EVERY_BATCHES = 50


class Training:
    """A network, its optimizer, and how far both have come. Close it: it may have processes.

    The order of the rows follows from (seed, epoch) and augmentation from (seed, epoch, batch), so ``epochs_done`` and
    ``batches_done`` say exactly where in the data a training stands.

    Args:
        settings: What to do.
        split: What to learn from.
        module: The network, freshly initialised.
        device: Where to do it.

    Attributes:
        micro_batches: In how many parts each batch goes through the network. The effective batch stays; the last bits,
            and batch normalisation's statistics (of each part), don't. May be changed between two batches.

    Raises:
        InvalidArchitecture: The network has nothing that could learn.
        InvalidConfig: A setting doesn't fit the data.
        InvalidSetting: The device lacks the precision, or the machine a compiler.
    """

    def __init__(self, settings: Settings, split: Split, module: nn.Module, device: torch.device) -> None:
        self.settings = settings
        self.split = split
        self.device = device
        self.module = module.to(device)
        self.micro_batches = settings.micro_batches
        self.epochs_done = 0
        self.batches_done = 0
        self.metrics: dict[str, float] = {}
        self.best_accuracy = 0.0
        self.best_epoch = 0
        self._stopping = EarlyStopping(settings.early_stopping_epochs, settings.early_stopping_delta)
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
        check_precision(settings.precision, device)
        self._precision = Precision(settings.precision, device)
        self._network: Callable[[Tensor], Tensor] = self.module
        if settings.compile == "on":
            self._network = compiled(self.module, device)
        self._optimizer = make_optimizer(self._parameters, settings)
        # Processes can't read from a GPU.
        place = device if settings.loader_workers == 0 else torch.device("cpu")
        reader = BatchReader(_placed(split.train, place), _placed(split.val, place), settings.seed, settings.augment)
        self._loader = Loader(reader, settings.loader_workers)
        self._begin_sums()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or as many as were worth it."""
        return self.epochs_done >= self.settings.num_epochs or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether epochs are left that early stopping doesn't want."""
        return self._stopping.reached and self.epochs_done < self.settings.num_epochs

    @property
    def at_epochs_end(self) -> bool:
        """Whether ``metrics`` are those of the network as it is now."""
        return self.batches_done == 0 < self.epochs_done

    @property
    def batch_count(self) -> int:
        """Batches in one epoch. A last batch of a single row is left out: batch normalisation can't take it."""
        rows, size = len(self.split.train.targets), self.settings.batch_size
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
        plans = self._train_plans()
        for inputs, targets in self._loader.batches(plans):
            rate = learning_rate(self.settings, self.epochs_done, self.batches_done, self.batch_count)
            set_learning_rate(self._optimizer, rate)
            self._train_on(inputs, targets)
            self.batches_done += 1
            if self.batches_done % _LOOK_EVERY_BATCHES == 0:
                _ = self.running_metrics
            yield len(targets)

    def validate_batches(self) -> Iterator[tuple[float, int, int]]:
        """(sum of the losses, rows right, rows) of each batch of the rows held out. Changes nothing."""
        self.module.eval()
        with torch.no_grad():
            for inputs, targets in self._loader.batches(self._val_plans()):
                logits, targets = self._predict(self._send(inputs)), self._send(targets)
                loss = F.cross_entropy(logits, targets, reduction="sum")
                yield float(loss), int((logits.argmax(dim=1) == targets).sum()), len(targets)

    def finish_epoch(self, loss_sum: float, correct: int) -> None:
        """Take the sums over the rows held out, and stand before the next epoch."""
        rows = len(self.split.val.targets)
        metrics = self.running_metrics | {"val_loss": loss_sum / rows, "val_accuracy": correct / rows}
        if not math.isfinite(loss_sum):
            raise DivergedTraining(f"the validation loss became {loss_sum} in epoch {self.epochs_done + 1}")
        self.metrics = metrics
        self.epochs_done += 1
        self.batches_done = 0
        self._begin_sums()
        self._stopping.look(metrics["val_accuracy"])
        if self.best_epoch == 0 or metrics["val_accuracy"] > self.best_accuracy:
            self.best_accuracy, self.best_epoch = metrics["val_accuracy"], self.epochs_done

    def to_state(self) -> dict[str, Any]:
        """Everything a training needs to go on as if never interrupted: its live tensors, not copies."""
        return {
            "epochs_done": self.epochs_done,
            "batches_done": self.batches_done,
            "micro_batches": self.micro_batches,
            "rows_seen": self._rows_seen,
            "loss_sum": self._loss_sum,
            "correct": self._correct,
            "metrics": dict(self.metrics),
            "best_accuracy": self.best_accuracy,
            "best_epoch": self.best_epoch,
            "stopping": self._stopping.to_state(),
            "model": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._precision.to_state(),
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
            self._precision.restore(state["scaler"])
            self._stopping.restore(state["stopping"])
            self.epochs_done = state["epochs_done"]
            self.batches_done = state["batches_done"]
            self.micro_batches = state["micro_batches"]
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

    def close(self) -> None:
        """End the processes that read ahead, if there are any."""
        self._loader.close()

    def _begin_sums(self) -> None:
        self._rows_seen = 0
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)

    def _train_plans(self) -> list[BatchPlan]:
        """The batches that this epoch still has."""
        generator = torch.Generator().manual_seed(derived_seed(self.settings.seed, "order", self.epochs_done))
        order = torch.randperm(len(self.split.train.targets), generator=generator).numpy()
        size = self.settings.batch_size
        return [
            BatchPlan(True, self.epochs_done, number, order[number * size : (number + 1) * size])
            for number in range(self.batches_done, self.batch_count)
        ]

    def _val_plans(self) -> list[BatchPlan]:
        """Twice as many rows at once: without gradients there is room."""
        order = torch.arange(len(self.split.val.targets)).numpy()
        size = 2 * math.ceil(self.settings.batch_size / self.micro_batches)
        return [
            BatchPlan(False, self.epochs_done, number, order[first : first + size])
            for number, first in enumerate(range(0, len(order), size))
        ]

    def _predict(self, inputs: Tensor) -> Tensor:
        """Logits, float32 whatever the network computes in: the loss wants their precision."""
        with self._precision.autocast():
            logits = self._network(inputs)
        return logits.float()

    def _train_on(self, inputs: Tensor, targets: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._accumulate(self._send(inputs), self._send(targets), len(targets))
        self._precision.step(self._optimizer, self._parameters, self.settings.gradient_clip)

    def _accumulate(self, inputs: Tensor, targets: Tensor, batch_rows: float) -> None:
        """Add what these rows have of the gradients of the batch's loss, which is the mean over ``batch_rows``."""
        # At least two rows in a part: batch normalisation can't take one.
        parts = min(self.micro_batches, max(1, len(targets) // 2))
        pairs = zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True)
        for number, (some_inputs, some_targets) in enumerate(pairs, start=1):
            with self._part(last=number == parts):
                logits = self._predict(some_inputs)
                loss = F.cross_entropy(logits, some_targets, label_smoothing=self.settings.label_smoothing)
                share = len(some_targets) / batch_rows
                self._precision.backward(loss if share == 1 else loss * share)
            self._rows_seen += len(some_targets)
            self._loss_sum += loss.detach().double() * len(some_targets)
            self._correct += (logits.detach().argmax(dim=1) == some_targets).sum()

    def _part(self, *, last: bool) -> AbstractContextManager[None]:
        """What one part's forward and backward pass run in."""
        return nullcontext()

    def _send(self, batch: Tensor) -> Tensor:
        if batch.device == self.device:
            return batch
        return batch.pin_memory().to(self.device, non_blocking=True)


def _placed(rows: Rows, device: torch.device) -> Rows:
    if not isinstance(rows, TensorRows) or rows.inputs.nbytes > _ON_DEVICE_BYTES_MAX:
        return rows
    return rows.to(device)
