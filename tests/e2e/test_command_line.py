"""The commands against a real master with a real worker: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Said
from evaluators import JOURNAL_ENV, read_journal
from processes import wait_for

from tenure.client.demo.processes import Fleet

TESTS = Path(__file__).resolve().parents[1]
GRAPH = {"nodes": [{"id": "a", "operation": "dense", "params": {"units": 10}}]}


@pytest.fixture
def search(request: pytest.FixtureRequest, tenure: CommandLine) -> Iterator[str]:
    """A search of the test's own, so that tests can share the broker."""
    name = request.node.name
    yield name
    tenure("searches", "cancel", name)


def task(key: str = "", **extra: str) -> dict[str, Any]:
    line = {"architecture": GRAPH, "config": {"extra": extra}}
    return {**line, "key": key} if key else line


def lines(*tasks: dict[str, Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in tasks)


def submit(tenure: CommandLine, search: str, *tasks: dict[str, Any]) -> list[str]:
    said = tenure("tasks", "submit", "--search", search, "-", "--output", "json", stdin=lines(*tasks))
    assert said.code == 0, said.err
    return [each["task_id"] for each in said.json["tasks"]]


class TestSubmit:
    def test_twice_changes_nothing(self, tenure: CommandLine, search: str, tmp_path: Path) -> None:
        file = tmp_path / "tasks.jsonl"
        file.write_text(lines(task(), task(), task(fitness="0.25"), task("named")))
        assert (
            tenure("tasks", "submit", "--search", search, str(file)).out
            == f"submitted 4 tasks to search {search}: 4 new\n"
        )
        again = tenure("tasks", "submit", "--search", search, str(file))
        assert again.out == f"submitted 4 tasks to search {search}: 0 new, 4 already known\n"
        assert tenure("searches", "wait", search).code == 0
        listed = tenure("tasks", "list", "--search", search, "--output", "json").json
        assert len(listed) == 4
        assert {each["state"] for each in listed} == {"SUCCEEDED"}

    def test_nothing_is_sent_if_one_line_is_wrong(self, tenure: CommandLine, search: str) -> None:
        bad = lines(task()) + '{"architecture": {"nodes": []}}\n' + lines({**task(), "priority": 1000})
        said = tenure("tasks", "submit", "--search", search, "-", stdin=bad)
        assert said.code == 2
        assert "error: line 2: architecture.nodes: has no node" in said.err
        assert "error: line 3: priority: out of range (given: 1000)" in said.err
        assert said.err.splitlines()[-1] == "error: FILE: 2 of 3 lines can't be right; nothing was submitted"
        assert tenure("searches", "show", search).code == 4

    def test_not_more_than_twenty_bad_lines_are_told(self, tenure: CommandLine, search: str) -> None:
        said = tenure("tasks", "submit", "--search", search, "-", stdin="nonsense\n" * 50)
        assert len(said.err.splitlines()) == 21
        assert "50 of 50 lines" in said.err

    def test_an_empty_file_is_no_task(self, tenure: CommandLine, search: str) -> None:
        said = tenure("tasks", "submit", "--search", search, "-")
        assert "submitted 0 tasks" in said.out
        assert "there is no task in it" in said.err

    def test_a_pipe_is_read_twice_all_the_same(self, tenure: CommandLine, search: str) -> None:
        read_end, write_end = os.pipe()
        os.write(write_end, lines(task()).encode())
        os.close(write_end)
        said = tenure("tasks", "submit", "--search", search, f"/dev/fd/{read_end}")
        os.close(read_end)
        assert "submitted 1 tasks" in said.out

    def test_waits_and_tells_what_failed(self, tenure: CommandLine, search: str) -> None:
        tasks = lines(task("good"), {**task("bad", fate="fatal"), "max_attempts": 1})
        said = tenure("tasks", "submit", "--search", search, "-", "--wait", stdin=tasks)
        assert said.code == 1
        assert "ended FAILED: FatalError: never retry this, as asked" in said.err
        assert tenure("tasks", "submit", "--search", search, "-", "--wait", stdin=lines(task("good"))).code == 0

    def test_a_cancelled_search_takes_nothing(self, tenure: CommandLine, search: str) -> None:
        submit(tenure, search, task("a"))
        assert tenure("searches", "cancel", search).code == 0
        assert tenure("tasks", "submit", "--search", search, "-", stdin=lines(task("b"))).code == 5


class TestTasks:
    def test_list_by_state_and_limit(self, tenure: CommandLine, search: str) -> None:
        tenure("searches", "set", search, "--max-leased", "1")
        tenure("searches", "pause", search)
        submit(tenure, search, *(task(f"k{n}") for n in range(5)))
        said = tenure("tasks", "list", "--search", search, "--limit", "2")
        assert len(said.out.splitlines()) == 3
        assert "only the first 2 are listed" in said.err
        assert tenure("tasks", "list", "--search", search, "--state", "FAILED").out == "no tasks\n"
        said = tenure("tasks", "list", "--search", search, "--state", "FAILED", "--output", "json")
        assert said.json == []
        assert len(tenure("tasks", "list", "--search", search, "--state", "QUEUED", "--output", "json").json) == 5

    def test_show_has_the_evidence(self, tenure: CommandLine, search: str) -> None:
        failing = {**task("bad", fate="segfault", steps="3"), "max_losses": 2}
        (task_id,) = submit(tenure, search, failing)
        assert tenure("searches", "wait", search).code == 1
        page = tenure("tasks", "show", task_id).out
        for part in (
            "FAILED",
            "2 of 2",
            "SIGSEGV (11)",
            "epoch 1: loss on worker-1",
            "epoch 2: loss",
            "| about to read",
        ):
            assert part in page
        record = tenure("tasks", "show", task_id, "--output", "json").json
        assert record["attempt_records"][0]["exit_signal"] == 11
        assert json.loads(record["architecture"]) == GRAPH

    def test_show_of_a_success(self, tenure: CommandLine, search: str) -> None:
        (task_id,) = submit(tenure, search, task("good", fitness="0.75"))
        assert tenure("searches", "wait", search).code == 0
        page = tenure("tasks", "show", task_id).out
        for part in (f"task          {task_id}", "SUCCEEDED", "fitness  0.75", "epoch 1: success on worker-1"):
            assert part in page

    def test_cancel_and_requeue(self, tenure: CommandLine, search: str) -> None:
        tenure("searches", "set", search)
        tenure("searches", "pause", search)
        task_id, other = submit(tenure, search, task("a"), task("b"))
        assert _verdicts(tenure("tasks", "cancel", task_id, "--output", "json")) == ["ok"]
        assert _verdicts(tenure("tasks", "cancel", task_id, "--output", "json")) == ["already"]
        assert tenure("tasks", "cancel", "0-unknown").code == 4
        assert tenure("tasks", "cancel", "-", stdin=f"{other}\n\n{task_id}\n").code == 0
        assert _verdicts(tenure("tasks", "requeue", task_id, "--output", "json")) == ["ok"]
        tenure("searches", "resume", search)
        assert tenure("searches", "wait", search).code == 0
        said = tenure("tasks", "cancel", task_id, "--output", "json")
        assert (said.code, _verdicts(said)) == (1, ["wrong_state"])

    def test_requeue_of_all_that_failed(self, tenure: CommandLine, search: str) -> None:
        submit(tenure, search, *({**task(f"k{n}", fate="fatal", fate_epochs="1")} for n in range(3)), task("good"))
        assert tenure("searches", "wait", search).code == 1
        assert _verdicts(tenure("tasks", "requeue", "--search", search, "--output", "json")) == ["ok"] * 3
        assert tenure("searches", "wait", search).code == 0
        assert tenure("tasks", "requeue", "--search", search).out == "no tasks\n"

    def test_unknown(self, tenure: CommandLine) -> None:
        said = tenure("tasks", "show", "0-unknown")
        assert (said.code, said.out) == (4, "")
        assert said.err.startswith("error: task_id: no such task (given: 0-unknown)")
        assert tenure("tasks", "list", "--search", "unknown").code == 4


class TestSearches:
    def test_settings(self, tenure: CommandLine, search: str) -> None:
        said = tenure("searches", "set", search, "--priority", "5", "--weight", "2.5", "--output", "json").json
        assert (said["priority"], said["weight"], said["status"]) == (5, 2.5, "active")
        assert tenure("searches", "set", search, "--max-leased", "3", "--output", "json").json["priority"] == 5
        assert search in tenure("searches", "list").out
        assert search in {each["name"] for each in tenure("searches", "list", "--output", "json").json}

    def test_pause_resume_cancel(self, tenure: CommandLine, search: str) -> None:
        tenure("searches", "set", search)
        assert tenure("searches", "pause", search, "--output", "json").json["status"] == "paused"
        submit(tenure, search, task("a"))
        said = tenure("searches", "wait", search, "--wait-seconds", "1")
        assert said.code == 6
        assert said.err.splitlines()[-1].startswith("error: not in time: 1 tasks had not ended")
        assert tenure("searches", "resume", search, "--output", "json").json["status"] == "active"
        assert tenure("searches", "wait", search).code == 0
        assert tenure("searches", "cancel", search, "--output", "json").json["status"] == "cancelled"

    def test_a_format_of_your_own(self, tenure: CommandLine, search: str) -> None:
        assert tenure("searches", "set", search, "--architecture-format", "json").code == 0
        own = {**task("own"), "architecture": {"layers": 3}}
        submit(tenure, search, own)
        assert tenure("searches", "wait", search).code == 0
        assert tenure("searches", "set", search, "--architecture-format", "graph").code == 5
        assert tenure("searches", "set", search, "--architecture-format", "xml").code == 2

    @pytest.mark.parametrize("verb", ["show", "pause", "resume", "cancel", "wait"])
    def test_unknown(self, tenure: CommandLine, verb: str) -> None:
        said = tenure("searches", verb, "unknown")
        assert (said.code, said.out) == (4, "")

    @pytest.mark.parametrize("setting", [("--priority", "101"), ("--weight", "0"), ("--max-leased", "-1")])
    def test_out_of_range(self, tenure: CommandLine, search: str, setting: tuple[str, str]) -> None:
        said = tenure("searches", "set", search, *setting)
        assert said.code == 2
        assert "out of range" in said.err
        assert tenure("searches", "show", search).code == 4


class TestBroker:
    def test_workers(self, tenure: CommandLine) -> None:
        (worker,) = tenure("workers", "list", "--output", "json").json
        assert (worker["worker_id"], worker["status"], worker["slots"]) == ("worker-1", "live", 1)
        assert "worker-1" in tenure("workers", "list", "--all").out

    def test_cordon_drain_uncordon(self, tenure: CommandLine) -> None:
        for verb, mode in (("cordon", "cordoned"), ("drain", "draining"), ("uncordon", "active")):
            assert tenure("workers", verb, "worker-1", "--output", "json").json["mode"] == mode
        assert tenure("workers", "drain", "unknown").code == 4

    def test_a_drain_waits_until_nothing_is_held(self, tenure: CommandLine, search: str) -> None:
        submit(tenure, search, task("a", seconds="300", steps="1000"))
        wait_for(lambda: tenure("workers", "list", "--output", "json").json[0]["leases"] == 1)
        said = tenure("workers", "drain", "worker-1", "--wait", "--output", "json")
        assert (said.code, said.json["mode"], said.json["leases"]) == (0, "draining", 0)
        (held,) = tenure("tasks", "list", "--search", search, "--output", "json").json
        assert (held["state"], held["attempts"]) == ("QUEUED", 0)
        compute = tenure("searches", "show", search, "--output", "json").json["compute"]
        assert compute["useful_ms"] == 0
        assert sum(compute["saved_ms"].values()) + sum(compute["wasted_ms"].values()) > 0
        assert "compute " in tenure("searches", "show", search).out
        assert tenure("searches", "cancel", search).code == 0
        assert tenure("workers", "uncordon", "worker-1").code == 0

    def test_stats(self, tenure: CommandLine) -> None:
        stats = tenure("stats", "--output", "json").json
        assert stats["workers_live"] == 1
        assert stats["durability"] == "strict"
        assert "1 live" in tenure("stats").out

    def test_fsck(self, tenure: CommandLine, search: str) -> None:
        submit(tenure, search, task("a"))
        said = tenure("fsck", "--output", "json")
        assert (said.code, said.json["violations"]) == (0, [])
        assert said.json["tasks_checked"] >= 1

    def test_a_store_in_use_is_refused(self, tenure: CommandLine, fleet: Fleet) -> None:
        said = tenure("fsck", "--store", "embedded", "--data-dir", str(fleet.directory / "master"))
        assert said.code == 5
        assert "another master" in said.err


def test_fsck_of_a_store_without_a_master(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Fleet(tmp_path) as fleet:
        fleet.start_master().wait_ready()
        tenure = CommandLine(fleet.master.facts["grpc"], capsys, monkeypatch)
        submit(tenure, "s", *(task(f"k{n}") for n in range(3)))
    said = tenure("fsck", "--store", "embedded", "--data-dir", str(tmp_path / "master"), "--output", "json")
    assert (said.code, said.json) == (0, {"tasks_checked": 3, "violations": []})


def test_a_search_goes_on_after_the_master_and_its_store_were_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, journal = tmp_path / "gate", tmp_path / "journal.jsonl"
    monkeypatch.setenv(JOURNAL_ENV, str(journal))
    with Fleet(tmp_path) as fleet:
        fleet.start_master().wait_ready()
        fleet.start_worker("--evaluator", "evaluators:evaluate", "--python-path", str(TESTS)).wait_ready()
        tenure = CommandLine(fleet.master.facts["grpc"], capsys, monkeypatch)
        (task_id,) = submit(tenure, "s", task("a", gate=str(gate)))
        _wait_for_gate(journal)
        fleet.master.kill()
        fleet.start_master().wait_ready()
        gate.touch()
        assert tenure("searches", "wait", "s", "--wait-seconds", "60").code == 0
        record = tenure("tasks", "show", task_id, "--output", "json").json
        assert (record["state"], record["epoch"]) == ("SUCCEEDED", 1)


def _wait_for_gate(journal: Path) -> None:
    """Until an evaluation stands at its gate: a lease may be lost with the master before its worker heard of it."""
    deadline = time.monotonic() + 60
    while not read_journal(journal, event="gate"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _verdicts(said: Said) -> list[str]:
    return [each["verdict"] for each in said.json]
