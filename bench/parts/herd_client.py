"""A client of the master that keeps to a timetable, and measures."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import grpc
import grpc.aio

from tenure.common.limits import MESSAGE_BYTES_MAX
from tenure.proto import tenure_pb2, tenure_pb2_grpc

ARCHITECTURE = json.dumps({"nodes": [{"id": "out", "operation": "flatten"}], "edges": []})
SUBMITS_PER_SECOND = 10
CALL_SECONDS_MAX = 60.0
RETRY_SECONDS = 0.02
# Connects soon after a restart: what is measured is the master, not the pauses of a channel.
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)


class Client:
    """Submits and asks by a timetable.

    Attributes:
        gets, results: (due, seconds until answered) of each call that was answered.
    """

    def __init__(self, stub: tenure_pb2_grpc.TenureServiceStub, gets_per_second: int, tasks_per_second: int) -> None:
        self.gets: list[tuple[float, float]] = []
        self.results: list[tuple[float, float]] = []
        self.known_task = ""
        self._stub = stub
        self._gets_per_second = gets_per_second
        self._batch = max(1, round(tasks_per_second / SUBMITS_PER_SECOND))
        self._succeeded: dict[str, asyncio.Future[float]] = {}

    async def submit(self, search: str, seconds: Iterable[float]) -> list[str]:
        """Tasks that are evaluated for so long each; their ids."""
        tasks = [
            tenure_pb2.TaskSpec(
                key=f"{random.getrandbits(96):x}",
                architecture=ARCHITECTURE,
                config=tenure_pb2.Config(extra={"seconds": f"{each:.3f}"}),
            )
            for each in seconds
        ]
        reply = await self.ask("Submit", tenure_pb2.SubmitRequest(search=search, tasks=tasks))
        return [task.task_id for task in reply.tasks]

    async def ask(self, method: str, request: Any) -> Any:
        """The answer, sent again for as long as nobody is there."""
        while True:
            try:
                return await getattr(self._stub, method)(request, wait_for_ready=True, timeout=CALL_SECONDS_MAX)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Until cancelled, or a call fails for another reason than that nobody is there."""
        self.known_task = (await self.submit("probe", [0.0]))[0]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._by_timetable(group, self._gets_per_second, self._get))
            group.create_task(self._by_timetable(group, SUBMITS_PER_SECOND, self._submit_and_wait))
            group.create_task(self._by_timetable(group, SUBMITS_PER_SECOND, self._submit_load))

    async def _by_timetable(
        self, group: asyncio.TaskGroup, per_second: int, call: Callable[[float], Coroutine[Any, Any, None]]
    ) -> None:
        due = time.monotonic()
        while True:
            due += 1 / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(call(due))

    async def _get(self, due: float) -> None:
        await self.ask("GetTasks", tenure_pb2.GetTasksRequest(task_ids=[self.known_task]))
        self.gets.append((due, time.monotonic() - due))

    async def _submit_and_wait(self, due: float) -> None:
        (task_id,) = await self.submit("probe", [0.0])
        at = await self._success_of(task_id)
        del self._succeeded[task_id]
        self.results.append((due, at - due))

    async def _submit_load(self, due: float) -> None:
        await self.submit("load", [random.uniform(1.0, 2.0) for _ in range(self._batch)])

    def _success_of(self, task_id: str) -> asyncio.Future[float]:
        return self._succeeded.setdefault(task_id, asyncio.get_running_loop().create_future())

    async def _watch(self) -> None:
        cursor = ""
        while True:
            try:
                request = tenure_pb2.WatchRequest(search="probe", cursor=cursor)
                async for response in self._stub.Watch(request, wait_for_ready=True):
                    cursor = response.cursor
                    for event in response.events:
                        succeeded = self._success_of(event.task_id)
                        if event.state == tenure_pb2.SUCCEEDED and not succeeded.done():
                            succeeded.set_result(time.monotonic())
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(RETRY_SECONDS)
