"""One search: submitting its tasks, waiting for them, steering them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Literal

from tenure.client import calls
from tenure.client.broker_records import SearchStatus
from tenure.client.connection import Connection, Deadline
from tenure.client.logs import LogItem, read_logs
from tenure.client.records import TaskRecord, TaskVerdict
from tenure.client.search_code import SearchCode
from tenure.client.search_settings import put_request
from tenure.client.spans import Submissions, tell_result
from tenure.client.specs import checked, checked_item, task_spec
from tenure.client.tasks import TaskFailed, TaskHandle, TaskResult
from tenure.client.waiting import Waiting
from tenure.common import ids, limits
from tenure.common.errors import TenureError, UnknownSearch
from tenure.common.retry import RetryPolicy
from tenure.common.spec import Config, Requirements, TaskSpec
from tenure.common.states import TaskState
from tenure.proto import tenure_pb2

# One submit request stays far below the limit of a message, whatever the architectures weigh.
_SUBMIT_BYTES_MAX = 16 * 1024 * 1024

TaskRef = TaskHandle | str
"""A task: its handle, or its id."""


class Search:
    """A search as its author sees it; made by :meth:`tenure.client.Client.search`.

    Thread-safe: any number of threads may submit and wait on one object; all their waits share one watch
    stream.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = ids.check_search_name(name)
        self._connection = connection
        self._waiting = Waiting(connection, name)
        self._code = SearchCode(connection, name)
        self._architecture_format: str | None = None
        self._format_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Search {self.name!r} at {','.join(self._connection.addresses)}>"

    # ---- submitting ----------------------------------------------------------------------------------------

    def submit(
        self,
        architecture: Any,
        config: Mapping[str, Any] | Config | None = None,
        *,
        key: str = "",
        priority: int = 0,
        max_attempts: int = limits.ATTEMPTS_DEFAULT,
        max_losses: int = limits.LOSSES_DEFAULT,
        max_out_of_memory: int = limits.OUT_OF_MEMORY_DEFAULT,
        timeout_seconds: float = 0,
        progress_deadline_seconds: float = 0,
        delay_seconds: float = 0,
        requirements: Mapping[str, Any] | Requirements | None = None,
    ) -> TaskHandle:
        """Submit one task; the arguments are those of :func:`tenure.client.task_spec`.

        Holds on return: the task is in the store, as durable as the master was told to be, and ends in
        exactly one terminal state. Calling again with the same key or content gives the same task
        (``created`` is False then).

        Raises:
            InvalidInput: A field can't be right; nothing was sent.
            MasterUnavailable: Nobody answered within the client's timeout; submitting again is safe.
            WrongState: The search was cancelled.
        """
        spec = task_spec(
            architecture,
            config,
            key=key,
            priority=priority,
            max_attempts=max_attempts,
            max_losses=max_losses,
            max_out_of_memory=max_out_of_memory,
            timeout_seconds=timeout_seconds,
            progress_deadline_seconds=progress_deadline_seconds,
            delay_seconds=delay_seconds,
            requirements=requirements,
        )
        architecture_format = self.architecture_format()
        return self._send([checked(self.complete(spec), architecture_format)])[0]

    def submit_many(
        self,
        tasks: Iterable[TaskSpec | Mapping[str, Any]],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[TaskHandle]:
        """Submit many tasks, up to 100 a request, reading ``tasks`` no further ahead than that.

        Args:
            tasks: Dicts of the arguments of :meth:`submit`, or specs made by :func:`tenure.client.task_spec`.
            progress: Called after each request with the number of tasks acknowledged so far.

        Returns:
            Handles in the order of ``tasks``.

        Raises:
            InvalidInput: Names the task by its position (``tasks[3].config.num_epochs``). Those before the
                chunk it is in have been submitted; submitting all again, mended, changes nothing about them.
            MasterUnavailable: Nobody answered within the client's timeout. Calling again is safe.
        """
        handles: list[TaskHandle] = []
        chunk: list[TaskSpec] = []
        chunk_bytes = 0
        architecture_format = self.architecture_format()
        for position, task in enumerate(tasks):
            spec = checked_item(task, architecture_format, position, self.complete)
            size = len(spec.architecture)
            if chunk and (len(chunk) == limits.BATCH_TASKS_MAX or chunk_bytes + size > _SUBMIT_BYTES_MAX):
                handles += self._send(chunk)
                chunk, chunk_bytes = [], 0
                if progress is not None:
                    progress(len(handles))
            chunk.append(spec)
            chunk_bytes += size
        if chunk:
            handles += self._send(chunk)
            if progress is not None:
                progress(len(handles))
        return handles

    def architecture_format(self) -> str:
        """``graph`` or ``json``: what this search's architectures are checked as. Asks the master once if
        need be.
        """
        with self._format_lock:
            if self._architecture_format is None:
                try:
                    status = self.status()
                    self._code.learn(status)
                    self._architecture_format = status.architecture_format or "graph"
                except UnknownSearch:
                    self._architecture_format = "graph"
            return self._architecture_format

    def complete(self, spec: TaskSpec) -> TaskSpec:
        """``spec`` with the evaluator and code that the search names, if it names none of its own."""
        self.architecture_format()
        return self._code.complete(spec)

    def is_served(self) -> bool:
        """Whether a live worker takes the search's tasks, as far as the evaluator that it names goes."""
        return self._code.is_served()

    # ---- waiting -------------------------------------------------------------------------------------------

    def result(self, task: TaskRef, timeout: float | None = None) -> TaskResult:
        """The result of a task, once it ended. Outlives masters that come and go.

        Raises:
            TaskFailed: It ended FAILED or CANCELLED; carries the record with the evidence.
            TimeoutError: It has not ended after ``timeout`` seconds.
            UnknownTask: The broker doesn't know it (any more).
        """
        record = task._ended if isinstance(task, TaskHandle) else None
        if record is None:
            record = self._waiting.end_of(_task_id(task), Deadline.after(timeout))
            if isinstance(task, TaskHandle):
                task._keep_if_ended(record)
            else:
                tell_result(record)
        return self._result_of(record)

    def as_completed(
        self, tasks: Iterable[TaskRef] | None = None, timeout: float | None = None
    ) -> Iterator[TaskHandle]:
        """Handles of tasks as they end, in whatever state: ``handle.result()`` is at hand then, or raises.

        Args:
            tasks: Which; each is given once. None: all that the search has, also those of earlier programs
                and those submitted meanwhile; the iterator ends when none is open.
            timeout: Seconds from this call.

        Raises:
            TimeoutError: From the iterator, if some have not ended in time.
        """
        deadline = Deadline.after(timeout)
        if tasks is None:
            return self._all_ends(deadline)
        handles: dict[str, TaskHandle] = {}
        for task in tasks:
            handle = task if isinstance(task, TaskHandle) else self.handle(task)
            handles[handle.task_id] = handle
        return self._ends(handles, deadline)

    def futures(self, handles: Iterable[TaskHandle]) -> list[Future[TaskResult]]:
        """One ``concurrent.futures.Future`` for each, for ``concurrent.futures.wait`` or
        ``asyncio.wrap_future``.

        They hold what :meth:`result` returns or raises. Cancelling a future does nothing: cancel the task.
        Callbacks run in the watcher's thread: keep them short.
        """
        handles = list(handles)
        futures = {handle.task_id: Future[TaskResult]() for handle in handles}
        by_id = {handle.task_id: handle for handle in handles}
        for future in futures.values():
            future.set_running_or_notify_cancel()

        def resolve(task_id: str, ended: TaskRecord | TenureError) -> None:
            try:
                if isinstance(ended, TenureError):
                    raise ended
                by_id[task_id]._keep_if_ended(ended)
                futures[task_id].set_result(self._result_of(ended))
            except TenureError as error:
                futures[task_id].set_exception(error)

        self._waiting.when_ended(futures, resolve)
        return [futures[handle.task_id] for handle in handles]

    def wait(
        self, timeout: float | None = None, progress: Callable[[SearchStatus], None] | None = None
    ) -> SearchStatus:
        """Wait until no task of the search is open.

        Args:
            timeout: Seconds.
            progress: Called with the search's status whenever it changed, a few times a second at most.

        Raises:
            TimeoutError: Some are still open.
            UnknownSearch: The search doesn't exist.
        """
        return self._waiting.until_idle(Deadline.after(timeout), progress)

    # ---- its tasks -----------------------------------------------------------------------------------------

    def handle(self, task_id: str) -> TaskHandle:
        """A handle on a task whose id is known, without asking anybody; its ``key`` is empty."""
        return TaskHandle(self, ids.check_id(task_id, "task_id"), "", False)

    def record(self, task: TaskRef, *, full: bool = False) -> TaskRecord:
        """A task as the broker has it now; UnknownTask if it has none."""
        return calls.get_task(self._connection, _task_id(task), full=full)

    def records(self, task_ids: Iterable[str], *, full: bool = False) -> dict[str, TaskRecord]:
        """Records by id, read 100 at a time; ids that the broker doesn't know are left out."""
        return calls.get_tasks(self._connection, task_ids, full=full)

    def tasks(self, states: Iterable[TaskState | str] = ()) -> Iterator[TaskRecord]:
        """The search's tasks, those in ``states`` or all, read page by page."""
        return calls.list_tasks(self._connection, self.name, states)

    def cancel(self, task: TaskRef) -> TaskVerdict:
        """Cancel a task: at once if nobody holds it, else its worker is told (verdict
        ``cancel_requested``).
        """
        return calls.cancel_tasks(self._connection, [_task_id(task)])[0]

    def requeue(self, task: TaskRef) -> TaskVerdict:
        """Put a FAILED or CANCELLED task back into the queue, with fresh budgets and its last checkpoint."""
        verdict = calls.requeue_tasks(self._connection, [_task_id(task)])[0]
        if isinstance(task, TaskHandle):
            task._forget_end()
        return verdict

    def logs(self, task: TaskRef, *, follow: bool = False) -> Iterator[LogItem]:
        """What a task's evaluation prints; see :meth:`tenure.client.Client.logs`."""
        return read_logs(self._connection, _task_id(task), follow=follow)

    # ---- the search itself ---------------------------------------------------------------------------------

    def status(self) -> SearchStatus:
        """Settings and numbers; UnknownSearch while nothing was submitted and no setting was given."""
        return self._named("GetSearch")

    def exists(self) -> bool:
        """Whether the broker knows the search."""
        try:
            self.status()
        except UnknownSearch:
            return False
        return True

    def put(
        self,
        *,
        priority: int | None = None,
        weight: float | None = None,
        max_leased: int | None = None,
        architecture_format: str | None = None,
        retry: RetryPolicy | Literal["default"] | None = None,
        evaluator: str | None = None,
        code: str | os.PathLike[str] | None = None,
    ) -> SearchStatus:
        """Create the search or change its settings; what is None stays as it is.

        Args:
            priority: -100 to 100; a search of higher priority is served first.
            weight: 0.01 to 100; among equal priorities tasks are given in this proportion.
            max_leased: No task is given out while so many are leased; 0 = no limit.
            architecture_format: ``graph`` (MorphML's, checked at submit) or ``json`` (for evaluators of your
                own).
            retry: Which failures are tried again, how often, after which pause. Replaces the search's policy
                as a whole, from the next failure on; ``default``: back to the master's settings.
            evaluator: What evaluates tasks submitted from now on, as ``module:function``; ``default``: the
                workers' own. Only workers started with ``--accept-code`` are given such tasks.
            code: What it is in, shipped to the workers (see :func:`tenure.client.code.pack`): the module's
                directory, the package itself, a module's file or a wheel. None: it is installed on the workers.

        Raises:
            InvalidInput: A setting is out of range.
            InvalidCode: The code can't be shipped; nothing was changed.
            WrongState: The format would change under tasks that exist.
        """
        settings: dict[str, Any] = {"priority": priority, "weight": weight, "max_leased": max_leased}
        request = put_request(self.name, architecture_format=architecture_format, retry=retry, **settings)
        packed = self._code.prepare(request, evaluator, code)
        status = SearchStatus.from_message(self._connection.call("PutSearch", request))
        self._code.check_taken(request, status)
        with self._format_lock:
            self._code.learn(status, packed)
            self._architecture_format = status.architecture_format or "graph"
        self._code.warn_unserved(evaluator)
        return status

    def pause(self) -> SearchStatus:
        """Give out none of its tasks until resumed; those that run, run on."""
        return self._named("PauseSearch")

    def resume(self) -> SearchStatus:
        """Undo :meth:`pause`, or let a cancelled search take tasks again."""
        return self._named("ResumeSearch")

    def cancel_search(self) -> SearchStatus:
        """Cancel every task that has not ended; the search takes no new ones until resumed."""
        return self._named("CancelSearch")

    # ---- inside --------------------------------------------------------------------------------------------

    def _send(self, specs: list[TaskSpec]) -> list[TaskHandle]:
        submissions = Submissions(self.name, specs)
        try:
            submitted = self._code.sent(lambda: calls.submit(self._connection, self.name, submissions.specs))
        except BaseException as error:
            submissions.failed(error)
            raise
        submissions.end(submitted)
        return [TaskHandle(self, task_id, key, created) for task_id, key, created in submitted]

    def _named(self, method: str) -> SearchStatus:
        request = tenure_pb2.SearchName(name=self.name)
        return SearchStatus.from_message(self._connection.call(method, request))

    def _ends(self, handles: dict[str, TaskHandle], deadline: Deadline) -> Iterator[TaskHandle]:
        for task_id, record in self._waiting.ends(handles, deadline):
            if record is not None:
                handles[task_id]._keep_if_ended(record)
            yield handles[task_id]

    def _all_ends(self, deadline: Deadline) -> Iterator[TaskHandle]:
        for record in self._waiting.all_ends(deadline):
            handle = TaskHandle(self, record.task_id, record.key, False)
            handle._keep_if_ended(record)
            yield handle

    def _result_of(self, record: TaskRecord) -> TaskResult:
        # A success that failed is one whose result the store can't read any more.
        if record.state is TaskState.SUCCEEDED and record.failure is None:
            return TaskResult.of(record)
        # Only full records have the architecture, and with it the evidence.
        raise TaskFailed(record if record.architecture else self.record(record.task_id, full=True))


def _task_id(task: TaskRef) -> str:
    return task.task_id if isinstance(task, TaskHandle) else task
