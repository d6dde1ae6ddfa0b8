"""The calls about tasks, in batches the master takes. Each is safe to send again and tried until the
deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from tenure.client.connection import Connection, Deadline
from tenure.client.records import TaskRecord, TaskVerdict
from tenure.client.specs import to_message
from tenure.common import ids, limits
from tenure.common.errors import UnknownTask
from tenure.common.spec import TaskSpec
from tenure.common.states import TaskState
from tenure.proto import tenure_pb2

T = TypeVar("T")


def batches(items: Iterable[T], size: int = limits.BATCH_TASKS_MAX) -> Iterator[list[T]]:
    """``items`` in lists of at most ``size``, read no further ahead than that."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def submit(
    connection: Connection, search: str, specs: Sequence[TaskSpec], deadline: Deadline | None = None
) -> list[tuple[str, str, bool]]:
    """Submit at most 100 tasks with keys; all are taken or none. (task id, key, created) of each, in
    order.
    """
    request = tenure_pb2.SubmitRequest(search=search, tasks=[to_message(spec) for spec in specs])
    response = connection.call("Submit", request, deadline=deadline)
    return [(task.task_id, task.key, task.created) for task in response.tasks]


def get_tasks(
    connection: Connection, task_ids: Iterable[str], *, full: bool = False, deadline: Deadline | None = None
) -> dict[str, TaskRecord]:
    """Records by id; ids that the broker doesn't know are left out."""
    found: dict[str, TaskRecord] = {}
    for batch in batches(task_ids):
        request = tenure_pb2.GetTasksRequest(task_ids=batch, full=full)
        response = connection.call("GetTasks", request, deadline=deadline)
        found.update((task.task_id, TaskRecord.from_message(task)) for task in response.tasks)
    return found


def get_task(
    connection: Connection, task_id: str, *, full: bool = False, deadline: Deadline | None = None
) -> TaskRecord:
    """One record; UnknownTask if there is none."""
    ids.check_id(task_id, "task_id")
    found = get_tasks(connection, [task_id], full=full, deadline=deadline)
    if task_id not in found:
        raise unknown_task(task_id)
    return found[task_id]


def list_tasks(
    connection: Connection,
    search: str,
    states: Iterable[TaskState | str] = (),
    page_size: int = limits.PAGE_SIZE_MAX,
    deadline: Deadline | None = None,
) -> Iterator[TaskRecord]:
    """Tasks of one search, read page by page as they are asked for."""
    wanted = [TaskState(state).value for state in states]
    page_token = ""
    while True:
        request = tenure_pb2.ListTasksRequest(search=search, states=wanted, page_size=page_size, page_token=page_token)
        response = connection.call("ListTasks", request, deadline=deadline)
        yield from (TaskRecord.from_message(task) for task in response.tasks)
        page_token = response.next_page_token
        if not page_token:
            return


def cancel_tasks(connection: Connection, task_ids: Iterable[str]) -> list[TaskVerdict]:
    """Cancel tasks: at once those that nobody holds; a holder is told to stop."""
    return _verdicts(connection, "CancelTasks", task_ids)


def requeue_tasks(connection: Connection, task_ids: Iterable[str]) -> list[TaskVerdict]:
    """FAILED and CANCELLED tasks back to QUEUED, with fresh budgets."""
    return _verdicts(connection, "RequeueTasks", task_ids)


def unknown_task(task_id: str) -> UnknownTask:
    """The error for an id that the broker doesn't know."""
    return UnknownTask(
        "no such task",
        field="task_id",
        given=task_id,
        expected="never submitted here, or forgotten by retention",
    )


def _verdicts(connection: Connection, method: str, task_ids: Iterable[str]) -> list[TaskVerdict]:
    verdicts: list[TaskVerdict] = []
    for batch in batches(task_ids):
        response = connection.call(method, tenure_pb2.TaskIds(task_ids=batch))
        verdicts.extend(TaskVerdict.from_message(verdict) for verdict in response.verdicts)
    return verdicts
