"""The SDK for the authors of searches.

    from tenure.client import Client

    with Client("127.0.0.1:50051") as client:
        search = client.search("first")
        handles = search.submit_many({"architecture": graph, "config": config} for graph in graphs)
        for handle in search.as_completed(handles):
            print(handle.key, handle.result().metrics["fitness"])

Importing this package costs nothing: what it exports is imported when it is first asked for, because gRPC
takes a tenth of a second and a program may only want to read a type. Errors are those of
:mod:`tenure.common.errors`.

``tenure.client.optuna_search`` and ``tenure.client.cnn_space`` hold the Optuna integration; they need the
``search`` extra. The command line lives in ``tenure.client.cli``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenure.client.broker_records import ComputeTime, FsckReport, SearchStatus, Stats, WorkerRecord
    from tenure.client.client import Client
    from tenure.client.device_records import GpuRecord, SlotRecord
    from tenure.client.logs import LogEnd, LogItem, LogNote, LogOutput, LogRun
    from tenure.client.records import (
        AttemptRecord,
        CheckpointRef,
        EventBatch,
        Failure,
        MemoryReport,
        ProgressReport,
        TaskEvent,
        TaskRecord,
        TaskVerdict,
    )
    from tenure.client.search import Search
    from tenure.client.specs import task_spec
    from tenure.client.tasks import TaskFailed, TaskHandle, TaskResult
    from tenure.common.errors import TenureError
    from tenure.common.retry import Jitter, RetryPolicy, RetryRule
    from tenure.common.spec import Config, Requirements, TaskSpec
    from tenure.common.states import TaskState

_HOMES = {
    "Client": "tenure.client.client",
    "Search": "tenure.client.search",
    "TaskFailed": "tenure.client.tasks",
    "TaskHandle": "tenure.client.tasks",
    "TaskResult": "tenure.client.tasks",
    "task_spec": "tenure.client.specs",
    "AttemptRecord": "tenure.client.records",
    "CheckpointRef": "tenure.client.records",
    "EventBatch": "tenure.client.records",
    "Failure": "tenure.client.records",
    "ComputeTime": "tenure.client.broker_records",
    "FsckReport": "tenure.client.broker_records",
    "GpuRecord": "tenure.client.device_records",
    "MemoryReport": "tenure.client.records",
    "LogEnd": "tenure.client.logs",
    "LogItem": "tenure.client.logs",
    "LogNote": "tenure.client.logs",
    "LogOutput": "tenure.client.logs",
    "LogRun": "tenure.client.logs",
    "ProgressReport": "tenure.client.records",
    "SearchStatus": "tenure.client.broker_records",
    "SlotRecord": "tenure.client.device_records",
    "Stats": "tenure.client.broker_records",
    "TaskEvent": "tenure.client.records",
    "TaskRecord": "tenure.client.records",
    "TaskVerdict": "tenure.client.records",
    "Jitter": "tenure.common.retry",
    "RetryPolicy": "tenure.common.retry",
    "RetryRule": "tenure.common.retry",
    "WorkerRecord": "tenure.client.broker_records",
    "TenureError": "tenure.common.errors",
    "Config": "tenure.common.spec",
    "Requirements": "tenure.common.spec",
    "TaskSpec": "tenure.common.spec",
    "TaskState": "tenure.common.states",
}

__all__ = [
    "AttemptRecord",
    "CheckpointRef",
    "Client",
    "ComputeTime",
    "Config",
    "EventBatch",
    "Failure",
    "FsckReport",
    "GpuRecord",
    "Jitter",
    "LogEnd",
    "LogItem",
    "LogNote",
    "LogOutput",
    "LogRun",
    "MemoryReport",
    "ProgressReport",
    "Requirements",
    "RetryPolicy",
    "RetryRule",
    "Search",
    "SearchStatus",
    "SlotRecord",
    "Stats",
    "TaskEvent",
    "TaskFailed",
    "TaskHandle",
    "TaskRecord",
    "TaskResult",
    "TaskSpec",
    "TaskState",
    "TaskVerdict",
    "TenureError",
    "WorkerRecord",
    "task_spec",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
