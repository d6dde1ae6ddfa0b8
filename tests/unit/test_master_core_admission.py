"""What a submit is refused for: each refusal names the task and field, shows the value, and says what is right."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tenure.common import limits
from tenure.common.errors import BatchTooLarge, InvalidArchitecture, InvalidConfig, InvalidInput, TenureError
from tenure.common.spec import Config, Requirements, TaskSpec
from tenure.master.core.admission import admit, check_task_ids

GRAPH = json.dumps({"nodes": [{"id": "a", "operation": "dense", "params": {"units": 3}}], "edges": []})
GOOD = TaskSpec(GRAPH, Config(3, 32, 0.1, "digits", {"seed": "1"}), key="k")


def refused(error: type[TenureError], *specs: TaskSpec, search: str = "s", form: str = "graph") -> TenureError:
    with pytest.raises(TenureError) as caught:
        admit(search, specs, form)
    assert type(caught.value) is error, caught.value
    return caught.value


def test_good_tasks_are_taken_again_and_again() -> None:
    for _ in range(2):
        admit("s", [GOOD] * limits.BATCH_TASKS_MAX, "graph")
        admit("s", [TaskSpec("[1, 2]")], "json")


@pytest.mark.parametrize("search", ["", " s", "a\nb", "x" * 129, "é" * 65])
def test_the_search_s_name(search: str) -> None:
    assert refused(InvalidInput, GOOD, search=search).field == "search"


def test_no_task_at_all() -> None:
    error = refused(InvalidInput)
    assert (error.field, error.expected) == ("tasks", "1 to 100 tasks")


def test_too_many_tasks() -> None:
    error = refused(BatchTooLarge, *[GOOD] * 101)
    assert (error.field, error.message) == ("tasks", "101 in one request")
    assert "at most 100" in error.expected


@pytest.mark.parametrize(
    ("changes", "error", "field", "given"),
    [
        ({"key": "x" * 257}, InvalidInput, "key", "x" * 199 + "…"),
        ({"key": "a\tb"}, InvalidInput, "key", repr("a\tb")),
        ({"priority": 101}, InvalidInput, "priority", "101"),
        ({"priority": -101}, InvalidInput, "priority", "-101"),
        ({"max_attempts": 0}, InvalidInput, "max_attempts", "0"),
        ({"max_attempts": 1001}, InvalidInput, "max_attempts", "1001"),
        ({"max_losses": 0}, InvalidInput, "max_losses", "0"),
        ({"timeout_ms": -1}, InvalidInput, "timeout_ms", "-1"),
        ({"progress_deadline_ms": limits.DURATION_MS_MAX + 1}, InvalidInput, "progress_deadline_ms", "31622400001"),
        ({"delay_ms": -5}, InvalidInput, "delay_ms", "-5"),
        ({"config": Config(num_epochs=-1)}, InvalidConfig, "config.num_epochs", "-1"),
        ({"config": Config(batch_size=-2)}, InvalidConfig, "config.batch_size", "-2"),
        ({"config": Config(learning_rate=float("nan"))}, InvalidConfig, "config.learning_rate", "nan"),
        ({"config": Config(learning_rate=float("inf"))}, InvalidConfig, "config.learning_rate", "inf"),
        ({"config": Config(learning_rate=-0.1)}, InvalidConfig, "config.learning_rate", "-0.1"),
        ({"config": Config(dataset="imagenet")}, InvalidConfig, "config.dataset", "imagenet"),
        ({"config": Config(dataset="os.system")}, InvalidConfig, "config.dataset", "os.system"),
        ({"config": Config(extra={str(n): "" for n in range(65)})}, InvalidConfig, "config.extra", ""),
        ({"config": Config(extra={"k": "x" * 16_385})}, InvalidConfig, "config.extra.k", ""),
        ({"requirements": Requirements(-1)}, InvalidInput, "requirements.gpus", "-1"),
        ({"requirements": Requirements(0, {"": "x"})}, InvalidInput, "requirements.labels.", "x"),
        ({"requirements": Requirements(0, {"k": "x" * 64})}, InvalidInput, "requirements.labels.k", ""),
        ({"requirements": Requirements(0, {str(n): "" for n in range(33)})}, InvalidInput, "requirements.labels", ""),
    ],
)
def test_a_field_of_one_task(changes: dict[str, Any], error: type[TenureError], field: str, given: str) -> None:
    caught = refused(error, GOOD, GOOD, GOOD, replace(GOOD, **changes))
    assert caught.field == f"tasks[3].{field}"
    assert caught.given == given
    assert caught.expected or caught.message


@pytest.mark.parametrize(
    "architecture",
    [
        "",
        "not JSON",
        "{",
        "[]",
        "3",
        '{"nodes": []}',
        '{"nodes": [{"id": "a"}]}',
        '{"nodes": [{"id": "a", "operation": "teleport"}]}',
        '{"nodes": [{"id": "a", "operation": "relu"}, {"id": "a", "operation": "relu"}]}',
        '{"nodes": [{"id": "a", "operation": "relu"}], "edges": [{"id": "e", "source_id": "a", "target_id": "b"}]}',
        '{"nodes": [{"id": "a", "operation": "relu"}], "edges": [{"id": "e", "source_id": "a", "target_id": "a"}]}',
        '{"nodes": [{"id": "a", "operation": "relu", "params": {"x": NaN}}]}',
        "[" * 40 + "]" * 40,
        json.dumps({"nodes": "x" * limits.ARCHITECTURE_BYTES_MAX}),
    ],
    ids=range(14),
)
def test_an_architecture_that_is_no_graph(architecture: str) -> None:
    caught = refused(InvalidArchitecture, GOOD, replace(GOOD, architecture=architecture))
    assert caught.field.startswith("tasks[1].architecture")
    assert caught.message
    assert len(caught.given) <= 200


def test_any_json_is_fine_where_the_format_says_so() -> None:
    admit("s", [replace(GOOD, architecture='{"anything": [1, null]}', config=Config(dataset="my own"))], "json")
    assert refused(InvalidArchitecture, replace(GOOD, architecture="not JSON"), form="json").field.startswith(
        "tasks[0]"
    )


def test_what_is_fine_as_json_is_still_checked_as_a_graph() -> None:
    text = '{"anything": [1, 2, 3]}'
    admit("s", [TaskSpec(text)], "json")
    refused(InvalidArchitecture, TaskSpec(text))


def test_an_unknown_format() -> None:
    error = refused(InvalidInput, GOOD, form="yaml")
    assert (error.field, error.given) == ("tasks[0].architecture_format", "yaml")


def test_an_architecture_that_was_good_does_not_excuse_the_rest() -> None:
    admit("s", [GOOD], "graph")
    assert refused(InvalidConfig, replace(GOOD, config=Config(num_epochs=-1))).field == "tasks[0].config.num_epochs"


class TestTaskIds:
    def test_without_repetitions_in_order(self) -> None:
        assert check_task_ids(["b", "a", "b"]) == ["b", "a"]

    def test_none(self) -> None:
        with pytest.raises(InvalidInput, match="task_ids: must not be empty"):
            check_task_ids([])

    def test_too_many(self) -> None:
        with pytest.raises(BatchTooLarge, match="ids: 101 in one request"):
            check_task_ids(["a"] * 101, "ids")

    @pytest.mark.parametrize("bad", ["", "x" * 10_240, "a\nb", " a"])
    def test_one_that_can_not_be(self, bad: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            check_task_ids(["a", bad])
        assert caught.value.field == "task_ids[1]"
        assert len(caught.value.given) <= 200
