"""Frames between supervisor and executor."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tenure.worker.pipe import FRAME_BYTES_MAX, PipeBroken, encode_frame, read_frame, receive_frame, send_frame


async def test_a_frame_reads_the_same_on_both_sides() -> None:
    message = {"type": "evaluate", "text": 'ü"\ud800\0', "numbers": [1, 2.5, None, True]}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_frame(ours, message)
        assert receive_frame(theirs) == message
    reader = asyncio.StreamReader()
    reader.feed_data(encode_frame(message) * 2)
    reader.feed_eof()
    assert await read_frame(reader) == message
    assert await read_frame(reader) == message
    with pytest.raises(PipeBroken, match="closed"):
        await read_frame(reader)


async def test_a_frame_cut_short_is_an_end() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(encode_frame({"type": "x"})[:-1])
    reader.feed_eof()
    with pytest.raises(PipeBroken, match="closed"):
        await read_frame(reader)


@pytest.mark.parametrize("body", [b"no json", b"[]", b"{}", b'{"type": 3}', b"\xff\xfe"])
async def test_what_is_no_message_is_refused(body: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(struct.pack(">I", len(body)) + body)
    with pytest.raises(PipeBroken, match="frame that is no"):
        await read_frame(reader)


async def test_a_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(struct.pack(">I", FRAME_BYTES_MAX + 1))
    with pytest.raises(PipeBroken, match="over the limit"):
        await read_frame(reader)
    with pytest.raises(PipeBroken, match="over the limit"):
        encode_frame({"type": "x", "text": "x" * FRAME_BYTES_MAX})
