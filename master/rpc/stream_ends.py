"""How a streaming call ended, where its handler knows more than gRPC says.

To a handler the end of its peer's messages looks the same whether the peer has closed its side, and waits for the
status, or is gone: in the latter case gRPC cancels the call, but maybe a moment later.
"""

from __future__ import annotations

import asyncio

# For the cancellation that follows when a connection breaks. It is on its way when the messages end; a peer that has
# closed its side in order gets its status so much later.
BREAK_SECONDS = 1.0


class MessagesEnded(Exception):
    """Raised by a handler whose peer's messages have ended without a word about it; see :func:`outlast_break`."""


class PeerGone(Exception):
    """Raised by a handler that knows that nobody hears this stream any more, before gRPC has seen it."""


async def outlast_break() -> None:
    """Returns if the peer closed its side in order; if the connection broke, gRPC cancels the call meanwhile."""
    await asyncio.sleep(BREAK_SECONDS)
