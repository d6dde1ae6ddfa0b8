"""Notices that the machine is taken away: by signal, file and URL, and what becomes of the tasks."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cluster import Cluster
from scripted_master import ScriptedMaster, make_task
from worker_process import WorkerProcess, eventually

from tenure.common.exits import ExitCode
from tenure.proto import worker_pb2 as pb

AWS = "http://{0}/aws/spot/instance-action"


class Cloud:
    """A metadata service as AWS, GCP and Azure have them; ``taken`` turns each of them to its notice.

    Attributes:
        asked: (method, path, headers) of every request.
        broken: Answers 500 to everything.
    """

    def __init__(self) -> None:
        self.taken = self.broken = False
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                cloud.asked.append((self.command, self.path, headers))
                status, body = cloud.answer(self.command, self.path, headers)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_PUT = _answer

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """As the clouds do it, each with what it demands of a request."""
        if self.broken:
            return 500, "TRUE"
        match method, path:
            case "PUT", "/aws/token":
                return (200, "secret") if "x-aws-ec2-metadata-token-ttl-seconds" in headers else (400, "")
            case "GET", "/aws/spot/instance-action":
                if headers.get("x-aws-ec2-metadata-token") != "secret":
                    return 401, ""
                return (200, '{"action": "terminate", "time": "2017-09-18T08:22:00Z"}') if self.taken else (404, "")
            case "GET", "/gcp/preempted":
                if headers.get("metadata-flavor") != "Google":
                    return 403, "TRUE"
                return 200, "TRUE" if self.taken else "FALSE"
            case "GET", "/azure/scheduledevents":
                if headers.get("metadata") != "true":
                    return 400, ""
                kind = "Preempt" if self.taken else "Reboot"
                return 200, f'{{"DocumentIncarnation": 1, "Events": [{{"EventId": "1", "EventType": "{kind}"}}]}}'
        return 404, ""

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    cloud = Cloud()
    yield cloud
    cloud.close()


async def test_sigusr1_saves_releases_and_ends_with_a_code_of_its_own(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address)
    task = make_task("t1", steps=1000, seconds=100, checkpoint=1)
    await master.offer(task)
    await worker.journaled("step")
    for executor in worker.executors():
        # Slurm's --signal without B: sends it to every process of the step.
        executor.send_signal(signal.SIGUSR1)
    worker.signal(signal.SIGUSR1)
    assert await worker.wait() == ExitCode.PREEMPTED
    outcome = await master.outcome_of(task)
    assert (outcome.kind, outcome.error_class) == (pb.OUTCOME_RELEASE, "WorkerPreempted")
    assert master.heard.checkpoints[-1].checkpoint.step == worker.journal("stopped")[0]["step"]
    assert worker.log_lines("worker.preemption_notice")[0]["source"] == "signal"


async def test_the_sigterm_that_follows_a_notice_does_not_cut_the_drain_short_and_the_next_does(
    master: ScriptedMaster, worker: WorkerProcess
) -> None:
    await worker.start(master.address, preemption_grace_seconds=600)
    task = make_task("t1", fate="hang", fate_step=0)
    await master.offer(task)
    await worker.journaled("start")
    worker.signal(signal.SIGUSR1)
    await eventually(lambda: worker.log_lines("task.stopping"))
    worker.signal(signal.SIGTERM)
    before = len(master.heard.heartbeats)
    await master.until(lambda heard: len(heard.heartbeats) >= before + 2)
    assert worker.returncode is None
    worker.signal(signal.SIGTERM)
    assert await worker.wait() == ExitCode.NO


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"preemption_url": "/aws/spot/instance-action", "preemption_token_url": "http://{}/aws/token"}, id="aws"
        ),
        pytest.param(
            {
                "preemption_url": "/gcp/preempted",
                "preemption_headers": "Metadata-Flavor: Google",
                "preemption_match": "^TRUE",
            },
            id="gcp",
        ),
        pytest.param(
            {
                "preemption_url": "/azure/scheduledevents",
                "preemption_headers": "Metadata: true",
                "preemption_match": '"EventType": *"Preempt"',
            },
            id="azure",
        ),
    ],
)
async def test_a_clouds_notice(
    master: ScriptedMaster, worker: WorkerProcess, cloud: Cloud, settings: dict[str, str]
) -> None:
    given = {name: value.replace("{}", cloud.address) for name, value in settings.items()}
    given["preemption_url"] = f"http://{cloud.address}{settings['preemption_url']}"
    await worker.start(master.address, preemption_poll_seconds=0.1, **given)
    task = make_task("t1", steps=1000, seconds=100)
    await master.offer(task)
    await worker.journaled("step")
    asked = len(cloud.asked)
    await eventually(lambda: len(cloud.asked) > asked + 4)
    assert worker.returncode is None, "what is no notice was taken for one"
    cloud.taken = True
    assert await worker.wait() == ExitCode.PREEMPTED
    assert (await master.outcome_of(task)).error_class == "WorkerPreempted"
    assert not worker.log_lines("preemption.poll_failed")


async def test_a_file_that_is_there_at_the_start_counts_before_any_task(
    master: ScriptedMaster, worker: WorkerProcess, tmp_path: Path
) -> None:
    notice = tmp_path / "taken"
    notice.touch()
    task = make_task("t1")
    await master.offer(task)
    await worker.spawn(master.address, preemption_file=str(notice), preemption_poll_seconds=3600)
    assert await worker.wait() == ExitCode.PREEMPTED
    assert not worker.journal("start")


async def test_a_url_that_fails_is_counted_said_once_and_stops_nothing(
    master: ScriptedMaster, worker: WorkerProcess, cloud: Cloud
) -> None:
    cloud.broken = True
    await worker.start(
        master.address,
        preemption_poll_seconds=0.1,
        preemption_url=f"http://{cloud.address}/gcp/preempted",
        preemption_headers="Metadata-Flavor: Google",
        preemption_match="TRUE",
    )

    def failures() -> float:
        with urllib.request.urlopen(f"http://{worker.ready['http']}/metrics", timeout=60) as response:
            found = re.search(r"^tenure_worker_preemption_poll_failures_total (\S+)", response.read().decode(), re.M)
        assert found
        return float(found[1])

    await eventually(lambda: failures() >= 4)
    assert len(worker.log_lines("preemption.poll_failed")) == 1
    cloud.broken = False
    await eventually(lambda: worker.log_lines("preemption.poll_recovered"))
    cloud.close()
    await eventually(lambda: len(worker.log_lines("preemption.poll_failed")) == 2)
    task = make_task("t1")
    await master.offer(task)
    assert (await master.outcome_of(task)).kind == pb.OUTCOME_SUCCESS


async def test_a_preempted_task_goes_on_elsewhere_and_nothing_is_burned(tmp_path: Path) -> None:
    cluster = await asyncio.to_thread(Cluster, tmp_path)
    try:
        notice = tmp_path / "notice"
        first = await cluster.add_worker("first", preemption_file=notice, preemption_poll_seconds=0.1)
        gate = tmp_path / "gate"
        extra = {"steps": "30", "seconds": "0.3", "checkpoint": "1", "gate": str(gate), "gate_step": "3"}
        (task_id,) = await cluster.submit("s", ["k"], extra)
        await first.journaled("gate")
        await cluster.add_worker("second")
        notice.touch()
        assert await first.wait() == ExitCode.PREEMPTED, cluster.explain()
        gate.touch()
        await cluster.all_ended("s")
        record = (await cluster.records([task_id]))[task_id]
        assert (record.state, record.attempts, record.losses) == ("SUCCEEDED", 0, 0)
        released, succeeded = record.attempt_records
        assert (released.worker_id, released.error_class) == ("first", "WorkerPreempted")
        assert succeeded.worker_id == "second"
        stopped = first.journal("stopped")[0]["step"]
        assert [line["resumed_from"] for line in cluster.journal("start")] == [-1, stopped]
    finally:
        await cluster.destroy()
