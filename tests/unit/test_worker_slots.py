"""Slots, executions and holdings where no process is needed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tenure.proto import worker_pb2 as pb
from tenure.worker.gpu.devices import SlotDevices
from tenure.worker.gpu.watch import Incident
from tenure.worker.holdings import Holdings
from tenure.worker.leases import LeaseKey
from tenure.worker.metrics import Instruments
from tenure.worker.output import RunLogs
from tenure.worker.runs import Run, StopReason
from tenure.worker.scratch import Scratch, take_leftovers
from tenure.worker.settings import load_settings
from tenure.worker.slots.execution import Execution
from tenure.worker.slots.executor_process import Exited
from tenure.worker.slots.executor_start import SlotSettings
from tenure.worker.slots.health import SlotHealth
from tenure.worker.slots.slot import Slot, SlotState
from tenure.worker.spool import Spool


@pytest.fixture
async def holdings(tmp_path: Path) -> Holdings:
    """Open holdings with one slot that has no executor yet."""
    logs = RunLogs(tmp_path / "logs")
    held = Holdings(load_settings(), Instruments(), Spool(tmp_path / "spool", 1), [], logs, registers_checkpoints=True)
    await held.recover()
    settings = SlotSettings("m:f", str(tmp_path), 0, 0, 5.0, 5.0)
    held.slots = [
        Slot(
            0,
            devices=SlotDevices(),
            environment={},
            settings=settings,
            observer=held,
            logs=logs,
            scratch=Scratch(tmp_path / "runs", 0),
        )
    ]
    held.open = True
    return held


def task(task_id: str, token: str = "k", epoch: int = 1) -> pb.EvaluateRequest:
    return pb.EvaluateRequest(task_id=task_id, lease_token=token, epoch=epoch)


async def test_a_slot_takes_one_run_and_only_when_it_could_start(holdings: Holdings) -> None:
    (slot,) = holdings.slots
    assert holdings.claimable() == 0
    slot.state = SlotState.FREE
    assert holdings.claimable() == 1
    run = holdings.accept(task("a"))
    assert run is not None
    assert slot.run is run
    assert holdings.claimable() == 0
    with pytest.raises(RuntimeError, match="takes no task"):
        slot.assign(run)
    slot.state = SlotState.BROKEN
    assert not slot.claimable


async def test_a_slot_is_cordoned_at_the_moment_of_the_incident(holdings: Holdings) -> None:
    (slot,) = holdings.slots
    slot.health = SlotHealth(("0",))
    slot.state = SlotState.FREE
    slot.take_incident(Incident("1", 79))
    assert holdings.claimable() == 1, "of another GPU"
    slot.take_incident(Incident("0", 79))
    assert holdings.claimable() == 0
    assert holdings.accept(task("a"), may_wait=False) is None
    slot.uncordon()
    assert holdings.claimable() == 1


async def test_a_run_that_waits_in_a_slot_that_is_cordoned_is_handed_back(holdings: Holdings) -> None:
    (slot,) = holdings.slots
    slot.health = SlotHealth(("0",))
    slot.state = SlotState.CLEANING
    run = holdings.accept(task("a"))
    assert run is not None
    slot.take_incident(Incident("0", 79))
    serving = asyncio.create_task(slot.serve())
    async with asyncio.timeout(60):
        outcome = await run.ended
    assert outcome is not None
    assert outcome.kind == pb.OUTCOME_RELEASE
    assert "XID 79" in outcome.error_message
    assert slot.state is SlotState.CORDONED
    serving.cancel()
    await asyncio.wait((serving,))


async def test_a_run_whose_executor_is_still_starting_is_handed_back_at_once(holdings: Holdings) -> None:
    (slot,) = holdings.slots
    slot.state = SlotState.FREE
    run = holdings.accept(task("a"))
    assert run is not None
    slot.state = SlotState.STARTING
    holdings.stop(run, StopReason.DRAIN)
    outcome = await run.ended
    assert outcome is not None
    assert outcome.kind == pb.OUTCOME_RELEASE
    assert slot.run is None
    assert holdings.runs == {}
    assert [one.task_id for one in holdings.spool.pending()] == ["a"]


async def test_a_run_that_waits_and_is_lost_tells_nobody(holdings: Holdings) -> None:
    run = holdings.accept(task("a"))
    assert run is not None, "it may wait a moment"
    holdings.stop(run, StopReason.LOST)
    assert await run.ended is None
    assert len(holdings.spool) == 0
    assert holdings.accept(task("b"), may_wait=False) is None


async def test_a_closed_worker_takes_nothing(holdings: Holdings) -> None:
    holdings.slots[0].state = SlotState.FREE
    holdings.set_open(False)
    assert holdings.claimable() == 0
    assert holdings.accept(task("a")) is None
    holdings.refuse(task("a"), "drains")
    await holdings.settle_background()
    assert [one.kind for one in holdings.spool.pending()] == [pb.OUTCOME_RELEASE]
    assert [one.task_id for one in holdings.renewals()] == ["a"], "held until there is a verdict"


async def test_a_revoked_failure_is_forgotten_and_a_revoked_success_is_still_offered(holdings: Holdings) -> None:
    for task_id, kind in (("good", pb.OUTCOME_SUCCESS), ("bad", pb.OUTCOME_FAILURE)):
        await holdings.spool.put(pb.Outcome(task_id=task_id, lease_token="k", kind=kind))
        holdings.revoke(pb.Revocation(task_id=task_id, lease_token="k", reason="lost"))
    assert [one.task_id for one in holdings.spool.pending()] == ["good"]


@pytest.mark.parametrize(
    ("verdict", "forgotten"),
    [
        (pb.VERDICT_UNSPECIFIED, False),
        (pb.VERDICT_OK, True),
        (pb.VERDICT_STALE, True),
        (pb.VERDICT_DUPLICATE, True),
        (pb.VERDICT_WRONG_STATE, True),
        (pb.VERDICT_UNKNOWN_TASK, True),
        (pb.VERDICT_INVALID, True),
        (77, True),
    ],
)
async def test_any_verdict_lets_an_outcome_go(holdings: Holdings, verdict: Any, forgotten: bool) -> None:
    await holdings.spool.put(pb.Outcome(task_id="a", lease_token="k", kind=pb.OUTCOME_SUCCESS))
    holdings.take_outcome_verdict(LeaseKey("a", "k"), verdict)
    assert (len(holdings.spool) == 0) is forgotten


async def test_what_an_earlier_process_left_is_taken_up(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1)
    await spool.open()
    await spool.put(pb.Outcome(task_id="ended", lease_token="k", kind=pb.OUTCOME_SUCCESS))
    await spool.put(pb.Outcome(task_id="of a MorphML master", kind=pb.OUTCOME_SUCCESS))
    await spool.close()
    for slot, (task_id, token) in enumerate((("ended", "k"), ("died", "k"), ("legacy", ""))):
        Scratch(tmp_path / "runs", slot).begin(task(task_id, token))
    held = Holdings(
        load_settings(),
        Instruments(),
        Spool(tmp_path / "spool", 1),
        take_leftovers(tmp_path / "runs"),
        RunLogs(tmp_path / "logs"),
        registers_checkpoints=True,
    )
    await held.recover()
    assert [(one.task_id, one.kind) for one in held.spool.pending()] == [
        ("ended", pb.OUTCOME_SUCCESS),
        ("died", pb.OUTCOME_LOSS),
    ]


class _Executor:
    """An executor that says what the test puts into its events."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def wake(self) -> None:
        self.events.put_nowait(None)

    def kill(self, reason: str) -> None:
        self.events.put_nowait(Exited(signal=9, code=0, killed=True, reason=reason))


