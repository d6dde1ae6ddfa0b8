"""``tenure workers show``, and a GPU's errors from the driver to the operator and back: real master and workers, and
recorded GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import ARCHITECTURE, Cluster
from command_line import CommandLine
from processes import eventually
from worker_process import TESTS, WorkerProcess

from tenure.client import TaskResult

REASON = "GPU 0: XID 79, the GPU has fallen off the bus"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A master; workers are added by the test."""
    made = await asyncio.to_thread(Cluster, tmp_path, heartbeat_seconds=0.3)
    try:
        yield made
    finally:
        await made.destroy()


async def add(cluster: Cluster, recording: str, **settings: object) -> WorkerProcess:
    """A worker whose GPUs are a recording."""
    worker = cluster.workers["gpu-box"] = WorkerProcess(cluster.root, "gpu-box")
    worker.program = (str(TESTS / "worker_with_gpus.py"), recording, str(cluster.root))
    return await worker.start(cluster.master.address, evaluator="leaving_evaluators:evaluate", **settings)


async def carry_out(cluster: Cluster, key: str, gpus: int) -> TaskResult:
    """One task that requires GPUs."""
    search = cluster.client.search("s")

    def submit_and_wait() -> TaskResult:
        return search.submit(ARCHITECTURE, key=key, requirements={"gpus": gpus}).result(60)

    return await asyncio.to_thread(submit_and_wait)


@pytest.mark.parametrize("dispatch", ["pull", "push"])
async def test_a_cordoned_slot_is_shown_and_uncordoned(
    cluster: Cluster, dispatch: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = CommandLine(cluster.master.address, capsys, monkeypatch)
    await add(cluster, "xid", dispatch=dispatch)
    for gate in ("xid-31", "xid-94", "xid-79"):
        (cluster.root / gate).touch()

    def slots() -> list[tuple[str, str]]:
        # One that is pushed to serves before it has registered.
        return [(slot.state, slot.cordon_reason) for box in cluster.client.workers() for slot in box.slot_list]

    await eventually(lambda: asyncio.to_thread(lambda: slots() == [("cordoned", REASON), ("free", "")]))
    page = await asyncio.to_thread(said, "workers", "show", "gpu-box")
    assert page.code == 0
    lines = page.out.splitlines()
    assert next(line for line in lines if line.startswith("gpus")).endswith("2, 1 for each slot")
    assert any("cordoned" in line and REASON in line for line in lines)
    (first,) = [line for line in lines if "NVIDIA H100" in line]
    for text in ("93 %", "60.0 of 80 GiB", "61 °C", "412 W", "3 + 0", "2, last 79", "slowed: power cap"):
        assert text in first
    (second,) = [line for line in lines if "RTX 4090" in line]
    assert " W " not in second, "it doesn't say"
    told = (await asyncio.to_thread(said, "workers", "show", "gpu-box", "--output", "json")).json
    assert (told["gpus_per_slot"], told["gpus"][0]["last_xid"], told["gpus"][1]["power_watts"]) == (1, 79, None)
    assert "0/2, 1 cordoned" in (await asyncio.to_thread(said, "workers", "list")).out
    await eventually(lambda: 'tenure_slots{use="free"} 1.0' in cluster.master.get("/metrics")[1])
    await carry_out(cluster, "on the other", 1)

    assert (await asyncio.to_thread(said, "workers", "uncordon", "gpu-box")).code == 0
    await eventually(lambda: asyncio.to_thread(lambda: slots() == [("free", ""), ("free", "")]))


async def test_an_unknown_worker_is_said_to_be_unknown(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = CommandLine(cluster.master.address, capsys, monkeypatch)
    answer = await asyncio.to_thread(said, "workers", "show", "nobody")
    assert answer.code == 4
    assert "no worker of this id has registered" in answer.err


async def test_a_task_that_requires_two_gpus_waits_for_slots_that_have_them(cluster: Cluster) -> None:
    await add(cluster, "four_gpus")
    task = asyncio.create_task(carry_out(cluster, "two", 2))
    await carry_out(cluster, "one", 1)
    assert not task.done()
    await cluster.workers["gpu-box"].destroy()
    await add(cluster, "four_gpus", gpus_per_slot=2)
    async with asyncio.timeout(60):
        result = await task
    assert '"devices": ["cuda:0", "cuda:1"]' in result.detail
