"""The exit codes of every Tenure process: one place, from which the help and docs/cli.md are made."""

from __future__ import annotations

import enum

from tenure.common import errors
from tenure.common.errors import TenureError


class ExitCode(enum.IntEnum):
    """What the exit code of a command says. Scripts may rely on them; new ones may be added."""

    OK = 0
    NO = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_FOUND = 4
    REFUSED = 5
    TIMED_OUT = 6
    SUPERSEDED = 7
    PREEMPTED = 8
    INTERNAL = 70
    INTERRUPTED = 130


EXIT_CODE_MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "done, and the answer is yes",
    ExitCode.NO: "done, but the answer is no: tasks FAILED, violations found, a promise broke, a drain was cut short,"
    " or you said no when asked",
    ExitCode.USAGE: "bad usage, input or setting; nothing was changed",
    ExitCode.UNAVAILABLE: "no master or store answers, or it is overloaded; trying again is safe",
    ExitCode.NOT_FOUND: "no such task, search or worker",
    ExitCode.REFUSED: "the state of things forbids it: wrong state, port or data directory in use, unsuitable store",
    ExitCode.TIMED_OUT: "what was waited for did not happen in time",
    ExitCode.SUPERSEDED: "a newer worker process has this worker's id; starting this one again would end that one",
    ExitCode.PREEMPTED: "the worker had notice that its machine is taken away, and has handed back what it held",
    ExitCode.INTERNAL: "an error inside Tenure",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C",
}

_BY_ERROR: dict[type[TenureError], ExitCode] = {
    errors.InvalidInput: ExitCode.USAGE,
    errors.InvalidSetting: ExitCode.USAGE,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.WrongState: ExitCode.REFUSED,
    errors.CursorExpired: ExitCode.REFUSED,
    errors.StaleLease: ExitCode.REFUSED,
    errors.UnsuitableStore: ExitCode.REFUSED,
    errors.StartupError: ExitCode.REFUSED,
    errors.CheckpointError: ExitCode.REFUSED,
    errors.Overloaded: ExitCode.UNAVAILABLE,
    errors.Unavailable: ExitCode.UNAVAILABLE,
    errors.TaskFailed: ExitCode.NO,
    errors.TenureError: ExitCode.INTERNAL,
}


def exit_code_of(error: TenureError) -> ExitCode:
    """The exit code of the nearest class in the tree."""
    return next(_BY_ERROR[cls] for cls in type(error).__mro__ if cls in _BY_ERROR)


def exit_code_help() -> str:
    """The table, for ``tenure --help``."""
    return "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in EXIT_CODE_MEANING.items())
