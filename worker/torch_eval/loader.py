"""Batches for a training: read by the training itself, or ahead of it by processes of their own.

What a batch holds follows from where it stands (side, epoch, number, rows) and the training's seed alone. So neither
how many processes read, nor where a training was interrupted, changes a bit of it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from tenure.worker.torch_eval.augmentation import shifted
from tenure.worker.torch_eval.numerics import derived_seed
from tenure.worker.torch_eval.rows import Rows

_AHEAD_BATCHES = 2


@dataclass(frozen=True)
class BatchPlan:
    """One batch to read.

    Attributes:
        train: Whether of the training rows; else of those held out.
        epoch: From 0.
        number: Of the batch in its epoch, from 0.
        rows: Numbers of the rows, int64. An array of numpy's: a tensor would cost a shared memory file on its way.
    """

    train: bool
    epoch: int
    number: int
    rows: np.ndarray[tuple[int], np.dtype[np.int64]]


class BatchReader(TorchDataset[tuple[Tensor, Tensor]]):
    """Both sides of a split, by the batch.

    Args:
        train: Training rows.
        val: Rows held out.
        seed: The training's.
        augment: ``none`` or ``shift``, of training rows.
    """

    def __init__(self, train: Rows, val: Rows, seed: int, augment: str) -> None:
        self._train = train
        self._val = val
        self._seed = seed
        self._augment = augment

    def __getitem__(self, plan: BatchPlan) -> tuple[Tensor, Tensor]:
        """(inputs, targets), ready for the network."""
        rows, numbers = self._train if plan.train else self._val, torch.from_numpy(plan.rows)
        if not plan.train:
            return rows.batch(numbers, derived_seed(self._seed, "held out", plan.number))
        inputs, targets = rows.batch(numbers, derived_seed(self._seed, "rows", plan.epoch, plan.number))
        if self._augment == "shift":
            inputs = shifted(inputs, derived_seed(self._seed, "shift", plan.epoch, plan.number))
        return inputs, targets


class Loader:
    """Reads batches in order, with ``workers`` processes ahead of the training. Close it, or they stay.

    The processes are spawned: a fork would copy the mutexes of this process's threads (torch's, CUDA's, the pipe's) in
    whatever state they are. They end with the training; when this process is killed, they notice within seconds.
    """

    def __init__(self, reader: BatchReader, workers: int) -> None:
        self._reader = reader
        self._plans: Sequence[BatchPlan] = ()
        self._processes: DataLoader[Any] | None = None
        if workers:
            self._processes = DataLoader(
                reader,
                batch_size=None,
                sampler=_Plans(self),
                num_workers=workers,
                prefetch_factor=_AHEAD_BATCHES,
                persistent_workers=True,
                multiprocessing_context="spawn",
                worker_init_fn=_ignore_signals,
                collate_fn=_as_it_is,
                # Of its own: the loader draws from it whenever an epoch begins.
                generator=torch.Generator(),
            )

    def batches(self, plans: Sequence[BatchPlan]) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, targets) of each plan, in order. What reading a row raises comes out here."""
        if self._processes is None:
            for plan in plans:
                yield self._reader[plan]
            return
        self._plans = plans
        with signals_ignored():
            batches = iter(self._processes)
        yield from batches

    def close(self) -> None:
        """End the processes, if there are any; waits until they are gone."""
        if self._processes is None:
            return
        iterator = self._processes._iterator
        self._processes = None
        if iterator is not None:
            # What torch does itself when the iterator is collected. An exception's traceback may keep that for long.
            iterator._shutdown_workers()  # type: ignore[attr-defined]
            # It gives them some seconds, then SIGTERM, to which they are deaf. One within a row that takes longer
            # is left, as is one that a busy machine has not let start yet.
            for process in iterator._workers:  # type: ignore[attr-defined]
                process.kill()
                process.join()


class _Plans:
    """What the processes are to read next."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[BatchPlan]:
        return iter(self._loader._plans)

    def __len__(self) -> int:
        return len(self._loader._plans)


def _as_it_is(batch: Any) -> Any:
    return batch


def _ignore_signals(_: int) -> None:
    """A service manager signals every process of a worker. These end with the training, which decides when that is."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """What is spawned within the block is born deaf to them, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
