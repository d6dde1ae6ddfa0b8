"""Small parts of the worker: announcements, output, scratch, contact, executor environment."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import pytest

from tenure.common import limits
from tenure.proto import worker_pb2 as pb
from tenure.worker import output as output_module
from tenure.worker.announcements import Announcements
from tenure.worker.leases import LeaseKey
from tenure.worker.link import Contact, Refused, Unreachable, connect_for_ever
from tenure.worker.output import RunLogs, RunOutput
from tenure.worker.scratch import Scratch, take_leftovers
from tenure.worker.slots.executor_process import executor_environment

KEY = LeaseKey("t", "k")


def urls(messages: list[pb.RegisterCheckpoint]) -> list[str]:
    return [message.checkpoint.url for message in messages]


def test_of_checkpoints_never_sent_only_the_newest_is_announced() -> None:
    waiting = Announcements()
    assert waiting.add(KEY, pb.Checkpoint(url="1")) == []
    assert waiting.add(KEY, pb.Checkpoint(url="2")) == ["1"]
    assert urls(waiting.to_send(again=False)) == ["2"]
    assert waiting.to_send(again=False) == []
    assert waiting.add(KEY, pb.Checkpoint(url="3")) == [], "2 was sent and may be registered: it stays"
    assert urls(waiting.to_send(again=True)) == ["2", "3"]
    assert len(waiting) == 2


def test_a_verdict_tells_whether_it_answers_the_only_sending() -> None:
    waiting = Announcements()
    waiting.add(KEY, pb.Checkpoint(url="1"))
    waiting.to_send(again=False)
    assert waiting.settle(KEY, "1")
    assert not waiting.settle(KEY, "1")
    waiting.add(KEY, pb.Checkpoint(url="2"))
    waiting.to_send(again=True)
    waiting.to_send(again=True)
    assert not waiting.settle(KEY, "2"), "an earlier sending may have registered it"
    assert len(waiting) == 0


def test_what_is_registered_is_announced_again_on_a_new_connection_while_its_run_lasts() -> None:
    announcements = Announcements()
    announcements.registered(KEY, pb.Checkpoint(url="came with the task"))
    for url in ("1", "2"):
        announcements.add(KEY, pb.Checkpoint(url=url))
        announcements.to_send(again=False)
        announcements.settle(KEY, url, registered=True)
    announcements.add(KEY, pb.Checkpoint(url="refused"))
    announcements.to_send(again=False)
    announcements.settle(KEY, "refused")
    announcements.retired(KEY, ["came with the task", "unheard of"])
    assert len(announcements) == 0
    assert announcements.to_send(again=False) == []
    assert urls(announcements.to_send(again=True)) == ["1", "2"], "oldest first"
    announcements.drop(KEY)
    assert announcements.to_send(again=True) == []


def test_dropping_names_what_no_master_can_have_seen() -> None:
    waiting = Announcements()
    waiting.add(KEY, pb.Checkpoint(url="1"))
    waiting.to_send(again=False)
    waiting.add(KEY, pb.Checkpoint(url="2"))
    assert waiting.drop(KEY) == ["2"]
    assert waiting.drop(KEY) == []


def test_the_tail_of_an_output_is_bounded_and_begins_with_a_whole_line(tmp_path: Path) -> None:
    output = RunOutput(tmp_path / "log")
    for number in range(10_000):
        output.write_line(f"line {number}")
    tail = output.tail()
    assert len(tail.encode()) <= limits.LOG_TAIL_BYTES_MAX
    assert tail.startswith("line ")
    assert tail.endswith("line 9999\n")
    output.close()
    assert (tmp_path / "log").read_text().startswith("line 0\n")


def test_output_that_is_no_text_is_kept_as_far_as_it_goes() -> None:
    output = RunOutput(None)
    output.write(b"\xff\xfe\0" * 20_000)
    assert len(output.tail().encode()) <= limits.LOG_TAIL_BYTES_MAX
    assert "\0" not in output.tail()


def test_a_runs_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "LOG_FILE_BYTES_MAX", 1000)
    output = RunOutput(tmp_path / "log")
    for _ in range(10):
        output.write(b"x" * 300)
    output.close()
    assert (tmp_path / "log").read_bytes() == b"x" * 1000 + b"\n... the rest is not kept\n"


def test_old_run_logs_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "LOG_FILES_MAX", 20)
    logs = RunLogs(tmp_path)
    for number in range(50):
        output = logs.open(f"../task {number}", 1)
        output.close()
        os.utime(max(tmp_path.iterdir(), key=lambda path: path.stat().st_ctime_ns), (number, number))
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) <= 20
    assert ".._task_49.1.log" in names
    assert ".._task_0.1.log" not in names


def test_a_run_left_over_by_a_dead_worker_is_found_with_its_last_checkpoint(tmp_path: Path) -> None:
    request = pb.EvaluateRequest(
        task_id="t",
        lease_token="k",
        epoch=2,
        search="s",
        architecture="{}",
        checkpoints=[pb.Checkpoint(url="1", step=1)],
    )
    scratch = Scratch(tmp_path, 0)
    work_dir = scratch.begin(request)
    (work_dir / "file").write_text("x")
    (work_dir / "folder").mkdir()
    scratch.note_checkpoint(request, pb.Checkpoint(url="5", step=5))
    (left,) = take_leftovers(tmp_path)
    assert (left.task_id, left.lease_token, left.epoch, left.search) == ("t", "k", 2, "s")
    assert [named.url for named in left.checkpoints] == ["5"]
    assert list(tmp_path.iterdir()) == []
    assert take_leftovers(tmp_path) == []


def test_a_run_that_ended_leaves_nothing(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 0)
    scratch.end()
    work_dir = scratch.begin(pb.EvaluateRequest(task_id="t"))
    (work_dir / "folder").mkdir()
    (work_dir / "folder" / "file").write_text("x")
    (work_dir / "link").symlink_to("/")
    scratch.end()
    assert list(work_dir.iterdir()) == []
    assert take_leftovers(tmp_path) == []


def test_a_torn_note_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "slot-0.lease").write_bytes(b"\x0a\xff")
    assert take_leftovers(tmp_path) == []


def test_an_executor_sees_its_own_gpus_and_its_share_of_the_cores() -> None:
    env = executor_environment({"PYTHONPATH": "/x", "HOME": "/h"}, gpus=["3", "5"], python_path="/mine", slots=1000)
    assert env["CUDA_VISIBLE_DEVICES"] == "3,5"
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert env["PYTHONPATH"] == "/mine:/x"
    assert env["OMP_NUM_THREADS"] == "1"
    assert env["HOME"] == "/h"
    env = executor_environment(
        {"OMP_NUM_THREADS": "7", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, gpus=[], python_path="", slots=2
    )
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["OMP_NUM_THREADS"] == "7", "somebody has chosen"
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "NVML, which chose and watches the GPUs, knows no other"
    assert "PYTHONPATH" not in env
    assert "OMP_NUM_THREADS" not in executor_environment({}, gpus=[], python_path="", slots=1)


async def test_pauses_grow_with_jitter_stay_below_the_cap_and_begin_anew_after_a_good_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    ceilings: list[float] = []
    monkeypatch.setattr("tenure.worker.link.random.uniform", lambda low, high: ceilings.append(high) or high)
    attempts = itertools.count(1)

    async def connect() -> None:
        number = next(attempts)
        if number == 30:
            raise Refused("enough")
        if number != 12:
            raise Unreachable("nobody")

    with pytest.raises(Refused):
        await connect_for_ever(connect, lambda: 9.0, "m:1")
    assert ceilings[0] == pytest.approx(0.2)
    assert max(ceilings) == 9.0
    assert ceilings[:11] == sorted(ceilings[:11])
    assert ceilings[11] == pytest.approx(0.1), "the first pause after a good connection spreads the workers"
    assert ceilings[12] == pytest.approx(0.2)


def test_contact_counts_connections_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    contact = Contact()
    contact.connected()
    assert (contact.up, contact.reconnects, contact.was_good()) == (True, 0, False)
    now = 6.0
    assert contact.was_good()
    assert contact.age_seconds() == 6.0
    contact.heard()
    assert contact.age_seconds() == 0.0
    contact.lost()
    assert not contact.was_good()
    contact.connected()
    assert contact.reconnects == 1
