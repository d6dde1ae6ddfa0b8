"""What is seen of a task, and what should be."""

from __future__ import annotations

from typing import Any

from stateful.model import Task

from tenure.common.states import TaskState
from tenure.master.store.records import TaskView


def seen(view: TaskView) -> dict[str, Any]:
    """What the model speaks of."""
    numbers = ("epoch", "attempts", "losses", "ooms")
    return {
        "state": view.state,
        "token": view.fields.get("token", ""),
        "worker": view.fields.get("worker", ""),
        "cancel": view.fields.get("cancel") == "1",
        **{name: view.number(name) for name in numbers},
        "lease left": view.lease_left_ms,
        "scheduled in": view.scheduled_in_ms,
        "records": [each.outcome for each in view.attempt_records],
        "fitness": view.outcome["metrics"]["fitness"] if view.outcome and view.state is TaskState.SUCCEEDED else None,
    }


def should_be_seen(task: Task, now_ms: int) -> dict[str, Any]:
    """The same of the model's task."""
    return {
        "state": task.state,
        "token": task.token,
        "worker": task.worker,
        "cancel": task.cancel,
        "epoch": task.epoch,
        **{name: task.spent[name] for name in ("attempts", "losses", "ooms")},
        "lease left": task.expires_ms - now_ms if task.state is TaskState.LEASED else None,
        "scheduled in": task.due_ms - now_ms if task.state is TaskState.SCHEDULED else None,
        "records": task.records,
        "fitness": task.fitness if task.state is TaskState.SUCCEEDED else None,
    }
