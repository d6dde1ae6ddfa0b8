"""``tenure dead`` on a real master with a real worker: what it finds, what it tells, what it puts back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from tenure.client.demo.processes import Fleet
from tenure.common.exits import ExitCode

TESTS = Path(__file__).resolve().parents[1]
GRAPH = {"nodes": [{"id": "a", "operation": "dense", "params": {"units": 10}}]}
STRANGE_ID = "0-" + "0" * 26


@pytest.fixture
def search(request: pytest.FixtureRequest, tenure: CommandLine) -> Iterator[str]:
    """A search of the test's own, whose tasks are not tried again."""
    name = request.node.name
    policy = {"base_ms": 0, "max_ms": 0, "rules": [{"error_class": "ValueError", "retryable": False}]}
    assert tenure("searches", "set", name, "--retry", json.dumps(policy)).code == 0
    yield name
    tenure("searches", "cancel", name)


def run(tenure: CommandLine, search: str, *fates: str) -> list[str]:
    """Submit a task for each fate and wait for their ends; their ids."""
    tasks: list[dict[str, Any]] = [
        {"architecture": GRAPH, "config": {"extra": {"fate": fate}}, "max_losses": 1, "key": f"k{number}"}
        for number, fate in enumerate(fates)
    ]
    text = "".join(json.dumps(each) + "\n" for each in tasks)
    said = tenure("tasks", "submit", "--search", search, "-", "--wait", "--output", "json", stdin=text)
    return [each["task_id"] for each in said.json["tasks"]]


def listed(tenure: CommandLine, *options: str) -> list[str]:
    said = tenure("dead", "list", *options, "--output", "json")
    assert said.code == 0, said.err
    return [each["task_id"] for each in said.json]


def test_finds_by_search_class_worker_and_time(tenure: CommandLine, search: str, fleet: Fleet) -> None:
    good, raised, died = run(tenure, search, "ok", "raise", "exit")
    of_search = ("--search", search)
    assert listed(tenure, *of_search) == [raised, died]
    assert good not in listed(tenure)
    assert listed(tenure, *of_search, "--error-class", "Value*") == [raised]
    assert listed(tenure, *of_search, "--error-class", "ExecutorDied") == [died]
    (worker,) = tenure("workers", "list", "--output", "json").json
    assert listed(tenure, *of_search, "--worker", worker["worker_id"]) == [raised, died]
    assert listed(tenure, *of_search, "--worker", "nobody") == []
    assert listed(tenure, *of_search, "--since", "1h") == [raised, died]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert listed(tenure, *of_search, "--since", tomorrow) == []
    first = tenure("dead", "list", *of_search, "--limit", "1")
    assert (raised in first.out, died in first.out) == (True, False)
    assert "--limit lists more" in first.err


def test_shows_the_evidence(tenure: CommandLine, search: str) -> None:
    good, raised, died = run(tenure, search, "ok", "raise", "exit")
    said = tenure("dead", "show", died)
    assert said.code == 0
    assert "1 of 1 losses spent" in said.out
    assert "epoch 1: loss on" in said.out
    assert "exit code" in said.out
    assert "it starts from  nothing" in said.out
    said = tenure("dead", "show", raised)
    assert "not retryable" in said.out
    assert "ValueError" in said.out
    assert "last output" in said.out
    assert tenure("dead", "show", raised, "--output", "json").json["attempt_records"][0]["outcome"] == "failure"
    assert tenure("dead", "show", good).code == ExitCode.REFUSED
    assert tenure("dead", "show", STRANGE_ID).code == ExitCode.NOT_FOUND


def test_requeues_one_or_all_that_match(tenure: CommandLine, search: str) -> None:
    tenure("searches", "set", search, "--priority", "1")
    one, two, three = run(tenure, search, "raise", "raise", "raise")
    tenure("searches", "pause", search)
    of_search = ("--search", search)
    said = tenure("dead", "requeue", *of_search, "--dry-run")
    assert (said.code, said.out.split()) == (0, [one, two, three])
    assert listed(tenure, *of_search) == [one, two, three]
    # Nobody is there to be asked.
    assert tenure("dead", "requeue", *of_search).code == ExitCode.USAGE
    assert listed(tenure, *of_search) == [one, two, three]
    said = tenure("dead", "requeue", two, "--output", "json")
    assert (said.code, said.json) == (0, [{"task_id": two, "verdict": "ok", "state": "QUEUED"}])
    assert listed(tenure, *of_search) == [one, three]
    said = tenure("dead", "requeue", *of_search, "--error-class", "Other*", "--yes")
    assert (said.code, said.out) == (0, "requeued 0 of 0\n")
    said = tenure("dead", "requeue", *of_search, "--error-class", "*Error", "--limit", "1", "--yes")
    assert (said.code, said.out) == (0, "requeued 1 of 1\n")
    assert tenure("dead", "requeue", *of_search, "--yes").out == "requeued 1 of 1\n"
    assert listed(tenure, *of_search) == []
    assert tenure("dead", "requeue", STRANGE_ID).code == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("deadline", "told"),
    [("timeout_seconds", "TaskTimeout"), ("progress_deadline_seconds", "ProgressDeadlineExceeded")],
)
def test_a_run_that_passes_a_deadline_is_an_attempt_that_says_which(
    tenure: CommandLine, deadline: str, told: str
) -> None:
    name = f"deadline-{told}"
    extra = {"seconds": "600", "steps": "1"}
    line = {"architecture": GRAPH, "config": {"extra": extra}, "max_attempts": 1, "max_losses": 1, deadline: 1}
    said = tenure("tasks", "submit", "--search", name, "-", "--wait", "--output", "json", stdin=json.dumps(line))
    (task_id,) = (each["task_id"] for each in said.json["tasks"])
    shown = tenure("dead", "show", task_id, "--output", "json").json
    assert (shown["attempts"], shown["losses"], shown["failure"]["error_class"]) == (1, 0, told)
    (record,) = shown["attempt_records"]
    assert (record["outcome"], record["error_class"]) == ("failure", told)
    assert listed(tenure, "--search", name, "--error-class", told) == [task_id]


@pytest.mark.parametrize(
    "arguments", [[], [STRANGE_ID, "--all"], ["--all", "--worker", "w"], [STRANGE_ID, "--since", "1h"]]
)
def test_which_are_meant_is_said_in_one_way(tenure: CommandLine, arguments: list[str]) -> None:
    said = tenure("dead", "requeue", *arguments, "--yes")
    assert said.code == ExitCode.USAGE
    assert "in one way" in said.err


def test_a_time_that_is_none(tenure: CommandLine) -> None:
    said = tenure("dead", "list", "--since", "yesterday")
    assert said.code == ExitCode.USAGE
    assert "since" in said.err
    assert "yesterday" in said.err
    assert "30m" in said.err


@pytest.mark.parametrize("retry", ["{", '{"rules": [{"error_class": "InvalidArchitecture", "retryable": true}]}'])
def test_a_retry_policy_that_can_not_be(tenure: CommandLine, retry: str) -> None:
    said = tenure("searches", "set", "never-made", "--retry", retry)
    assert said.code == ExitCode.USAGE
    assert "retry" in said.err
    assert tenure("searches", "show", "never-made").code == ExitCode.NOT_FOUND
