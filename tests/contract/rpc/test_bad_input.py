"""Input that can't be right: a typed error names field, value and remedy; nothing is changed, nobody else concerned."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import grpc
import pytest
from raw_peers import GRAPH, Broker, OpenSession, refused

from tenure.common import limits
from tenure.proto import tenure_pb2

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
KB_10 = 10 * 1024
UNKNOWN_ID = "0-" + "z" * 26


def graph(*operations: str, edges: list[tuple[str, str]] | None = None) -> str:
    """Nodes ``n0``, ``n1``, … in a row, or with these edges."""
    names = [f"n{number}" for number in range(len(operations))]
    ends = edges if edges is not None else list(itertools.pairwise(names))
    return json.dumps(
        {
            "nodes": [{"id": name, "operation": kind} for name, kind in zip(names, operations, strict=True)],
            "edges": [{"id": f"e{n}", "source_id": a, "target_id": b} for n, (a, b) in enumerate(ends)],
        }
    )


def config(**fields: Any) -> dict[str, Any]:
    return {"config": tenure_pb2.Config(**fields)}


BAD_SPECS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # name: (spec, code, field within the task, part of what was given)
    "no architecture": ({"architecture": ""}, "INVALID_ARCHITECTURE", "architecture", ""),
    "not json": ({"architecture": "{nodes"}, "INVALID_ARCHITECTURE", "architecture", "{nodes"),
    "nan in json": ({"architecture": '{"nodes": NaN}'}, "INVALID_ARCHITECTURE", "architecture", "NaN"),
    "not a graph": ({"architecture": "[1, 2]"}, "INVALID_ARCHITECTURE", "architecture", "[1, 2]"),
    "no node": ({"architecture": "{}"}, "INVALID_ARCHITECTURE", "architecture.nodes", ""),
    "cyclic": (
        {"architecture": graph("relu", "relu", edges=[("n0", "n1"), ("n1", "n0")])},
        "INVALID_ARCHITECTURE",
        "architecture.edges",
        "",
    ),
    "unknown operation": (
        {"architecture": graph("relu", "warp")},
        "INVALID_ARCHITECTURE",
        "architecture.nodes[1].operation",
        "warp",
    ),
    "dangling edge": (
        {"architecture": graph("relu", edges=[("n0", "nowhere")])},
        "INVALID_ARCHITECTURE",
        "architecture.edges[0].target_id",
        "nowhere",
    ),
    "too large": (
        {"architecture": " " * (limits.ARCHITECTURE_BYTES_MAX + 1)},
        "INVALID_ARCHITECTURE",
        "architecture",
        "",
    ),
    "too deep": ({"architecture": "[" * 5000 + "]" * 5000}, "INVALID_ARCHITECTURE", "architecture", ""),
    "negative epochs": (config(num_epochs=-1), "INVALID_CONFIG", "config.num_epochs", "-1"),
    "negative batch": (config(batch_size=-5), "INVALID_CONFIG", "config.batch_size", "-5"),
    "nan rate": (config(learning_rate=math.nan), "INVALID_CONFIG", "config.learning_rate", "nan"),
    "infinite rate": (config(learning_rate=math.inf), "INVALID_CONFIG", "config.learning_rate", "inf"),
    "negative rate": (config(learning_rate=-0.1), "INVALID_CONFIG", "config.learning_rate", "-0.1"),
    "unknown data set": (config(dataset="imagenet"), "INVALID_CONFIG", "config.dataset", "imagenet"),
    "too much extra": (config(extra={f"k{n}": "" for n in range(65)}), "INVALID_CONFIG", "config.extra", ""),
    "a long extra": (config(extra={"k": "v" * 20_000}), "INVALID_CONFIG", "config.extra.k", ""),
    "10 KB key": ({"key": "k" * KB_10}, "INVALID_INPUT", "key", "kkk"),
    "key with a line break": ({"key": "a\nb"}, "INVALID_INPUT", "key", "a\\nb"),
    "priority": ({"priority": 101}, "INVALID_INPUT", "priority", "101"),
    "no attempts": ({"max_attempts": 0}, "INVALID_INPUT", "max_attempts", "0"),
    "too many losses": ({"max_losses": 1001}, "INVALID_INPUT", "max_losses", "1001"),
    "negative timeout": ({"timeout_ms": -1}, "INVALID_INPUT", "timeout_ms", "-1"),
    "endless delay": ({"delay_ms": 2**62}, "INVALID_INPUT", "delay_ms", str(2**62)),
    "negative progress deadline": ({"progress_deadline_ms": -1}, "INVALID_INPUT", "progress_deadline_ms", "-1"),
    "negative gpus": (
        {"requirements": tenure_pb2.Requirements(gpus=-1)},
        "INVALID_INPUT",
        "requirements.gpus",
        "-1",
    ),
    "a long label": (
        {"requirements": tenure_pb2.Requirements(labels={"zone": "z" * 100})},
        "INVALID_INPUT",
        "requirements.labels.zone",
        "",
    ),
}


@pytest.mark.parametrize("name", list(BAD_SPECS))
async def test_a_bad_task_is_named_and_none_of_its_batch_is_taken(broker: Broker, search: str, name: str) -> None:
    spec, code, field, given = BAD_SPECS[name]
    bad = {"architecture": GRAPH, "key": "bad", **spec}
    good = tenure_pb2.TaskSpec(architecture=GRAPH, key="good")
    request = tenure_pb2.SubmitRequest(search=search, tasks=[good, tenure_pb2.TaskSpec(**bad), good])
    async with refused(INVALID, code, f"tasks[1].{field}", given) as parts:
        await broker.api.Submit(request)
    assert parts["expected"] or "must" in parts["message"]
    async with refused(NOT_FOUND):
        await broker.api.GetSearch(tenure_pb2.SearchName(name=search))


@pytest.mark.parametrize("name", ["", "s" * KB_10, "é" * 100, " s", "a\tb"])
async def test_bad_search_names(broker: Broker, name: str) -> None:
    task = tenure_pb2.TaskSpec(architecture=GRAPH)
    async with refused(INVALID, "INVALID_INPUT", "search"):
        await broker.api.Submit(tenure_pb2.SubmitRequest(search=name, tasks=[task]))
    async with refused(INVALID, "INVALID_INPUT", "search"):
        await broker.api.ListTasks(tenure_pb2.ListTasksRequest(search=name))
    async with refused(INVALID, "INVALID_INPUT", "name"):
        await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=name))
    for method in ("GetSearch", "PauseSearch", "ResumeSearch", "CancelSearch"):
        async with refused(INVALID, "INVALID_INPUT", "name"):
            await getattr(broker.api, method)(tenure_pb2.SearchName(name=name))
    if name:
        async with refused(INVALID, "INVALID_INPUT", "search"):
            await anext(aiter(broker.api.Watch(tenure_pb2.WatchRequest(search=name))))


async def test_unknown_searches(broker: Broker) -> None:
    for method in ("GetSearch", "PauseSearch", "ResumeSearch", "CancelSearch"):
        async with refused(NOT_FOUND, "UNKNOWN_SEARCH", "search", "nowhere"):
            await getattr(broker.api, method)(tenure_pb2.SearchName(name="nowhere"))
    async with refused(NOT_FOUND, "UNKNOWN_SEARCH", "search", "nowhere"):
        await broker.api.ListTasks(tenure_pb2.ListTasksRequest(search="nowhere"))
    async with refused(NOT_FOUND, "UNKNOWN_SEARCH", "search", "nowhere"):
        await anext(aiter(broker.api.Watch(tenure_pb2.WatchRequest(search="nowhere"))))


@pytest.mark.parametrize("count", [0, 101, 5000])
async def test_batches_beyond_the_limit(broker: Broker, search: str, count: int) -> None:
    code = "INVALID_INPUT" if count == 0 else "BATCH_TOO_LARGE"
    task = tenure_pb2.TaskSpec(architecture=GRAPH, key="k")
    async with refused(INVALID, code, "tasks") as parts:
        await broker.api.Submit(tenure_pb2.SubmitRequest(search=search, tasks=[task] * count))
    assert "100" in parts["expected"]
    for method, request in (
        ("GetTasks", tenure_pb2.GetTasksRequest(task_ids=[UNKNOWN_ID] * count)),
        ("CancelTasks", tenure_pb2.TaskIds(task_ids=[UNKNOWN_ID] * count)),
        ("RequeueTasks", tenure_pb2.TaskIds(task_ids=[UNKNOWN_ID] * count)),
    ):
        async with refused(INVALID, code, "task_ids"):
            await getattr(broker.api, method)(request)


@pytest.mark.parametrize("task_id", ["", "t" * KB_10, "a\nb"])
async def test_bad_task_ids(broker: Broker, task_id: str) -> None:
    for method, request in (
        ("GetTasks", tenure_pb2.GetTasksRequest(task_ids=[UNKNOWN_ID, task_id])),
        ("CancelTasks", tenure_pb2.TaskIds(task_ids=[UNKNOWN_ID, task_id])),
        ("RequeueTasks", tenure_pb2.TaskIds(task_ids=[UNKNOWN_ID, task_id])),
    ):
        async with refused(INVALID, "INVALID_INPUT", "task_ids[1]"):
            await getattr(broker.api, method)(request)


async def test_unknown_tasks_are_named_one_by_one(broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    ids = [UNKNOWN_ID, task_id, "nonsense", "f-" + "z" * 26]
    response = await broker.api.GetTasks(tenure_pb2.GetTasksRequest(task_ids=ids))
    assert [task.task_id for task in response.tasks] == [task_id]
    assert list(response.unknown_ids) == [UNKNOWN_ID, "nonsense", "f-" + "z" * 26]
    for method in ("CancelTasks", "RequeueTasks"):
        verdicts = (await getattr(broker.api, method)(tenure_pb2.TaskIds(task_ids=ids))).verdicts
        assert [each.verdict for each in verdicts if each.task_id != task_id] == ["unknown"] * 3


@pytest.mark.parametrize(
    ("fields", "field", "given"),
    [
        ({"page_size": -1}, "page_size", "-1"),
        ({"page_size": 1001}, "page_size", "1001"),
        ({"page_token": "nonsense"}, "page_token", "nonsense"),
        ({"page_token": "²"}, "page_token", "²"),
        ({"page_token": "-1"}, "page_token", "-1"),
        ({"states": [99]}, "states", "99"),
        ({"states": [0]}, "states", "0"),
    ],
)
async def test_bad_pages(broker: Broker, search: str, fields: dict[str, Any], field: str, given: str) -> None:
    await broker.submit(search)
    async with refused(INVALID, "INVALID_INPUT", field, given):
        await broker.api.ListTasks(tenure_pb2.ListTasksRequest(search=search, **fields))


@pytest.mark.parametrize(
    ("fields", "field", "given"),
    [
        ({"priority": 101}, "priority", "101"),
        ({"priority": -101}, "priority", "-101"),
        ({"weight": 0.0}, "weight", "0"),
        ({"weight": math.nan}, "weight", "nan"),
        ({"weight": 1000.0}, "weight", "1000"),
        ({"max_leased": -1}, "max_leased", "-1"),
        ({"architecture_format": "yaml"}, "architecture_format", "yaml"),
        ({"architecture_format": ""}, "architecture_format", ""),
    ],
)
async def test_bad_search_settings(broker: Broker, search: str, fields: dict[str, Any], field: str, given: str) -> None:
    async with refused(INVALID, "INVALID_INPUT", field, given) as parts:
        await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=search, **fields))
    assert parts["expected"]
    async with refused(NOT_FOUND):
        await broker.api.GetSearch(tenure_pb2.SearchName(name=search))


@pytest.mark.parametrize("cursor", ["nonsense", "1-", "1", "1-2,3-4", "-", "1-2\0", "٣-٣", "99999999999999999999999-0"])
async def test_bad_cursors(broker: Broker, cursor: str) -> None:
    async with refused(INVALID, "INVALID_INPUT", "cursor") as parts:
        await anext(aiter(broker.api.Watch(tenure_pb2.WatchRequest(cursor=cursor))))
    assert parts["expected"]


@pytest.mark.parametrize("letter", ["k", "é", "漢", "\U0001f300"])
async def test_an_error_about_something_long_still_arrives_as_itself(broker: Broker, search: str, letter: str) -> None:
    """Statuses travel in headers, where a few kilobytes are all there is room for."""
    name = letter * 20_000
    tasks = [tenure_pb2.TaskSpec(architecture=GRAPH, config=tenure_pb2.Config(extra={name: "v" * 20_000}))]
    async with refused(INVALID) as parts:
        await broker.api.Submit(tenure_pb2.SubmitRequest(search=search, tasks=tasks))
    assert parts["code"] == "INVALID_CONFIG"
    assert parts["field"].startswith("tasks[0].config.extra.")
    architecture = json.dumps({"nodes": [{"id": name, "operation": name}], "edges": []})
    tasks = [tenure_pb2.TaskSpec(architecture=architecture)]
    async with refused(INVALID) as parts:
        await broker.api.Submit(tenure_pb2.SubmitRequest(search=search, tasks=tasks))
    assert parts["code"] == "INVALID_ARCHITECTURE"


async def test_a_bad_submit_costs_others_nothing(broker: Broker, search: str, open_session: OpenSession) -> None:
    session = await open_session(want=1)
    task = tenure_pb2.TaskSpec(architecture="[" * 100_000)
    (good,) = await broker.submit(search)
    async with refused(INVALID, "INVALID_ARCHITECTURE", "tasks[0].architecture"):
        await broker.api.Submit(tenure_pb2.SubmitRequest(search=search, tasks=[task]))
    assert (await session.end(await session.hear_task())).task_id == good
