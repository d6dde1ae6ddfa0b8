"""How a push worker is reached: by the host that it registered, or else by the address that it called from."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import structlog

from tenure.master.store.records import WorkerView
from tenure.proto import worker_pb2_grpc
from tenure.proto.serving import CHANNEL_OPTIONS

log = structlog.get_logger()

CONNECT_SECONDS = 5.0


class PushConnection:
    """A connection that answered.

    Attributes:
        stub: WorkerService's.
    """

    def __init__(self, channel: grpc.aio.Channel, view: WorkerView) -> None:
        self._channel = channel
        self._address = _address(view)
        self.stub = worker_pb2_grpc.WorkerServiceStub(channel)

    @property
    def is_up(self) -> bool:
        """Whether the peer is still there, as far as is known."""
        return self._channel.get_state() == grpc.ChannelConnectivity.READY

    def leads_to(self, view: WorkerView) -> bool:
        """Whether the worker would be dialled in the same way now; it may have registered anew elsewhere."""
        return self._address == _address(view)

    async def broken(self) -> None:
        """Returns once the connection has broken."""
        while self.is_up:
            await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    async def up_again(self) -> None:
        """Returns once calls over it have brought it up again."""
        while not self.is_up:
            await self._channel.wait_for_state_change(self._channel.get_state())

    async def close(self) -> None:
        """Hang up; open calls end CANCELLED."""
        await self._channel.close()


async def connect(view: WorkerView) -> PushConnection | None:
    """A connection to the worker's port, or None when nobody answers there.

    Workers register before they listen, and register ``gethostname()``, which may be unresolvable here: neither is
    waited for.
    """
    hosts, port = _address(view)
    for host in hosts:
        channel = grpc.aio.insecure_channel(f"{host}:{port}", options=CHANNEL_OPTIONS)
        try:
            if await _answers(channel):
                return PushConnection(channel, view)
        except BaseException:
            await channel.close()
            raise
        await channel.close()
    log.debug("push.unreachable", worker=view.worker_id, hosts=hosts, port=port)
    return None


def _address(view: WorkerView) -> tuple[tuple[str, ...], int]:
    hosts = (view.fields.get("host", ""), peer_host(view.fields.get("peer", "")))
    return tuple(dict.fromkeys(host for host in hosts if host)), int(view.number("port"))


async def _answers(channel: grpc.aio.Channel) -> bool:
    """Whether the channel's first attempt succeeds."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            while (state := channel.get_state(try_to_connect=True)) != grpc.ChannelConnectivity.READY:
                if state == grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    return False
                await channel.wait_for_state_change(state)
    except TimeoutError:
        return False
    return True


def peer_host(peer: str) -> str:
    """The host in what gRPC calls a peer: ``ipv4:10.0.0.7:43210`` or ``ipv6:%5B::1%5D:43210``."""
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return ""
    return rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]")
