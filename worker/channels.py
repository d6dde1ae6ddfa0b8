"""Channels to masters. How a worker dials is decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from tenure.common.addresses import Address
from tenure.common.errors import ERROR_METADATA_KEY, TenureError
from tenure.common.limits import MESSAGE_BYTES_MAX

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Notice a master whose host vanished. Servers that allow fewer pings than this would close the connection.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Each channel dials anew when we say so: our own pauses between attempts are the only ones.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
)


def open_channel(address: Address, compression: str) -> grpc.aio.Channel:
    """A channel to the master at ``address``; it connects with the first call."""
    return grpc.aio.insecure_channel(
        str(address),
        options=_OPTIONS,
        compression=grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression,
    )


def describe(error: grpc.aio.AioRpcError) -> str:
    """What went wrong, for people: Tenure's own error if the status carries one."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_METADATA_KEY and isinstance(value, str):
            try:
                return str(TenureError.from_json(value))
            except (ValueError, AttributeError):
                break
    return f"{error.code().name}: {error.details()}"
