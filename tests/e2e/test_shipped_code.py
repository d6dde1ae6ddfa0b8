"""Code that searches ship: packed here, uploaded once, run by real workers that accept it."""

from __future__ import annotations

import asyncio
import os
import signal
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis
from cluster import Cluster
from command_line import CommandLine
from store_server import StoreServer
from worker_process import WorkerProcess, eventually

from tenure.client import TaskFailed
from tenure.client.code import pack
from tenure.client.code_upload import upload
from tenure.common.states import TaskState
from tenure.proto import tenure_pb2

MODULE = """
from my_pkg.numbers import FITNESS

def evaluate(task, context):
    return {{"fitness": FITNESS + task.config.num_epochs, "version": {version}}}
"""


def package(directory: Path, version: int, **more: str) -> Path:
    """A package ``my_pkg`` with an evaluator that tells its version."""
    folder = directory / f"v{version}" / "my_pkg"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "numbers.py").write_text(f"FITNESS = {100 * version}\n")
    (folder / "train.py").write_text(MODULE.format(version=version))
    for name, text in more.items():
        (folder / f"{name}.py").write_text(text)
    return folder


EVALUATOR = "my_pkg.train:evaluate"
# What the workers' own evaluator returns.
OWN = {"fitness": 0.5, "steps": 1.0}


async def results(cluster: Cluster, search: str, count: int = 1, **settings: Any) -> list[dict[str, float]]:
    """The metrics of so many tasks of a search with these settings."""

    def run() -> list[dict[str, float]]:
        handle = cluster.client.search(search, architecture_format="json", **settings)
        tasks = handle.submit_many({"architecture": {"n": n}, "config": {"num_epochs": n}} for n in range(count))
        return [dict(task.result(60).metrics) for task in tasks]

    return await asyncio.to_thread(run)


@pytest_asyncio.fixture
async def opened(tmp_path: Path) -> AsyncIterator[tuple[Cluster, redis.Redis]]:
    """A cluster whose store the test can look into; what has ended is forgotten after a second."""
    server = StoreServer(tmp_path / "store").start()
    cluster = Cluster(tmp_path, store=server.url, retention_days=1 / 86_400)
    client = server.client()
    yield cluster, client
    client.close()
    await cluster.destroy()
    server.remove()


@pytest.mark.parametrize("dispatch", ["pull", "push"])
async def test_two_versions_of_a_module_at_once_on_one_worker(cluster: Cluster, tmp_path: Path, dispatch: str) -> None:
    worker = await cluster.add_worker("w", accept_code="true", slots=2, dispatch=dispatch)
    one, two = package(tmp_path, 1), package(tmp_path, 2)
    first, second, own = await asyncio.gather(
        results(cluster, "one", 6, evaluator=EVALUATOR, code=one),
        results(cluster, "two", 6, evaluator=EVALUATOR, code=two.parent),
        results(cluster, "own", 2),
    )
    assert first == [{"fitness": 100.0 + n, "version": 1.0} for n in range(6)]
    assert second == [{"fitness": 200.0 + n, "version": 2.0} for n in range(6)]
    assert own == [OWN] * 2
    # Each was fetched and unpacked once, however many tasks and slots wanted it.
    assert len(worker.log_lines("code.unpacked")) == 2
    # Known by its content: nothing is uploaded or trained a second time, by this program or another.
    assert await results(cluster, "one", 6, evaluator=EVALUATOR, code=one.parent) == first
    assert len(cluster.master.logged("code.stored")) == 2
    status = await asyncio.to_thread(cluster.client.search("one").status)
    assert (status.evaluator, status.code) == (EVALUATOR, pack(one, EVALUATOR).digest)
    assert status.tasks[TaskState.SUCCEEDED] == 6
    # Other code makes other tasks of the same architectures.
    assert [each["version"] for each in await results(cluster, "one", 2, evaluator=EVALUATOR, code=two)] == [2.0, 2.0]
    assert await cluster.fsck() == []


