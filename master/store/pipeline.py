"""Puts what arrives together into one round trip.

Calls of the same script that are waiting at the same moment become one script call of up to 100 items; all scripts
that are waiting become one pipeline; one fsync covers it (``appendfsync always``, or one WAITAOF at its end). While a
pipeline is under way the next one gathers, so the batch size follows the load by itself: alone, a call goes at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import redis.asyncio as redis_asyncio
from redis.exceptions import (
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from tenure.common.errors import Overloaded, StoreUnavailable, TenureError
from tenure.common.limits import BATCH_TASKS_MAX
from tenure.master.store.confirmation import Confirmation
from tenure.master.store.scripts import Script, load_scripts
from tenure.master.store.translation import translate

# Each waiting call is somebody's request: past this the master sheds instead of growing.
WAITING_CALLS_MAX = 50_000

Arguments = list[bytes | str]
Encode = Callable[[list[Any]], Arguments]
ObserveScript = Callable[[str, float, int], None]


@dataclass
class _Call:
    """One script call under way: items of a batch, or a call with arguments of its own."""

    script: Script
    key: str
    future: asyncio.Future[Any]
    items: Sequence[Any] = ()
    encode: Encode | None = None
    arguments: Arguments = field(default_factory=list)


@dataclass
class _Command:
    """One EVALSHA and whom its reply is for."""

    script: Script
    key: str
    arguments: Arguments
    calls: list[_Call]

    @property
    def items(self) -> int:
        """How many items it carries; 1 for a call with arguments of its own."""
        return sum(len(call.items) for call in self.calls) or 1


class ScriptCalls(Protocol):
    """What carries script calls: a :class:`Pipeline`, or one for each node of a cluster."""

    async def item(self, script: str, key: str, item: Any, encode: Encode) -> Any:
        """See :meth:`Pipeline.item`."""

    async def items(self, script: str, key: str, items: Sequence[Any], encode: Encode) -> list[Any]:
        """See :meth:`Pipeline.items`."""

    async def call(self, script: str, key: str, *arguments: bytes | str | int) -> Any:
        """See :meth:`Pipeline.call`."""

    async def close(self) -> None:
        """See :meth:`Pipeline.close`."""


class Pipeline:
    """Carries script calls to one server.

    Args:
        pool: Where connections come from; the pipeline holds one of its own.
        confirmation: What each pipeline that writes ends with: fsynced, or received by replicas; or None.
        observe: Called with script name, seconds of the round trip it was part of, and items.

    A call that fails with StoreUnavailable may or may not have been carried out; every script is safe to send again.
    """

    def __init__(
        self, pool: redis_asyncio.ConnectionPool, *, confirmation: Confirmation | None, observe: ObserveScript
    ) -> None:
        self._pool = pool
        self._confirmation = confirmation
        self._observe = observe
        self._scripts = load_scripts()
        self._waiting: list[_Call] = []
        self._wake = asyncio.Event()
        self._connection: Any = None
        self._closed = False
        self._task = asyncio.create_task(self._run(), name="store-pipeline")

    async def item(self, script: str, key: str, item: Any, encode: Encode) -> Any:
        """One item of a batched script; returns the item's own reply."""
        (reply,) = await self.items(script, key, [item], encode)
        return reply

    async def items(self, script: str, key: str, items: Sequence[Any], encode: Encode) -> list[Any]:
        """Items of a batched script, at most 100; returns their replies in order."""
        if not items:
            return []
        reply: list[Any] = await self._enqueue(
            _Call(self._scripts[script], key, self._future(), items=items, encode=encode)
        )
        return reply

    async def call(self, script: str, key: str, *arguments: bytes | str | int) -> Any:
        """A script call with arguments of its own; returns the whole reply."""
        # What can't be encoded is its caller's error, not that of the pipeline it would have travelled in.
        plain: Arguments = [value if isinstance(value, bytes) else str(value).encode() for value in arguments]
        return await self._enqueue(_Call(self._scripts[script], key, self._future(), arguments=plain))

    async def close(self) -> None:
        """Refuse new calls, fail those that wait, give the connection back."""
        self._closed = True
        self._wake.set()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()

    def _future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def _enqueue(self, call: _Call) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if len(self._waiting) >= WAITING_CALLS_MAX:
            raise Overloaded("too many requests wait for the store", expected="try again later")
        self._waiting.append(call)
        self._wake.set()
        return call.future

    async def _run(self) -> None:
        calls: list[_Call] = []
        try:
            while not self._closed:
                await self._wake.wait()
                # One more turn of the event loop: requests that became ready together get on board.
                await asyncio.sleep(0)
                self._wake.clear()
                calls, self._waiting = self._waiting, []
                commands = _gather([call for call in calls if not call.future.done()])
                if commands:
                    await self._carry_out(commands)
        finally:
            # However this ends, nobody waits for it.
            self._closed = True
            for call in (*calls, *self._waiting):
                _fail(call, StoreUnavailable("the store is closed"))

    async def _carry_out(self, commands: list[_Command]) -> None:
        started = time.perf_counter()
        try:
            replies = await self._round_trip(commands)
        except (TimeoutError, RedisError, OSError, EOFError, StoreUnavailable) as error:
            await self._disconnect()
            failure = translate(error)
            for command in commands:
                for call in command.calls:
                    _fail(call, failure)
            return
        seconds = time.perf_counter() - started
        for command, reply in zip(commands, replies, strict=True):
            self._observe(command.script.name, seconds, command.items)
            _deliver(command, reply)

    async def _round_trip(self, commands: list[_Command]) -> list[Any]:
        """The replies, an error in the place of what was refused; raises what concerns all of them."""
        connection = await self._connected()
        # A write at the end is refused by a replica, and says so for what was read before it.
        last = commands[-1]
        guard = [] if last.script.writes else [_Command(self._scripts["primary"], last.key, [], [])]
        sent = [*commands, *guard]
        replies = await self._exchange(connection, [_evalsha(command) for command in sent])
        # SCRIPT FLUSH, a restart or a failover lost the scripts: send just these calls again, with the scripts.
        missing = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            missing += [len(commands)] if guard and missing[-1] < len(commands) else []
            again = await self._exchange(connection, [_eval(sent[index]) for index in missing])
            for index, reply in zip(missing, again, strict=True):
                replies[index] = reply
        if demoted := next((reply for reply in replies if isinstance(reply, ReadOnlyError)), None):
            # A failover: the primary is elsewhere by now, and only a new connection finds it. What was read here may
            # be older than what somebody has been told already.
            raise demoted
        del replies[len(commands) :]
        for index, command in enumerate(commands):
            if _stopped_at_an_item(command, replies[index]):
                replies[index] = await self._one_by_one(connection, command)
        if self._confirmation is not None and any(command.script.writes for command in commands):
            (confirmed,) = await self._exchange(connection, [self._confirmation.arguments])
            if not self._confirmation.is_met(confirmed):
                raise StoreUnavailable(
                    "the store did not confirm that the write is on its disk and replicas",
                    given=f"{self._confirmation.command}: {confirmed}",
                )
        return replies

    async def _one_by_one(self, connection: Any, command: _Command) -> list[Any]:
        """The items' own replies or errors: what one of them can't have costs the others nothing."""
        singles = [
            _Command(command.script, command.key, call.encode([item]), [call])
            for call in command.calls
            for item in call.items
            if call.encode is not None
        ]
        replies = await self._exchange(connection, [_evalsha(single) for single in singles])
        return [reply if isinstance(reply, Exception) else reply[0] for reply in replies]

    async def _exchange(self, connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies

    async def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await self._connection.connect()
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.disconnect(nowait=True)
            except (RedisError, OSError):
                return  # it was broken already; the next call makes a new one


def _gather(calls: list[_Call]) -> list[_Command]:
    """Calls as commands: items of one script and shard together, up to the batch limit."""
    commands: list[_Command] = []
    open_batches: dict[tuple[str, str], tuple[list[_Call], int]] = {}
    for call in calls:
        if call.encode is None:
            commands.append(_Command(call.script, call.key, call.arguments, [call]))
            continue
        kind = (call.script.name, call.key)
        batch, size = open_batches.get(kind, ([], BATCH_TASKS_MAX))
        if size + len(call.items) > BATCH_TASKS_MAX:
            batch, size = [], 0
            commands.append(_Command(call.script, call.key, [], batch))
        batch.append(call)
        open_batches[kind] = (batch, size + len(call.items))
    return [encoded for command in commands for encoded in _encoded(command)]


def _encoded(command: _Command) -> list[_Command]:
    """The command with its arguments. Calls that can't be encoded are told so; the others go without them."""
    encode = command.calls[0].encode
    if encode is None:
        return [command]
    try:
        command.arguments = encode([item for call in command.calls for item in call.items])
    except (TypeError, ValueError) as error:
        if len(command.calls) == 1:
            _fail(command.calls[0], error)
            return []
        apart = [_Command(command.script, command.key, [], [call]) for call in command.calls]
        return [encoded for single in apart for encoded in _encoded(single)]
    return [command]


def _stopped_at_an_item(command: _Command, reply: Any) -> bool:
    """Whether a script went wrong at one of several items. Those before it are done: they are safe to send again,
    except claims, which would be granted twice."""
    return (
        isinstance(reply, ResponseError)
        and type(translate(reply)) is TenureError
        and command.items > 1
        and command.script.name != "claim"
    )


def _evalsha(command: _Command) -> tuple[Any, ...]:
    return ("EVALSHA", command.script.sha, 1, command.key, *command.arguments)


def _eval(command: _Command) -> tuple[Any, ...]:
    return ("EVAL", command.script.body, 1, command.key, *command.arguments)


def _deliver(command: _Command, reply: Any) -> None:
    if isinstance(reply, Exception):
        failure = translate(reply)
        for call in command.calls:
            _fail(call, failure)
    elif command.calls[0].encode is None:
        _succeed(command.calls[0], reply)
    else:
        start = 0
        for call in command.calls:
            part = reply[start : start + len(call.items)]
            start += len(call.items)
            error = next((each for each in part if isinstance(each, Exception)), None)
            if error is None:
                _succeed(call, part)
            else:
                _fail(call, translate(error))


def _succeed(call: _Call, reply: Any) -> None:
    if not call.future.done():
        call.future.set_result(reply)


def _fail(call: _Call, error: Exception) -> None:
    if not call.future.done():
        call.future.set_exception(error)
