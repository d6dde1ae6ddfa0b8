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
from tenure.worker.torch_eval.datasets import AnyDataset, Dataset, MapDataset, load_dataset
from tenure.worker.torch_eval.numerics import derived_seed
from tenure.worker.torch_eval.rows import MapRows, OpenedDataset, Rows, TensorRows, sample_digest, sample_seed

# Two, so that a search on one data set and a search on another can share an executor.
_KEPT_MAX = 2
_CHUNK_ROWS = 4096
# Of a data set that is read row by row: what is read of it beforehand.
_SAMPLE_ROWS_MAX = 1024
_SPLIT_SEED = 0x7E9D_4A11_0C3B_58F1
_kept: OrderedDict[tuple[object, ...], Split] = OrderedDict()


@dataclass(frozen=True)
class Split:
    """Training and validation rows, normalised by the training rows.

    Attributes:
        name: The data set's.
        train: Rows to learn from.
        val: Rows held out.
        input_shape: Of one row.
        num_classes: How many classes there are.
        digest: SHA-256 over the raw rows (of a :class:`MapDataset` over some of them) and which of them are held out.
            Two splits with one digest train alike.
    """

    name: str
    train: Rows
    val: Rows
    input_shape: tuple[int, ...]
    num_classes: int
    digest: str


def load_split(name: str, extra: Mapping[str, str], val_fraction: float, split_seed: int = 0) -> Split:
    """The named data set, split; from memory if this process had it lately.

    Raises:
        InvalidConfig: As :func:`load_dataset`, or a side of the split is empty.
    """
    key = (name, tuple(sorted(extra.items())), val_fraction, split_seed)
    if key not in _kept:
        # Before loading: two large ones and a third must not be in memory together.
        while len(_kept) >= _KEPT_MAX:
            _kept.popitem(last=False)
        _kept[key] = split(load_dataset(name, extra), val_fraction, split_seed, name, extra)
    _kept.move_to_end(key)
    return _kept[key]


def split(
    dataset: AnyDataset,
    val_fraction: float,
    split_seed: int = 0,
    reference: str = "",
    extra: Mapping[str, str] | None = None,
) -> Split:
    """Hold out the rows that the data set prescribes, else ``val_fraction`` of each class.

    Which rows depends on the row's number and ``split_seed`` alone: it is the same for every seed, worker and version
    of any library, so accuracies of a whole search are comparable.

    Args:
        dataset: What to divide.
        val_fraction: The share held out.
        split_seed: 0 = the fixed split.
        reference: The name by which another process can load ``dataset`` again.
        extra: And what it gives the user's function then.
    """
    held_out = torch.zeros(len(dataset.targets), dtype=torch.bool)
    if dataset.validation_rows is not None:
        held_out[dataset.validation_rows] = True
    else:
        held_out[_stratified(dataset.targets, val_fraction, split_seed)] = True
    for side, rows in (("to validate on", held_out), ("to train on", ~held_out)):
        if not bool(rows.any()):
            raise InvalidConfig(
                f"leaves no row {side}",
                field="config.extra.val_fraction",
                given=val_fraction,
                expected=f"{dataset.name} has {len(dataset.targets)} rows in {dataset.num_classes} classes",
            )
    if isinstance(dataset, MapDataset):
        return _divided_by_number(dataset, held_out, OpenedDataset(reference or dataset.name, extra or {}, dataset))
    return _divided_in_memory(dataset, held_out)


def _divided_in_memory(dataset: Dataset, held_out: Tensor) -> Split:
    train_inputs = dataset.inputs[~held_out]
    mean, deviation = _statistics(train_inputs)
    return Split(
        name=dataset.name,
        train=TensorRows((train_inputs - mean) / deviation, dataset.targets[~held_out]),
        val=TensorRows((dataset.inputs[held_out] - mean) / deviation, dataset.targets[held_out]),
        input_shape=tuple(train_inputs.shape[1:]),
        num_classes=dataset.num_classes,
        digest=_digest((tuple(dataset.inputs.shape), dataset.num_classes), dataset.inputs, dataset.targets, held_out),
    )


def _divided_by_number(dataset: MapDataset, held_out: Tensor, opened: OpenedDataset) -> Split:
    """The statistics are those of a sample of the training rows: reading them all would take an epoch."""
    train, val = (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]
    order = torch.from_numpy(np.argsort(_hashes(len(train), 0), kind="stable"))
    sample = opened.read(train[order[:_SAMPLE_ROWS_MAX]].sort().values, sample_seed())
    mean, deviation = _statistics(sample)
    identity = (sample_digest(sample, dataset.fingerprint), dataset.num_classes)

    def side(numbers: Tensor) -> MapRows:
        return MapRows(opened, numbers, dataset.targets[numbers], mean, deviation)

    return Split(
        name=dataset.name,
        train=side(train),
        val=side(val),
        input_shape=opened.shape,
        num_classes=dataset.num_classes,
        digest=_digest(identity, dataset.targets, held_out),
    )


def _stratified(targets: Tensor, val_fraction: float, split_seed: int) -> Tensor:
    """Of each class the share with the smallest hashes; a class always keeps a row to train on."""
    classes = targets.numpy()
    order = np.argsort(_hashes(len(classes), split_seed), kind="stable")
    chosen = []
    for label in np.unique(classes):
        rows = order[classes[order] == label]
        chosen.append(rows[: min(round(len(rows) * val_fraction), len(rows) - 1)])
    return torch.from_numpy(np.concatenate(chosen))


def _hashes(count: int, split_seed: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """SplitMix64 (Steele, Lea, Flood 2014) of each row's number."""
    golden, first, second = (
        np.uint64(constant) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
    )
    start = derived_seed("split", split_seed) if split_seed else _SPLIT_SEED
    x = np.arange(1, count + 1, dtype=np.uint64) * golden + np.uint64(start)
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


def _digest(identity: tuple[object, ...], *tensors: Tensor) -> str:
    sha256 = hashlib.sha256(repr(identity).encode())
    for tensor in tensors:
        sha256.update(tensor.contiguous().numpy().data.cast("B"))
    return sha256.hexdigest()
