"""A TCP relay before a peer, for networks that break.

Connections are cut, held up without a word, slowed down, accepted and swallowed, or cut just when a reply comes back:
the peer has carried the request out, and whoever asked never hears of it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

CHUNK_BYTES = 1 << 16
# Of HTTP/2, frames that carry no request (pings, window updates, settings) are smaller.
REQUEST_BYTES_MIN = 64
CLOSING_SECONDS_MAX = 1.0


class TcpRelay:
    """Forwards to a port of this machine, or to a unix socket. Use it with ``async with``.

    Attributes:
        port: Where it listens.
        delay_seconds: How long everything is held back, each way.
        bytes_per_second: How much passes, each way of each connection; 0 = no limit.
        swallowing: Connections are accepted, and what is said on them is lost.
        dropped: How many replies were lost with their connections, see :meth:`drop_replies`.
    """

    def __init__(self, upstream: int | Path) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self.bytes_per_second = 0.0
        self.swallowing = False
        self.dropped = 0
        self._upstream = upstream
        self._drops = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    async def cut(self) -> None:
        """Break every connection; new ones are taken."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        # A connection that was aborted is closed in the next turn of the loop.
        await asyncio.sleep(0)

    def hold_up(self) -> None:
        """Let nothing through, and break nothing: a partition that nobody is told of."""
        self._open.clear()

    def let_through(self) -> None:
        """End that."""
        self._open.set()

    def drop_replies(self, count: int) -> None:
        """Lose the next ``count`` replies that follow a request, each with its connection."""
        self._drops = count

    async def heal(self) -> None:
        """Forward faithfully again. Connections that lost bytes are broken: no peer could go on with them."""
        lossy = self.swallowing
        self.delay_seconds = self.bytes_per_second = 0.0
        self.swallowing = False
        self._drops = 0
        self.let_through()
        if lossy:
            await self.cut()

    async def __aenter__(self) -> TcpRelay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        # What was accepted just now becomes a connection within the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        await self.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # One that is cut before it was served, or while its other end is dialled, has nobody else to close it.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await self._dial()
        except OSError:
            writer.close()
            return
        asked = asyncio.Event()
        copies = [
            asyncio.create_task(self._copy_requests(reader, up_writer, asked)),
            asyncio.create_task(self._copy_replies(up_reader, writer, asked)),
        ]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Cut: nothing that is still on its way arrives.
            for each in (writer, up_writer):
                each.transport.abort()
            raise
        finally:
            for copy in copies:
                copy.cancel()
            # Before anything is waited for: a cut may come right now.
            for each in (writer, up_writer):
                each.close()
            await asyncio.gather(*copies, return_exceptions=True)
            await asyncio.gather(_close(writer), _close(up_writer))

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._upstream, Path):
            return await asyncio.open_unix_connection(self._upstream)
        return await asyncio.open_connection("127.0.0.1", self._upstream)

    async def _copy_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._drops and len(data) >= REQUEST_BYTES_MIN:
                asked.set()
            await self._pass_on(data, writer)

    async def _copy_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._drops and asked.is_set():
                self._drops -= 1
                self.dropped += 1
                return
            await self._pass_on(data, writer)

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        if self.swallowing:
            return
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.bytes_per_second:
            await asyncio.sleep(len(data) / self.bytes_per_second)
        writer.write(data)
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close it and see it closed; a peer that takes nothing more is not waited for."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSING_SECONDS_MAX):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
