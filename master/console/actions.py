"""The console's buttons: each is one call of the client API, or several, and what it did in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from tenure.common import ids, limits
from tenure.common.errors import InvalidInput, WrongState
from tenure.common.states import TaskState
from tenure.master.console.asking import Asker
from tenure.proto import tenure_pb2

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

ACTION_SECONDS = 20.0
# Dead letters that one press of a button puts back; the page says how many are left.
REQUEUE_MAX = 5_000

Action = Callable[["Master", str], Coroutine[Any, Any, str]]


async def _drain_worker(master: Master, worker_id: str) -> str:
    worker = await master.clients.DrainWorker(tenure_pb2.WorkerName(worker_id=worker_id), None)
    return f"{worker_id} drains: it hands back {_tasks(worker.leases)}, with checkpoints, and gets nothing more"


async def _cordon_worker(master: Master, worker_id: str) -> str:
    worker = await master.clients.CordonWorker(tenure_pb2.WorkerName(worker_id=worker_id), None)
    return f"{worker_id} is cordoned: it finishes {_tasks(worker.leases)} and gets nothing more"


async def _uncordon_worker(master: Master, worker_id: str) -> str:
    await master.clients.UncordonWorker(tenure_pb2.WorkerName(worker_id=worker_id), None)
    return f"{worker_id} takes tasks again"


async def _pause_search(master: Master, search: str) -> str:
    now = await master.clients.PauseSearch(tenure_pb2.SearchName(name=search), None)
    return f"{search} is paused; {_tasks(now.tasks[TaskState.LEASED.value])} of it still run"


async def _resume_search(master: Master, search: str) -> str:
    now = await master.clients.ResumeSearch(tenure_pb2.SearchName(name=search), None)
    return f"{search} goes on; {_tasks(now.tasks[TaskState.QUEUED.value])} of it wait"


async def _cancel_search(master: Master, search: str) -> str:
    now = await master.clients.CancelSearch(tenure_pb2.SearchName(name=search), None)
    running = now.tasks[TaskState.LEASED.value]
    rest = f"; the workers of {_tasks(running)} are told to stop" if running else ""
    return f"{search} is cancelled: {_tasks(now.tasks[TaskState.CANCELLED.value])} of it are{rest}"


async def _cancel_task(master: Master, task_id: str) -> str:
    verdict = _verdict(await master.clients.CancelTasks(tenure_pb2.TaskIds(task_ids=[task_id]), None))
    if verdict == "cancel_requested":
        return f"the worker of {task_id} is told to stop"
    return f"{task_id} is cancelled"


async def _requeue_task(master: Master, task_id: str) -> str:
    _verdict(await master.clients.RequeueTasks(tenure_pb2.TaskIds(task_ids=[task_id]), None))
    return f"{task_id} is in the queue again, with fresh budgets"


async def _requeue_dead(master: Master, search: str) -> str:
    """Those that are dead now: one that fails again meanwhile stays."""
    await master.clients.GetSearch(tenure_pb2.SearchName(name=search), None)
    # By the clock that the ends were noted by; this machine's may be another.
    begun, done, skip = (await master.store.looks.pace(search, ())).unix_ms, 0, 0
    while done < REQUEUE_MAX:
        rows, _ = await master.store.looks.ended(
            search,
            TaskState.FAILED,
            start_unix_ms=begun,
            skip=skip,
            count=limits.BATCH_TASKS_MAX,
            backwards=True,
        )
        if not rows:
            break
        request = tenure_pb2.TaskIds(task_ids=[row.task_id for row in rows])
        verdicts = (await master.clients.RequeueTasks(request, None)).verdicts
        taken = sum(verdict.verdict == "ok" for verdict in verdicts)
        done += taken
        skip += len(rows) - taken
    left = (await master.clients.GetSearch(tenure_pb2.SearchName(name=search), None)).tasks[TaskState.FAILED.value]
    return f"{_tasks(done)} of {search} are in the queue again, with fresh budgets" + (
        f"; {left} are dead" * bool(left)
    )


def _verdict(answer: tenure_pb2.TaskVerdicts) -> str:
    """Of the one task that was asked about.

    Raises:
        WrongState: Its state doesn't allow it, or there is none.
    """
    verdict = answer.verdicts[0]
    if verdict.verdict in ("wrong_state", "unknown"):
        state = tenure_pb2.TaskState.Name(verdict.state)
        what = "no such task" if verdict.verdict == "unknown" else f"the task is {state}"
        raise WrongState(what, field="task_id", given=verdict.task_id, expected="look at the task")
    return str(verdict.verdict)


ACTIONS: Mapping[str, tuple[str, Action]] = {
    "drain_worker": ("worker_id", _drain_worker),
    "cordon_worker": ("worker_id", _cordon_worker),
    "uncordon_worker": ("worker_id", _uncordon_worker),
    "pause_search": ("search", _pause_search),
    "resume_search": ("search", _resume_search),
    "cancel_search": ("search", _cancel_search),
    "requeue_dead": ("search", _requeue_dead),
    "requeue_task": ("task_id", _requeue_task),
    "cancel_task": ("task_id", _cancel_task),
}
"""By name: the field that says what it is about, and what to do."""


def act(asker: Asker, given: Mapping[str, Any], who: str) -> str:
    """Do what a button says; returns what was done, for people.

    Args:
        asker: The way to the master.
        given: ``action`` and the one field that it needs, from outside.
        who: The address it came from, for the log.

    Raises:
        InvalidInput: There is no such action, or its field is missing.
        TenureError: What the service answered.
    """
    name = given.get("action")
    if not isinstance(name, str) or name not in ACTIONS:
        raise InvalidInput("unknown action", field="action", given=name, expected=f"one of {', '.join(ACTIONS)}")
    field, action = ACTIONS[name]
    about = given.get(field)
    if not isinstance(about, str) or set(given) != {"action", field}:
        raise InvalidInput("is missing or not alone", field=field, given=about, expected=f"give action and {field}")
    check = ids.check_search_name if field == "search" else ids.check_id
    check(about, field)
    log.info("console.action", action=name, **{field.removesuffix("_id"): about}, client=who)
    try:
        said: str = asker.ask(action(asker.master, about), ACTION_SECONDS, give_up=False)
    finally:
        asker.forget()
    return said


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
