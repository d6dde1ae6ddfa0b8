"""When a slot is cordoned, and what its runs' ends are then told as."""

from __future__ import annotations

import asyncio

import pytest

from tenure.proto import worker_pb2 as pb
from tenure.worker.gpu.watch import Incident
from tenure.worker.gpu.xids import APPLICATION, CRITICAL, RECORDED, is_critical, meaning_of
from tenure.worker.slots.health import DEVICE_LOSSES_MAX, SlotHealth

LOST = "CUDA error: unspecified launch failure"


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 8, 11])
async def test_the_evaluations_own_errors_mean_nothing(xid: int) -> None:
    health = SlotHealth(("0",))
    assert not health.note_incident(Incident("0", xid))
    assert (health.cordoned, health.trouble) == (False, "")


@pytest.mark.parametrize("xid", [63, 92, 93, 94])
async def test_trouble_that_was_confined_cordons_nothing_and_explains_a_loss(xid: int) -> None:
    health = SlotHealth(("0",))
    assert not health.note_incident(Incident("0", xid))
    assert not health.cordoned
    assert await health.explanation(LOST) == f"GPU 0: XID {xid}, {meaning_of(xid)}"
    health.begin_run()
    assert health.trouble == "", "an earlier run's"


@pytest.mark.parametrize("xid", [48, 64, 74, 79, 95, 119, 120, 140, 555])
async def test_a_critical_or_unknown_error_cordons_the_slot_once(xid: int) -> None:
    health = SlotHealth(("0", "1"))
    assert health.note_incident(Incident("1", xid))
    assert not health.note_incident(Incident("1", xid)), "it is already"
    assert (health.cordoned, health.cause) == (True, "xid")
    assert health.reason.startswith(f"GPU 1: XID {xid}, ")


async def test_an_operator_may_ignore_an_error_and_a_lost_gpu_is_never_ignored() -> None:
    health = SlotHealth(("0",), frozenset({74}))
    assert not health.note_incident(Incident("0", 74))
    assert health.trouble
    assert health.note_incident(Incident("0", fault="is lost"))
    assert (health.cause, health.reason) == ("fault", "GPU 0 is lost")


def test_no_error_is_of_two_kinds() -> None:
    for xid in {*APPLICATION, *RECORDED, *CRITICAL}:
        assert is_critical(xid) == (xid in CRITICAL)
        assert [xid in kind for kind in (APPLICATION, RECORDED, CRITICAL)].count(True) == 1


async def test_only_its_own_gpus_concern_a_slot() -> None:
    health = SlotHealth(("0", "1"))
    assert [health.concerns(Incident(gpu, 79)) for gpu in ("0", "1", "2")] == [True, True, False]
    assert not SlotHealth().concerns(Incident("0", 79))


async def test_losses_in_a_row_cordon_the_slot() -> None:
    health = SlotHealth(("0",))
    ends = [health.note_ending(f"t{number}", device_lost=True, message=LOST) for number in range(DEVICE_LOSSES_MAX)]
    assert ends == [False] * (DEVICE_LOSSES_MAX - 1) + [True]
    assert health.cause == "device_losses"
    assert LOST in health.reason


async def test_one_task_alone_a_success_between_or_the_evaluations_own_doing_does_not() -> None:
    health = SlotHealth(("0",))
    for _ in range(5 * DEVICE_LOSSES_MAX):
        assert not health.note_ending("the same", device_lost=True, message=LOST)
    assert health.note_ending("another", device_lost=True, message=LOST), "so it wasn't the task"
    health.uncordon()
    for number in range(5 * DEVICE_LOSSES_MAX):
        assert not health.note_ending(f"t{number}", device_lost=number % DEVICE_LOSSES_MAX != 0, message=LOST)
        for message in ("CUDA error: device-side assert triggered", "CUDA error: an illegal memory access was hit"):
            assert not health.note_ending(f"t{number}", device_lost=True, message=message)
    without = SlotHealth()
    assert not any(without.note_ending(f"t{number}", device_lost=True, message=LOST) for number in range(9))


async def test_an_uncordoned_slot_starts_anew() -> None:
    health = SlotHealth(("0",))
    assert not health.uncordon(), "it wasn't"
    health.note_incident(Incident("0", 79))
    waiting = asyncio.create_task(health.until_uncordoned())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert health.uncordon()
    async with asyncio.timeout(60):
        await waiting
    assert (health.cordoned, health.reason, health.trouble) == (False, "", "")
    assert health.note_incident(Incident("0", 79)), "the next error counts again"


async def test_the_drivers_word_may_come_after_the_evaluations_error() -> None:
    health = SlotHealth(("0",))
    waiting = asyncio.create_task(health.explanation(LOST))
    await asyncio.sleep(0)
    health.note_incident(Incident("0", 79))
    async with asyncio.timeout(60):
        assert "XID 79" in await waiting
    assert await SlotHealth().explanation(LOST) == ""
    assert await SlotHealth(("0",)).explanation("CUDA error: device-side assert triggered") == "", (
        "nobody is waited for"
    )


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (pb.OUTCOME_FAILURE, pb.OUTCOME_LOSS),
        (pb.OUTCOME_LOSS, pb.OUTCOME_LOSS),
        (pb.OUTCOME_SUCCESS, pb.OUTCOME_SUCCESS),
        (pb.OUTCOME_RELEASE, pb.OUTCOME_RELEASE),
        (pb.OUTCOME_OUT_OF_MEMORY, pb.OUTCOME_OUT_OF_MEMORY),
    ],
)
async def test_a_failure_that_the_device_is_to_blame_for_is_a_loss(kind: pb.OutcomeKind, told: pb.OutcomeKind) -> None:
    health = SlotHealth(("0",))
    outcome = pb.Outcome(kind=kind, error_class="RuntimeError", error_message=LOST)
    health.blame(outcome, "GPU 0: XID 79")
    assert outcome.kind == told
    if told == pb.OUTCOME_LOSS:
        assert outcome.error_class == "DeviceLost"
        assert outcome.error_message == f"GPU 0: XID 79; {LOST}"
    unexplained = pb.Outcome(kind=kind, error_message=LOST)
    health.blame(unexplained, "")
    health.blame(None, "GPU 0: XID 79")
    assert (unexplained.kind, unexplained.error_message) == (kind, LOST)
