"""What a client tells in traces (docs/traces.md); nothing while they are off.

``client.submit`` is where a task's trace begins, below the span that the program is in, if it traces itself;
``client.result`` is its end, from the end of the task until this program has seen it.
"""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Sequence
from dataclasses import replace

from tenure.client.records import TaskRecord
from tenure.common import tracing
from tenure.common.spec import TaskSpec
from tenure.common.states import TaskState
from tenure.common.traceparent import checked_traceparent
from tenure.common.tracing import Span

_NS_PER_MS = 1_000_000


_starting = threading.Lock()


def _start() -> None:
    """Trace if this program does, or if its environment asks for it; with the first span, not with the first client:
    who asks for something else shall not wait for the import."""
    with _starting:
        _start_once()


@functools.cache
def _start_once() -> None:
    if tracing.start("tenure-client", shared=True):
        atexit.register(tracing.stop)


class Submissions:
    """The spans of tasks that are submitted together.

    Attributes:
        specs: The tasks, each with its trace.
    """

    def __init__(self, search: str, specs: Sequence[TaskSpec]) -> None:
        self.specs = list(specs)
        self._spans: list[Span] = []
        _start()
        if tracing.on():
            self._spans = [
                tracing.begin("client.submit", parent=None, kind="producer", search=search, key=spec.key)
                for spec in specs
            ]
            self.specs = [replace(spec, trace=span.traceparent) for spec, span in zip(specs, self._spans, strict=True)]

    def end(self, submitted: Sequence[tuple[str, str, bool]]) -> None:
        """They are acknowledged: (task id, key, created) of each."""
        for span, (task_id, _, created) in zip(self._spans, submitted, strict=bool(self._spans)):
            span.set(task=task_id, created=created)
            span.end()

    def failed(self, error: BaseException) -> None:
        """They are not, as far as is known."""
        for span in self._spans:
            span.end(f"{type(error).__name__}: {error}")


def tell_result(record: TaskRecord) -> None:
    """This program has seen the task's end."""
    _start()
    if tracing.on() and (trace := checked_traceparent(record.trace)):
        error = ""
        if record.state is TaskState.FAILED:
            failure = record.failure
            error = f"{failure.error_class}: {failure.message}" if failure is not None else "FAILED"
        tracing.told(
            "client.result",
            parent=trace,
            kind="consumer",
            start_ns=record.ended_unix_ms * _NS_PER_MS,
            error=error,
            search=record.search,
            task=record.task_id,
            state=record.state.value,
            worker=record.worker_id,
        )
