"""Every error that Tenure raises, one tree.

::

    TenureError
    ├── InvalidInput                what was given can't be right; nothing was changed
    │   ├── InvalidArchitecture     not a graph that can be built
    │   ├── InvalidConfig           a field of a training configuration
    │   ├── InvalidCode             code that can't be shipped, or can't be run here
    │   └── BatchTooLarge
    ├── NotFound
    │   ├── UnknownTask
    │   ├── UnknownSearch
    │   ├── UnknownCode             code that was shipped and is not in the store (any more)
    │   └── UnknownWorker
    ├── WrongState                  the task or search is in a state that doesn't allow it
    ├── CursorExpired               a watch can't resume there; list, then watch anew
    ├── StaleLease                  the lease token is outdated
    ├── Overloaded                  retry later
    ├── Unavailable                 nobody answers; retrying can help
    │   ├── MasterUnavailable
    │   └── StoreUnavailable
    ├── UnsuitableStore             the store answers but must not be used (evicts, too old, newer schema, …)
    ├── StartupError                a process can't start: the message says what to change
    │   ├── AddressInUse
    │   ├── DataDirectoryInUse
    │   ├── WorkDirectoryInUse
    │   └── InvalidSetting
    ├── CheckpointError
    │   └── CorruptCheckpoint
    ├── DivergedTraining            the loss is no longer a finite number
    └── TaskFailed                  raised by the client for a task that ended FAILED or CANCELLED, or lost its result

Each class has a stable ``code``, the gRPC status it travels as, and says whether trying the same again can help.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

ERROR_METADATA_KEY = "tenure-error"
_GIVEN_CHARS_MAX = 200


class TenureError(Exception):
    """Base of all errors.

    Args:
        message: What is wrong, in one sentence.
        field: The input field it is about, dotted (``tasks[3].config.num_epochs``).
        given: What was given, shortened to 200 characters.
        expected: What would be right, or what to do.
    """

    code: ClassVar[str] = "INTERNAL"
    grpc_status: ClassVar[str] = "INTERNAL"
    retry_helps: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str = "", given: Any = None, expected: str = "") -> None:
        self.message = message
        self.field = field
        self.given = "" if given is None else _shorten(given)
        self.expected = expected
        super().__init__(message)

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        if self.given:
            text += f" (given: {self.given})"
        if self.expected:
            text += f"; {self.expected}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.code, self.message, self.field, self.given, self.expected))

    def within(self, prefix: str) -> TenureError:
        """The same error with ``prefix`` before its field (``tasks[3]`` + ``config.dataset``)."""
        field = f"{prefix}.{self.field}" if self.field else prefix
        return _rebuild(self.code, self.message, field, self.given, self.expected)

    def to_json(self) -> str:
        """For the wire (ASCII, so that it fits gRPC metadata)."""
        return json.dumps(
            {
                "code": self.code,
                "message": self.message[:2000],
                "field": self.field[:500],
                "given": self.given,
                "expected": self.expected[:2000],
            }
        )

    @staticmethod
    def from_json(text: str) -> TenureError:
        """The error that ``to_json`` wrote; a code this version doesn't know becomes a plain TenureError."""
        parts = json.loads(text)
        return _rebuild(
            str(parts.get("code", "")),
            str(parts.get("message", "")),
            str(parts.get("field", "")),
            str(parts.get("given", "")),
            str(parts.get("expected", "")),
        )


class InvalidInput(TenureError):
    """What was given can't be right. Nothing was changed."""

    code = "INVALID_INPUT"
    grpc_status = "INVALID_ARGUMENT"


class InvalidArchitecture(InvalidInput):
    """An architecture that is no buildable graph. Never retried."""

    code = "INVALID_ARCHITECTURE"


class InvalidConfig(InvalidInput):
    """A training configuration with a value that can't be right."""

    code = "INVALID_CONFIG"


class InvalidCode(InvalidInput):
    """Code that can't be shipped with a search, or that can't be run where it was sent. Never retried."""

    code = "INVALID_CODE"