@pytest.mark.parametrize(
    "message",
    [
        {"type": "done", "run": 1},
        {"type": "done", "run": 1, "metrics": 3, "detail": "", "architecture": ""},
        {"type": "done", "run": 1, "metrics": {}, "detail": 3, "architecture": ""},
        {"type": "progress", "run": 1},
        {"type": "progress", "run": 1, "sequence": "x", "step": 1, "total_steps": 1, "metrics": {}},
        {"type": "checkpoint", "run": 1, "checkpoint": {"nonsense": 1}},
        {"type": "checkpoint", "run": 1, "checkpoint": None},
        {"type": "resumed", "run": 1, "step": None},
        {"type": "log", "run": 1, "event": "e", "fields": 3},
    ],
    ids=str,
)
async def test_an_executor_that_talks_nonsense_is_killed(holdings: Holdings, message: dict[str, Any]) -> None:
    executor: Any = _Executor()
    run = Run(1, task("a"))
    run.start(Scratch(Path("/nonexistent"), 0), executor.wake)
    executor.events.put_nowait({"type": "progress", "run": 7})
    executor.events.put_nowait(message)
    async with asyncio.timeout(60):
        ending = await Execution(run, executor, holdings, 1.0).follow()
    assert isinstance(ending, Exited)
    assert "broke the protocol" in ending.reason


async def test_a_success_under_way_when_the_executor_is_killed_still_counts(holdings: Holdings) -> None:
    executor: Any = _Executor()
    run = Run(1, task("a"))
    run.start(Scratch(Path("/nonexistent"), 0), executor.wake)
    done = {"type": "done", "run": 1, "metrics": {"fitness": 1.0}, "detail": "", "architecture": ""}
    executor.kill = lambda reason: executor.events.put_nowait(done)
    run.stop(StopReason.DRAIN, 0.0)
    async with asyncio.timeout(60):
        assert await Execution(run, executor, holdings, 1.0).follow() == done
    assert executor.sent == [{"type": "stop", "run": 1, "reason": "drain"}]
