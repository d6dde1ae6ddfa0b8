"""Why tasks wait: what an operator asks first when nothing runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenure.common.estimate import show_bytes
from tenure.common.spec import Requirements
from tenure.common.states import TaskState
from tenure.master.core.matching import Capabilities
from tenure.master.loops.figures import requirements_text
from tenure.master.store.records import ACCEPTS_CODE_LABEL, SearchView


@dataclass(frozen=True)
class Candidate:
    """A registered worker that has not gone, as far as giving it tasks goes."""

    worker_id: str
    capabilities: Capabilities
    live: bool
    mode: str
    slots: int
    leases: int

    @property
    def free(self) -> int:
        """Slots without a lease."""
        return max(0, self.slots - self.leases)


@dataclass(frozen=True)
class Reason:
    """``code`` for programs, ``text`` for people. ``stuck``: nothing will change until somebody does something."""

    code: str
    text: str
    stuck: bool = False


def why_waiting(search: SearchView, requirements: Requirements, workers: Sequence[Candidate]) -> Reason:
    """Why the ready tasks of a search that have these requirements are not all running."""
    if search.status != "active":
        return Reason(search.status, f"the search is {search.status}: resume it", stuck=True)
    leased = search.counts.get(TaskState.LEASED, 0)
    if search.max_leased and leased >= search.max_leased:
        return Reason("capped", f"its cap is reached: {leased} of {search.max_leased} tasks are leased")
    live = [worker for worker in workers if worker.live]
    if not live:
        text = "no worker lives: start one with `tenure worker --master HOST:PORT`"
        return Reason("no_workers", text, stuck=True)
    fitting = [worker for worker in live if worker.capabilities.meets(requirements)]
    if not fitting:
        text = f"no live worker meets {requirements_text(requirements)}: {_lacking(requirements, live)}"
        return Reason("no_fit", text, stuck=True)
    active = [worker for worker in fitting if worker.mode == "active"]
    if not active:
        modes = " or ".join(sorted({worker.mode for worker in fitting}))
        which = _workers(len(fitting))
        return Reason(
            "cordoned", f"the {which} that could take them {_are(len(fitting))} {modes}: uncordon", stuck=True
        )
    free = sum(worker.free for worker in active)
    if not free:
        slots = sum(worker.slots for worker in active)
        return Reason(
            "busy",
            f"{'the slot' if slots == 1 else f'all {slots} slots'} of {_workers(len(active))} that fit "
            f"{_are(slots)} busy",
        )
    return Reason("soon", f"{free} fitting {'slot is' if free == 1 else 'slots are'} free: they are given out in turn")


def _lacking(requirements: Requirements, live: Sequence[Candidate]) -> str:
    """What the workers lack, each thing by itself."""
    least = Requirements(gpus=requirements.gpus)
    if not any(worker.capabilities.meets(least) for worker in live):
        most = max(worker.capabilities.gpus for worker in live)
        return f"no slot has more than {most} GPU{'' if most == 1 else 's'}" if most else "no slot has a GPU"
    if not any(worker.capabilities.meets(Requirements(memory_bytes=requirements.memory_bytes)) for worker in live):
        return f"no slot has more than {show_bytes(max(worker.capabilities.memory_bytes for worker in live))} of memory"
    for name, value in sorted(requirements.labels.items()):
        if not any(worker.capabilities.meets(Requirements(labels={name: value})) for worker in live):
            if name == ACCEPTS_CODE_LABEL:
                return "start one with --accept-code"
            return f"none has the label {name}={value}"
    return "each has a part of it, none has all"


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
