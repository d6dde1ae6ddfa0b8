"""Tasks as the console shows them: lists, one with all its evidence, dead letters, events, output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenure.common import ids
from tenure.common.errors import InvalidInput
from tenure.common.states import TaskState
from tenure.master.console.asking import ASK_SECONDS, Asker
from tenure.master.console.plain import plain
from tenure.master.console.searches import Searches
from tenure.master.loops.figures import requirements_text
from tenure.master.rpc import messages
from tenure.master.rpc.worker_service import unknown_task
from tenure.master.store.records import TaskView
from tenure.proto import tenure_pb2

DEAD_MAX = 100
# Searches whose last dead letters are read when all are asked for.
DEAD_SEARCHES_MAX = 50
EVENTS_MAX = 200
PAGE_TASKS = 50
ARCHITECTURE_CHARS_MAX = 20_000
# After every task that has ended.
FAR_UNIX_MS = 10**15


class Tasks:
    """Thread-safe; raises what the client API would."""

    def __init__(self, asker: Asker, searches: Searches) -> None:
        self._asker = asker
        self._searches = searches

    def page(self, search: str, state: str, cursor: str) -> dict[str, Any]:
        """A page of a search's tasks in the order of their submission, of one state or, empty, of all. It may be short,
        even empty, while its cursor says that there is more."""
        self._searches.view(search)
        if state and state not in TaskState.__members__:
            expected = f"one of {', '.join(TaskState.__members__)}"
            raise InvalidInput("unknown state", field="state", given=state, expected=expected)
        states = [TaskState(state)] if state else []
        work = self._asker.master.store.tasks.page(search, states, cursor, PAGE_TASKS)
        cursor, found = self._asker.ask(work)
        return {"tasks": self.by_id(found), "cursor": cursor}

    def results(self, search: str) -> dict[str, Any]:
        """The last tasks of a search that succeeded, the newest first."""
        self._searches.view(search)

        def make() -> dict[str, Any]:
            return {"tasks": self._last_ended(search, TaskState.SUCCEEDED, PAGE_TASKS)}

        return self._asker.shared(("results", search), make)

    def dead_letters(self, search: str) -> dict[str, Any]:
        """The last dead letters, of one search or, empty, of all, the newest first; and how many there are."""
        return self._asker.shared(("dead", search), lambda: self._dead_letters(search))

    def _dead_letters(self, name: str) -> dict[str, Any]:
        searches = [self._searches.view(name)] if name else self._searches.all()[1]
        failed = [search for search in searches if search.counts.get(TaskState.FAILED, 0)]
        failed.sort(key=lambda search: -search.last_ended_unix_ms)
        found: list[dict[str, Any]] = []
        for search in failed[:DEAD_SEARCHES_MAX]:
            found += self._last_ended(search.name, TaskState.FAILED, DEAD_MAX)
        found.sort(key=lambda task: -task.get("ended_unix_ms", 0))
        by_search = {search.name: search.counts[TaskState.FAILED] for search in failed}
        return {"tasks": found[:DEAD_MAX], "total": sum(by_search.values()), "by_search": by_search}

    def show(self, task_id: str) -> dict[str, Any]:
        """Everything that is known of one task; raises UnknownTask."""
        ids.check_id(task_id, "task_id")
        return self._asker.shared(("task", task_id), lambda: self._show(task_id))

    def _show(self, task_id: str) -> dict[str, Any]:
        views = self._asker.ask(self._asker.master.store.tasks.show([task_id], full=True))
        if task_id not in views:
            raise unknown_task(task_id)
        return {"task": _task(views[task_id])}

    def events(self) -> dict[str, Any]:
        """The last changes of tasks and searches, at any master, the newest first."""

        def make() -> dict[str, Any]:
            events = self._asker.ask(self._asker.master.store.events.latest(EVENTS_MAX))
            return {"events": [plain(messages.event_message(event)) | {"state": event.state} for event in events]}

        return self._asker.shared("events", make)

    def output(self, task_id: str, epoch: int, place: int) -> list[tenure_pb2.TailTaskResponse]:
        """What a task's evaluation has printed since a place in its output, as TailTask tells it."""
        request = tenure_pb2.TailTaskRequest(task_id=task_id, epoch=epoch, place=place)
        collected = _Collected()
        self._asker.ask(self._asker.master.clients.TailTask(request, collected), 2 * ASK_SECONDS)
        return collected.responses

    def by_id(self, task_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Those that exist, in this order, without their evidence."""
        if not task_ids:
            return []
        views: Mapping[str, TaskView] = self._asker.ask(self._asker.master.store.tasks.show(task_ids))
        return [_task(views[task_id]) for task_id in task_ids if task_id in views]

    def _last_ended(self, search: str, state: TaskState, count: int) -> list[dict[str, Any]]:
        looks = self._asker.master.store.looks
        work = looks.ended(search, state, start_unix_ms=FAR_UNIX_MS, skip=0, count=count, backwards=True)
        return self.by_id([row.task_id for row in self._asker.ask(work).rows])


class _Collected:
    """Stands in for a gRPC stream: takes what is written to it. The tail's own ring bounds it."""

    def __init__(self) -> None:
        self.responses: list[tenure_pb2.TailTaskResponse] = []

    async def write(self, response: tenure_pb2.TailTaskResponse) -> None:
        self.responses.append(response)


def _task(view: TaskView) -> dict[str, Any]:
    found = plain(messages.task_message(view))
    found["requires"] = requirements_text(view.requirements)
    found["checkpointed_unix_ms"] = _checkpointed(view)
    architecture = found.get("architecture", "")
    found["architecture"] = architecture[:ARCHITECTURE_CHARS_MAX]
    found["architecture_left_out"] = max(0, len(architecture) - ARCHITECTURE_CHARS_MAX)
    return found


def _checkpointed(view: TaskView) -> int:
    """When the present or last lease registered its last checkpoint; 0 if it has none. See lua/lib/compute.lua."""
    epoch, _, run_ms = view.fields.get("kept", "").partition(" ")
    return view.number("leased") + int(run_ms) if run_ms and epoch == view.fields.get("epoch") else 0
