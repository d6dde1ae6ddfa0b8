"""Fetches shipped code from whichever master answers, piece by piece."""

from __future__ import annotations

import asyncio
import time
from typing import BinaryIO

import grpc
import grpc.aio
import structlog
import tenacity

from tenure.common.addresses import Address
from tenure.common.limits import CODE_BYTES_MAX
from tenure.proto import worker_pb2, worker_pb2_grpc
from tenure.worker.channels import CallObserver, describe, open_channel

log = structlog.get_logger()

# A store that came back older than it was has lost it, maybe; whoever submits again uploads it again.
_UNKNOWN_SECONDS_MAX = 30.0
_PAUSE_SECONDS_FIRST = 0.1
_PAUSE_SECONDS_MAX = 5.0
_TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class CodeUnavailable(Exception):
    """The code can't be had here now, by no fault of the task's; the text says why."""


class CodeFetcher:
    """Asks the masters at ``addresses``, in turn.

    Args:
        addresses: Of masters of one store.
        compression: Of messages.
        timeout_seconds: Of one piece.
        observe: Told of each call.
        unknown_seconds_max: How long to ask again for what no master knows.
    """

    def __init__(
        self,
        addresses: list[Address],
        compression: str,
        timeout_seconds: float,
        observe: CallObserver | None = None,
        unknown_seconds_max: float = _UNKNOWN_SECONDS_MAX,
    ) -> None:
        self._addresses = addresses
        self._compression = compression
        self._timeout_seconds = timeout_seconds
        self._observe = observe
        self._unknown_seconds_max = unknown_seconds_max
        self._current = 0

    async def fetch(self, search: str, digest: str, file: BinaryIO) -> None:
        """Write the archive into ``file``. While no master answers it goes on trying, so cancel it.

        Raises:
            CodeUnavailable: No master has it, or none gives code.
        """
        size = 1
        while file.tell() < size:
            piece = await self._piece(worker_pb2.CodeRequest(search=search, digest=digest, offset=file.tell()))
            size = piece.size_bytes
            if not 0 < size <= CODE_BYTES_MAX or not piece.data or file.tell() + len(piece.data) > size:
                raise CodeUnavailable(f"a master sent no piece of code {digest}: {len(piece.data)} of {size} bytes")
            file.write(piece.data)

    async def _piece(self, request: worker_pb2.CodeRequest) -> worker_pb2.CodePiece:
        give_up_at = time.monotonic() + self._unknown_seconds_max
        backoff = tenacity.wait_random_exponential(multiplier=_PAUSE_SECONDS_FIRST, max=_PAUSE_SECONDS_MAX)

        def may_help(error: BaseException) -> bool:
            if not isinstance(error, grpc.aio.AioRpcError):
                return False
            # Of several masters one may be too old to know the call.
            waited_for = error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
            return error.code() in _TRANSIENT or (waited_for and time.monotonic() < give_up_at)

        def tell(state: tenacity.RetryCallState) -> None:
            self._current += 1
            if state.attempt_number == 1 and state.outcome is not None:
                log.warning("code.not_fetched", code=request.digest, error=_text_of(state.outcome.exception()))

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(may_help),
            wait=backoff,
            before_sleep=tell,
            sleep=asyncio.sleep,
            reraise=True,
        )
        try:
            piece: worker_pb2.CodePiece = await retrying(self._ask, request)
        except grpc.aio.AioRpcError as error:
            raise CodeUnavailable(f"code {request.digest} can't be fetched: {describe(error)}") from error
        return piece

    async def _ask(self, request: worker_pb2.CodeRequest) -> worker_pb2.CodePiece:
        address = self._addresses[self._current % len(self._addresses)]
        async with open_channel(address, self._compression, keepalive=False, observe=self._observe) as channel:
            stub = worker_pb2_grpc.MasterServiceStub(channel)
            piece: worker_pb2.CodePiece = await stub.GetCode(request, timeout=self._timeout_seconds)
            return piece


def _text_of(error: BaseException | None) -> str:
    return describe(error) if isinstance(error, grpc.aio.AioRpcError) else str(error)
