"""The rows of one side of a split: in memory, or read one by one when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from tenure.common.errors import InvalidConfig
from tenure.worker.torch_eval.datasets import MapDataset, check_row, load_dataset
from tenure.worker.torch_eval.numerics import derived_seed, seeded


class Rows(Protocol):
    """Normalised rows with their classes, numbered from 0."""

    targets: Tensor
    """int64, (n,), on the CPU."""

    def batch(self, numbers: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of these rows. ``seed`` is for data sets that draw at random."""


class TensorRows:
    """Rows in memory, the CPU's or a GPU's.

    Args:
        inputs: float32, (n, *input_shape).
        targets: int64, (n,).
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs = inputs
        self.targets = targets
        self._targets_there = targets.to(inputs.device)

    def to(self, device: torch.device) -> TensorRows:
        """The same rows on ``device``."""
        return self if self.inputs.device == device else TensorRows(self.inputs.to(device), self.targets)

    def batch(self, numbers: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """See :class:`Rows`."""
        numbers = numbers.to(self.inputs.device)
        return self.inputs[numbers], self._targets_there[numbers]


class OpenedDataset:
    """A MapDataset by its name: each process that reads from it calls the user's function once.

    That is why it crosses a process boundary as its name, not as its content: open files don't, and a memory-mapped
    array would as a whole.
    """

    def __init__(self, name: str, extra: Mapping[str, str], dataset: MapDataset) -> None:
        self.name = name
        self._extra = dict(extra)
        self._length = len(dataset.rows)
        self._shape = tuple(check_row(dataset.rows[0], 0, name).shape)
        self._dataset: MapDataset | None = dataset

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_dataset": None}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each row."""
        return self._shape

    def read(self, numbers: Tensor, seed: int) -> Tensor:
        """These rows, float32, (n, *shape), not normalised.

        Raises:
            InvalidConfig: A row is not as the first one is. What reading raises itself goes through.
        """
        if self._dataset is None:
            self._dataset = self._reopened()
        rows = self._dataset.rows
        with seeded(seed):
            return torch.stack([check_row(rows[row], row, self.name, self._shape) for row in numbers.tolist()])

    def _reopened(self) -> MapDataset:
        dataset = load_dataset(self.name, self._extra)
        if not isinstance(dataset, MapDataset) or len(dataset.rows) != self._length:
            raise InvalidConfig(
                "is another data set when it is opened once more",
                field="config.dataset",
                given=self.name,
                expected=f"{self._length} rows in every process",
            )
        return dataset


class MapRows:
    """Rows of an opened data set.

    Args:
        opened: Where they are read from.
        numbers: int64, (n,): which of its rows these are.
        targets: int64, (n,).
        mean: Subtracted from each row; it broadcasts over a batch.
        deviation: What is left is divided by it.
    """

    def __init__(
        self, opened: OpenedDataset, numbers: Tensor, targets: Tensor, mean: Tensor, deviation: Tensor
    ) -> None:
        self.targets = targets
        self._opened = opened
        self._numbers = numbers
        self._mean = mean
        self._deviation = deviation

    def batch(self, numbers: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """See :class:`Rows`."""
        inputs = self._opened.read(self._numbers[numbers], seed)
        return (inputs - self._mean) / self._deviation, self.targets[numbers]


def sample_digest(rows: Tensor, fingerprint: str) -> str:
    """SHA-256 over what is compared of a data set that is not read as a whole."""
    sha256 = hashlib.sha256(repr((tuple(rows.shape), fingerprint)).encode())
    sha256.update(rows.contiguous().numpy().data.cast("B"))
    return sha256.hexdigest()


def sample_seed() -> int:
    """For the rows that are read to be compared: always the same."""
    return derived_seed("sample")
