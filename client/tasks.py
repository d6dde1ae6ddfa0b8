"""Handles on submitted tasks, their results, and the error of those that have none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenure.client.records import TaskRecord, TaskVerdict
from tenure.client.spans import tell_result
from tenure.common import errors
from tenure.common.states import TaskState

if TYPE_CHECKING:
    from tenure.client.logs import LogItem
    from tenure.client.search import Search

_LOG_LINES_IN_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The one accepted result of a task.

    Attributes:
        metrics: Finite numbers by name; ``fitness`` is what searches maximise.
        detail: Text that the evaluator attached, JSON by convention.
        duration_seconds: Of the evaluation, as its worker measured it.
        worker_id: Who delivered it.
        resumes: How often the training went on from a checkpoint on the way.
    """

    task_id: str
    key: str
    metrics: Mapping[str, float]
    detail: str
    duration_seconds: float
    worker_id: str
    resumes: int

    @classmethod
    def of(cls, record: TaskRecord) -> TaskResult:
        """Of a SUCCEEDED task."""
        return cls(
            record.task_id,
            record.key,
            record.metrics,
            record.detail,
            record.duration_seconds,
            record.worker_id,
            record.resumes,
        )


class TaskFailed(errors.TaskFailed):
    """The task ended FAILED or CANCELLED. Its message is the evidence in short.

    Attributes:
        task: The whole record, with one entry in ``attempt_records`` for every lease it had.
    """

    def __init__(self, task: TaskRecord) -> None:
        super().__init__(_evidence(task), field=f"task {task.task_id}")
        self.task = task

    def __reduce__(self) -> tuple[Any, ...]:
        return (TaskFailed, (self.task,))


class TaskHandle:
    """A submitted task. Thread-safe; costs nothing to keep.

    Attributes:
        task_id: Unique over all searches.
        key: Names it within its search.
        created: False: the key was known, and this is the task that existed.
    """

    __slots__ = ("_ended", "_search", "created", "key", "task_id")

    def __init__(self, search: Search, task_id: str, key: str, created: bool) -> None:
        self._search = search
        self.task_id = task_id
        self.key = key
        self.created = created
        # The record after the end, once somebody saw it.
        self._ended: TaskRecord | None = None

    def __repr__(self) -> str:
        return f"<TaskHandle {self.task_id} key={self.key!r} search={self._search.name!r}>"

    def result(self, timeout: float | None = None) -> TaskResult:
        """The result, once the task ended; see :meth:`Search.result`."""
        return self._search.result(self, timeout)

    def record(self, *, full: bool = False) -> TaskRecord:
        """The task as the broker has it now; ``full`` adds architecture, config and attempt records."""
        return self._search.record(self, full=full)

    def logs(self, *, follow: bool = False) -> Iterator[LogItem]:
        """What its evaluation prints; see :meth:`tenure.client.Client.logs`."""
        return self._search.logs(self, follow=follow)

    def done(self) -> bool:
        """Whether the task ended. Asks the broker until the answer is yes."""
        if self._ended is None:
            self._keep_if_ended(self.record())
        return self._ended is not None

    def cancel(self) -> TaskVerdict:
        """Stop the task; see :meth:`Search.cancel`."""
        return self._search.cancel(self)

    def requeue(self) -> TaskVerdict:
        """Give a FAILED or CANCELLED task fresh budgets; see :meth:`Search.requeue`."""
        return self._search.requeue(self)

    def future(self) -> Future[TaskResult]:
        """A future of the result; see :meth:`Search.futures`."""
        return self._search.futures([self])[0]

    def _keep_if_ended(self, record: TaskRecord) -> None:
        if record.state.terminal:
            if self._ended is None:
                tell_result(record)
            self._ended = record

    def _forget_end(self) -> None:
        self._ended = None


def _evidence(task: TaskRecord) -> str:
    if task.state is TaskState.CANCELLED:
        return "was cancelled"
    if task.state is TaskState.SUCCEEDED and task.failure is not None:
        return f"succeeded, but {task.failure.message}"
    text = f"ended FAILED after {task.attempts} of {task.max_attempts} attempts"
    text += f" and {task.losses} of {task.max_losses} losses" if task.losses else ""
    if task.failure is not None:
        text += f": {task.failure.error_class}: {task.failure.message}"
    if task.attempt_records:
        last = task.attempt_records[-1]
        text += f" (last on worker {last.worker_id}, epoch {last.epoch}"
        text += f", exit signal {last.exit_signal}" if last.exit_signal else ""
        text += ")"
        tail = last.log_tail.strip().splitlines()[-_LOG_LINES_IN_MESSAGE:]
        text += "".join(f"\n    | {line}" for line in tail)
    return text
