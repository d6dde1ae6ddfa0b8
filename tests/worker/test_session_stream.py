"""The worker's end of the session stream, in this process, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from unittest import mock

import grpc.aio
import pytest
from scripted_master import ScriptedMaster

from tenure.common.addresses import parse_address
from tenure.proto import worker_pb2 as pb
from tenure.worker.channels import open_channel
from tenure.worker.link import Contact, Unreachable
from tenure.worker.session_stream import SessionStream


async def _nobody_else(_: float) -> bool:
    return False


class _Nothing:
    """Holdings of a worker that holds nothing and wants nothing."""

    def __init__(self) -> None:
        self.runs: dict[object, object] = {}
        self.spool = mock.Mock(pending=list)
        self.announcements = mock.Mock(to_send=lambda again: [])
        self.logs = mock.Mock()

    def renewals(self) -> list[pb.Renewal]:
        return []

    def news(self) -> list[pb.Renewal]:
        return []

    def claimable(self) -> int:
        return 0


async def _served(
    master: ScriptedMaster, trouble: Callable[[SessionStream, grpc.aio.Channel], Awaitable[None]]
) -> BaseException | None:
    """What ends a session's ``serve`` when ``trouble`` comes over it."""
    stream = SessionStream(_Nothing(), pb.WorkerMetrics, lambda drain: None, Contact(), _nobody_else)  # type: ignore[arg-type]
    async with open_channel(parse_address(f"127.0.0.1:{master.port}", "master"), "none", keepalive=True) as channel:
        await stream.open(channel, pb.RegisterRequest(worker_id="w", instance_id="i"), 10)
        serving = asyncio.create_task(stream.serve())
        await asyncio.sleep(0)
        await trouble(stream, channel)
        done, _ = await asyncio.wait((serving,), timeout=60)
        assert done
        return asyncio.CancelledError() if serving.cancelled() else serving.exception()


async def test_a_call_that_was_given_up_ends_the_stream_and_not_the_worker(master: ScriptedMaster) -> None:
    """gRPC raises CancelledError out of a read when a write of the same call was cut short by its time limit, as
    happens to a supervisor that was stopped itself. It must not pass for the cancellation of the worker."""

    async def give_up(stream: SessionStream, channel: grpc.aio.Channel) -> None:
        stream._call.cancel()

    assert isinstance(await _served(master, give_up), Unreachable)


async def test_a_write_that_takes_too_long_ends_the_stream_and_is_the_reason(
    master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stall(stream: SessionStream, channel: grpc.aio.Channel) -> None:
        monkeypatch.setattr(stream, "_silence_seconds", lambda: 0.0)
        stream._heartbeat_due = 0.0
        stream.wake()

    error = await _served(master, stall)
    assert isinstance(error, Unreachable)
    assert "doesn't read" in str(error)


async def test_a_cancelled_session_is_cancelled(master: ScriptedMaster) -> None:
    async def cancel(stream: SessionStream, channel: grpc.aio.Channel) -> None:
        (serving,) = (task for task in asyncio.all_tasks() if "serve" in str(task.get_coro()))
        serving.cancel()

    assert isinstance(await _served(master, cancel), asyncio.CancelledError)
