"""A proxy before a store that loses replies: the server has carried the request out, its answer never arrives."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path

CHUNK_BYTES = 1 << 16


class CuttingProxy:
    """Forwards to a unix socket; loses what it is told to lose. Use it with ``async with``."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream
        self._folder = Path(tempfile.mkdtemp(prefix="tenure-proxy-"))
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._cuts = 0
        self.cut = 0
        """How many replies were lost."""

    @property
    def url(self) -> str:
        """For the store's connections."""
        return f"unix://{self._folder / 's'}"

    def cut_next_reply(self) -> None:
        """Let the next reply be lost, and its connection with it."""
        self._cuts += 1

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_unix_server(self._accept, self._folder / "s")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        upward = asyncio.create_task(_copy(reader, up_writer))
        try:
            while reply := await up_reader.read(CHUNK_BYTES):
                if self._cuts:
                    self._cuts -= 1
                    self.cut += 1
                    break
                writer.write(reply)
                await writer.drain()
        finally:
            upward.cancel()
            for each in (writer, up_writer):
                with contextlib.suppress(OSError):
                    each.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
