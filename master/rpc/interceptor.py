"""Turns errors of the tree into gRPC statuses, and measures every call."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
import structlog

from tenure.common.errors import ERROR_METADATA_KEY, TenureError
from tenure.master.metrics import MasterMetrics
from tenure.master.rpc.stream_ends import MessagesEnded, PeerGone, outlast_break

log = structlog.get_logger()

# Both travel in one header block, of which peers take 8 KiB. A status is percent-encoded there.
STATUS_BYTES_MAX = 2500
ERROR_JSON_BYTES_MAX = 4000

_OWN_PACKAGES = ("/morphml.distributed.", "/tenure.v1.")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of Tenure's own services."""

    def __init__(self, metrics: MasterMetrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Called by gRPC for each call."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_OWN_PACKAGES):
            return handler
        method = details.method.rpartition("/")[2]
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method), **coders)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, method), **coders)
        return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream, method), **coders)

    def _unary(self, handle: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            code = "UNKNOWN"  # as gRPC calls what a handler raises that nobody foresaw
            try:
                response = await handle(request, context)
                code = "OK"
                return response
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except TenureError as error:
                code = error.grpc_status
                await abort(context, error)
            finally:
                self._metrics.rpc_seconds.labels(method, code).observe(time.perf_counter() - started)

        return call

    def _stream(self, handle: Callable[..., Awaitable[None]], method: str) -> Callable[..., Awaitable[None]]:
        """Streaming handlers are coroutines that write to their context, never generators: a generator whose peer dies
        while a message is being sent is left suspended, and what it holds is let go whenever it is collected."""

        async def call(request: Any, context: Any) -> None:
            self._metrics.rpc_streams_open.labels(method).inc()
            code = "UNKNOWN"
            try:
                await _handled(handle, request, context)
                code = "OK"
            except PeerGone:
                # Whatever status gRPC sends now, nobody hears it.
                code = "CANCELLED"
            except (asyncio.CancelledError, grpc.aio.InternalError):
                # The latter is how a message that can't be written any more ends the call before it is cancelled.
                code = "CANCELLED"
                raise
            except TenureError as error:
                code = error.grpc_status
                log.debug("call.refused", method=method, error=str(error))
                await abort(context, error)
            finally:
                self._metrics.rpc_streams_open.labels(method).dec()
                self._metrics.rpc_streams_ended.labels(method, code).inc()

        return call


async def _handled(handle: Callable[..., Awaitable[None]], request: Any, context: Any) -> None:
    """Returns when the stream has ended in order."""
    try:
        await handle(request, context)
    except MessagesEnded:
        await outlast_break()


async def abort(context: Any, error: TenureError) -> None:
    """End the call with the error's status; its parts travel as trailing metadata."""
    status = getattr(grpc.StatusCode, error.grpc_status)
    metadata = ((ERROR_METADATA_KEY, _fitting_json(error)),)
    await context.abort(status, _fitting_text(str(error)), trailing_metadata=metadata)


def _fitting_json(error: TenureError) -> str:
    text = error.to_json()
    for chars_max in (500, 100, 50):
        if len(text) <= ERROR_JSON_BYTES_MAX:
            break
        parts: dict[str, str] = json.loads(text)
        text = json.dumps({name: _shorten(value, chars_max) for name, value in parts.items()})
    return text


def _fitting_text(text: str) -> str:
    for chars_max in (1000, 500, 200):
        if len(quote(text)) <= STATUS_BYTES_MAX:
            break
        text = _shorten(text, chars_max)
    return text


def _shorten(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
