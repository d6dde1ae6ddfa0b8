"""Reading task files: keys of repetitions, refusals with the line's number, bounded lines."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tenure.client.cli.task_lines import LINE_BYTES_MAX, BadLine, read_tasks
from tenure.common.errors import InvalidArchitecture, InvalidConfig, InvalidInput
from tenure.common.spec import Config, TaskSpec, content_key

GRAPH = {"nodes": [{"id": "a", "operation": "dense", "params": {"units": 10}}]}
GOOD = json.dumps({"architecture": GRAPH})


def read(*lines: str | bytes) -> list[TaskSpec | BadLine]:
    raw = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    return list(read_tasks(io.BytesIO(raw), "graph"))


def bad(line: str | bytes) -> InvalidInput:
    (task,) = read(line)
    assert isinstance(task, BadLine), task
    return task.error


def keys(*lines: dict[str, Any]) -> list[str]:
    return [task.key for task in read(*(json.dumps(line) for line in lines)) if isinstance(task, TaskSpec)]


def test_equal_lines_without_a_key_are_distinct_tasks() -> None:
    other = {"architecture": GRAPH, "config": {"num_epochs": 3}}
    reordered = {"config": {}, "architecture": dict(reversed(GRAPH.items()))}
    content = content_key(json.dumps(GRAPH), Config())
    assert keys({"architecture": GRAPH}, other, {"architecture": GRAPH}, reordered, other) == [
        content,
        content_key(json.dumps(GRAPH), Config(num_epochs=3)),
        f"{content}#1",
        f"{content}#2",
        f"{content_key(json.dumps(GRAPH), Config(num_epochs=3))}#1",
    ]


def test_all_fields() -> None:
    line = {
        "key": "k",
        "architecture": GRAPH,
        "config": {
            "num_epochs": 2,
            "batch_size": 32,
            "learning_rate": 1,
            "dataset": "digits",
            "extra": {"seed": "1"},
        },
        "priority": 5,
        "max_attempts": 1,
        "max_losses": 2,
        "timeout_seconds": 1.5,
        "progress_deadline_seconds": 60,
        "delay_seconds": 0,
        "requirements": {"gpus": 1, "labels": {"zone": "east"}},
    }
    (task,) = read(json.dumps(line))
    assert isinstance(task, TaskSpec)
    assert (task.key, task.priority, task.max_attempts, task.max_losses) == ("k", 5, 1, 2)
    assert (task.timeout_ms, task.progress_deadline_ms, task.delay_ms) == (1500, 60_000, 0)
    assert task.config == Config(2, 32, 1, "digits", {"seed": "1"})
    assert (task.requirements.gpus, task.requirements.labels) == (1, {"zone": "east"})


def test_an_architecture_may_be_json_text() -> None:
    assert keys({"architecture": json.dumps(GRAPH)}) == keys({"architecture": GRAPH})


def test_blank_lines_are_skipped_and_counted() -> None:
    tasks = read("", GOOD, "   ", "nonsense")
    assert isinstance(tasks[0], TaskSpec)
    assert isinstance(tasks[1], BadLine)
    assert tasks[1].number == 4
    assert str(tasks[1].error).startswith("line 4: is not JSON")


def test_a_key_names_one_task() -> None:
    twice = read(json.dumps({"key": "k", "architecture": GRAPH}), json.dumps({"key": "k", "architecture": GRAPH}))
    assert [task.key for task in twice if isinstance(task, TaskSpec)] == ["k", "k"]
    other = {"key": "k", "architecture": GRAPH, "config": {"num_epochs": 1}}
    tasks = read(json.dumps({"key": "k", "architecture": GRAPH}), json.dumps(other))
    assert isinstance(tasks[1], BadLine)
    assert str(tasks[1].error).startswith("line 2: key: was given to another task in line 1")


@pytest.mark.parametrize(
    ("line", "error", "field"),
    [
        ("{", InvalidInput, "line 1"),
        ("[]", InvalidInput, "line 1"),
        ("3", InvalidInput, "line 1"),
        (b"\xff\xfe", InvalidInput, "line 1"),
        ("[" * 100_000, InvalidInput, "line 1"),
        ('{"architecture": {}, "architecture": {}}', InvalidInput, "line 1"),
        ("{}", InvalidArchitecture, "line 1: architecture"),
        ('{"architecture": {"nodes": []}}', InvalidArchitecture, "line 1: architecture.nodes"),
        ('{"architecture": "{"}', InvalidArchitecture, "line 1: architecture"),
        ('{"architecture": null}', InvalidArchitecture, "line 1: architecture"),
        ('{"architecture": {"nodes": [{"id": "a", "operation": "warp"}]}}', InvalidArchitecture, None),
        (json.dumps({"architecture": GRAPH, "epochs": 3}), InvalidInput, "line 1: epochs"),
        (json.dumps({"architecture": GRAPH, "key": 3}), InvalidInput, "line 1: key"),
        (json.dumps({"architecture": GRAPH, "key": None}), InvalidInput, "line 1: key"),
        (json.dumps({"architecture": GRAPH, "key": "k" * 10_240}), InvalidInput, "line 1: key"),
        (json.dumps({"architecture": GRAPH, "priority": "high"}), InvalidInput, "line 1: priority"),
        (json.dumps({"architecture": GRAPH, "priority": True}), InvalidInput, "line 1: priority"),
        (json.dumps({"architecture": GRAPH, "max_attempts": 10**9}), InvalidInput, "line 1: max_attempts"),
        (json.dumps({"architecture": GRAPH, "delay_seconds": "1"}), InvalidInput, "line 1: delay_seconds"),
        (json.dumps({"architecture": GRAPH, "config": {"num_epochs": -1}}), InvalidConfig, "line 1: config.num_epochs"),
        (
            json.dumps({"architecture": GRAPH, "config": {"num_epochs": 1.5}}),
            InvalidConfig,
            "line 1: config.num_epochs",
        ),
        (json.dumps({"architecture": GRAPH, "config": {"lr": 1}}), InvalidConfig, "line 1: config.lr"),
        (json.dumps({"architecture": GRAPH, "config": {"dataset": "x"}}), InvalidConfig, "line 1: config.dataset"),
        (json.dumps({"architecture": GRAPH, "config": {"extra": 3}}), InvalidConfig, "line 1: config.extra"),
        (
            '{"architecture": {"nodes": [{"id": "a", "operation": "dense"}]}, "config": {"learning_rate": NaN}}',
            InvalidConfig,
            "line 1: config.learning_rate",
        ),
        (json.dumps({"architecture": GRAPH, "requirements": {"gpu": 1}}), InvalidInput, "line 1: requirements.gpu"),
    ],
)
def test_what_can_not_be_right_is_told_with_the_line_and_the_field(
    line: str | bytes, error: type[InvalidInput], field: str | None
) -> None:
    told = bad(line)
    assert isinstance(told, error)
    assert field is None or told.field == field
    assert str(told).startswith("line 1")


def test_a_line_beyond_the_limit_is_refused_and_the_next_one_read() -> None:
    long = b'{"architecture": "' + b"x" * LINE_BYTES_MAX + b'"}'
    tasks = read(long, GOOD)
    assert isinstance(tasks[0], BadLine)
    assert "too long" in str(tasks[0].error)
    assert isinstance(tasks[1], TaskSpec)


def test_what_is_nested_too_deeply_is_said_to_be() -> None:
    deep = "[" * 200_000 + "]" * 200_000
    error = bad(f'{{"architecture": {deep}}}')
    assert "nested too deeply" in error.message
