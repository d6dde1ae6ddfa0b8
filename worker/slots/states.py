"""What a slot is doing, and whom it tells."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from tenure.proto import worker_pb2
from tenure.worker.runs import Run
from tenure.worker.slots.execution import RunObserver

if TYPE_CHECKING:
    from tenure.worker.slots.slot import Slot


class SlotState(enum.Enum):
    """What a slot is doing; the value is the label in metrics."""

    STARTING = "starting"
    FREE = "free"
    RUNNING = "running"
    CLEANING = "cleaning"
    BROKEN = "broken"
    CORDONED = "cordoned"


class SlotObserver(RunObserver, Protocol):
    """Whom a slot tells what happens in it."""

    def capacity_changed(self) -> None:
        """:attr:`Slot.claimable` may have changed."""

    def run_started(self, slot: Slot, run: Run) -> None:
        """The run is in the executor."""

    async def run_ended(self, slot: Slot, run: Run, outcome: worker_pb2.Outcome | None) -> None:
        """The run is over; on return the outcome is kept and the slot may take the next task."""

    def executor_replaced(self, slot: Slot, reason: str) -> None:
        """The slot gives up its executor and starts another."""

    def left_behind(self, slot: Slot, processes: int, threads: int) -> None:
        """A run has left these: the processes were ended, the threads go on."""