async def test_a_wheel(cluster: Cluster, tmp_path: Path) -> None:
    folder = package(tmp_path, 3)
    wheel = tmp_path / "my_pkg-3.0-py3-none-any.whl"

    def build(*requirements: str) -> Path:
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in folder.iterdir():
                archive.write(path, f"my_pkg/{path.name}")
            archive.writestr("my_pkg-3.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            required = "".join(f"Requires-Dist: {each}\n" for each in requirements)
            archive.writestr("my_pkg-3.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: my-pkg\n{required}")
        return wheel

    await cluster.add_worker("w", accept_code="true")
    fine = await results(cluster, "fine", evaluator=EVALUATOR, code=build("grpcio>=1"))
    assert fine == [{"fitness": 300.0, "version": 3.0}]
    with pytest.raises(TaskFailed) as raised:
        await results(cluster, "poor", evaluator=EVALUATOR, code=build("nothing-like-it>=2"))
    failure = raised.value.task.failure
    assert failure is not None
    assert (failure.error_class, failure.retryable, raised.value.task.attempts) == ("InvalidCode", False, 1)
    assert "nothing-like-it>=2 (not installed)" in failure.message
    # The executor that was there goes on.
    assert await results(cluster, "again", evaluator=EVALUATOR, code=folder) == fine


async def test_code_that_can_not_be_imported(cluster: Cluster, tmp_path: Path) -> None:
    """The task fails at once, with the evidence; the slot serves others."""
    await cluster.add_worker("w", accept_code="true")
    evaluator = "my_pkg.broken:evaluate"
    for version, (module, told, shown) in enumerate(
        [
            ("import not_there_at_all", "No module named 'not_there_at_all'", "import not_there_at_all"),
            ("1 / 0", "ZeroDivisionError: division by zero", 'broken.py", line 1'),
            ("x = 1", "my_pkg.broken' has no attribute 'evaluate'", "AttributeError"),
            ("evaluate = 1", "is int, not a function", "TypeError"),
        ]
    ):
        folder = package(tmp_path, version, broken=module)
        with pytest.raises(TaskFailed) as raised:
            await results(cluster, "broken", evaluator=evaluator, code=folder)
        (record,) = raised.value.task.attempt_records
        assert (record.outcome, record.error_class) == ("failure", "InvalidCode")
        assert f"the evaluator {evaluator} can't be imported" in record.error_message
        assert told in record.error_message
        assert shown in record.log_tail
        assert (await results(cluster, "fine", evaluator=EVALUATOR, code=folder))[0]["version"] == version
    assert await results(cluster, "own") == [OWN]


async def test_an_evaluator_that_is_installed_on_the_worker(cluster: Cluster) -> None:
    await cluster.add_worker("w", accept_code="true")
    assert await results(cluster, "named", evaluator="evaluators:noop") == [{"fitness": 1.0}]
    with pytest.raises(TaskFailed, match="InvalidCode"):
        await results(cluster, "absent", evaluator="nowhere.to_be:found")
    # Back to the worker's own; what was submitted before keeps its evaluator.
    assert await results(cluster, "named", 2, evaluator="default") == [OWN] * 2


async def test_a_worker_that_does_not_accept_code_is_given_none(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.add_worker("careful")
    search = await asyncio.to_thread(
        cluster.client.search, "s", architecture_format="json", evaluator=EVALUATOR, code=package(tmp_path, 1)
    )
    assert "no live worker takes tasks that name their evaluator" in caplog.text
    handle = await asyncio.to_thread(search.submit, {})
    # Its own tasks it is given: by then it was passed over.
    assert await results(cluster, "own", 3) == [OWN] * 3
    assert (await asyncio.to_thread(handle.record)).state is TaskState.QUEUED
    await cluster.add_worker("bold", accept_code="true")
    assert (await asyncio.to_thread(handle.result, 60)).metrics["version"] == 1
    record = await asyncio.to_thread(handle.record, full=True)
    assert [each.worker_id for each in record.attempt_records] == ["bold"]
    workers = await asyncio.to_thread(cluster.client.workers)
    assert {worker.worker_id: worker.accepts_code for worker in workers} == {"bold": True, "careful": False}


async def test_an_upload_that_is_cut_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """The master dies between two pieces: nobody can name the half, and the rest is sent to its successor."""
    await cluster.add_worker("w", accept_code="true")
    folder = package(tmp_path, 1)
    (folder / "data.bin").write_bytes(os.urandom(3_500_000))
    packed = pack(folder, EVALUATOR)
    connection = cluster.client._connection
    seen: list[int] = []

    def cut(come: int, whole: int) -> None:
        seen.append(come)
        if len(seen) == 3:
            with pytest.raises(Exception, match="no code of this digest"):
                connection.call(
                    "PutSearch", tenure_pb2.PutSearchRequest(name="s", evaluator=EVALUATOR, code=packed.digest)
                )
            cluster.master.kill()
            cluster.master.restart()

    assert await asyncio.to_thread(upload, connection, "s", packed, None, cut)
    assert seen == [0, 2**20, 2 * 2**20, 3 * 2**20, len(packed.archive)]
    assert (await results(cluster, "s", evaluator=EVALUATOR, code=folder))[0]["version"] == 1


async def test_a_worker_killed_while_it_unpacks(cluster: Cluster, tmp_path: Path) -> None:
    """What it leaves is never taken for code."""
    folder = package(tmp_path, 1)
    for number in range(4_000):
        (folder / f"part{number}.py").write_text(f"x = {number}\n")
    worker = await cluster.add_worker("w", accept_code="true")
    search = await asyncio.to_thread(
        cluster.client.search, "s", architecture_format="json", evaluator=EVALUATOR, code=folder
    )
    handle = await asyncio.to_thread(search.submit, {})
    code = worker.work_dir / "code"
    await eventually(lambda: list(code.glob(".unpacking-*/files/my_pkg/part*")), what="unpacking has begun")
    worker.signal(signal.SIGKILL)
    await worker.wait()
    left = {path.name.partition("-")[0]: path for path in code.iterdir()}
    assert set(left) == {".fetched", ".unpacking"}, "it was through before it was killed: unpack more"
    assert len(list(left[".unpacking"].glob("files/my_pkg/*"))) < 4_000
    await worker.start(cluster.master.address, accept_code="true")
    assert (await asyncio.to_thread(handle.result, 60)).metrics["version"] == 1
    (whole,) = code.iterdir()
    assert len(list(whole.glob("files/my_pkg/part*.py"))) == 4_000


async def test_code_that_the_store_has_lost(opened: tuple[Cluster, redis.Redis], tmp_path: Path) -> None:
    """Submitting again brings it back, and the task that waits for it is run."""
    cluster, store = opened
    search = await asyncio.to_thread(
        cluster.client.search, "s", architecture_format="json", evaluator=EVALUATOR, code=package(tmp_path, 1)
    )
    handle = await asyncio.to_thread(search.submit, {})
    digest = (await asyncio.to_thread(search.status)).code
    (key,) = store.keys(f"*code:{digest}")
    store.delete(key)
    worker: WorkerProcess = await cluster.add_worker("w", accept_code="true")
    await eventually(lambda: worker.log_lines("code.not_fetched"), what="it asks for the code")
    again = await asyncio.to_thread(search.submit, {})
    assert again.task_id == handle.task_id
    assert not again.created
    assert (await asyncio.to_thread(handle.result, 60)).metrics["version"] == 1
    assert await cluster.fsck() == []


@pytest.mark.long
async def test_it_is_forgotten_with_the_tasks_that_named_it(
    opened: tuple[Cluster, redis.Redis], tmp_path: Path
) -> None:
    cluster, store = opened
    await cluster.add_worker("w", accept_code="true")
    folder = package(tmp_path, 1)
    assert (await results(cluster, "s", evaluator=EVALUATOR, code=folder))[0]["version"] == 1
    assert len(store.keys("*code:*")) == 1
    await results(cluster, "s", evaluator="default")
    await eventually(lambda: not store.keys("*code*"), seconds=60, what="the code is forgotten")
    assert await cluster.fsck() == []
    assert (await results(cluster, "t", evaluator=EVALUATOR, code=folder))[0]["version"] == 1


def test_from_the_command_line(tenure: CommandLine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, once, that the tasks wait: the only worker accepts no code."""
    folder, file = package(tmp_path, 1), tmp_path / "tasks.jsonl"
    file.write_text('{"architecture": {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}}\n')
    search = ["--search", "shipped-cli"]
    said = tenure("tasks", "submit", *search, "--evaluator", EVALUATOR, "--code", str(folder), str(file))
    # The log goes to stderr unless somebody, as pytest does, has it go elsewhere.
    told = said.err + caplog.text
    assert (said.code, told.count("no live worker takes tasks that name their evaluator")) == (0, 1)
    again = tenure("tasks", "submit", *search, str(file), "--output", "json")
    assert (again.json["created"], again.json["known"]) == (0, 1)
    assert "no live worker takes" in again.err
    digest = pack(folder, EVALUATOR).digest
    shown = tenure("searches", "show", "shipped-cli", "--output", "json").json
    assert (shown["evaluator"], shown["code"]) == (EVALUATOR, digest)
    assert f"{EVALUATOR}, code {digest}" in tenure("tasks", "show", again.json["tasks"][0]["task_id"]).out
    # The workers' own evaluator makes another task of the same line, and that is run.
    assert tenure("searches", "set", "shipped-cli", "--evaluator", "default").code == 0
    own = tenure("tasks", "submit", *search, str(file), "--wait", "--output", "json")
    assert (own.code, own.json["created"]) == (0, 1)
    assert "no live worker" not in own.err
    bad = tenure("searches", "set", "shipped-cli", "--evaluator", "other:f", "--code", str(folder))
    assert (bad.code, "code: holds no module other" in bad.err) == (2, True)
