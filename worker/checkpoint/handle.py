"""The :class:`tenure.worker.evaluator.CheckpointHandle` that an evaluator gets in the executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenure.common.errors import CheckpointError
from tenure.worker.checkpoint.reader import load_newest
from tenure.worker.checkpoint.removal import sweep_debris
from tenure.worker.checkpoint.writer import WrittenCheckpoint, write_checkpoint


@dataclass(frozen=True)
class RegisteredCheckpoint:
    """A checkpoint that the master named with the task."""

    url: str
    digest: str
    step: int


@dataclass
class CheckpointCounters:
    """What the checkpoints of one run cost; for the worker's metrics.

    Attributes:
        saved: Checkpoints written and announced.
        failures: Writes that failed.
        skipped: Registered checkpoints that were missing, corrupt or unreadable on load.
        bytes_written: By those saved.
        write_seconds: In writing, failed writes too.
        read_seconds: In loading.
    """

    saved: int = 0
    failures: int = 0
    skipped: int = 0
    bytes_written: int = 0
    write_seconds: float = 0.0
    read_seconds: float = 0.0


class ExecutorCheckpoints:
    """Loads from the registered checkpoints of one task, writes new ones, and announces them.

    For one run of one task, used by one thread.

    Args:
        base_url: Where this worker writes: a directory or an fsspec URL.
        search: The search's name.
        task_id: The task's id.
        epoch: The lease's epoch.
        registered: What the master named with the task, newest first.
        announce: Called with each checkpoint once it is whole on storage; has it registered. What it raises
            goes through to the evaluator.
        log: ``log(event, **fields)``.

    Attributes:
        resumed_step: The step of the checkpoint that :meth:`load` returned; None before, and on a fresh
            start.
        counters: What was done so far.
    """

    def __init__(
        self,
        *,
        base_url: str,
        search: str,
        task_id: str,
        epoch: int,
        registered: Sequence[RegisteredCheckpoint],
        announce: Callable[[WrittenCheckpoint], None],
        log: Callable[..., None],
    ) -> None:
        self.resumed_step: int | None = None
        self.counters = CheckpointCounters()
        self._base_url = base_url
        self._search = search
        self._task_id = task_id
        self._epoch = epoch
        self._known = list(registered)
        self._swept = False
        self._announce = announce
        self._log = log

    def load(self) -> Mapping[str, Any] | None:
        """The state of the newest checkpoint that is whole, or None.

        Raises:
            CheckpointError: There are checkpoints, none is usable, and the storage rather than their content
                is to blame for at least one: starting afresh would throw work away, so this attempt fails
                instead.
        """
        started = time.monotonic()
        try:
            loaded = load_newest([(known.url, known.digest) for known in self._known], self._log_skipped)
        finally:
            self.counters.read_seconds += time.monotonic() - started
        if loaded is None:
            if self._known:
                self._log("checkpoint.none_usable", tried=len(self._known))
            return None
        self.resumed_step = self._known[loaded.which].step
        self._log("checkpoint.loaded", url=self._known[loaded.which].url, step=self.resumed_step)
        return loaded.state

    def save(self, state: Mapping[str, Any], *, step: int, score: float | None = None) -> None:
        """Write a checkpoint and announce it. A storage that fails is logged and counted, nothing more.

        Raises:
            InvalidInput: The state, step or score can't be kept in a checkpoint: the evaluator is wrong, and
                would have nothing to resume from.
        """
        started = time.monotonic()
        try:
            written = write_checkpoint(self._base_url, self._search, self._task_id, self._epoch, step, state, score)
        except CheckpointError as error:
            self.counters.failures += 1
            self._log("checkpoint.failed", step=step, error=str(error))
            return
        finally:
            self.counters.write_seconds += time.monotonic() - started
        self.counters.saved += 1
        self.counters.bytes_written += written.size_bytes
        self._announce(written)
        self._sweep_once()
        self._known.insert(0, RegisteredCheckpoint(written.url, written.digest, written.step))

    def _log_skipped(self, event: str, **fields: Any) -> None:
        self.counters.skipped += 1
        self._log(event, **fields)

    def _sweep_once(self) -> None:
        """After the first save, when the run is safe: what dead runs of this task left on storage."""
        if self._swept:
            return
        self._swept = True
        try:
            swept = sweep_debris(
                self._base_url,
                self._search,
                self._task_id,
                before_epoch=self._epoch,
                registered=[known.url for known in self._known],
            )
        except CheckpointError as error:
            self._log("checkpoint.sweep_failed", error=str(error))
            return
        if swept:
            self._log("checkpoint.swept", urls=swept)
