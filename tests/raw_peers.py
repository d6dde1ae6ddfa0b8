"""Peers without any of Tenure's own client or worker code: bare stubs, and words for what most tests do with them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from processes import DEADLINE_SECONDS, MasterProcess, eventually

from tenure.common.errors import ERROR_METADATA_KEY
from tenure.common.limits import MESSAGE_BYTES_MAX
from tenure.proto import tenure_pb2, tenure_pb2_grpc, worker_pb2, worker_pb2_grpc

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)
# Of masters: leases outlive every test unless it cuts them; failed tasks are ready again at once.
MASTER_SETTINGS: dict[str, Any] = {"grace_seconds": 0.5, "tick_seconds": 0.1, "retry_base_seconds": 0}
GRAPH = json.dumps(
    {
        "nodes": [{"id": "a", "operation": "flatten"}, {"id": "b", "operation": "dense", "params": {"units": 10}}],
        "edges": [{"id": "e", "source_id": "a", "target_id": "b"}],
    }
)
_numbers = itertools.count(1)


@contextlib.asynccontextmanager
async def refused(status: grpc.StatusCode, code: str = "", field: str = "", given: str = "") -> AsyncIterator[Any]:
    """The block must be refused with this status, and with these parts in ``tenure-error``; yields their mapping."""
    parts: dict[str, str] = {}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield parts
    assert caught.value.code() == status, f"{caught.value.code()}: {caught.value.details()}"
    parts |= error_parts(caught.value)
    if code:
        assert (parts["code"], parts["field"]) == (code, field), parts
        assert given in parts["given"], parts
        assert parts["message"]


def error_parts(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """What the trailing metadata ``tenure-error`` carries."""
    for name, value in error.trailing_metadata() or ():
        if name == ERROR_METADATA_KEY:
            parts: dict[str, str] = json.loads(value)
            return parts
    return {}


class Broker:
    """The client API and the unary worker API at one address.

    Args:
        options: More channel options.

    Attributes:
        api: TenureService's stub.
        workers: MasterService's stub.
    """

    def __init__(self, address: str, *options: tuple[str, Any]) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=(*OPTIONS, *options))
        self.api = tenure_pb2_grpc.TenureServiceStub(self.channel)
        self.workers = worker_pb2_grpc.MasterServiceStub(self.channel)

    async def close(self) -> None:
        """Hang up."""
        await self.channel.close()

    async def submit(self, search: str, count: int = 1, **spec: Any) -> list[str]:
        """New tasks, each under a key of its own; returns their ids."""
        spec = {"architecture": GRAPH, **spec}
        tasks = [tenure_pb2.TaskSpec(**{"key": f"k{next(_numbers)}", **spec}) for _ in range(count)]
        response = await self.api.Submit(tenure_pb2.SubmitRequest(search=search, tasks=tasks))
        assert all(task.created for task in response.tasks)
        return [task.task_id for task in response.tasks]

    async def task(self, task_id: str) -> tenure_pb2.Task:
        """With architecture, config and attempt records."""
        response = await self.api.GetTasks(tenure_pb2.GetTasksRequest(task_ids=[task_id], full=True))
        (task,) = response.tasks
        return task

    async def until(self, task_id: str, state: int, deadline: float = DEADLINE_SECONDS) -> tenure_pb2.Task:
        """The task, once it is in this state."""
        seen: list[tenure_pb2.Task] = []

        async def there() -> tenure_pb2.Task | None:
            seen[:] = [await self.task(task_id)]
            return seen[0] if seen[0].state == state else None

        try:
            return await eventually(there, deadline)
        except AssertionError:
            raise AssertionError(f"not {tenure_pb2.TaskState.Name(state)} within {deadline:g} s: {seen}") from None

    async def worker(self, worker_id: str) -> tenure_pb2.Worker:
        """One worker of the list."""
        response = await self.api.ListWorkers(tenure_pb2.ListWorkersRequest(all=True))
        (found,) = [worker for worker in response.workers if worker.worker_id == worker_id]
        return found

    async def counters(self) -> dict[str, int]:
        """The store's counters."""
        return dict((await self.api.GetStats(tenure_pb2.StatsRequest())).counters)

    async def fsck(self) -> list[str]:
        """Violations."""
        return list((await self.api.Fsck(tenure_pb2.FsckRequest())).violations)