class BatchTooLarge(InvalidInput):
    """More items in one request than the limit."""

    code = "BATCH_TOO_LARGE"


class NotFound(TenureError):
    """What was named doesn't exist."""

    code = "NOT_FOUND"
    grpc_status = "NOT_FOUND"


class UnknownTask(NotFound):
    """No task of this id: never submitted, or forgotten by retention."""

    code = "UNKNOWN_TASK"


class UnknownSearch(NotFound):
    """No search of this name."""

    code = "UNKNOWN_SEARCH"


class UnknownCode(NotFound):
    """No code of this digest is in the store: upload it, then do the same again."""

    code = "UNKNOWN_CODE"


class UnknownWorker(NotFound):
    """No worker of this id has registered."""

    code = "UNKNOWN_WORKER"


class WrongState(TenureError):
    """The task or search is in a state that doesn't allow it."""

    code = "WRONG_STATE"
    grpc_status = "FAILED_PRECONDITION"


class CursorExpired(TenureError):
    """The events after this cursor are trimmed: list the tasks, then watch without a cursor."""

    code = "CURSOR_EXPIRED"
    grpc_status = "OUT_OF_RANGE"


class StaleLease(TenureError):
    """The lease token is outdated: another worker has the task. Stop that run."""

    code = "STALE_LEASE"
    grpc_status = "ABORTED"


class Overloaded(TenureError):
    """The store is near its memory limit, or the master at its bound. Later it may work."""

    code = "OVERLOADED"
    grpc_status = "RESOURCE_EXHAUSTED"
    retry_helps = True


class Unavailable(TenureError):
    """Nobody answers. Whether the request was carried out is unknown; sending it again is safe."""

    code = "UNAVAILABLE"
    grpc_status = "UNAVAILABLE"
    retry_helps = True


class MasterUnavailable(Unavailable):
    """No master answers at any of the addresses."""

    code = "MASTER_UNAVAILABLE"


class StoreUnavailable(Unavailable):
    """The master can't reach its store."""

    code = "STORE_UNAVAILABLE"


class UnsuitableStore(TenureError):
    """The store answers but must not be used: it evicts, is too old, or holds a newer schema."""

    code = "UNSUITABLE_STORE"
    grpc_status = "FAILED_PRECONDITION"


class StartupError(TenureError):
    """A process can't start."""

    code = "STARTUP"
    grpc_status = "FAILED_PRECONDITION"


class AddressInUse(StartupError):
    """Another process listens there."""

    code = "ADDRESS_IN_USE"


class DataDirectoryInUse(StartupError):
    """Another master runs on this data directory."""

    code = "DATA_DIRECTORY_IN_USE"


class WorkDirectoryInUse(StartupError):
    """Another worker runs in this work directory."""

    code = "WORK_DIRECTORY_IN_USE"


class InvalidSetting(StartupError):
    """A setting of this process can't be right."""

    code = "INVALID_SETTING"


class CheckpointError(TenureError):
    """A checkpoint could not be written or read."""

    code = "CHECKPOINT"


class CorruptCheckpoint(CheckpointError):
    """A checkpoint's files don't match its manifest."""

    code = "CORRUPT_CHECKPOINT"


class DivergedTraining(TenureError):
    """The loss became NaN or infinite. The same seed and configuration would diverge again: never retried."""

    code = "DIVERGED_TRAINING"
    retryable: ClassVar[bool] = False


class TaskFailed(TenureError):
    """The task ended FAILED or CANCELLED, or the store can't read its result any more; the message says why."""

    code = "TASK_FAILED"


def _subclasses(root: type[TenureError]) -> list[type[TenureError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _subclasses(child))]


ERRORS_BY_CODE: dict[str, type[TenureError]] = {cls.code: cls for cls in _subclasses(TenureError)}


def _rebuild(code: str, message: str, field: str, given: str, expected: str) -> TenureError:
    cls = ERRORS_BY_CODE.get(code, TenureError)
    return cls(message, field=field, given=given or None, expected=expected)


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _GIVEN_CHARS_MAX else text[: _GIVEN_CHARS_MAX - 1] + "…"
