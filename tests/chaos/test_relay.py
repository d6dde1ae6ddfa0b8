"""The relay that the network's faults are made of: each manner of breaking does what it says, and heals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from tcp_relay import REQUEST_BYTES_MIN, TcpRelay

REQUEST = b"x" * REQUEST_BYTES_MIN
# Far longer than anything here takes on a busy machine.
PATIENCE_SECONDS = 20


@dataclass
class Echo:
    """A peer that answers with what it is told."""

    relay: TcpRelay
    heard: list[bytes] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)

    async def connect(self) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.relay.port)
        self.peers.append(Peer(reader, writer))
        return self.peers[-1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.heard.append(data)
                writer.write(data)
                await writer.drain()
        writer.close()


@dataclass
class Peer:
    """Who asks."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, data: bytes = REQUEST) -> None:
        self.writer.write(data)

    async def hear(self) -> bytes:
        """What comes next; nothing once the connection is gone."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await self.reader.read(1 << 16)
            except ConnectionError:
                return b""

    async def hears_nothing(self) -> bool:
        """For a moment."""
        try:
            async with asyncio.timeout(0.1):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[Echo]:
    server = await asyncio.start_server(lambda r, w: made.serve(r, w), "127.0.0.1", 0)
    async with TcpRelay(server.sockets[0].getsockname()[1]) as relay:
        made = Echo(relay)
        yield made
        for peer in made.peers:
            peer.writer.close()
            with contextlib.suppress(ConnectionError):
                await peer.writer.wait_closed()
    server.close()


async def answers(peer: Peer) -> bool:
    peer.say()
    return await peer.hear() == REQUEST


async def test_it_forwards(echo: Echo) -> None:
    assert await answers(await echo.connect())


async def test_a_cut_breaks_what_is_open_and_nothing_else(echo: Echo) -> None:
    peer = await echo.connect()
    assert await answers(peer)
    await echo.relay.cut()
    assert await peer.hear() == b""
    assert await answers(await echo.connect())


async def test_what_is_held_up_arrives_later(echo: Echo) -> None:
    peer = await echo.connect()
    echo.relay.hold_up()
    peer.say()
    assert await peer.hears_nothing()
    await echo.relay.heal()
    assert await peer.hear() == REQUEST


@pytest.mark.parametrize(("name", "value"), [("delay_seconds", 0.1), ("bytes_per_second", REQUEST_BYTES_MIN / 0.1)])
async def test_a_slow_line_is_slow_each_way(echo: Echo, name: str, value: float) -> None:
    peer = await echo.connect()
    setattr(echo.relay, name, value)
    started = asyncio.get_running_loop().time()
    assert await answers(peer)
    assert asyncio.get_running_loop().time() - started >= 0.19
    await echo.relay.heal()
    assert (echo.relay.delay_seconds, echo.relay.bytes_per_second) == (0, 0)


async def test_a_half_open_connection_swallows_and_is_broken_by_healing(echo: Echo) -> None:
    peer = await echo.connect()
    assert await answers(peer)
    echo.relay.swallowing = True
    late = await echo.connect()
    for each in (peer, late):
        each.say()
        assert await each.hears_nothing()
    assert echo.heard == [REQUEST]
    await echo.relay.heal()
    assert (await peer.hear(), await late.hear()) == (b"", b"")
    assert await answers(await echo.connect())


async def test_a_dropped_reply_is_one_of_a_request_that_was_carried_out(echo: Echo) -> None:
    peer = await echo.connect()
    echo.relay.drop_replies(1)
    # Too small to be a request: a ping's answer is no reply to lose.
    peer.say(b"ping")
    assert await peer.hear() == b"ping"
    peer.say()
    assert await peer.hear() == b""
    assert (echo.heard, echo.relay.dropped) == ([b"ping", REQUEST], 1)
    assert await answers(await echo.connect())
