"""The pushed-to worker's link, in this process, against a real server."""

from __future__ import annotations

import asyncio
import random
from unittest import mock

import pytest
from scripted_master import ScriptedMaster
from worker_process import eventually

from tenure.proto import worker_pb2 as pb
from tenure.worker.push_client import PushLink
from tenure.worker.settings import load_settings


async def test_its_pauses_stay_below_the_masters_heartbeat_interval(
    master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease lives for two intervals at least: with longer pauses a master that starts again finds the leases run out
    before their worker comes back."""
    caps: list[float] = []

    def no_pause(low: float, high: float) -> float:
        caps.append(high)
        return low

    settings = load_settings(master=master.address, dispatch="push")
    holdings = mock.Mock(runs={}, renewals=list, spool=mock.MagicMock(pending=list))
    registration = pb.RegisterRequest(worker_id="w", instance_id="i")
    link = PushLink(settings, holdings, registration, pb.WorkerMetrics, mock.Mock(), mock.Mock())
    running = asyncio.create_task(link.run())
    try:
        await master.until(lambda heard: heard.heartbeats)
        monkeypatch.setattr(random, "uniform", no_pause)
        await master.vanish()
        await eventually(lambda: len(caps) > 20, what="twenty attempts")
        assert max(caps[-10:]) == pytest.approx(0.18), "a share of the 300 ms that the master told"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
