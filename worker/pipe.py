"""The pipe between a supervisor and its executors: JSON objects, each behind its length.

A frame is four bytes of length (big endian) and that many bytes of UTF-8 JSON, an object with a ``type``. Nothing is
pickled. The supervisor's side is asyncio, the executor's side blocks in threads; both refuse a frame over the limit.

From the supervisor:

* ``evaluate``: ``run`` (a number), ``task`` (fields of EvaluationTask), ``checkpoints``, ``work_dir``, ``trace`` (what
  the executor's spans are below, see run_spans.py)
* ``stop``: ``run``, ``reason``
* ``leave``: end, between two runs

From the executor:

* ``ready``: the evaluator is imported; ``refused``: it can't be, ``error``
* ``progress``: ``run``, ``sequence``, ``step``, ``total_steps``, ``metrics``
* ``checkpoint``: ``run``, ``checkpoint`` (fields of the wire's Checkpoint), to be registered
* ``resumed``: ``run``, ``step`` it goes on from
* ``saves``: ``run``, ``costs``: what its checkpoints have cost so far; ``write_seconds``: of the write that just ended
* ``log``: ``run``, ``event``, ``fields``, ``trace`` (the context of the span it was said in, or empty)
* ``spans``: ``spans`` that are over (see span_frames.py); while the worker traces, at any time
* ``done``: ``run``, ``metrics``, ``detail``, ``architecture``
* ``failed``: ``run``, ``error_class``, ``message``, ``traceback``, ``retryable``, ``out_of_memory``, ``replace`` (why
  the process isn't fit for another run, or empty)
* ``stopped``: ``run``; the evaluator did as it was asked
* ``idle``: ``run``; what it left is cleared away, the next task can come; ``leaked_bytes`` of GPU memory it could not
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

from tenure.common import limits

Message = dict[str, Any]

# An architecture at its limit, with every quotation mark escaped, and the rest.
FRAME_BYTES_MAX = 2 * limits.ARCHITECTURE_BYTES_MAX + 1024 * 1024
_HEADER = struct.Struct(">I")


class PipeBroken(Exception):
    """The other side is gone, or said something that is no frame."""


def encode_frame(message: Message) -> bytes:
    """The frame of ``message``; raises PipeBroken if it is over the limit."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(body) > FRAME_BYTES_MAX:
        raise PipeBroken(f"a {message.get('type')} of {len(body)} bytes is over the limit of {FRAME_BYTES_MAX}")
    return _HEADER.pack(len(body)) + body


def decode_body(body: bytes) -> Message:
    """The message in a frame's body; raises PipeBroken if it is none."""
    try:
        message = json.loads(body.decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise PipeBroken(f"a frame that is not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise PipeBroken("a frame that is no message")
    return message


def _length(header: bytes) -> int:
    length = int(_HEADER.unpack(header)[0])
    if length > FRAME_BYTES_MAX:
        raise PipeBroken(f"a frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}")
    return length


async def read_frame(reader: asyncio.StreamReader) -> Message:
    """The next message; raises PipeBroken at the end."""
    try:
        header = await reader.readexactly(_HEADER.size)
        return decode_body(await reader.readexactly(_length(header)))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise PipeBroken("closed") from error


def receive_frame(sock: socket.socket) -> Message:
    """The next message, blocking; raises PipeBroken at the end."""
    return decode_body(_receive_exactly(sock, _length(_receive_exactly(sock, _HEADER.size))))


def send_frame(sock: socket.socket, message: Message) -> None:
    """Send, blocking; raises PipeBroken when the other side is gone."""
    try:
        sock.sendall(encode_frame(message))
    except OSError as error:
        raise PipeBroken("closed") from error


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    chunks = []
    while size:
        try:
            chunk = sock.recv(min(size, 1 << 20))
        except OSError as error:
            raise PipeBroken("closed") from error
        if not chunk:
            raise PipeBroken("closed")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
