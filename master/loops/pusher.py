"""The pusher: calls Evaluate on workers that registered a port and never pull, as MorphML's master does.

One loop a worker, one task at a time (as many as it has slots, for a Tenure worker in push mode). What a MorphML 1.0
worker is owed is in docs/protocol.md; the hard parts:

* It registers before its server listens: nothing is claimed for it until its port answers, and a refused call gives
  the task back without burning anything.
* Its result comes by SubmitResult before Evaluate returns, or only as Evaluate's response: whichever comes first is
  taken, the other is a duplicate.
* After a restart of this master it only heartbeats: the loop starts from that, and what it is running by its own word
  is waited for.
* An open call is a sign of life (HTTP/2 pings run beneath it), so the lease is renewed while it is open. When it
  breaks, the worker is asked what it runs; a refused connection means that its process is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import structlog

from tenure.common.cancelling import cancel_all
from tenure.common.errors import StoreUnavailable, TenureError, UnknownWorker
from tenure.master.core.matching import Capabilities
from tenure.master.core.outcomes import Judged, judge_legacy, judge_outcome
from tenure.master.loops.matchmaker import Consumer
from tenure.master.rpc.messages import evaluate_request
from tenure.master.rpc.outcomes import take_outcome
from tenure.master.rpc.workers import PUSH
from tenure.master.store.records import (
    Evidence,
    Failure,
    FailureKind,
    Grant,
    Release,
    Renewal,
    TaskEvent,
    WorkerView,
)
from tenure.proto import worker_pb2, worker_pb2_grpc
from tenure.proto.serving import CHANNEL_OPTIONS

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

CONNECT_SECONDS = 5.0
CONTROL_CALL_SECONDS = 5.0
PAUSE_SECONDS_MAX = 5.0
# After a call broke: how long a result that is on its way by SubmitResult is waited for.
RESULT_GRACE_SECONDS = 3.0


@dataclass(eq=False)
class _PushWorker:
    """What this master knows of a worker it pushes to."""

    worker_id: str
    loop: asyncio.Task[None] | None = None
    heard: float = field(default_factory=time.monotonic)
    running: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    open_calls: dict[str, tuple[Grant, worker_pb2_grpc.WorkerServiceStub]] = field(default_factory=dict)


class Pusher:
    """See the module. Loops start by :meth:`note_worker` and by heartbeats; :meth:`close` ends them."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._store = master.store
        self._workers: dict[str, _PushWorker] = {}
        # Workers that heartbeat here and are known not to be pushed to.
        self._others: set[str] = set()

    def note_worker(self, worker_id: str) -> None:
        """A push worker registered here: push to it."""
        self._others.discard(worker_id)
        worker = self._workers.setdefault(worker_id, _PushWorker(worker_id))
        worker.heard = time.monotonic()
        worker.running = ""
        worker.changed.set()
        self._ensure_loop(worker)

    def forget(self, worker_id: str) -> None:
        """The worker pulls: don't push to it."""
        self._others.add(worker_id)
        worker = self._workers.pop(worker_id, None)
        if worker is not None and worker.loop is not None:
            worker.loop.cancel()

    def note_heartbeat(self, worker_id: str, running: str) -> None:
        """A worker heartbeats here; one that isn't known yet is looked up, and pushed to if that is its way."""
        if worker_id in self._others:
            return
        worker = self._workers.get(worker_id)
        if worker is None:
            self._master.spawn(self._take_back(worker_id, running))
            return
        worker.heard = time.monotonic()
        if worker.running != running:
            worker.running = running
            worker.changed.set()
        self._ensure_loop(worker)

    async def note_legacy_heartbeat(self, worker_id: str, running: str) -> None:
        """The same for a worker that can't name lease tokens: its leases live while it is seen.

        One that is pushed to and says it runs nothing, while no call to it is open here, has lost its task: then it is
        not kept alive by its heartbeats, and the lease runs out.
        """
        self.note_heartbeat(worker_id, running)
        worker = self._workers.get(worker_id)
        if worker is None or running or worker.open_calls:
            await self._store.workers.seen_legacy(worker_id)

    def note_mode(self, worker_id: str) -> None:
        """The worker was drained, cordoned or uncordoned."""
        if worker_id in self._workers:
            self._workers[worker_id].changed.set()

    def note_event(self, event: TaskEvent) -> None:
        """Stop what was cancelled or is done elsewhere."""
        worker = self._workers.get(event.worker_id) if event.transition == "cancel" else None
        candidates = [worker] if worker else self._workers.values() if event.transition == "complete" else ()
        for each in candidates:
            call = each.open_calls.get(event.task_id)
            if call is not None and (event.transition == "cancel" or event.epoch != call[0].epoch):
                reason = "cancelled" if event.transition == "cancel" else "finished_elsewhere"
                self._master.spawn(self._cancel_task(call[1], call[0], reason))

    async def close(self) -> None:
        """End all loops. The workers run on; their results come by SubmitResult to any master."""
        await cancel_all(worker.loop for worker in self._workers.values() if worker.loop is not None)

    def _ensure_loop(self, worker: _PushWorker) -> None:
        if worker.loop is None or worker.loop.done():
            worker.loop = asyncio.create_task(self._serve(worker), name=f"push-{worker.worker_id}")

    async def _take_back(self, worker_id: str, running: str) -> None:
        try:
            view = await self._store.workers.get(worker_id)
        except TenureError:
            return
        if view.fields.get("dispatch") != PUSH:
            if len(self._others) > 100_000:
                self._others.clear()
            self._others.add(worker_id)
            return
        self.note_worker(worker_id)
        self._workers[worker_id].running = running
        log.info("push.taken_back", worker=worker_id, running=running)

    # ---- one worker -----------------------------------------------------------------------------------------------

    async def _serve(self, worker: _PushWorker) -> None:
        pause = 0.1
        silence_max = 3 * self._master.settings.lease_ttl_seconds
        while time.monotonic() - worker.heard < silence_max or worker.open_calls:
            worker.changed.clear()
            try:
                view = await self._store.workers.get(worker.worker_id)
                if view.fields.get("dispatch") != PUSH:
                    return
                free = self._free_slots(worker, view)
                if free == 0:
                    await _wait(worker.changed, PAUSE_SECONDS_MAX)
                    continue
                channel = await _connect(view)
            except UnknownWorker:
                return
            except StoreUnavailable:
                channel = None
            if channel is None:
                await _wait(worker.changed, pause * random.uniform(0.5, 1))
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
                continue
            pause = 0.1
            async with channel:
                await self._push_next(worker, view, channel, free)

    def _free_slots(self, worker: _PushWorker, view: WorkerView) -> int:
        if view.fields.get("mode", "active") != "active":
            return 0
        if worker.running and worker.running not in worker.open_calls:
            return 0
        return max(0, int(view.number("slots") or 1) - len(worker.open_calls))

    async def _push_next(self, worker: _PushWorker, view: WorkerView, channel: Any, slots: int) -> None:
        """Claim for the worker's free slots and push what comes, until a call has ended or the worker changed."""
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        granted: asyncio.Queue[list[Grant]] = asyncio.Queue()
        gpus = int(view.number("num_gpus")) // max(1, int(view.number("slots") or 1))
        labels = dict(pair.split("=", 1) for pair in view.fields.get("labels", "").split("\n") if "=" in pair)
        legacy = not view.fields.get("instance")
        consumer = Consumer(worker.worker_id, Capabilities(gpus, labels), granted.put_nowait, legacy=legacy)
        self._master.matchmaker.want(consumer, slots)
        calls: set[asyncio.Task[None]] = set()
        try:
            while True:
                getter = asyncio.ensure_future(granted.get())
                changed = asyncio.ensure_future(worker.changed.wait())
                done, _ = await asyncio.wait({getter, changed, *calls}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if getter in done:
                    for grant in getter.result():
                        calls.add(asyncio.create_task(self._push(worker, stub, grant)))
                else:
                    getter.cancel()
                ended = {call for call in calls if call.done()}
                calls -= ended
                if ended or (not calls and getter not in done):
                    break
                worker.changed.clear()
            # Slots are counted anew by the caller; calls that are still open must keep their channel.
            self._master.matchmaker.leave(consumer)
            if calls:
                await asyncio.wait(calls)
        finally:
            self._master.matchmaker.leave(consumer)
            consumer.deliver = lambda grants: self._give_back_later(worker.worker_id, grants)
            while not granted.empty():
                self._give_back_later(worker.worker_id, granted.get_nowait())
            for call in calls:
                call.cancel()

    async def _push(self, worker: _PushWorker, stub: worker_pb2_grpc.WorkerServiceStub, grant: Grant) -> None:
        log.info("task.push", task=grant.task_id, worker=worker.worker_id, epoch=grant.epoch)
        request = evaluate_request(grant, self._master.settings.lease_ttl_ms)
        timeout = grant.timeout_ms / 1000 if grant.timeout_ms else None
        worker.open_calls[grant.task_id] = (grant, stub)
        renewing = asyncio.create_task(self._renew(worker, grant))
        try:
            response = await stub.Evaluate(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            await self._call_broke(worker, stub, grant, error)
        else:
            self._master.metrics.pushes.labels("response").inc()
            await self._take(self._judge(worker.worker_id, grant, response))
        finally:
            renewing.cancel()
            worker.open_calls.pop(grant.task_id, None)

    def _judge(self, worker_id: str, grant: Grant, response: worker_pb2.EvaluateResponse) -> Judged:
        if response.HasField("outcome"):
            outcome = worker_pb2.Outcome()
            outcome.CopyFrom(response.outcome)
            outcome.task_id, outcome.lease_token, outcome.epoch = grant.task_id, grant.token, grant.epoch
            return judge_outcome(outcome, worker_id, self._master.retry)
        return judge_legacy(
            task_id=grant.task_id,
            worker_id=worker_id,
            success=response.success,
            metrics=dict(response.metrics),
            error=response.error,
            duration=response.duration,
            architecture="",
            retry=self._master.retry,
            token=grant.token,
        )

    async def _renew(self, worker: _PushWorker, grant: Grant) -> None:
        renewal = Renewal(grant.task_id, grant.token, grant.epoch, worker.worker_id)
        while True:
            await asyncio.sleep(self._master.settings.heartbeat_seconds)
            with contextlib.suppress(StoreUnavailable):
                verdict = await self._store.tasks.renew(renewal)
                self._master.metrics.renewals.labels(verdict.value).inc()

    async def _call_broke(
        self, worker: _PushWorker, stub: worker_pb2_grpc.WorkerServiceStub, grant: Grant, error: Any
    ) -> None:
        code = error.code()
        self._master.metrics.pushes.labels(code.name.lower()).inc()
        log.warning("push.broke", task=grant.task_id, worker=worker.worker_id, code=code.name, details=error.details())
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            await self._cancel_task(stub, grant, "timeout")
            await self._fail(
                worker, grant, FailureKind.FAILURE, "TaskTimeout", f"ran for {grant.timeout_ms / 1000:g} s"
            )
        elif code == grpc.StatusCode.RESOURCE_EXHAUSTED or (
            code == grpc.StatusCode.UNAVAILABLE and "connect" in (error.details() or "").lower()
        ):
            # It never got the task (not listening yet, or all its slots are taken): no attempt is burned.
            await self._release(worker.worker_id, grant)
            await asyncio.sleep(random.uniform(0.1, 1.0))
        elif code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            await self._ask_what_runs(worker, stub, grant)
        else:
            await self._fail(
                worker, grant, FailureKind.FAILURE, "EvaluateCallFailed", f"{code.name}: {error.details()}"
            )

    async def _ask_what_runs(self, worker: _PushWorker, stub: worker_pb2_grpc.WorkerServiceStub, grant: Grant) -> None:
        """The call broke under way. While the worker says that it runs the task, its result is waited for."""
        while True:
            try:
                status = await stub.GetStatus(
                    worker_pb2.StatusRequest(worker_id=worker.worker_id), timeout=CONTROL_CALL_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                why = f"its worker can't be reached: {error.details()}"
                await self._fail(worker, grant, FailureKind.LOSS, "WorkerLost", why)
                return
            if grant.task_id not in (status.current_task_id, *status.task_ids):
                await asyncio.sleep(RESULT_GRACE_SECONDS)
                await self._fail(worker, grant, FailureKind.LOSS, "ResultLost", "its worker runs it no more")
                return
            await asyncio.sleep(min(RESULT_GRACE_SECONDS, self._master.settings.heartbeat_seconds))

    async def _cancel_task(self, stub: worker_pb2_grpc.WorkerServiceStub, grant: Grant, reason: str) -> None:
        request = worker_pb2.CancelRequest(task_id=grant.task_id, lease_token=grant.token, reason=reason)
        try:
            await stub.CancelTask(request, timeout=CONTROL_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            log.warning("push.cancel_failed", task=grant.task_id, code=error.code().name, details=error.details())

    async def _fail(self, worker: _PushWorker, grant: Grant, kind: FailureKind, error_class: str, message: str) -> None:
        evidence = Evidence(error_class=error_class, error_message=message)
        await self._take(
            Failure(grant.task_id, grant.token, worker.worker_id, kind, True, evidence, self._master.retry)
        )

    async def _release(self, worker_id: str, grant: Grant) -> None:
        await self._take(Release(grant.task_id, grant.token, worker_id))

    def _give_back_later(self, worker_id: str, grants: list[Grant]) -> None:
        for grant in grants:
            self._master.spawn(self._release(worker_id, grant))

    async def _take(self, judged: Judged) -> None:
        while True:
            try:
                await take_outcome(self._store, self._master.metrics, judged)
                return
            except StoreUnavailable:
                await asyncio.sleep(random.uniform(0.1, 1.0))


async def _connect(view: WorkerView) -> grpc.aio.Channel | None:
    """A channel to the worker's port that answers, by its host name or else by the address it called from."""
    port = int(view.number("port"))
    hosts = [view.fields.get("host", ""), _peer_host(view.fields.get("peer", ""))]
    for host in dict.fromkeys(host for host in hosts if host):
        channel = grpc.aio.insecure_channel(f"{host}:{port}", options=CHANNEL_OPTIONS)
        try:
            await asyncio.wait_for(channel.channel_ready(), CONNECT_SECONDS)
        except TimeoutError:
            await channel.close()
            continue
        except BaseException:
            await channel.close()
            raise
        return channel
    log.debug("push.unreachable", worker=view.worker_id, hosts=hosts, port=port)
    return None


def _peer_host(peer: str) -> str:
    """The host in what gRPC calls a peer: ``ipv4:10.0.0.7:43210`` or ``ipv6:%5B::1%5D:43210``."""
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return ""
    return rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
