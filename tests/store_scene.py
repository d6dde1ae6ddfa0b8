"""A search and its workers in few words, for tests of the store. Every step goes through the store's own methods.

The lease clock is the test's: nothing ticks but :meth:`Scene.advance`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

import redis
from store_server import StoreServer, delete_keys, keys_of

from tenure.common.spec import TaskSpec
from tenure.common.states import TaskState
from tenure.master.store import Store
from tenure.master.store.records import (
    DEFAULT_CLASS,
    CheckpointRecord,
    ClaimRequest,
    Evidence,
    Failure,
    FailureKind,
    Grant,
    Release,
    Renewal,
    RenewVerdict,
    RetryPolicy,
    Success,
    TaskView,
    Verdict,
)

STRANGER = "f" * 32
AT_ONCE = RetryPolicy(0, 0)
SOON = RetryPolicy(10**6, 10**6)
# What a second sending of a request may change: the clock isn't the test's there, and refusals are counted.
RESTLESS = ("clock", "events", "counters")

# Lets the last tick have been earlier; on a full server too.
SET_WALL_BACK = """#!lua flags=allow-oom
local now = redis.call('TIME')
return redis.call('HSET', KEYS[1], 'wall', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[1]))
"""


class Scene:
    """One search on one store.

    Attributes:
        store: What is tested.
        client: A connection of the test's own.
        search: The search's name.
    """

    def __init__(self, store: Store, client: redis.Redis, search: str = "s") -> None:
        self.store = store
        self.client = client
        self.search = search
        self.tasks = store.tasks
        self._numbers = itertools.count()

    # ---- steps ----------------------------------------------------------------------------------------------------

    def spec(self, **fields: Any) -> TaskSpec:
        """A task that no other equals."""
        number = next(self._numbers)
        return TaskSpec(**{"architecture": json.dumps({"n": number}), "key": f"k{number}", **fields})

    async def submit(self, count: int = 1, search: str | None = None, **fields: Any) -> list[str]:
        """New tasks; their ids in order."""
        specs = [self.spec(**fields) for _ in range(count)]
        return [each.task_id for each in await self.tasks.submit(search or self.search, specs)]

    async def claim(
        self, worker: str = "w1", count: int = 1, classes: Iterable[str] = (DEFAULT_CLASS,), *, legacy: bool = False
    ) -> list[Grant]:
        """Up to ``count`` tasks for a worker."""
        tokens = [f"{next(self._numbers):032x}" for _ in range(count)]
        return await self.tasks.claim(ClaimRequest(worker, tokens, list(classes), legacy))

    async def lease(self, worker: str = "w1", **fields: Any) -> Grant:
        """A new task, leased; there must be no other ready one."""
        (task_id,) = await self.submit(**fields)
        (grant,) = await self.claim(worker)
        assert grant.task_id == task_id
        return grant

    async def complete(self, grant: Grant, worker: str = "w1", fitness: float = 0.5, **changed: Any) -> Verdict:
        """The verdict on a success under this grant."""
        return (await self.tasks.complete(success(grant, worker, fitness, **changed)))[0]

    async def fail(self, grant: Grant, worker: str = "w1", **changed: Any) -> tuple[Verdict, str]:
        """(verdict, state) of a failure under this grant."""
        return await self.tasks.fail(failure(grant, worker, **changed))

    async def release(self, grant: Grant, worker: str = "w1", **changed: Any) -> Verdict:
        """The verdict on handing this grant back."""
        return (await self.tasks.release(release(grant, worker, **changed)))[0]

    async def renew(self, grant: Grant, worker: str = "w1", **changed: Any) -> RenewVerdict:
        """What the holder of this grant is told."""
        return await self.tasks.renew(renewal(grant, worker, **changed))

    async def checkpoint(
        self, grant: Grant, step: int, score: float | None = None, worker: str = "w1", **changed: Any
    ) -> tuple[Verdict, list[str]]:
        """Register a checkpoint: (verdict, URLs to delete)."""
        token = changed.pop("token", grant.token)
        fields = {"url": f"file:///c/{grant.task_id}/{step}", "digest": "d" * 64, "size_bytes": 10, **changed}
        record = CheckpointRecord(step=step, epoch=grant.epoch, score=score, **fields)
        return await self.tasks.register_checkpoint(grant.task_id, token, worker, record)

    async def advance(self, ms: int, shard: int = 0) -> int:
        """Move the lease clock on by exactly this; returns its value."""
        self.client.eval(SET_WALL_BACK, 1, self.store.keys.clocks[shard], ms + 1)
        clock, added, _ = await self.tasks.tick(shard, ms)
        assert added == ms
        return clock

    async def expire_all(self) -> None:
        """Let every lease that is not renewed run out, and reap it."""
        await self.advance(self.store.options.lease_ttl_ms)
        while await self.tasks.expire(0, 100):
            pass

    async def promote_all(self) -> int:
        """Let every scheduled task's time come."""
        await self.advance(400 * 24 * 3600 * 1000)
        return await self.tasks.promote(0, 100)

    # ---- looks ----------------------------------------------------------------------------------------------------

    async def view(self, task_id: str) -> TaskView:
        """The task with everything."""
        return (await self.tasks.show([task_id], full=True))[task_id]

    async def state(self, task_id: str) -> TaskState:
        """Where the task is."""
        return (await self.view(task_id)).state

    async def counters(self) -> dict[str, int]:
        """The shard's counters."""
        return dict((await self.store.searches.overview())[0].counters)

    async def violations(self) -> list[str]:
        """What fsck says."""
        return (await self.store.fsck.run())[1]

    def key(self, name: str) -> str:
        """A key of shard 0."""
        return f"{self.store.keys.prefix}:{{0}}:{name}"

    def all_keys(self) -> list[str]:
        """All keys of this store, without the prefix."""
        return [key.removeprefix(f"{self.store.keys.prefix}:") for key in keys_of(self.client, self.store.keys.prefix)]

    def snapshot(self) -> dict[str, bytes]:
        """Everything as it is, for :meth:`roll_back`."""
        keys = keys_of(self.client, self.store.keys.prefix)
        with self.client.pipeline(transaction=False) as asked:
            for key in keys:
                asked.dump(key)
            return dict(zip(keys, asked.execute(), strict=True))

    def roll_back(self, to: dict[str, bytes]) -> None:
        """The store comes back older than it was."""
        delete_keys(self.client, self.store.keys.prefix)
        for key, value in to.items():
            self.client.restore(key, 0, value)

    def dump(self, without: Iterable[str] = RESTLESS) -> dict[str, Any]:
        """Every key's whole value, but for when a search was last spoken of."""
        left_out = {self.key(name) for name in without}
        keys = [key for key in keys_of(self.client, self.store.keys.prefix) if key not in left_out]
        values = read_keys(self.client, keys)
        for value in values.values():
            if isinstance(value, dict):
                value.pop(b"changed", None)
        return values


