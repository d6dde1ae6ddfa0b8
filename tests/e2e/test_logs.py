"""What evaluations print, followed over real masters, workers and their ends."""

from __future__ import annotations

import asyncio
import base64
import queue
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from cluster import ARCHITECTURE, HEARTBEAT_SECONDS, LEASE_SECONDS
from processes import DEADLINE_SECONDS, MasterProcess, start_master, wait_for
from store_server import StoreServer
from worker_process import WorkerProcess

from tenure.client import Client, LogEnd, LogItem, LogNote, LogOutput, LogRun, TaskHandle, TaskState

GARBAGE = bytes(range(256)) * 40 + b"\n\x1b[31mred\x1b[0m \x1b]0;title\x07\xff\xfe end\r\n"


class Masters:
    """Two masters on one store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = StoreServer(root / "store").start()
        with ThreadPoolExecutor(2) as pool:
            self.all = list(pool.map(self._start, (1, 2)))

    def _start(self, number: int) -> MasterProcess:
        return start_master(
            self.root / f"master-{number}",
            store=self.server.url,
            data_dir=None,
            lease_ttl_seconds=LEASE_SECONDS,
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )

    def remove(self) -> None:
        for master in self.all:
            master.remove()
        self.server.remove()


class Broker:
    """A client at each of two masters, and workers that know the first master only."""

    def __init__(self, root: Path, masters: Masters) -> None:
        self.root = root
        self.masters = masters.all
        self.server = masters.server
        self.addresses = ",".join(master.address for master in self.masters)
        self.near, self.far = (Client(master.address, timeout_seconds=60) for master in self.masters)
        # Workers are of one test.
        self.search = self.near.search(root.name)
        self.workers: list[WorkerProcess] = []

    async def add_worker(self, name: str, **settings: object) -> WorkerProcess:
        worker = WorkerProcess(self.root, name)
        self.workers.append(worker)
        master = str(settings.pop("master", self.masters[0].address))
        return await worker.start(master, evaluator="talkers:talk", **settings)

    async def submit(self, **extra: str) -> TaskHandle:
        return await asyncio.to_thread(self.search.submit, ARCHITECTURE, {"extra": extra}, max_attempts=1)

    async def destroy(self) -> None:
        self.near.close()
        self.far.close()
        for worker in self.workers:
            await worker.destroy()


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Masters]:
    made = Masters(tmp_path_factory.mktemp("masters"))
    try:
        yield made
    finally:
        made.remove()


@pytest_asyncio.fixture
async def broker(tmp_path: Path, masters: Masters) -> AsyncIterator[Broker]:
    made = Broker(tmp_path, masters)
    try:
        yield made
    finally:
        await made.destroy()


@pytest_asyncio.fixture
async def mortal_broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """With masters of its own."""
    masters = await asyncio.to_thread(Masters, tmp_path)
    made = Broker(tmp_path, masters)
    try:
        yield made
    finally:
        await made.destroy()
        masters.remove()


class Follower:
    """Somebody who follows a task, in a thread of his own.

    Attributes:
        items: What came so far.
    """

    def __init__(self, client: Client, task_id: str) -> None:
        self.items: list[LogItem] = []
        self._failed: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(client.logs(task_id, follow=True),), daemon=True)
        self._thread.start()

    def _read(self, items: Iterator[LogItem]) -> None:
        try:
            for item in items:
                self.items.append(item)
        except BaseException as error:  # noqa: BLE001 - raised in the test
            self._failed.put(error)

    @property
    def data(self) -> bytes:
        return b"".join(item.data for item in self.items if isinstance(item, LogOutput))

    @property
    def lines(self) -> list[str]:
        return self.data.decode().split()

    @property
    def left_out_bytes(self) -> int:
        return sum(item.left_out_bytes for item in self.items if isinstance(item, LogOutput))

    @property
    def runs(self) -> list[tuple[int, str]]:
        return [(item.epoch, item.worker_id) for item in self.items if isinstance(item, LogRun)]

    async def has(self, line: str) -> None:
        await asyncio.to_thread(wait_for, lambda: line in self.lines, DEADLINE_SECONDS, f"{line} in {self.items}")

    async def end(self) -> LogEnd:
        await asyncio.to_thread(self._thread.join, DEADLINE_SECONDS)
        if not self._failed.empty():
            raise self._failed.get()
        last = self.items[-1] if self.items else None
        assert isinstance(last, LogEnd), self.items
        return last


def part(epoch: int, number: int, lines: int = 3) -> list[str]:
    return [f"{epoch}.{number}.{line}" for line in range(lines)]


LAST = ["the", "last", "line"]


async def test_a_follower_at_another_master_survives_the_worker(broker: Broker, tmp_path: Path) -> None:
    first = await broker.add_worker("first")
    gates = f"{tmp_path}/a-{{epoch}},{tmp_path}/b-{{epoch}}"
    handle = await broker.submit(lines="3", gates=gates)
    follower = Follower(broker.far, handle.task_id)
    await follower.has("1.0.2")
    (tmp_path / "a-1").touch()
    await follower.has("1.1.2")
    await first.destroy()
    await broker.add_worker("second")
    await follower.has("2.0.2")
    (tmp_path / "a-2").touch()
    (tmp_path / "b-2").touch()
    assert (await follower.end()).state is TaskState.SUCCEEDED
    assert follower.runs == [(1, "first"), (2, "second")]
    assert follower.lines == [*part(1, 0), *part(1, 1), *part(2, 0), *part(2, 1), *part(2, 2), *LAST]
    assert follower.left_out_bytes == 0


async def test_a_follower_survives_his_master_and_that_of_the_worker(mortal_broker: Broker, tmp_path: Path) -> None:
    broker = mortal_broker
    await broker.add_worker("only", master=broker.addresses)
    handle = await broker.submit(lines="3", gates=f"{tmp_path}/a,{tmp_path}/b")
    with Client(broker.addresses, timeout_seconds=60) as client:
        follower = Follower(client, handle.task_id)
        await follower.has("1.0.2")
        await asyncio.to_thread(broker.masters[0].kill)
        (tmp_path / "a").touch()
        await follower.has("1.1.2")
        (tmp_path / "b").touch()
        assert (await follower.end()).state is TaskState.SUCCEEDED
    # Nothing twice and nothing lost: the worker goes on where the follower was.
    assert follower.lines == [*part(1, 0), *part(1, 1), *part(1, 2), *LAST]
    assert follower.runs == [(1, "only")]


async def test_what_the_store_has_lost_on_the_way_is_sent_again(mortal_broker: Broker, tmp_path: Path) -> None:
    broker, server = mortal_broker, mortal_broker.server
    await broker.add_worker("only")
    handle = await broker.submit(lines="3", gates=f"{tmp_path}/a,{tmp_path}/b")
    near, far = Follower(broker.near, handle.task_id), Follower(broker.far, handle.task_id)
    for follower in (near, far):
        await follower.has("1.0.2")
    await asyncio.to_thread(server.kill)
    (tmp_path / "a").touch()
    # At the worker's own master nothing is missing. What that sends to the other one is lost.
    await near.has("1.1.2")
    await asyncio.to_thread(server.start)
    await far.has("1.1.2")
    (tmp_path / "b").touch()
    for follower in (near, far):
        assert (await follower.end()).state is TaskState.SUCCEEDED
        assert follower.lines == [*part(1, 0), *part(1, 1), *part(1, 2), *LAST]


async def test_a_flood_costs_its_followers_lines_and_nobody_anything_else(broker: Broker, tmp_path: Path) -> None:
    worker = await broker.add_worker("only")
    handle = await broker.submit(lines="1", gates=f"{tmp_path}/a,{tmp_path}/b", flood_mib="100")
    followers = [Follower(client, handle.task_id) for client in (broker.near, broker.near, broker.far)]
    for follower in followers:
        await follower.has("1.0.0")
    processes = [psutil.Process(pid) for pid in (worker.pid, *(master.pid for master in broker.masters))]
    before = [process.memory_info().rss for process in processes]
    (tmp_path / "a").touch()
    # Behind 100 MiB, and seen while the run goes on: nobody has to wait for what was left out.
    for follower in followers:
        await follower.has("1.1.0")
    grown = [process.memory_info().rss - rss for process, rss in zip(processes, before, strict=True)]
    (tmp_path / "b").touch()
    for follower in followers:
        assert (await follower.end()).state is TaskState.SUCCEEDED
        assert follower.lines[-3:] == LAST
        assert len(follower.data) + follower.left_out_bytes == 100 * 2**20 + len("1.0.0\n1.1.0\n1.2.0\nthe last line\n")
        assert len(follower.data) < 20 * 2**20
    assert max(grown) < 50 * 2**20, grown
    # Not one lease had to be given back, and the session stood.
    assert len(worker.log_lines("session.up")) == 1
    assert (await asyncio.to_thread(handle.record)).epoch == 1


async def test_garbage_comes_as_it_is_and_never_reaches_the_terminal(broker: Broker) -> None:
    await broker.add_worker("only")
    handle = await broker.submit(bytes_base64=base64.b64encode(GARBAGE).decode())
    await asyncio.to_thread(handle.result, 60)
    # Of a success the store has no output; its worker is asked.
    items = list(await asyncio.to_thread(lambda: list(handle.logs())))
    data = b"".join(item.data for item in items if isinstance(item, LogOutput))
    assert data == GARBAGE + b"the last line\n"
    shown = await asyncio.to_thread(tenure, "logs", handle.task_id, "--master", broker.masters[1].address)
    assert shown.returncode == 0
    assert shown.stdout.endswith("red \ufffd\ufffd end\nthe last line\n")
    assert set(re.sub(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]", "", shown.stdout)) <= {"\t"}
    assert "--- epoch 1 on only" in shown.stderr
    assert "--- the task is SUCCEEDED" in shown.stderr


async def test_of_an_ended_task_the_last_that_is_kept_is_shown(broker: Broker) -> None:
    worker = await broker.add_worker("only")
    failed = await broker.submit(lines="2", fail="1")
    succeeded = await broker.submit(lines="1")
    await asyncio.to_thread(broker.search.wait, 60)
    shown = await asyncio.to_thread(tenure, "logs", "-f", failed.task_id, "--master", broker.masters[1].address)
    assert shown.returncode == 1
    assert shown.stdout.startswith("1.0.0\n1.0.1\nthe last line\nTraceback")
    assert "from the task's record" in shown.stderr
    assert "--- the task is FAILED; RuntimeError: as asked" in shown.stderr
    await worker.destroy()
    shown = await asyncio.to_thread(tenure, "logs", succeeded.task_id, "--master", broker.masters[0].address)
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "no output of this task is kept" in shown.stderr
    unknown = await asyncio.to_thread(tenure, "logs", "0-nothing", "--master", broker.masters[0].address)
    assert unknown.returncode == 4


async def test_a_look_at_a_task_that_runs_or_waits_ends_at_once(broker: Broker, tmp_path: Path) -> None:
    handle = await broker.submit(lines="2", gates=f"{tmp_path}/a")
    assert await asyncio.to_thread(lambda: list(handle.logs())) == [
        LogNote("the task has not run yet"),
        LogEnd(TaskState.QUEUED, None, 0, 0),
    ]
    await broker.add_worker("only")
    follower = Follower(broker.far, handle.task_id)
    await follower.has("1.0.1")
    items = await asyncio.to_thread(lambda: list(broker.far.logs(handle.task_id)))
    assert [item.data for item in items if isinstance(item, LogOutput)] == [b"1.0.0\n1.0.1\n"]
    assert items[0] == LogRun(1, "only", 1)
    assert items[-1] == LogEnd(TaskState.LEASED, None, 0, 0)
    (tmp_path / "a").touch()
    await follower.end()


async def test_a_worker_that_cannot_tail_is_not_asked(broker: Broker, tmp_path: Path) -> None:
    """One that is pushed to registers like an older one: without a word of tails, and without a session."""
    await broker.add_worker("pushed", dispatch="push")
    handle = await broker.submit(lines="1", fail="1", gates=f"{tmp_path}/a")
    follower = Follower(broker.near, handle.task_id)
    await asyncio.to_thread(
        wait_for, lambda: any(isinstance(item, LogNote) and "can't tail" in item.text for item in follower.items)
    )
    (tmp_path / "a").touch()
    assert (await follower.end()).state is TaskState.FAILED
    # What the record keeps is all that there is of it.
    assert [item.recorded for item in follower.items if isinstance(item, LogOutput)] == [True]
    assert follower.lines[:4] == ["1.0.0", "1.1.0", *LAST[:2]]


def tenure(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "tenure.client.cli", "tasks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
