"""What the store holds when all is over, as events of a history: records, transitions, answers to replayed requests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Mapping
from typing import Any

import grpc.aio
import redis
from processes import eventually
from raw_peers import Broker, RawSession
from store_scene import read_key
from store_server import keys_of

from chaos_suite.fleet import Fleet
from chaos_suite.history import Event, History
from chaos_suite.workload import SEARCH, task_of_key
from tenure.client.records import TaskRecord
from tenure.proto import worker_pb2

PREFIX = "tenure"
SHARD = f"{PREFIX}:{{0}}"
# What is there for good, or ages by itself.
LASTING_KEYS = {f"{SHARD}:{name}" for name in ("clock", "seq", "counters", "events", "legacy-seen")}
# What answering a request may change though it changes nothing.
RESTLESS_KEYS = {f"{SHARD}:{name}" for name in ("clock", "events", "counters", "legacy-seen")}
WORKERS = f"{PREFIX}:{{workers}}:"
LEASES_REPLAYED = 25
KEYS_SECONDS_MAX = 40.0
OUTCOMES = {
    "success": worker_pb2.OUTCOME_SUCCESS,
    "failure": worker_pb2.OUTCOME_FAILURE,
    "loss": worker_pb2.OUTCOME_LOSS,
    "out_of_memory": worker_pb2.OUTCOME_OUT_OF_MEMORY,
    "release": worker_pb2.OUTCOME_RELEASE,
}


class LeaseObserver:
    """Looks at the store now and then and notes every lease it sees: tokens for later replays.

    :meth:`run` until cancelled.
    """

    def __init__(self, fleet: Fleet, history: History) -> None:
        self._fleet = fleet
        self._history = history
        self._known: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Look for ever. While the store is away there is nothing to see."""
        while True:
            await asyncio.sleep(0.25)
            with contextlib.suppress(redis.RedisError, OSError):
                for lease in await asyncio.to_thread(self._look):
                    self._history.note("lease", **lease)

    def _look(self) -> list[dict[str, Any]]:
        found = [lease for lease in live_leases(self._fleet) if (lease["task_id"], lease["epoch"]) not in self._known]
        self._known |= {(lease["task_id"], lease["epoch"]) for lease in found}
        return found


def live_leases(fleet: Fleet) -> list[dict[str, Any]]:
    """Every lease now: ``task_id``, ``epoch``, ``worker``, ``token``."""
    found = []
    with fleet.redis() as client:
        for task_id in client.zrange(f"{SHARD}:leases", 0, -1):
            name = task_id.decode()
            token, epoch, worker = client.hmget(f"{SHARD}:task:{name}", "token", "epoch", "worker")
            if token:
                lease = {"task_id": name, "epoch": int(epoch), "worker": worker.decode(), "token": token.decode()}
                found.append(lease)
    return found


async def collect(fleet: Fleet, history: History, baseline: set[str]) -> None:
    """Note everything that the checker wants to know of a fleet whose tasks have all ended."""
    records = await asyncio.to_thread(_records, fleet)
    for record in records:
        history.note("record", **_plain(record))
    for event in await asyncio.to_thread(transitions, fleet):
        history.note("transition", **event)
    status = await asyncio.to_thread(lambda: fleet.client.search(SEARCH).status())
    history.note("counts", tasks={state.value: number for state, number in status.tasks.items()})
    await _fsck(fleet, history, "after healing")
    await _replay(fleet, history, records)
    await _fsck(fleet, history, "after replaying")
    await _forget_all(fleet, history, baseline)


async def _fsck(fleet: Fleet, history: History, when: str) -> None:
    report = await asyncio.to_thread(fleet.client.fsck)
    history.note("fsck", when=when, violations=list(report.violations))


def _records(fleet: Fleet) -> list[TaskRecord]:
    ids = [record.task_id for record in fleet.client.tasks(SEARCH)]
    return list(fleet.client.get_tasks(ids, full=True).values())


def _plain(record: TaskRecord) -> dict[str, Any]:
    names = ("task_id", "key", "attempts", "max_attempts", "losses", "max_losses", "out_of_memory", "epoch")
    return {
        **{name: getattr(record, name) for name in names},
        "state": record.state.value,
        "worker": record.worker_id,
        "fitness": record.metrics.get("fitness"),
        "runs": [
            {"epoch": each.epoch, "worker": each.worker_id, "outcome": each.outcome, "error": each.error_class}
            for each in record.attempt_records
        ],
    }


def transitions(fleet: Fleet) -> list[dict[str, Any]]:
    """The store's own account, in order. Its times are of the server's clock, mapped to the monotonic one."""
    offset = time.monotonic() - time.time()
    with fleet.redis() as client:
        entries = client.xrange(f"{SHARD}:events")
    plain = []
    for entry_id, fields in entries:
        named = {name.decode(): value.decode() for name, value in fields.items()}
        if named["task"]:
            plain.append(
                {
                    "at": int(entry_id.split(b"-")[0]) / 1000 + offset,
                    "task_id": named["task"],
                    "transition": named["transition"],
                    "state": named["state"],
                    "worker": named["worker"],
                    "epoch": int(named["epoch"]),
                }
            )
    return plain