def read_key(client: redis.Redis, key: str) -> Any:
    """A key's whole value, in a form that compares."""
    return read_keys(client, [key])[key]


def read_keys(client: redis.Redis, keys: list[str]) -> dict[str, Any]:
    """The same of many, in two round trips."""
    with client.pipeline(transaction=False) as asked:
        for key in keys:
            asked.type(key)
        kinds = [kind.decode() for kind in asked.execute()]
        for key, kind in zip(keys, kinds, strict=True):
            _READ[kind](asked, key)
        values = asked.execute()
    return {key: set(value) if kind == "set" else value for key, kind, value in zip(keys, kinds, values, strict=True)}


_READ: dict[str, Callable[[Any, str], Any]] = {
    "string": lambda client, key: client.get(key),
    "hash": lambda client, key: client.hgetall(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: client.smembers(key),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    "stream": lambda client, key: client.xrange(key),
}


def open_scene(store: Store, server: StoreServer, search: str = "s") -> Scene:
    """A scene with a connection of its own; close ``client`` behind it."""
    return Scene(store, server.client(), search)


def success(grant: Grant, worker: str = "w1", fitness: float = 0.5, **changed: Any) -> Success:
    """A good end under this grant."""
    fields = {"token": grant.token, "epoch": grant.epoch, "metrics": {"fitness": fitness}, **changed}
    return Success(task_id=grant.task_id, worker_id=worker, **fields)


def failure(grant: Grant, worker: str = "w1", **changed: Any) -> Failure:
    """A bad end under this grant: by default of the evaluator, retryable, without backoff."""
    fields = {
        "token": grant.token,
        "kind": FailureKind.FAILURE,
        "retryable": True,
        "evidence": Evidence(error_class="ValueError", error_message="no"),
        "retry": AT_ONCE,
        **changed,
    }
    return Failure(task_id=grant.task_id, worker_id=worker, **fields)


def release(grant: Grant, worker: str = "w1", **changed: Any) -> Release:
    """A task handed back unfinished."""
    fields = {"token": grant.token, "evidence": Evidence(steps_end=3), **changed}
    return Release(task_id=grant.task_id, worker_id=worker, **fields)


def renewal(grant: Grant, worker: str = "w1", **changed: Any) -> Renewal:
    """A lease that its holder still has."""
    fields = {"token": grant.token, "epoch": grant.epoch, **changed}
    return Renewal(task_id=grant.task_id, worker_id=worker, **fields)
