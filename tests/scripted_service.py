"""A real gRPC server that answers TenureService from memory, for tests of what the client does on its own:
failover, retries, error mapping, resuming watches, batching.

It knows no leases and no rules: tests end tasks by :meth:`Book.end`. What the broker itself promises is tested
against the real master.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from tenure.common import limits
from tenure.common.errors import (
    ERROR_METADATA_KEY,
    CursorExpired,
    TenureError,
    UnknownSearch,
)
from tenure.proto import tenure_pb2, tenure_pb2_grpc

_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX))


class Book:
    """What survives the server: tasks, events, and a record of every request."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.tasks: dict[str, Any] = {}
        self.ids_by_key: dict[tuple[str, str], str] = {}
        self.searches: dict[str, Any] = {}
        self.events: list[Any] = []
        # Events before this position are trimmed.
        self.trimmed = 0
        self.requests: list[tuple[str, Any]] = []
        # Errors for the next calls of a method: a TenureError, a bare gRPC status, or None for none.
        self.faults: dict[str, list[TenureError | grpc.StatusCode | None]] = {}

    def calls(self, method: str) -> list[Any]:
        """The requests of one method so far."""
        with self.changed:
            return [request for name, request in self.requests if name == method]

    def wait_for_calls(self, method: str, number: int, timeout: float = 60.0) -> None:
        """Return once a method was called that often."""
        with self.changed:
            got_them = self.changed.wait_for(
                lambda: sum(1 for name, _ in self.requests if name == method) >= number, timeout
            )
        assert got_them, f"{method} was not called {number} times"

    def move(self, task_id: str, state: Any, transition: str, *, silently: bool = False, **fields: Any) -> None:
        """Put a task into a state, and say so to those who watch."""
        with self.changed:
            task = self.tasks[task_id]
            task.state = state
            task.MergeFrom(tenure_pb2.Task(**fields))
            if not silently:
                self.events.append(
                    tenure_pb2.TaskEvent(task_id=task_id, search=task.search, transition=transition, state=state)
                )
            self.changed.notify_all()

    def end(self, task_id: str, *, fitness: float = 0.5, silently: bool = False) -> None:
        """Let a task succeed."""
        self.move(task_id, tenure_pb2.SUCCEEDED, "complete", silently=silently, metrics={"fitness": fitness})

    def fail(self, task_id: str) -> None:
        """Let a task fail with evidence."""
        record = tenure_pb2.AttemptRecord(
            epoch=2,
            worker_id="w1",
            outcome="loss",
            exit_signal=9,
            log_tail="one\ntwo\n",
            error_class="Killed",
            error_message="SIGKILL",
        )
        self.move(
            task_id,
            tenure_pb2.FAILED,
            "fail",
            attempts=3,
            max_attempts=3,
            failure=tenure_pb2.Failure(error_class="ValueError", message="bad loss"),
            attempt_records=[record],
        )

    def trim(self) -> None:
        """Forget every event so far: cursors before now are expired."""
        with self.changed:
            self.trimmed = len(self.events)


