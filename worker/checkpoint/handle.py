"""The :class:`tenure.worker.evaluator.CheckpointHandle` that an evaluator gets in the executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenure.common.errors import CheckpointError
from tenure.worker.checkpoint.background import BackgroundWriter, Save
from tenure.worker.checkpoint.interval import CheckpointPolicy, CostEstimate
from tenure.worker.checkpoint.reader import load_newest
from tenure.worker.checkpoint.removal import delete_checkpoint, sweep_debris
from tenure.worker.checkpoint.snapshot import SpareMemory, checked
from tenure.worker.checkpoint.writer import GivenUp, WrittenCheckpoint, check_numbers, write_checkpoint


@dataclass(frozen=True)
class RegisteredCheckpoint:
    """A checkpoint that the master named with the task."""

    url: str
    digest: str
    step: int


@dataclass(frozen=True)
class Write:
    """One write of a checkpoint, and what came of it; ``error`` is empty if it is whole on storage."""

    step: int
    size_bytes: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass
class CheckpointCounters:
    """What the checkpoints of one run cost; for the worker's metrics.

    Attributes:
        saved: Checkpoints written and announced.
        failures: Writes that failed.
        superseded: Saves that were never written because a newer one came first.
        skipped: Registered checkpoints that were missing, corrupt or unreadable on load.
        bytes_written: By those saved.
        write_seconds: In writing, failed writes too; beside the evaluation, so hardly at its expense.
        stall_seconds: For which the evaluation was held up, by snapshots and by waiting for writes.
        read_seconds: In loading.
    """

    saved: int = 0
    failures: int = 0
    superseded: int = 0
    skipped: int = 0
    bytes_written: int = 0
    write_seconds: float = 0.0
    stall_seconds: float = 0.0
    read_seconds: float = 0.0


class ExecutorCheckpoints:
    """Loads from the registered checkpoints of one task, writes new ones, and announces them.

    For one run of one task, used by one thread; the writing is done in another, which :meth:`close` ends.

    Args:
        base_url: Where this worker writes: a directory or an fsspec URL.
        search: The search's name.
        task_id: The task's id.
        epoch: The lease's epoch.
        registered: What the master named with the task, newest first.
        announce: Called in the writing thread with each checkpoint once it is whole on storage; has it
            registered. What it raises goes through to the evaluator's next call.
        log: ``log(event, **fields)``; either thread calls it.
        policy: When a checkpoint is due.
        written: Called in the writing thread after each write, whatever came of it.
        clock: Monotonic seconds.

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
        policy: CheckpointPolicy | None = None,
        written: Callable[[Write], None] = lambda write: None,
        clock: Callable[[], float] = time.monotonic,
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
        self._policy = policy or CheckpointPolicy()
        self._written = written
        self._clock = clock
        self._cost = CostEstimate()
        self._saved_at = clock()
        self._spare = SpareMemory()
        self._writer = BackgroundWriter(self._write, self._supersede)

    @property
    def due(self) -> bool:
        """Whether a save is worth its cost now; false while an earlier one is being written."""
        return self._has_passed(self._policy.interval_seconds(self._cost.seconds))

    @property
    def affordable(self) -> bool:
        """Whether a save now stays within the allowance, due or not; false while an earlier one is being written."""
        return self._has_passed(self._policy.pause_seconds(self._cost.seconds))

    def _has_passed(self, seconds: float) -> bool:
        return not self._writer.busy and self._clock() - self._saved_at >= seconds

    def load(self) -> Mapping[str, Any] | None:
        """The state of the newest checkpoint that is whole, or None.

        Raises:
            CheckpointError: There are checkpoints, none is usable, and the storage rather than their content
                is to blame for at least one: starting afresh would throw work away, so this attempt fails
                instead.
        """
        self._writer.wait()
        started = time.monotonic()
        try:
            loaded = load_newest([(known.url, known.digest) for known in self._known], self._log_skipped)
        finally:
            self.counters.read_seconds += time.monotonic() - started
            self._saved_at = self._clock()
        if loaded is None:
            if self._known:
                self._log("checkpoint.none_usable", tried=len(self._known))
            return None
        self.resumed_step = self._known[loaded.which].step
        self._log("checkpoint.loaded", url=self._known[loaded.which].url, step=self.resumed_step)
        return loaded.state

    def save(self, state: Mapping[str, Any], *, step: int, score: float | None = None, wait: bool = False) -> None:
        """Copy ``state``, and have it written and announced: on return if ``wait``, else in the background.

        A storage that fails is logged and counted, nothing more. :mod:`background` says what happens when saves
        come faster than they are written.

        Raises:
            InvalidInput: The state, step or score can't be kept in a checkpoint: the evaluator is wrong, and
                would have nothing to resume from.
        """
        started = time.monotonic()
        try:
            check_numbers(self._epoch, step, score)
            snapshot = checked(state)
            checking = time.monotonic() - started
            if (superseded := self._writer.make_room(score)) is not None:
                # Before the copy is made: there are never more than two.
                self._spare.give(superseded.snapshot)
                del superseded
            began = time.monotonic()
            if not wait:
                snapshot = snapshot.copied(self._spare)
            stall = None if wait else checking + time.monotonic() - began
            self._writer.hand_over(Save(snapshot, step, score, stall))
            if wait:
                self._writer.wait()
        finally:
            self.counters.stall_seconds += time.monotonic() - started
            self._saved_at = self._clock()

    def wait(self) -> None:
        """Until everything saved is whole on storage and announced, or has failed and was logged."""
        started = time.monotonic()
        try:
            self._writer.wait()
        finally:
            self.counters.stall_seconds += time.monotonic() - started

    def abandon(self) -> None:
        """The run's outcome makes its unwritten checkpoints useless: nothing is announced after this returns.

        What is being written is given up and removed by the writing thread; :meth:`close` waits for that.
        """
        self._writer.abandon()

    def close(self) -> None:
        """:meth:`abandon`, and wait for the end of the writing thread."""
        self._writer.close()

    def _write(self, save: Save) -> None:
        """In the writing thread."""
        started, cpu_started = time.monotonic(), time.thread_time()
        try:
            written = write_checkpoint(
                self._base_url,
                self._search,
                self._task_id,
                self._epoch,
                save.step,
                save.snapshot,
                save.score,
                unwanted=lambda: self._writer.abandoned,
            )
        except GivenUp:
            return
        except CheckpointError as error:
            self.counters.failures += 1
            write = Write(save.step, error=str(error))
            self._log("checkpoint.failed", step=save.step, error=str(error))
        else:
            write = Write(save.step, written.size_bytes)
            self._publish(written)
        finally:
            seconds = time.monotonic() - started
            self.counters.write_seconds += seconds
            if save.stall_seconds is not None:
                self._cost.measured(save.stall_seconds, time.thread_time() - cpu_started)
                self._spare.give(save.snapshot)
        self._written(replace(write, seconds=seconds))

    def _publish(self, written: WrittenCheckpoint) -> None:
        """Announce it; or delete it, if meanwhile nobody wants it."""
        if not self._writer.announce(lambda: self._announce(written)):
            try:
                delete_checkpoint(written.url)
            except CheckpointError as error:
                self._log("checkpoint.not_removed", url=written.url, error=str(error))
            return
        self.counters.saved += 1
        self.counters.bytes_written += written.size_bytes
        self._sweep_once()
        self._known.insert(0, RegisteredCheckpoint(written.url, written.digest, written.step))

    def _supersede(self, save: Save) -> None:
        self.counters.superseded += 1
        self._log("checkpoint.superseded", step=save.step)

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
