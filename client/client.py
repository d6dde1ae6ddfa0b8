"""The client: everything that a program can ask of a master."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Literal, Self

from tenure.client import calls
from tenure.client.broker_records import FsckReport, SearchStatus, Stats, WorkerRecord
from tenure.client.connection import DEFAULT_TIMEOUT_SECONDS, Connection, Deadline
from tenure.client.logs import LogItem, read_logs
from tenure.client.records import EventBatch, TaskRecord, TaskVerdict
from tenure.client.search import Search
from tenure.client.watch import watch_events
from tenure.common import ids
from tenure.common.errors import UnknownWorker
from tenure.common.retry import RetryPolicy
from tenure.common.states import TaskState
from tenure.proto import tenure_pb2

# A whole store is read for fsck: it may take longer than a call that looks at a hundred tasks.
_FSCK_SECONDS_MAX = 600.0


class Client:
    """Talks to the masters of one store.

    Thread-safe; make it after a fork, not before. Every call is safe to send again and is: while nobody
    answers, over all addresses, with exponential pauses and full jitter, until ``timeout_seconds`` are over.
    Waiting for tasks (``as_completed``, ``result``, ``wait``) outlives masters for any length of time.

    Args:
        master: ``host:port``, or several separated by commas, of masters on one store. None:
            ``$TENURE_MASTER``, else 127.0.0.1:50051.
        timeout_seconds: When a call that nobody answers raises MasterUnavailable; None = never.
        compression: ``gzip`` compresses requests; worth it for large architectures on slow lines.

    Raises:
        InvalidSetting: An argument can't be right. Nothing is connected yet: the first call does that.

    Example:
        >>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
        ...     handle = client.search("first").submit(graph, {"dataset": "digits", "num_epochs": 5})
        ...     print(handle.result().metrics)
    """

    def __init__(
        self,
        master: str | None = None,
        *,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        compression: Literal["gzip"] | None = None,
    ) -> None:
        self._connection = Connection(master, timeout_seconds=timeout_seconds, compression=compression)
        self._searches: dict[str, Search] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; waits in other threads end with an error. Tasks are not touched."""
        self._connection.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The masters' addresses."""
        return self._connection.addresses

    # ---- searches ------------------------------------------------------------------------------------------

    def search(
        self,
        name: str,
        *,
        priority: int | None = None,
        weight: float | None = None,
        max_leased: int | None = None,
        architecture_format: str | None = None,
        retry: RetryPolicy | Literal["default"] | None = None,
        evaluator: str | None = None,
        code: str | os.PathLike[str] | None = None,
    ) -> Search:
        """The search of this name; the same object each time.

        With any setting it is created or changed at once (see :meth:`Search.put`); without one nothing is
        sent, and a new search comes to be with its first task.

        Raises:
            InvalidInput: The name or a setting can't be right.
            InvalidCode: ``code`` can't be shipped.
        """
        with self._lock:
            search = self._searches.get(name)
            if search is None:
                search = self._searches[name] = Search(self._connection, name)
        given = (priority, weight, max_leased, architecture_format, retry, evaluator, code)
        if any(value is not None for value in given):
            search.put(
                priority=priority,
                weight=weight,
                max_leased=max_leased,
                architecture_format=architecture_format,
                retry=retry,
                evaluator=evaluator,
                code=code,
            )
        return search

    def searches(self) -> list[SearchStatus]:
        """All searches, by name."""
        response = self._connection.call("ListSearches", tenure_pb2.ListSearchesRequest())
        return sorted((SearchStatus.from_message(search) for search in response.searches), key=lambda s: s.name)

    # ---- tasks ---------------------------------------------------------------------------------------------

    def task(self, task_id: str, *, full: bool = True) -> TaskRecord:
        """One task of any search; ``full`` adds architecture, config and attempt records.

        Raises:
            UnknownTask: There is none of this id.
        """
        return calls.get_task(self._connection, task_id, full=full)

    def tasks(self, search: str, states: Iterable[TaskState | str] = ()) -> Iterator[TaskRecord]:
        """The tasks of a search, those in ``states`` or all, read page by page as they are asked for."""
        return calls.list_tasks(self._connection, ids.check_search_name(search), states)

    def get_tasks(self, task_ids: Iterable[str], *, full: bool = False) -> dict[str, TaskRecord]:
        """Records of any tasks by id; ids that the broker doesn't know are left out."""
        return calls.get_tasks(self._connection, task_ids, full=full)

    def cancel_tasks(self, task_ids: Iterable[str]) -> list[TaskVerdict]:
        """Cancel tasks of any search: at once those that nobody holds; a holder is told to stop."""
        return calls.cancel_tasks(self._connection, task_ids)

    def requeue_tasks(self, task_ids: Iterable[str]) -> list[TaskVerdict]:
        """Put FAILED and CANCELLED tasks of any search back into the queue, with fresh budgets."""
        return calls.requeue_tasks(self._connection, task_ids)

    def logs(self, task_id: str, *, follow: bool = False) -> Iterator[LogItem]:
        """What a task's evaluation prints: of a task that runs as it is now, of an ended one the last that is kept.

        Args:
            task_id: Of any search.
            follow: Go on until the task has ended, whichever workers and masters it moves over.

        Yields:
            :class:`LogRun` before the output of each run, :class:`LogOutput`, :class:`LogNote` when nothing comes for a
            reason, and at last a :class:`LogEnd`. Output that comes too fast for whoever reads it is left out and
            counted. Close the generator to stop following.

        Raises:
            UnknownTask: There is none of this id.
        """
        return read_logs(self._connection, task_id, follow=follow)

    def watch(self, search: str = "", cursor: str = "") -> Iterator[EventBatch]:
        """Every state change of a search, or of all, after ``cursor`` or from now on, for ever.

        The first batch is empty and carries the cursor from which events count. Keep the last batch's cursor
        to go on from there in another process. Broken streams are resumed. Close the generator to end the
        watch.

        Raises:
            CursorExpired: The events after ``cursor`` are trimmed: list the tasks, then watch without a
                cursor.
        """
        return watch_events(self._connection, search, cursor)

    # ---- workers -------------------------------------------------------------------------------------------

    def workers(self, *, include_gone: bool = False) -> list[WorkerRecord]:
        """The workers, by id."""
        request = tenure_pb2.ListWorkersRequest(all=include_gone)
        response = self._connection.call("ListWorkers", request)
        return sorted((WorkerRecord.from_message(worker) for worker in response.workers), key=lambda w: w.worker_id)

    def worker(self, worker_id: str) -> WorkerRecord:
        """One worker, gone ones included; raises UnknownWorker."""
        found = [one for one in self.workers(include_gone=True) if one.worker_id == worker_id]
        if not found:
            raise UnknownWorker(
                "no worker of this id has registered",
                field="worker_id",
                given=worker_id,
                expected="`tenure workers list --all` shows all",
            )
        return found[0]

    def drain_worker(self, worker_id: str) -> WorkerRecord:
        """Have a worker hand back what it holds, with checkpoints, and give it nothing more."""
        return self._worker("DrainWorker", worker_id)

    def cordon_worker(self, worker_id: str) -> WorkerRecord:
        """Give a worker nothing more; it finishes what it holds."""
        return self._worker("CordonWorker", worker_id)

    def uncordon_worker(self, worker_id: str) -> WorkerRecord:
        """Give a cordoned or drained worker tasks again."""
        return self._worker("UncordonWorker", worker_id)

    def _worker(self, method: str, worker_id: str) -> WorkerRecord:
        request = tenure_pb2.WorkerName(worker_id=ids.check_id(worker_id, "worker_id"))
        return WorkerRecord.from_message(self._connection.call(method, request))

    # ---- the broker ----------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Numbers of the broker as a whole."""
        return Stats.from_message(self._connection.call("GetStats", tenure_pb2.StatsRequest()))

    def fsck(self) -> FsckReport:
        """Prove that indexes and tasks agree. Changes nothing."""
        response = self._connection.call(
            "Fsck",
            tenure_pb2.FsckRequest(),
            deadline=Deadline.after(_FSCK_SECONDS_MAX),
            try_seconds_max=_FSCK_SECONDS_MAX,
        )
        return FsckReport(response.tasks_checked, tuple(response.violations))
