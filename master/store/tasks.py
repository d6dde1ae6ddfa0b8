"""The transitions of tasks as methods: one method, one Lua script, one row of the state table."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tenure.common.errors import InvalidInput, WrongState
from tenure.common.ids import new_task_id
from tenure.common.limits import BATCH_TASKS_MAX
from tenure.common.spec import TaskSpec, content_key
from tenure.common.states import TaskState
from tenure.master.store import codec
from tenure.master.store.code import unknown_code
from tenure.master.store.codec import text
from tenure.master.store.keys import Keys
from tenure.master.store.lease_facts import LeaseFacts
from tenure.master.store.origins import checked_origin
from tenure.master.store.pipeline import Encode, ScriptCalls
from tenure.master.store.records import (
    Answer,
    CheckpointRecord,
    ClaimRequest,
    Expired,
    Failure,
    Grants,
    Lease,
    NewTask,
    Release,
    Renewal,
    RenewVerdict,
    Submitted,
    Success,
    TaskView,
    Verdict,
)
from tenure.master.store.views import task_view

Fenced = TypeVar("Fenced", Success, Renewal)


class TaskStore:
    """Tasks of all shards. Every method is safe to call again; errors are those of ``common.errors``.

    Args:
        pipeline: Carries the calls.
        keys: Names the keys.
        lease_ttl_ms: How long a lease lives without renewal, on the lease clock.
    """

    def __init__(self, pipeline: ScriptCalls, keys: Keys, lease_ttl_ms: int) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._ttl_ms = lease_ttl_ms
        self._next_shard = 0

    def _clock(self, task_id: str) -> str | None:
        shard = self._keys.shard_of_task(task_id)
        return None if shard is None else self._keys.clocks[shard]

    async def submit(
        self, search: str, specs: Sequence[TaskSpec], architecture_format: str = "graph"
    ) -> list[Submitted]:
        """Create the tasks whose keys are new: all of them, or none. At most 100; the caller has checked the specs.

        Raises:
            WrongState: The search is cancelled.
            UnknownCode: The code that a task names is not in the store.
            InvalidInput: The store would get more than 64 different requirements.
        """
        shard = self._keys.shard_of_search(search)
        tasks = [
            NewTask(
                new_task_id(shard),
                spec.key or content_key(spec.architecture, spec.config, spec.evaluator, spec.code),
                spec,
            )
            for spec in specs
        ]
        arguments = codec.submit_arguments(search, architecture_format, tasks)
        reply = await self._pipeline.call("submit", self._keys.clocks[shard], *arguments)
        if reply == b"SEARCH_CANCELLED":
            raise WrongState(
                "the search is cancelled",
                field="search",
                given=search,
                expected="resume it, or use another name",
            )
        if reply == b"UNKNOWN_CODE":
            raise unknown_code(", ".join(sorted({spec.code for spec in specs if spec.code})))
        if reply == b"TOO_MANY_CLASSES":
            raise InvalidInput(
                "more than 64 different requirements are in use",
                field="requirements",
                expected="let tasks share requirements, or forget searches that are done",
            )
        return [
            Submitted(text(task_id), task.key, verdict == b"OK", TaskState(text(state)), text(trace))
            for task, (verdict, task_id, state, trace) in zip(tasks, reply, strict=True)
        ]

    async def claim(self, request: ClaimRequest) -> Grants:
        """Ready tasks for one worker, at most as many as it brings tokens, from all shards in turn."""
        shards = self._keys.shards
        start, self._next_shard = self._next_shard, (self._next_shard + 1) % shards
        granted = Grants()
        for offset in range(shards):
            tokens = request.tokens[len(granted) + len(granted.damaged) :]
            if not tokens:
                break
            part = replace(request, tokens=tokens)
            key = self._keys.clocks[(start + offset) % shards]
            reply = await self._pipeline.item("claim", key, part, self._encode_claims)
            part_granted = codec.grants(reply, request.worker_id)
            granted += part_granted
            granted.passed_over |= part_granted.passed_over
            granted.damaged += part_granted.damaged
        return granted

    async def give_back(self, tokens: Sequence[str]) -> int:
        """Release the leases of claims whose answer was lost; they never reached their workers and burn nothing."""
        unanswered = set(tokens)
        lost = [lease for lease in await self.leases() if lease.token in unanswered]
        await asyncio.gather(*(self.release(Release(each.task_id, each.token, each.worker_id)) for each in lost))
        return len(lost)

    async def leases(self, workers: Collection[str] = ()) -> list[Lease]:
        """Every lease with its holder, of all shards; only those of ``workers``, if any are named.

        Leases that come or go meanwhile may be in it or not.
        """
        found: dict[str, Lease] = {}
        for key in self._keys.clocks:
            cursor = b"0"
            while True:
                cursor, rows = await self._pipeline.call("leases", key, cursor, *workers)
                for row in rows:
                    lease = Lease(*(text(part) for part in row))
                    found[lease.task_id] = lease
                if cursor == b"0":
                    break
        return list(found.values())

    async def lease_counts(self) -> Counter[str]:
        """How many leases each worker holds, of all shards. One that comes or goes meanwhile may be counted or not."""
        counts: Counter[str] = Counter()
        for key in self._keys.clocks:
            cursor = b"0"
            while True:
                cursor, flat = await self._pipeline.call("lease_counts", key, cursor)
                for worker, count in zip(flat[::2], flat[1::2], strict=True):
                    counts[text(worker)] += int(count)
                if cursor == b"0":
                    break
        return counts

    def _encode_claims(self, requests: list[ClaimRequest]) -> Any:
        return codec.claim_arguments(self._ttl_ms, requests)

    async def complete(self, success: Success) -> Answer[list[str]]:
        """Take a success: (verdict, URLs of checkpoints to delete)."""
        return (await self.complete_all([success]))[0]

    async def complete_all(self, successes: Sequence[Success]) -> list[Answer[list[str]]]:
        """Take at most 100 successes of different tasks together; answers in order."""
        successes = [self._with_checked_origin(each) for each in successes]
        replies = await self._each("complete", successes, codec.complete_arguments)
        return [codec.success_answer(reply) for reply in replies]

    async def fail(self, failure: Failure) -> Answer[str]:
        """Take a bad end: (verdict, the state the task is in now).

        POLICY comes with ``id JSON`` instead of the state (both empty: the search has no policy): judge by that.
        """
        key = self._clock(failure.task_id)
        if key is None:
            return Answer((Verdict.UNKNOWN_TASK, ""))
        return codec.failure_answer(await self._pipeline.item("fail", key, failure, codec.fail_arguments))

    async def release(self, release: Release) -> Answer[list[str]]:
        """Take a task back unfinished: (verdict, URLs of checkpoints to delete)."""
        key = self._clock(release.task_id)
        if key is None:
            return Answer((Verdict.UNKNOWN_TASK, []))
        return codec.release_answer(await self._pipeline.item("release", key, release, codec.release_arguments))

    async def renew(self, renewal: Renewal) -> RenewVerdict:
        """Start the lease anew, or give it back to a holder that was away (readopt)."""
        return (await self.renew_all([renewal]))[0]

    async def renew_all(self, renewals: Sequence[Renewal]) -> list[RenewVerdict]:
        """Renew any number of leases; answers in order."""
        verdicts: list[RenewVerdict] = []
        for chunk in _chunks([self._with_checked_origin(each) for each in renewals]):
            replies = await self._each("renew", chunk, self._encode_renewals)
            open_again = [index for index, reply in enumerate(replies) if reply == b"OPEN"]
            readopted = await self._each("readopt", [chunk[index] for index in open_again], self._encode_renewals)
            for index, reply in zip(open_again, readopted, strict=True):
                replies[index] = reply
            verdicts += [RenewVerdict.UNKNOWN if reply is None else RenewVerdict(text(reply)) for reply in replies]
        return verdicts

    def _encode_renewals(self, renewals: list[Renewal]) -> Any:
        return codec.renew_arguments(self._ttl_ms, renewals)

    async def register_checkpoint(
        self, task_id: str, token: str, worker_id: str, checkpoint: CheckpointRecord
    ) -> tuple[Verdict, list[str]]:
        """Make a checkpoint exist: (verdict, URLs of checkpoints to delete)."""
        key = self._clock(task_id)
        if key is None:
            return Verdict.UNKNOWN_TASK, []
        item = {
            "id": task_id,
            "token": token,
            "worker": worker_id,
            "url": checkpoint.url,
            "checkpoint": checkpoint.to_json(),
        }
        verdict, urls = await self._pipeline.item("checkpoint", key, item, _encode_json)
        return Verdict(text(verdict)), [text(url) for url in urls]

    async def cut(self, leases: Sequence[tuple[str, str]], grace_ms: int) -> int:
        """Leave leases, given as (task id, token), at most ``grace_ms``; returns how many were shortened."""
        shortened = 0
        for key, rows in self._by_shard(leases, lambda lease: lease[0]):
            for chunk in _chunks(rows):
                items = [{"id": task_id, "token": token} for task_id, token in chunk]
                shortened += await self._pipeline.call("cut", key, json.dumps({"grace": grace_ms, "items": items}))
        return shortened

    async def cancel(self, task_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Stop tasks: id -> (ok, cancel_requested, already, wrong_state or unknown; state)."""
        return await self._ended_by_hand("cancel", task_ids)

    async def requeue(self, task_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Give ended tasks fresh budgets: id -> (ok, already, wrong_state or unknown; state)."""
        return await self._ended_by_hand("requeue", task_ids)

    async def _ended_by_hand(self, script: str, task_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        verdicts: dict[str, tuple[str, str]] = dict.fromkeys(task_ids, ("unknown", ""))
        for key, rows in self._by_shard(task_ids, str):
            for chunk in _chunks(rows):
                reply = await self._pipeline.call(script, key, *chunk)
                for task_id, (verdict, state) in zip(chunk, reply, strict=True):
                    verdicts[task_id] = (text(verdict), text(state))
        return verdicts

    async def show(self, task_ids: Sequence[str], *, full: bool = False) -> dict[str, TaskView]:
        """Tasks by id, without those that are unknown. ``full``: with architecture, config and attempt records."""
        views: dict[str, TaskView] = {}
        for key, rows in self._by_shard(task_ids, str):
            for chunk in _chunks(rows):
                reply = await self._pipeline.call("show", key, "1" if full else "0", *chunk)
                for task_id, part in zip(chunk, reply, strict=True):
                    if part:
                        views[task_id] = task_view(task_id, part, full=full)
        return views

    async def page(self, search: str, states: Iterable[TaskState], after: str, count: int) -> tuple[str, list[str]]:
        """Ids in the order of submission, from after a cursor ('' = the start): (next cursor or '' at the end, ids).

        A page may be shorter than ``count``, even empty, while the cursor says that there is more.

        Raises:
            InvalidInput: It is no such cursor.
        """
        if after and not (after.isascii() and after.isdigit()):
            raise InvalidInput("is no page token", field="page_token", given=after, expected="use one that a page gave")
        key = self._keys.clocks[self._keys.shard_of_search(search)]
        wanted = [state.value for state in states]
        cursor, ids = await self._pipeline.call("list", key, search, after or "0", count, *wanted)
        return text(cursor), [text(task_id) for task_id in ids]

    async def expire(self, shard: int, count: int) -> list[Expired]:
        """Take back at most ``count`` leases that ran out."""
        reply = await self._pipeline.call("expire", self._keys.clocks[shard], count, self._ttl_ms)
        return [
            Expired(text(task_id), TaskState(text(state)), text(worker), text(token), text(cause), LeaseFacts.of(lease))
            for task_id, state, worker, token, cause, lease in reply
        ]

    async def due(self, shard: int) -> tuple[int, int, int]:
        """(leases that ran out, leases in all, workers that would lose one in the next step)."""
        due, leases, workers = await self._pipeline.call("due", self._keys.clocks[shard])
        return int(due), int(leases), int(workers)

    async def promote(self, shard: int, count: int) -> int:
        """Queue at most ``count`` scheduled tasks whose time has come."""
        return int(await self._pipeline.call("promote", self._keys.clocks[shard], count))

    async def tick(self, shard: int, cap_ms: int) -> tuple[int, int, int]:
        """Advance the lease clock: (its value, ms added, ms that don't count)."""
        clock, added, skipped = await self._pipeline.call("tick", self._keys.clocks[shard], cap_ms)
        return int(clock), int(added), int(skipped)

    async def forget(self, search: str, keep: int, age_ms: int) -> int:
        """Delete at most 100 ended tasks beyond ``keep`` for each state or older than ``age_ms``."""
        key = self._keys.clocks[self._keys.shard_of_search(search)]
        return int(await self._pipeline.call("forget", key, search, keep, age_ms, BATCH_TASKS_MAX))

    async def forget_orphans(self, shard: int, age_ms: int) -> int:
        """Delete at most 100 of what workers told of lost tasks longer ago than this."""
        return int(await self._pipeline.call("forget_orphans", self._keys.clocks[shard], age_ms, BATCH_TASKS_MAX))

    async def take_discarded(self, shard: int, count: int) -> list[str]:
        """URLs of checkpoints that nobody needs; the caller has them deleted."""
        return [text(url) for url in await self._pipeline.call("discard", self._keys.clocks[shard], count)]

    async def _each(self, script: str, rows: Sequence[Any], encode: Encode) -> list[Any]:
        """Each row's reply of a batched script, in order; None for ids that Tenure can't have made."""
        replies: list[Any] = [None] * len(rows)
        by_key: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            key = self._clock(row.task_id)
            if key is not None:
                by_key.setdefault(key, []).append(index)
        for key, indexes in by_key.items():
            answered = await self._pipeline.items(script, key, [rows[index] for index in indexes], encode)
            for index, reply in zip(indexes, answered, strict=True):
                replies[index] = reply
        return replies

    def _with_checked_origin(self, row: Fenced) -> Fenced:
        origin = checked_origin(row.origin, row.task_id, self._keys)
        return row if origin == row.origin else replace(row, origin=origin)

    def _by_shard(self, rows: Sequence[Any], task_id: Any) -> list[tuple[str, list[Any]]]:
        by_key: dict[str, list[Any]] = {}
        for row in rows:
            key = self._clock(task_id(row))
            if key is not None:
                by_key.setdefault(key, []).append(row)
        return list(by_key.items())


def _encode_json(items: list[Any]) -> Any:
    return [json.dumps(items)]


def _chunks(rows: list[Any]) -> list[list[Any]]:
    return [rows[start : start + BATCH_TASKS_MAX] for start in range(0, len(rows), BATCH_TASKS_MAX)]