# ---- requests sent again ------------------------------------------------------------------------------------------


async def _replay(fleet: Fleet, history: History, records: list[TaskRecord]) -> None:
    """Send again what was sent before, and what no one may send: nothing may change by it (I7)."""
    # The first equal submission of a task that has its result saves the work of it, which is counted once
    # (docs/compute-time.md). That is no request sent again; the second one is.
    await _resubmit(fleet, history, records)
    before = await asyncio.to_thread(_dump, fleet)
    await _resubmit(fleet, history, records)
    leases = [event for event in history.events if event["what"] == "lease"]
    random.Random(fleet.plan.seed).shuffle(leases)
    broker = Broker(next(iter(fleet.masters.values())).address)
    try:
        for lease, kind in zip(leases[:LEASES_REPLAYED], itertools.cycle(OUTCOMES), strict=False):
            await _send_outcome(broker, history, lease, kind)
        await _announce_checkpoints(broker.address, history, leases[:LEASES_REPLAYED])
    finally:
        await broker.close()
    after = await asyncio.to_thread(_dump, fleet)
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    history.note("replayed", changed=changed)


async def _resubmit(fleet: Fleet, history: History, records: list[TaskRecord]) -> None:
    def send() -> None:
        specs = [task_of_key(record.key).spec() for record in records]
        for record, handle in zip(records, fleet.client.search(SEARCH).submit_many(specs), strict=True):
            same = handle.task_id == record.task_id and not handle.created
            history.note("replay", request="submit", task_id=record.task_id, answer="same" if same else "new")

    await asyncio.to_thread(send)


async def _send_outcome(broker: Broker, history: History, lease: Event, kind: str) -> None:
    names = [await send_outcome(broker, lease, kind) for _ in range(2)]
    history.note("replay", request=kind, task_id=lease["task_id"], epoch=lease["epoch"], answer=names[0])
    if names[0] != names[1]:
        history.note("unexpected", text=f"a {kind} sent twice was answered {names}")


async def send_outcome(broker: Broker, lease: Mapping[str, Any], kind: str) -> str:
    """What a master says to the end of a lease: a verdict, or the status of a refusal."""
    outcome = worker_pb2.Outcome(
        task_id=lease["task_id"],
        lease_token=lease["token"],
        epoch=lease["epoch"],
        kind=OUTCOMES[kind],
        metrics={"fitness": 0.999} if kind == "success" else {},
        error_class="Replayed",
        retryable=True,
    )
    request = worker_pb2.ResultRequest(
        task_id=lease["task_id"], worker_id=lease["worker"], success=kind == "success", outcome=outcome
    )
    try:
        response = await broker.workers.SubmitResult(request)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return str(worker_pb2.Verdict.Name(response.verdict)).removeprefix("VERDICT_")


async def _announce_checkpoints(address: str, history: History, leases: list[Event]) -> None:
    session = await RawSession.open(address, "replayer")
    for lease in leases:
        answer = await announce_checkpoint(session, lease)
        history.note("replay", request="checkpoint", task_id=lease["task_id"], epoch=lease["epoch"], answer=answer)
    await session.goodbye()


async def announce_checkpoint(session: RawSession, lease: Mapping[str, Any]) -> str:
    """What a master says to a checkpoint under this lease."""
    task = worker_pb2.EvaluateRequest(task_id=lease["task_id"], lease_token=lease["token"], epoch=lease["epoch"])
    verdict = await session.register_checkpoint(task, f"file:///nowhere/{lease['token']}", step=10_000)
    return str(worker_pb2.Verdict.Name(verdict.verdict)).removeprefix("VERDICT_")


def _dump(fleet: Fleet) -> dict[str, Any]:
    with fleet.redis() as client:
        values = {
            key: read_key(client, key)
            for key in keys_of(client, PREFIX)
            if key not in RESTLESS_KEYS and not key.startswith(WORKERS)
        }
    for value in values.values():
        if isinstance(value, dict):
            value.pop(b"changed", None)
    return values


# ---- retention ----------------------------------------------------------------------------------------------------


def all_keys(fleet: Fleet) -> set[str]:
    """Names of all keys, of any prefix."""
    with fleet.redis() as client:
        return {key.decode() for key in client.scan_iter(count=1000)}


async def _forget_all(fleet: Fleet, history: History, baseline: set[str]) -> None:
    """Let retention forget every task and the search; what is left then must be what was there before (I10)."""
    for master in fleet.masters.values():
        await asyncio.to_thread(master.terminate)
    sweeping = next(iter(fleet.masters.values()))
    await asyncio.to_thread(lambda: sweeping.restart(retention_tasks=0, retention_days=1e-6))
    left: set[str] = set()

    async def clean() -> bool:
        nonlocal left
        keys = await asyncio.to_thread(all_keys, fleet)
        left = {key for key in keys - baseline - LASTING_KEYS if not key.startswith(WORKERS)}
        return not left

    with contextlib.suppress(AssertionError):
        await eventually(clean, KEYS_SECONDS_MAX)
    history.note("keys", left=sorted(left))