class RawSession:
    """One session stream, spoken by hand. Made by :meth:`open`.

    Attributes:
        welcome: The master's.
        renewed: The ``renewals_done`` that answers hello.
        greeting: What came between the two.
    """

    def __init__(self, address: str, worker_id: str, instance_id: str) -> None:
        self.worker_id = worker_id
        self.instance_id = instance_id
        self.welcome = worker_pb2.Welcome()
        self.renewed = worker_pb2.RenewalsDone()
        self.greeting: list[worker_pb2.SessionDown] = []
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._call = worker_pb2_grpc.MasterServiceStub(self._channel).Session()
        self._unheard: list[worker_pb2.SessionDown] = []

    @classmethod
    async def open(
        cls,
        address: str,
        worker_id: str,
        *,
        instance_id: str = "instance-1",
        held: Sequence[worker_pb2.Renewal] = (),
        want: int | None = None,
        **registration: Any,
    ) -> RawSession:
        """Say hello, hear everything up to ``renewals_done``, then say ``want``."""
        session = cls(address, worker_id, instance_id)
        await session.say_hello(held, **registration)
        session.welcome = (await session._read()).welcome
        while True:
            down = await session._read()
            if down.HasField("renewals_done"):
                session.renewed = down.renewals_done
                break
            session.greeting.append(down)
        if want is not None:
            await session.say(want=worker_pb2.Want(slots=want))
        return session

    async def say_hello(self, held: Sequence[worker_pb2.Renewal] = (), **registration: Any) -> None:
        """The first message."""
        fields = {
            "worker_id": self.worker_id,
            "instance_id": self.instance_id,
            "slots": 4,
            "dispatch": worker_pb2.DISPATCH_PULL,
            **registration,
        }
        await self.say(hello=worker_pb2.Hello(worker=worker_pb2.RegisterRequest(**fields), held=held))

    async def say(self, **message: Any) -> None:
        """One message up."""
        await self._call.write(worker_pb2.SessionUp(**message))

    async def want(self, slots: int) -> None:
        """Free slots."""
        await self.say(want=worker_pb2.Want(slots=slots))

    async def end(
        self, task: worker_pb2.EvaluateRequest, kind: Any = worker_pb2.OUTCOME_SUCCESS, **fields: Any
    ) -> worker_pb2.OutcomeVerdict:
        """Send an outcome and hear its verdict."""
        await self.say(outcomes=worker_pb2.Outcomes(outcomes=[outcome_of(task, kind, **fields)]))
        (verdict,) = (await self.hear("outcome_verdicts")).outcome_verdicts.verdicts
        assert (verdict.task_id, verdict.lease_token) == (task.task_id, task.lease_token)
        return verdict

    async def heartbeat(self, *renewals: worker_pb2.Renewal, **fields: Any) -> worker_pb2.RenewalsDone:
        """Send one and hear its answer."""
        message = worker_pb2.HeartbeatRequest(
            worker_id=self.worker_id, instance_id=self.instance_id, renewals=renewals, **fields
        )
        await self.say(heartbeat=message)
        return (await self.hear("renewals_done")).renewals_done

    async def register_checkpoint(
        self, task: worker_pb2.EvaluateRequest, url: str, step: int = 1, **fields: Any
    ) -> worker_pb2.CheckpointVerdict:
        """Announce one and hear the verdict."""
        await self.say(checkpoint=checkpoint_of(task, url, step, **fields))
        verdict = (await self.hear("checkpoint_verdict")).checkpoint_verdict
        assert (verdict.task_id, verdict.lease_token, verdict.url) == (task.task_id, task.lease_token, url)
        return verdict

    async def hear(self, kind: str, deadline: float = DEADLINE_SECONDS) -> worker_pb2.SessionDown:
        """The next message of one kind; the others wait for their own ``hear``."""
        for index, message in enumerate(self._unheard):
            if message.WhichOneof("message") == kind:
                return self._unheard.pop(index)
        try:
            async with asyncio.timeout(deadline):
                while (message := await self._read()).WhichOneof("message") != kind:
                    self._unheard.append(message)
        except TimeoutError:
            raise AssertionError(f"no {kind} within {deadline:g} s; heard {self._unheard}") from None
        return message

    async def hear_tasks(self, count: int = 1) -> list[worker_pb2.EvaluateRequest]:
        """The next ``count`` tasks, in however many messages."""
        tasks: list[worker_pb2.EvaluateRequest] = []
        while len(tasks) < count:
            tasks += (await self.hear("tasks")).tasks.tasks
        assert len(tasks) == count
        return tasks

    async def hear_task(self) -> worker_pb2.EvaluateRequest:
        """The next task."""
        return (await self.hear_tasks(1))[0]

    async def hear_revocation(self) -> worker_pb2.Revocation:
        """The next revocation, of one lease."""
        (revocation,) = (await self.hear("revocations")).revocations.revocations
        return revocation

    async def expect_silence(self, kind: str) -> None:
        """No message of this kind has been sent up to now: everything before the answer to a heartbeat is read."""
        await self.heartbeat()
        heard = [message for message in self._unheard if message.WhichOneof("message") == kind]
        assert heard == []

    async def ended(self, deadline: float = DEADLINE_SECONDS) -> grpc.StatusCode:
        """How the stream ended; unread messages are dropped."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with asyncio.timeout(deadline):
                while await self._call.read() is not grpc.aio.EOF:
                    pass
        return await self._call.code()

    async def error(self) -> grpc.aio.AioRpcError:
        """The same with everything that the master said."""
        code = await self.ended()
        return grpc.aio.AioRpcError(
            code,
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            await self._call.details(),
        )

    async def goodbye(self) -> None:
        """Leave on purpose."""
        await self.say(goodbye=worker_pb2.Goodbye(reason="the test is over"))
        await self._call.done_writing()
        assert await self.ended() == grpc.StatusCode.OK
        await self._channel.close()

    async def close_its_side(self) -> None:
        """Say nothing more, and no goodbye."""
        await self._call.done_writing()

    async def hang_up(self) -> None:
        """Break the stream and the connection, as a death does."""
        self._call.cancel()
        await self._channel.close()

    async def _read(self) -> worker_pb2.SessionDown:
        message = await self._call.read()
        assert message is not grpc.aio.EOF, "the master has ended the stream"
        return message


def renewal_of(task: worker_pb2.EvaluateRequest, **progress: Any) -> worker_pb2.Renewal:
    """The lease of a task, renewed."""
    renewal = worker_pb2.Renewal(task_id=task.task_id, lease_token=task.lease_token, epoch=task.epoch)
    if progress:
        renewal.progress.CopyFrom(worker_pb2.Progress(**progress))
    return renewal


def outcome_of(task: worker_pb2.EvaluateRequest, kind: Any, **fields: Any) -> worker_pb2.Outcome:
    """An end of its lease."""
    if kind == worker_pb2.OUTCOME_SUCCESS:
        fields.setdefault("metrics", {"fitness": 0.5})
    return worker_pb2.Outcome(task_id=task.task_id, lease_token=task.lease_token, epoch=task.epoch, kind=kind, **fields)


def checkpoint_of(
    task: worker_pb2.EvaluateRequest, url: str, step: int = 1, **fields: Any
) -> worker_pb2.RegisterCheckpoint:
    """A checkpoint written under its lease."""
    checkpoint = worker_pb2.Checkpoint(url=url, step=step, digest="d" * 64, size_bytes=1, epoch=task.epoch, **fields)
    return worker_pb2.RegisterCheckpoint(task_id=task.task_id, lease_token=task.lease_token, checkpoint=checkpoint)


OpenBroker = Callable[..., Broker]
OpenSession = Callable[..., Awaitable[RawSession]]
StartMaster = Callable[..., MasterProcess]
