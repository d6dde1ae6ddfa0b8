"""A data set divided into rows to train on and rows held out, normalised; kept for the process's next evaluations."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tenure.common.errors import InvalidConfig
from tenure.worker.torch_eval.datasets import Dataset, load_dataset

# Two, so that a search on one data set and a search on another can share an executor.
_KEPT_MAX = 2
_CHUNK_ROWS = 4096
_SPLIT_SEED = 0x7E9D_4A11_0C3B_58F1
_kept: OrderedDict[tuple[object, ...], Split] = OrderedDict()


@dataclass(frozen=True)
class Split:
    """Training and validation rows, normalised by the training rows.

    Attributes:
        name: The data set's.
        train_inputs: float32, (n, *input_shape).
        train_targets: int64, (n,).
        val_inputs: float32, (m, *input_shape).
        val_targets: int64, (m,).
        num_classes: How many classes there are.
        digest: SHA-256 over the raw rows and which of them are held out. Two splits with one digest train alike.
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    val_inputs: Tensor
    val_targets: Tensor
    num_classes: int
    digest: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one row."""
        return tuple(self.train_inputs.shape[1:])


def load_split(name: str, extra: Mapping[str, str], val_fraction: float) -> Split:
    """The named data set, split; from memory if this process had it lately.

    Raises:
        InvalidConfig: As :func:`load_dataset`, or a side of the split is empty.
    """
    key = (name, tuple(sorted(extra.items())), val_fraction)
    if key not in _kept:
        # Before loading: two large ones and a third must not be in memory together.
        while len(_kept) >= _KEPT_MAX:
            _kept.popitem(last=False)
        _kept[key] = split(load_dataset(name, extra), val_fraction)
    _kept.move_to_end(key)
    return _kept[key]


def split(dataset: Dataset, val_fraction: float) -> Split:
    """Hold out the rows that the data set prescribes, else ``val_fraction`` of each class.

    Which rows depends on the row's number and a constant alone: it is the same for every seed, worker and version of
    any library, so accuracies of a whole search are comparable.
    """
    held_out = torch.zeros(len(dataset.targets), dtype=torch.bool)
    if dataset.validation_rows is not None:
        held_out[dataset.validation_rows] = True
    else:
        held_out[_stratified(dataset.targets, val_fraction)] = True
    for side, rows in (("to validate on", held_out), ("to train on", ~held_out)):
        if not bool(rows.any()):
            raise InvalidConfig(
                f"leaves no row {side}",
                field="config.extra.val_fraction",
                given=val_fraction,
                expected=f"{dataset.name} has {len(dataset.targets)} rows in {dataset.num_classes} classes",
            )
    train_inputs = dataset.inputs[~held_out]
    mean, deviation = _statistics(train_inputs)
    return Split(
        name=dataset.name,
        train_inputs=(train_inputs - mean) / deviation,
        train_targets=dataset.targets[~held_out],
        val_inputs=(dataset.inputs[held_out] - mean) / deviation,
        val_targets=dataset.targets[held_out],
        num_classes=dataset.num_classes,
        digest=_digest(dataset, held_out),
    )


def _stratified(targets: Tensor, val_fraction: float) -> Tensor:
    """Of each class the share with the smallest hashes; a class always keeps a row to train on."""
    classes = targets.numpy()
    order = np.argsort(_hashes(len(classes)), kind="stable")
    chosen = []
    for label in np.unique(classes):
        rows = order[classes[order] == label]
        chosen.append(rows[: min(round(len(rows) * val_fraction), len(rows) - 1)])
    return torch.from_numpy(np.concatenate(chosen))


def _hashes(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """SplitMix64 (Steele, Lea, Flood 2014) of each row's number."""
    golden, first, second = (
        np.uint64(constant) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
    )
    x = np.arange(1, count + 1, dtype=np.uint64) * golden + np.uint64(_SPLIT_SEED)
    x = (x ^ (x >> np.uint64(30))) * first
    x = (x ^ (x >> np.uint64(27))) * second
    return x ^ (x >> np.uint64(31))


def _statistics(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of images, per feature of flat rows; 1 where nothing varies."""
    # numpy sums on one thread: the statistics must not depend on how many torch was given.
    array = inputs.numpy()
    axes = tuple(axis for axis in range(array.ndim) if axis != 1)
    count = array.size // array.shape[1]
    chunks = [array[first : first + _CHUNK_ROWS] for first in range(0, len(array), _CHUNK_ROWS)]
    mean = sum(chunk.sum(axis=axes, dtype=np.float64, keepdims=True) for chunk in chunks) / count
    squares = sum(np.square(chunk - mean).sum(axis=axes, keepdims=True) for chunk in chunks)
    deviation = np.sqrt(squares / count)
    deviation[deviation == 0] = 1
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(deviation.astype(np.float32))


def _digest(dataset: Dataset, held_out: Tensor) -> str:
    sha256 = hashlib.sha256(repr((tuple(dataset.inputs.shape), dataset.num_classes)).encode())
    for tensor in (dataset.inputs, dataset.targets, held_out):
        sha256.update(tensor.contiguous().numpy().data.cast("B"))
    return sha256.hexdigest()
