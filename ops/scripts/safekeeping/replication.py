"""Has a server send a snapshot of itself, as it would to a new replica (SYNC, with REPLCONF rdb-only).

The server forks for it, at the moment that the snapshot shows; it goes on serving. It needs the permission for SYNC and
REPLCONF, which managed services don't give. Protocol: Redis's replication, as ``valkey-cli --rdb`` speaks it: empty
lines until the snapshot begins, then ``$<bytes>`` with as many bytes, or ``$EOF:<mark of 40 bytes>`` with whatever
comes until the mark. https://valkey.io/topics/replication
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from safekeeping.appendonly import FILE, MANIFEST, OnBytes, Part, write_manifest
from safekeeping.console import Failed, Refused, is_no_room

# The server waits some seconds for more replicas before it forks (repl-diskless-sync-delay), and says so each second.
_SILENCE_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20
_MARK_BYTES = 40
_REMEDY = "back such a store up by its provider's own snapshots"


def write_snapshot(client: redis.Redis, target: Path, on_bytes: OnBytes) -> tuple[dict[str, str], float]:
    """Write a snapshot as an append-only folder that consists of a base only: (SHA-256 by name, a time up to which
    nothing is missing).

    Args:
        client: Of the server.
        target: Made.
        on_bytes: Told of each piece that was written.

    Raises:
        Refused: The server doesn't send snapshots.
        Failed: It broke off.
        OSError: The target has no room.
    """
    target.mkdir(mode=0o700)
    base = Part(f"{FILE}.1.base.rdb", 1, "b")
    connection: Any = client.connection_pool.make_connection()
    try:
        connection.connect()
        _ask(connection, "REPLCONF", "rdb-only", "1")
        _ask(connection, "REPLCONF", "capa", "eof")
        asked_unix = time.time()
        connection.send_command("SYNC")
        sock: socket.socket = connection._sock  # what follows is no reply that redis-py could read
        sock.settimeout(_SILENCE_SECONDS)
        stream = _Stream(sock)
        header = stream.header()
        digest = hashlib.sha256()
        with open(target / base.name, "xb") as out:
            for chunk in stream.body(header):
                out.write(chunk)
                digest.update(chunk)
                on_bytes(len(chunk))
            out.flush()
            os.fsync(out.fileno())
    except ResponseError as error:
        raise Refused(f"the server refuses to send a snapshot ({error}): {_REMEDY}") from None
    except (RedisError, OSError) as error:
        if is_no_room(error):
            raise
        raise Failed(f"the server broke the snapshot off: {error}") from None
    finally:
        connection.disconnect()
    return {base.name: digest.hexdigest(), MANIFEST: write_manifest(target, [base])}, asked_unix


def _ask(connection: Any, *command: str) -> None:
    connection.send_command(*command)
    connection.read_response()


class _Stream:
    """What comes after SYNC."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._read = b""

    def header(self) -> str:
        """The line before the snapshot, without its ``$``."""
        while True:
            self._read = self._read.lstrip(b"\r\n")
            line, end, rest = self._read.partition(b"\r\n")
            if end:
                self._read = rest
                break
            self._more()
        if line.startswith(b"-"):
            raise Refused(f"the server refuses to send a snapshot ({line[1:].decode(errors='replace')}): {_REMEDY}")
        if not line.startswith(b"$"):
            raise Failed(f"the server answers SYNC with {line[:100]!r}")
        return line[1:].decode(errors="replace")

    def body(self, header: str) -> Iterator[bytes]:
        """The snapshot itself."""
        if header.startswith("EOF:"):
            yield from self._until(header.removeprefix("EOF:").encode())
        else:
            yield from self._exactly(int(header))

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            if not self._read:
                self._more()
            chunk, self._read = self._read[:left], self._read[left:]
            left -= len(chunk)
            yield chunk

    def _until(self, mark: bytes) -> Iterator[bytes]:
        if len(mark) != _MARK_BYTES:
            raise Failed(f"the server announces a snapshot that ends with {mark[:100]!r}")
        # The mark is the last that is sent; nothing comes behind it.
        while not self._read.endswith(mark):
            if len(self._read) > _MARK_BYTES:
                yield self._read[:-_MARK_BYTES]
                self._read = self._read[-_MARK_BYTES:]
            self._more()
        if len(self._read) > _MARK_BYTES:
            yield self._read[:-_MARK_BYTES]

    def _more(self) -> None:
        chunk = self._sock.recv(_CHUNK_BYTES)
        if not chunk:
            raise Failed("the server closed the connection in the middle of the snapshot; its log says why")
        self._read += chunk
