"""GPUs on the wire: which tasks a worker is given for its slots, and what it says of its GPUs and slots."""

from __future__ import annotations

import math

import grpc
import pytest
from processes import eventually
from raw_peers import Broker, OpenSession, refused

from tenure.proto import tenure_pb2, worker_pb2

GPUS = [
    worker_pb2.GpuFigures(
        gpu="0",
        model="NVIDIA H100 80GB HBM3",
        slots=[0, 1],
        utilization=93,
        memory_used_bytes=60 << 30,
        memory_total_bytes=80 << 30,
        temperature_celsius=61,
        power_watts=412.5,
        ecc_corrected=3,
        ecc_uncorrected=0,
        throttling=["power cap"],
        xid_errors=2,
        last_xid=79,
        fault="is lost",
    ),
    worker_pb2.GpuFigures(gpu="MIG-1", utilization=math.nan, power_watts=math.inf, model="x" * 5000),
]
SLOTS = [
    worker_pb2.SlotFigures(slot=0, state="running", gpus=["0"], task_id="0-abc"),
    worker_pb2.SlotFigures(slot=1, state="cordoned", gpus=["0"], cordon_reason="GPU 0: XID 79"),
]


@pytest.mark.parametrize(
    ("registration", "gpus", "given"),
    [
        # A legacy peer shares its GPUs evenly; one that says what its slots have is believed.
        ({"num_gpus": 4, "slots": 2}, 2, True),
        ({"num_gpus": 4, "slots": 4}, 2, False),
        ({"num_gpus": 2, "slots": 4}, 1, False),
        ({"num_gpus": 4, "slots": 4, "gpus_per_slot": 4}, 4, True),
        ({"num_gpus": 2, "slots": 4, "gpus_per_slot": 1}, 1, True),
        ({"num_gpus": 4, "slots": 2, "gpus_per_slot": 1}, 2, False),
        # The CPU stands for two devices.
        ({"num_gpus": 0, "slots": 1, "gpus_per_slot": 2}, 2, True),
    ],
)
async def test_a_task_goes_to_slots_with_enough_gpus(
    open_session: OpenSession,
    broker: Broker,
    search: str,
    registration: dict[str, int],
    gpus: int,
    given: bool,
) -> None:
    (task_id,) = await broker.submit(search, requirements=tenure_pb2.Requirements(gpus=gpus))
    session = await open_session(want=1, **registration)
    if given:
        assert (await session.hear_task()).task_id == task_id
    else:
        await session.expect_silence("tasks")
    said = registration.get("gpus_per_slot") or registration["num_gpus"] // registration["slots"]
    assert (await broker.worker(session.worker_id)).gpus_per_slot == said


async def test_gpus_per_slot_has_its_limits(open_session: OpenSession) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", "gpus_per_slot", "-1"):
        await open_session(gpus_per_slot=-1)


async def test_gpus_and_slots_are_listed_as_the_worker_said_them(open_session: OpenSession, broker: Broker) -> None:
    session = await open_session()
    before = await broker.worker(session.worker_id)
    assert (list(before.gpus), list(before.slot_list)) == ([], [])
    await session.heartbeat(metrics=worker_pb2.WorkerMetrics(gpus=GPUS, slots=SLOTS))
    worker = await broker.worker(session.worker_id)
    first, second = worker.gpus
    assert first.SerializeToString(deterministic=True) == GPUS[0].SerializeToString(deterministic=True)
    assert [field.name for field, _ in second.ListFields()] == ["gpu", "model"], "no number that is none"
    assert len(second.model) == 200
    assert [
        (slot.slot, slot.state, list(slot.gpus), slot.cordon_reason, slot.task_id) for slot in worker.slot_list
    ] == [
        (0, "running", ["0"], "", "0-abc"),
        (1, "cordoned", ["0"], "GPU 0: XID 79", ""),
    ]
    # A process that starts anew has said nothing yet.
    again = await open_session(session.worker_id, instance_id="instance-2")
    worker = await broker.worker(again.worker_id)
    assert (list(worker.gpus), list(worker.slot_list)) == ([], [])


async def test_uncordoning_is_told_to_a_worker_that_was_never_cordoned(
    open_session: OpenSession, broker: Broker
) -> None:
    """Its slots may have cordoned themselves."""
    session = await open_session()
    await broker.api.UncordonWorker(tenure_pb2.WorkerName(worker_id=session.worker_id))
    assert not (await session.hear("drain")).drain.active
    await session.expect_silence("drain")


async def test_uncordoning_is_told_once_with_the_answer_to_a_heartbeat(broker: Broker, search: str) -> None:
    worker_id = f"{search}-pushed"
    registration = worker_pb2.RegisterRequest(worker_id=worker_id, instance_id="i", slots=1)
    await broker.workers.RegisterWorker(registration)

    async def told() -> bool:
        answer = await broker.workers.Heartbeat(worker_pb2.HeartbeatRequest(worker_id=worker_id, instance_id="i"))
        assert answer.acknowledged
        return bool(answer.uncordoned)

    assert not await told()
    await broker.api.UncordonWorker(tenure_pb2.WorkerName(worker_id=worker_id))
    await eventually(told)
    assert not await told()
    await broker.api.UncordonWorker(tenure_pb2.WorkerName(worker_id=worker_id))
    await broker.api.CordonWorker(tenure_pb2.WorkerName(worker_id=worker_id))
    assert not await told(), "it is cordoned again"
