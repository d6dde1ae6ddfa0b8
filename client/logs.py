"""What a task's evaluation prints, followed over its runs, its workers and the masters that are asked."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from tenure.client.connection import Connection, Deadline
from tenure.client.records import Failure
from tenure.common import ids
from tenure.common.states import TaskState
from tenure.proto import tenure_pb2
from tenure.proto.convert import state_from_message

log = logging.getLogger("tenure.client")

# A stream that breaks sooner is opened again after a pause only.
_SHORT_STREAM_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LogRun:
    """The output that follows is of this run.

    Attributes:
        epoch: Of its lease; rises by one with each run of the task.
        attempt: 1 for the first; rises with failures, not with losses or releases. 0: of a run that is over.
    """

    epoch: int
    worker_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class LogOutput:
    """Some of what a run printed, in order.

    Attributes:
        epoch: The run's.
        data: Bytes as they were printed, cut anywhere; they need not be text.
        left_out_bytes: What was printed before ``data``, since the last output, and isn't here: too much at once, or
            too old when it was asked for.
        recorded: ``data`` is the last of the output, as the task's attempt record keeps it.
    """

    epoch: int
    data: bytes
    left_out_bytes: int
    recorded: bool

    @property
    def text(self) -> str:
        """The bytes as UTF-8; what is none is replaced."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class LogNote:
    """Why nothing comes now, for people."""

    text: str


@dataclass(frozen=True, slots=True)
class LogEnd:
    """How things stand: the last item.

    Attributes:
        state: Terminal if the output was followed.
        failure: Of a FAILED task, or of the last attempt that failed.
        exit_signal: Of the executor of the last run that has ended; 0 for none.
    """

    state: TaskState
    failure: Failure | None
    exit_signal: int
    exit_code: int


LogItem = LogRun | LogOutput | LogNote | LogEnd


def read_logs(connection: Connection, task_id: str, *, follow: bool) -> Iterator[LogItem]:
    """What :meth:`tenure.client.Client.logs` gives.

    A stream that breaks goes on where it was, at any master, however long that takes.
    """
    ids.check_id(task_id, "task_id")
    epoch, place = 0, 0
    while True:
        opened = time.monotonic()
        request = tenure_pb2.TailTaskRequest(task_id=task_id, follow=follow, epoch=epoch, place=place)
        call, message, master = connection.open_stream(
            "TailTask",
            lambda: request,  # noqa: B023 - used at once
            Deadline.after(None if epoch else connection.timeout_seconds),
        )
        try:
            while True:
                item = _item_of(message)
                if isinstance(item, LogRun):
                    epoch, place = item.epoch, 0
                elif isinstance(item, LogOutput):
                    place = message.output.place
                if item is not None:
                    yield item
                if isinstance(item, LogEnd):
                    return
                message = next(call)
        except StopIteration:
            log.info("the tail of %s ended at %s; resuming", task_id, master.address)
        except grpc.RpcError as error:
            failure = connection.stream_error(master, error)
            if not failure.retry_helps:
                raise failure from None
            log.info("the tail of %s broke: %s; resuming", task_id, failure)
        finally:
            call.cancel()
        if time.monotonic() - opened < _SHORT_STREAM_SECONDS:
            connection.pause(random.uniform(0, _SHORT_STREAM_SECONDS))


def _item_of(message: Any) -> LogItem | None:
    """The item of a TailTaskResponse; None for a keep-alive, or what a newer master may send."""
    match message.WhichOneof("item"):
        case "run":
            return LogRun(message.run.epoch, message.run.worker_id, message.run.attempt)
        case "output":
            output = message.output
            return LogOutput(output.epoch, output.data, output.left_out_bytes, output.recorded)
        case "note":
            return LogNote(message.note)
        case "end":
            end = message.end
            failure = None
            if end.HasField("failure"):
                failure = Failure(end.failure.error_class, end.failure.message, end.failure.retryable)
            state = state_from_message(end.state)
            return None if state is None else LogEnd(state, failure, end.exit_signal, end.exit_code)
    return None
