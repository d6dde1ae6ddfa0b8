"""The watch over GPUs: XID errors and losses, by recorded events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from nvml_double import ReplayedNvml, replayed
from worker_process import eventually

from tenure.worker.gpu import watch as gpu_watch
from tenure.worker.gpu.watch import GpuWatch, Incident
from tenure.worker.machine import Machine

Begin = Callable[..., tuple[GpuWatch, list[Incident]]]


@pytest.fixture
async def begin(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Begin]:
    """Starts watches, and ends them."""
    monkeypatch.setattr(gpu_watch, "WAIT_MS", 20)
    monkeypatch.setattr(gpu_watch, "_FAULTS_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(gpu_watch, "_ERROR_PAUSE_SECONDS", 0.02)
    watches: list[GpuWatch] = []

    def start(nvml: ReplayedNvml, visible: str | None = None) -> tuple[GpuWatch, list[Incident]]:
        incidents: list[Incident] = []
        environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        watch = Machine(nvml, environment).watch(incidents.append)
        watch.start()
        watches.append(watch)
        return watch, incidents

    yield start
    for watch in watches:
        watch.stop()
        if watch._thread is not None:
            await asyncio.to_thread(watch._thread.join, 10)
            assert not watch._thread.is_alive()


async def test_xid_errors_are_told_as_they_come_and_counted(begin: Begin, tmp_path: Path) -> None:
    watch, incidents = begin(replayed("xid", str(tmp_path)))
    (tmp_path / "xid-31").touch()
    await eventually(lambda: incidents == [Incident("0", 31)])
    (tmp_path / "xid-94").touch()
    (tmp_path / "xid-79").touch()
    await eventually(lambda: len(incidents) == 3)
    assert incidents[1:] == [Incident("1", 94), Incident("0", 79)]
    assert watch.xid_counts() == {"0": Counter({31: 1, 79: 1}), "1": Counter({94: 1})}
    assert (watch.last_xid("0"), watch.last_xid("1"), watch.last_xid("2")) == (79, 94, 0)


async def test_an_error_of_a_gpu_that_is_not_ours_strikes_nobody(begin: Begin, tmp_path: Path) -> None:
    for gate in ("xid-31", "xid-94", "xid-79"):
        (tmp_path / gate).touch()
    _watch, incidents = begin(replayed("xid", str(tmp_path)), visible="1")
    await eventually(lambda: incidents)
    assert incidents == [Incident("1", 94)]


async def test_an_error_of_one_mig_device_spares_the_other_and_one_of_the_gpu_strikes_both(
    begin: Begin, tmp_path: Path
) -> None:
    first, second = (f"MIG-{digit * 8}-0000-0000-0000-000000000000" for digit in "12")
    nvml = replayed("mig", str(tmp_path))
    _watch, incidents = begin(nvml)
    (tmp_path / "xid-48").touch()
    await eventually(lambda: incidents == [Incident(second, 48)])
    (tmp_path / "xid-64").touch()
    await eventually(lambda: incidents[1:] == [Incident(first, 64), Incident(second, 64)])
    registered = [call for call in nvml.calls if call.startswith("nvmlDeviceRegisterEvents")]
    assert len(registered) == 2, "each GPU once, not each MIG device"


async def test_a_lost_gpu_is_told_once_while_the_other_is_watched_on(begin: Begin) -> None:
    nvml = replayed("gpu_lost")
    _watch, incidents = begin(nvml)
    await eventually(lambda: incidents)
    looks = nvml.calls.count("nvmlDeviceGetMemoryInfo(gpu1)")
    await eventually(lambda: nvml.calls.count("nvmlDeviceGetMemoryInfo(gpu1)") > looks + 2)
    assert [(one.gpu, one.xid) for one in incidents] == [("0", 0)]
    assert incidents[0].text == "GPU 0 is lost: it has fallen off the bus or is otherwise inaccessible"


@pytest.mark.parametrize("refused", ["nvmlEventSetCreate()", "nvmlDeviceRegisterEvents({}, 8, events)"])
async def test_without_events_the_watch_still_notices_a_loss(begin: Begin, refused: str) -> None:
    error = {"error": "NVML_ERROR_NOT_SUPPORTED"}
    answers: dict[str, Any] = {refused.format(gpu): error for gpu in ("gpu0", "gpu1")}
    _watch, incidents = begin(replayed("gpu_lost", answers=answers))
    await eventually(lambda: [one.gpu for one in incidents] == ["0"])


async def test_without_gpus_there_is_nothing_to_watch(begin: Begin) -> None:
    watch, _incidents = begin(replayed("no_driver"))
    assert watch._thread is None
    assert watch.xid_counts() == {}