class ScriptedMaster(tenure_pb2_grpc.TenureServiceServicer):
    """Serves a :class:`Book`; can be stopped and started again on the same port."""

    def __init__(self, book: Book, port: int = 0) -> None:
        self.book = book
        self._stopping = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=_OPTIONS)
        tenure_pb2_grpc.add_TenureServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        """Break every stream and stop listening."""
        self._stopping.set()
        with self.book.changed:
            self.book.changed.notify_all()
        self._server.stop(grace=0).wait()

    # ---- calls ---------------------------------------------------------------------------------------------

    def _enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        with self.book.changed:
            self.book.requests.append((method, request))
            self.book.changed.notify_all()
            waiting = self.book.faults.get(method)
            fault = waiting.pop(0) if waiting else None
        if isinstance(fault, TenureError):
            _abort(context, fault)
        elif fault is not None:
            context.abort(fault, "as scripted")

    def Submit(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("Submit", request, context)
        book, submitted = self.book, []
        with book.changed:
            for spec in request.tasks:
                task_id = book.ids_by_key.get((request.search, spec.key))
                created = task_id is None
                if task_id is None:
                    task_id = f"0-{len(book.tasks):04d}"
                    book.ids_by_key[request.search, spec.key] = task_id
                    book.tasks[task_id] = tenure_pb2.Task(
                        task_id=task_id,
                        search=request.search,
                        key=spec.key,
                        state=tenure_pb2.QUEUED,
                        architecture=spec.architecture,
                        config=spec.config,
                    )
                    book.searches.setdefault(request.search, tenure_pb2.Search(name=request.search))
                    book.events.append(
                        tenure_pb2.TaskEvent(
                            task_id=task_id,
                            search=request.search,
                            transition="submit",
                            state=tenure_pb2.QUEUED,
                        )
                    )
                submitted.append(
                    tenure_pb2.Submitted(
                        task_id=task_id, key=spec.key, created=created, state=book.tasks[task_id].state
                    )
                )
            book.changed.notify_all()
        return tenure_pb2.SubmitResponse(tasks=submitted)

    def GetTasks(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("GetTasks", request, context)
        response = tenure_pb2.GetTasksResponse()
        with self.book.changed:
            for task_id in request.task_ids:
                task = self.book.tasks.get(task_id)
                if task is None:
                    response.unknown_ids.append(task_id)
                else:
                    response.tasks.append(task if request.full else _brief(task))
        return response

    def ListTasks(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("ListTasks", request, context)
        with self.book.changed:
            found = [
                _brief(task)
                for task in self.book.tasks.values()
                if task.search == request.search and (not request.states or task.state in request.states)
            ]
        start = int(request.page_token or 0)
        size = request.page_size or 100
        more = str(start + size) if start + size < len(found) else ""
        return tenure_pb2.ListTasksResponse(tasks=found[start : start + size], next_page_token=more)

    def Watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self._enter("Watch", request, context)
        book = self.book
        with book.changed:
            position = int(request.cursor) if request.cursor else len(book.events)
            if position < book.trimmed:
                _abort(context, CursorExpired("the events are trimmed", field="cursor", given=request.cursor))
        yield tenure_pb2.WatchResponse(cursor=str(position))
        while context.is_active() and not self._stopping.is_set():
            with book.changed:
                book.changed.wait_for(lambda seen=position: len(book.events) > seen or self._stopping.is_set(), 0.2)
                fresh = book.events[position:]
                position = len(book.events)
            wanted = [event for event in fresh if request.search in ("", event.search)]
            if wanted:
                yield tenure_pb2.WatchResponse(cursor=str(position), events=wanted)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the master stops")

    def GetSearch(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("GetSearch", request, context)
        with self.book.changed:
            if request.name not in self.book.searches:
                _abort(context, UnknownSearch("no such search", field="search", given=request.name))
            search = tenure_pb2.Search()
            search.CopyFrom(self.book.searches[request.name])
            for task in self.book.tasks.values():
                if task.search == request.name:
                    search.tasks[tenure_pb2.TaskState.Name(task.state)] += 1
            return search

    def PutSearch(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("PutSearch", request, context)
        with self.book.changed:
            search = self.book.searches.setdefault(request.name, tenure_pb2.Search(name=request.name))
            for field in ("priority", "weight", "max_leased", "architecture_format"):
                if request.HasField(field):
                    setattr(search, field, getattr(request, field))
        return search

    def GetStats(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("GetStats", request, context)
        return tenure_pb2.StatsResponse(master_id=self.address)


def _brief(task: Any) -> Any:
    brief = tenure_pb2.Task()
    brief.CopyFrom(task)
    for field in ("architecture", "config", "attempt_records"):
        brief.ClearField(field)
    return brief


def _abort(context: grpc.ServicerContext, error: TenureError) -> None:
    context.set_trailing_metadata(((ERROR_METADATA_KEY, error.to_json()),))
    context.abort(grpc.StatusCode[error.grpc_status], error.message)
