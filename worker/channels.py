"""Channels to masters. How a worker dials is decided here and nowhere else."""

from __future__ import annotations

import enum
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tenure.common.addresses import Address
from tenure.common.errors import ERROR_METADATA_KEY, TenureError
from tenure.common.limits import MESSAGE_BYTES_MAX

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # Each channel dials anew when we say so: our own pauses between attempts are the only ones.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
)
# Notice a master that is stopped, or whose host vanished, well within the time of a lease. Tenure's masters allow that
# many pings (proto/serving.py); others would close the connection.
_KEEPALIVE: Sequence[tuple[str, Any]] = (
    ("grpc.keepalive_time_ms", 8_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.max_pings_without_data", 0),
)


# Told the method, gRPC's code and the duration in seconds of each unary call.
CallObserver = Callable[[str, str, float], None]


class MasterHealth(enum.Enum):
    """What a master says of itself."""

    SERVING = "serving"
    NOT_SERVING = "not_serving"
    """It lives, but its store is away, or it doesn't know the health service."""
    SILENT = "silent"


class _CallClock(grpc.aio.UnaryUnaryClientInterceptor):
    """Tells an observer how each unary call went."""

    def __init__(self, observe: CallObserver) -> None:
        self._observe = observe

    async def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Called by gRPC for each call."""
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        started = time.perf_counter()
        code = grpc.StatusCode.CANCELLED
        call = await continuation(details, request)
        try:
            code = await call.code()
        finally:
            # To one that is done this does nothing; one whose caller has gone would go on till its deadline.
            call.cancel()
            self._observe(method.rpartition("/")[2], code.name, time.perf_counter() - started)
        return call


def open_channel(
    address: Address, compression: str, *, keepalive: bool, observe: CallObserver | None = None
) -> grpc.aio.Channel:
    """A channel to the master at ``address``; it connects with the first call."""
    return grpc.aio.insecure_channel(
        str(address),
        options=(*_OPTIONS, *_KEEPALIVE) if keepalive else _OPTIONS,
        interceptors=[_CallClock(observe)] if observe is not None else None,
        compression=grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression,
    )


async def ask_health(channel: grpc.aio.Channel, timeout_seconds: float) -> MasterHealth:
    """Ask the master behind the channel how it is."""
    try:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=timeout_seconds
        )
    except grpc.aio.AioRpcError as error:
        silent = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
        return MasterHealth.SILENT if error.code() in silent else MasterHealth.NOT_SERVING
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return MasterHealth.SERVING
    return MasterHealth.NOT_SERVING


def describe(error: grpc.aio.AioRpcError) -> str:
    """What went wrong, for people: Tenure's own error if the status carries one."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_METADATA_KEY and isinstance(value, str):
            try:
                return str(TenureError.from_json(value))
            except (ValueError, AttributeError):
                break
    return f"{error.code().name}: {error.details()}"
