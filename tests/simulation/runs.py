"""One run of a task on a worker: how far it gets, what it saves, how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.world import BROKEN, FLAKY, GOOD, HUNGRY, POISON, WRONG
from tenure.master.store.records import Grant
from tenure.proto import worker_pb2

if TYPE_CHECKING:
    from simulation.workers import SimulatedWorker

# From the task's arrival to the first step: import, data, model.
STARTUP_MS = 20_000
CHECKPOINT_MS = 600_000
KEPT = 2


class Run:
    """See the module. Progress is in ms of computing.

    Attributes:
        number: The task's.
        base_ms: Progress that the checkpoint had which it began from.
        saved_ms: Progress of the newest registered checkpoint.
        alive: Whether it still computes.
    """

    __slots__ = (
        "alive",
        "base_ms",
        "began_ms",
        "end_ms",
        "epoch",
        "failing",
        "number",
        "saved_ms",
        "task_id",
        "token",
        "worker",
    )

    def __init__(
        self,
        worker: SimulatedWorker,
        number: int,
        grant: Grant,
        now_ms: int,
        duration_ms: int,
        fate: int,
        weakness: float,
    ) -> None:
        self.worker = worker
        self.number = number
        self.task_id = grant.task_id
        self.token = grant.token
        self.epoch = grant.epoch
        self.base_ms = self.saved_ms = grant.checkpoints[0].step if grant.checkpoints else 0
        self.began_ms = now_ms + STARTUP_MS
        self.alive = True
        self.failing = fate in (WRONG, BROKEN, POISON) or (fate in (FLAKY, HUNGRY) and grant.epoch == 1)
        reach = max(self.base_ms + 1_000, int(weakness * duration_ms)) if self.failing else duration_ms
        self.end_ms = self.began_ms + max(0, reach - self.base_ms)

    def progress_ms(self, now_ms: int) -> int:
        """How far it has got."""
        return self.base_ms + max(0, min(now_ms, self.end_ms) - self.began_ms)

    def shift(self, ms: int) -> None:
        """It stood still for that long."""
        self.began_ms += ms
        self.end_ms += ms

    def unregistered(self, now_ms: int) -> list[int]:
        """Progress of the checkpoints that were saved by then and aren't registered: the newest that would be kept."""
        newest = self.progress_ms(now_ms) // CHECKPOINT_MS
        oldest = max(newest - KEPT + 1, self.saved_ms // CHECKPOINT_MS + 1)
        return [step * CHECKPOINT_MS for step in range(oldest, newest + 1) if step * CHECKPOINT_MS > self.base_ms]

    def checkpoint(self, step_ms: int) -> worker_pb2.RegisterCheckpoint:
        """The announcement of one."""
        checkpoint = worker_pb2.Checkpoint(
            url=f"file:///checkpoints/{self.task_id}/{self.epoch}-{step_ms}",
            step=step_ms,
            digest="0" * 64,
            size_bytes=1,
            epoch=self.epoch,
        )
        return worker_pb2.RegisterCheckpoint(task_id=self.task_id, lease_token=self.token, checkpoint=checkpoint)

    def renewal(self) -> worker_pb2.Renewal:
        """That it still holds its lease."""
        return worker_pb2.Renewal(task_id=self.task_id, lease_token=self.token, epoch=self.epoch)

    def outcome(self, fate: int) -> worker_pb2.Outcome:
        """How it ended by itself."""
        if not self.failing:
            fate = GOOD
        common = {"task_id": self.task_id, "lease_token": self.token, "epoch": self.epoch}
        if fate == GOOD:
            metrics = {"fitness": (self.number % 1000) / 1000}
            return worker_pb2.Outcome(kind=worker_pb2.OUTCOME_SUCCESS, metrics=metrics, **common)
        if fate == POISON:
            return worker_pb2.Outcome(
                kind=worker_pb2.OUTCOME_LOSS, exit_signal=11, error_class="ExecutorDied", **common
            )
        if fate == HUNGRY:
            return worker_pb2.Outcome(
                kind=worker_pb2.OUTCOME_OUT_OF_MEMORY, error_class="OutOfMemoryError", retryable=True, **common
            )
        return worker_pb2.Outcome(
            kind=worker_pb2.OUTCOME_FAILURE, error_class="ValueError", retryable=fate != WRONG, **common
        )

    def release(self) -> worker_pb2.Outcome:
        """It is handed back."""
        return worker_pb2.Outcome(
            kind=worker_pb2.OUTCOME_RELEASE, task_id=self.task_id, lease_token=self.token, epoch=self.epoch
        )
