"""Whether a slot's devices can be trusted, and whose fault the end of a run was.

A slot is cordoned (it takes no more tasks until an operator uncordons it, or the worker starts anew) by

* a critical XID error of one of its GPUs (``gpu/xids.py``), or NVML's word that the GPU is lost or needs a reset;
* evaluations of different tasks that lost their device, one after the other, without any XID to explain it.

What runs in it then ends as a loss, not as the task's own failure; so does a run that lost its device while the driver
reported trouble of the hardware that cordons nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from tenure.proto import worker_pb2
from tenure.worker.gpu.watch import Incident
from tenure.worker.gpu.xids import APPLICATION, is_critical

# So many in a row, of at least two tasks.
DEVICE_LOSSES_MAX = 3
# How long after a lost device the driver may take to say why.
_EXPLANATION_SECONDS = 0.5
# The evaluation's own doing: these say nothing about the device, however often they come.
_OWN_DOING = re.compile(r"device-side assert|illegal memory access|misaligned address|illegal instruction")

Kind = worker_pb2.OutcomeKind


class SlotHealth:
    """What is known of one slot's devices. One event loop uses it.

    Attributes:
        cause: ``xid``, ``fault`` or ``device_losses``: why the slot is cordoned; empty while it isn't.
        reason: The same for people.
        trouble: What the driver has said of the hardware since the run began.
    """

    def __init__(self, gpus: tuple[str, ...] = (), ignored_xids: frozenset[int] = frozenset()) -> None:
        self.cause = ""
        self.reason = ""
        self._gpus = gpus
        self._ignored = ignored_xids
        self._lost_tasks: list[str] = []
        self.trouble = ""
        self._struck = asyncio.Event()
        self._uncordoned = asyncio.Event()

    @property
    def cordoned(self) -> bool:
        """Whether the slot must take no tasks."""
        return bool(self.cause)

    def concerns(self, incident: Incident) -> bool:
        """Whether it happened to one of this slot's devices."""
        return incident.gpu in self._gpus

    def note_incident(self, incident: Incident) -> bool:
        """Take an incident of one of its devices; whether it cordons the slot, just now."""
        if incident.xid in APPLICATION:
            return False
        self.trouble = self.trouble or incident.text
        self._struck.set()
        if incident.xid and not is_critical(incident.xid, self._ignored):
            return False
        return self._cordon("xid" if incident.xid else "fault", incident.text)

    def begin_run(self) -> None:
        """A run begins: what was before isn't its trouble."""
        self.trouble = ""
        self._struck.clear()

    async def explanation(self, message: str) -> str:
        """Why a run has just lost its device with this error, by the driver's word, which may come a moment later;
        empty if it has none."""
        if self._gpus and not self.trouble and not _OWN_DOING.search(message):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._struck.wait(), _EXPLANATION_SECONDS)
        return self.trouble

    def note_ending(self, task_id: str, *, device_lost: bool, message: str = "") -> bool:
        """A run has ended by itself; whether that cordons the slot, just now."""
        if not device_lost:
            self._lost_tasks.clear()
            return False
        if not self._gpus or _OWN_DOING.search(message):
            return False
        self._lost_tasks.append(task_id)
        if len(self._lost_tasks) < DEVICE_LOSSES_MAX or len(set(self._lost_tasks)) < 2:
            return False
        return self._cordon(
            "device_losses",
            f"GPU {', '.join(self._gpus)}: {len(self._lost_tasks)} evaluations in a row lost it, the last: {message}",
        )

    def uncordon(self) -> bool:
        """Trust the devices again; whether they were not trusted."""
        was = self.cordoned
        self.cause = self.reason = self.trouble = ""
        self._lost_tasks.clear()
        self._uncordoned.set()
        return was

    async def until_uncordoned(self) -> None:
        """Wait while the slot is cordoned."""
        while self.cordoned:
            self._uncordoned.clear()
            await self._uncordoned.wait()

    def blame(self, outcome: worker_pb2.Outcome | None, explanation: str) -> None:
        """Make an outcome that the device is to blame for a loss."""
        if outcome is not None and explanation and outcome.kind in (Kind.OUTCOME_FAILURE, Kind.OUTCOME_LOSS):
            told = outcome.error_message
            outcome.kind = Kind.OUTCOME_LOSS
            outcome.retryable = True
            outcome.error_class = "DeviceLost"
            outcome.error_message = f"{explanation}; {told}" if told else explanation

    def _cordon(self, cause: str, reason: str) -> bool:
        if self.cordoned:
            return False
        self.cause, self.reason = cause, reason[:500]
        return True
