"""The way to a master: channels, failover between addresses, retries, and errors as the tree of
common/errors.py.

Every call of the client API is safe to send again, so every call is: a try that finds nobody goes to the next
address at once, and after each round over all addresses it waits, exponentially longer with full jitter,
until the deadline.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import tenacity

from tenure.common import errors, limits
from tenure.common.addresses import expand, parse_addresses
from tenure.common.errors import (
    ERROR_METADATA_KEY,
    InvalidSetting,
    MasterUnavailable,
    Overloaded,
    TenureError,
    Unavailable,
)
from tenure.proto import tenure_pb2_grpc

log = logging.getLogger("tenure.client")

DEFAULT_MASTER = f"127.0.0.1:{limits.MASTER_PORT}"
DEFAULT_TIMEOUT_SECONDS = 600.0
# Longest that one try may take before the next address is asked; the deadline of the whole call lies above
# it.
TRY_SECONDS_MAX = 30.0
# A try for less time would only hide, behind "no answer in time", what the one before it had been told.
_TRY_SECONDS_MIN = 0.1
_PAUSE_SECONDS_FIRST = 0.1
_PAUSE_SECONDS_MAX = 5.0
# Channels to addresses that a name no longer has, kept for calls that are still under way there.
_RETIRED_MAX = 16

_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    # A watch may be silent for hours: pings notice a master whose host vanished without closing the connection.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # One layer retries, and it is this module. gRPC's reconnect pause grows to two minutes unless it is bounded.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Another client of this process must not share the pause of a broken connection.
    ("grpc.use_local_subchannel_pool", 1),
)

_ERROR_BY_STATUS: dict[str, type[TenureError]] = {
    "INVALID_ARGUMENT": errors.InvalidInput,
    "NOT_FOUND": errors.NotFound,
    "FAILED_PRECONDITION": errors.WrongState,
    "OUT_OF_RANGE": errors.CursorExpired,
    "UNAVAILABLE": MasterUnavailable,
    "DEADLINE_EXCEEDED": MasterUnavailable,
    "CANCELLED": MasterUnavailable,
}


@dataclass(frozen=True)
class Master:
    """One address and what is called there."""

    address: str
    channel: grpc.Channel
    stub: Any


class Connection:
    """Calls masters. Thread-safe; make it after a fork, not before.

    Args:
        master: ``host:port`` of one master, or of several, separated by commas. A name with several addresses in DNS
            is several masters, and is looked up again after each round over them. None: ``$TENURE_MASTER``, else
            127.0.0.1:50051.
        timeout_seconds: How long a call is tried again before it raises; None = for ever.
        compression: ``gzip`` compresses what is sent.

    Raises:
        InvalidSetting: ``master`` is no list of addresses, or another argument can't be right.
    """

    def __init__(
        self,
        master: str | None = None,
        *,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        compression: Literal["gzip"] | None = None,
    ) -> None:
        text = master if master is not None else os.environ.get("TENURE_MASTER") or DEFAULT_MASTER
        self._names = parse_addresses(text, "master")
        self.addresses = tuple(map(str, self._names))
        if timeout_seconds is not None and not timeout_seconds > 0:
            raise InvalidSetting(
                "must be above 0",
                field="timeout_seconds",
                given=timeout_seconds,
                expected="give seconds, or None to try for ever",
            )
        if compression not in (None, "gzip"):
            raise InvalidSetting("unknown compression", field="compression", given=compression, expected="gzip or None")
        self.timeout_seconds = timeout_seconds
        codec = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        self._codec = codec
        self._looking_up = threading.Lock()
        self._masters: tuple[Master, ...] = ()
        self._retired: list[Master] = []
        self._current = 0
        self._closed = threading.Event()
        self._look_up()

    def call(
        self,
        method: str,
        request: Any,
        *,
        deadline: Deadline | None = None,
        try_seconds_max: float = TRY_SECONDS_MAX,
    ) -> Any:
        """The response of one call, tried until somebody answers.

        Args:
            method: The call's name in TenureService.
            request: Its message.
            deadline: Until when; None = the connection's ``timeout_seconds`` from now.
            try_seconds_max: How long one address may take before the next is asked.

        Raises:
            MasterUnavailable: Nobody answered in time.
            TenureError: What the master answered, by the code it sent.
        """
        until = deadline or Deadline.after(self.timeout_seconds)

        def once() -> Any:
            master = self._master()
            try:
                return getattr(master.stub, method)(request, timeout=until.at_most(try_seconds_max))
            except grpc.RpcError as error:
                raise self._failed(master, error) from None

        return self._retried(once, until)

    def open_stream(self, method: str, make_request: Callable[[], Any], deadline: Deadline) -> tuple[Any, Any, Master]:
        """Start a call that answers with a stream, and wait for its first response.

        Returns:
            The call (to iterate over and to cancel), the first response, and who answers.

        Raises:
            MasterUnavailable: Nobody answered before ``deadline``, or the connection was closed.
            TenureError: What the master answered.
        """

        def once() -> tuple[Any, Any, Master]:
            master = self._master()
            call = getattr(master.stub, method)(make_request())
            try:
                return call, next(call), master
            except StopIteration:
                raise self._nobody(master, "the master ended the stream") from None
            except grpc.RpcError as error:
                raise self._failed(master, error) from None

        return self._retried(once, deadline)  # type: ignore[no-any-return]

    def stream_error(self, master: Master, error: grpc.RpcError) -> TenureError:
        """What broke an open stream; the next call goes to another address if nobody answers there any
        more.
        """
        return self._failed(master, error)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond :meth:`close`."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End calls that run, and every later one. Safe to call twice."""
        self._closed.set()
        with self._looking_up:
            for master in (*self._masters, *self._retired):
                master.channel.close()

    # ---- inside --------------------------------------------------------------------------------------------

    def _master(self) -> Master:
        """Who is asked now. The masters may be others after every look-up."""
        masters = self._masters
        return masters[self._current % len(masters)]

    def _look_up(self) -> None:
        """Find out whom the names stand for now. Whoever stays keeps its channel."""
        with self._looking_up:
            known = {master.address: master for master in self._masters}
            addresses = [str(address) for address in expand(self._names)]
            if self.closed or set(addresses) == known.keys():
                return
            self._masters = tuple(known.get(each) or self._open(each, self._codec) for each in addresses)
            # Others may be calling there at this moment.
            self._retired += [known[address] for address in sorted(known.keys() - set(addresses))]
            while len(self._retired) > _RETIRED_MAX:
                self._retired.pop(0).channel.close()

    @staticmethod
    def _open(address: str, codec: grpc.Compression) -> Master:
        channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS, compression=codec)
        return Master(address, channel, tenure_pb2_grpc.TenureServiceStub(channel))

    def _retried(self, once: Callable[[], Any], deadline: Deadline) -> Any:
        started = time.monotonic()
        backoff = tenacity.wait_random_exponential(multiplier=_PAUSE_SECONDS_FIRST, max=_PAUSE_SECONDS_MAX)

        def guarded() -> Any:
            if self.closed:
                raise _closed()
            try:
                return once()
            except ValueError:
                # gRPC's word for a channel that another thread closed since the line above.
                if self.closed:
                    raise _closed() from None
                raise

        def wait(state: tenacity.RetryCallState) -> float:
            if state.attempt_number % len(self._masters) and isinstance(_failure(state), Unavailable):
                return 0.0
            self._look_up()
            return max(0.0, min(backoff(state), deadline.at_most(math.inf) - _TRY_SECONDS_MIN))

        def tell(state: tenacity.RetryCallState) -> None:
            if state.attempt_number == 1:
                failure = _failure(state)
                message = failure.message if isinstance(failure, TenureError) else failure
                log.warning("%s: %s; trying on%s", ",".join(self.addresses), message, deadline.phrase())

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, TenureError) and error.retry_helps),
            stop=lambda _: deadline.at_most(_TRY_SECONDS_MIN) < _TRY_SECONDS_MIN or self.closed,
            wait=wait,
            sleep=self.pause,
            before_sleep=tell,
            reraise=True,
        )
        try:
            return retrying(guarded)
        except Unavailable as error:
            raise type(error)(
                f"{error.message}, tried for {time.monotonic() - started:.1f} s",
                field=error.field,
                given=error.given or None,
                expected=error.expected,
            ) from None

    def _failed(self, master: Master, error: grpc.RpcError) -> TenureError:
        """``error`` in terms of the tree; moves on to the next address if this one can't serve."""
        mapped = self._mapped(master, error)
        if isinstance(mapped, Unavailable | Overloaded) and self._master() is master:
            self._current = (self._current + 1) % len(self._masters)
        return mapped

    def _mapped(self, master: Master, error: grpc.RpcError) -> TenureError:
        call: Any = error
        for key, value in call.trailing_metadata() or ():
            if key == ERROR_METADATA_KEY:
                return TenureError.from_json(value)
        status, details = call.code().name, call.details() or ""
        if self.closed:
            return _closed()
        if status == "UNIMPLEMENTED":
            return TenureError(
                "what answers there does not know this call",
                field="master",
                given=master.address,
                expected="name a Tenure master of this version or a newer one",
            )
        mapped = _ERROR_BY_STATUS.get(status, TenureError)
        if mapped is MasterUnavailable:
            return self._nobody(master, "no answer in time" if status == "DEADLINE_EXCEEDED" else details)
        return mapped(f"{status}: {details}")

    def _nobody(self, master: Master, details: str) -> MasterUnavailable:
        return MasterUnavailable(
            f"no master answers ({_short(details)})",
            field="master",
            given=",".join(self.addresses),
            expected="start one with `tenure master`, or name its address with --master or TENURE_MASTER",
        )


class Deadline:
    """A point on the monotonic clock, or never."""

    def __init__(self, at: float | None) -> None:
        self._at = at

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """``seconds`` from now; None = never."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    @property
    def left(self) -> float | None:
        """Seconds left, at least 0; None = no end."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left == 0.0

    def at_most(self, seconds: float) -> float:
        """``seconds``, or what is left if that is less."""
        left = self.left
        return seconds if left is None else min(seconds, left)

    def phrase(self) -> str:
        """For messages."""
        left = self.left
        return "" if left is None else f" for {left:.0f} s"


def _short(details: str) -> str:
    """What matters of gRPC's account of a failed connection."""
    reason = details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")
    return " ".join(reason.split())[:300] or "no details"


def _closed() -> TenureError:
    return TenureError("the client is closed", expected="make a new one")


def _failure(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
