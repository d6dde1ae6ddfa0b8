"""What the commands share: exit codes, expected failures, what they print."""

from __future__ import annotations

import argparse
import enum
import errno
import sys
import time
from collections.abc import Callable

from redis.exceptions import RedisError
from scripting.console import PlainConsole

from tenure.common.errors import InvalidSetting, StoreUnavailable, TenureError, Unavailable
from tenure.common.logs import configure_logs
from tenure.common.passwords import without_passwords

_PROGRESS_SECONDS = 5.0


class Exit(enum.IntEnum):
    """Exit codes; where a number of ``tenure`` means the same, it is the same."""

    DONE = 0
    NO = 1
    USAGE = 2
    UNAVAILABLE = 3
    REFUSED = 5
    FAILED = 6
    INTERRUPTED = 130


class Stop(Exception):
    """What ends a command before its end. The text says what is wrong, and what would do.

    Attributes:
        code: The exit code.
    """

    code = Exit.FAILED


class Misused(Stop):
    """Bad usage; nothing was changed."""

    code = Exit.USAGE


class NoAnswer(Stop):
    """No server or master answers; nothing was changed."""

    code = Exit.UNAVAILABLE


class Refused(Stop):
    """The state of things forbids it; nothing was changed."""

    code = Exit.REFUSED


class Failed(Stop):
    """It went wrong on the way; the text says what is left to do."""


class Damaged(Failed):
    """The files of a backup are not what they were when it was made, or not such as are made."""


def is_no_room(error: Exception) -> bool:
    """Whether a disk, or somebody's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class Console(PlainConsole):
    """Says also how far long work is, and tables."""

    def __init__(self, *, as_json: bool = False) -> None:
        super().__init__(as_json=as_json)
        self._progress_at = time.monotonic()

    def progress(self, what: str, done: float, total: float, unit: str = "MB") -> None:
        """How far long work is, every few seconds; short work says nothing."""
        now = time.monotonic()
        if now - self._progress_at < _PROGRESS_SECONDS:
            return
        self._progress_at = now
        share = f" ({100 * done / total:.0f} %)" if total else ""
        of = f" of {total:,.0f}" if total else ""
        sys.stderr.write(f"{what}: {done:,.0f}{of} {unit}{share}\n")
        sys.stderr.flush()

    def pairs(self, rows: list[tuple[str, str]]) -> None:
        """Names and values in two columns."""
        width = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self.say(f"{name:<{width}}{value}")


def carry_out(command: Callable[[argparse.Namespace, Console], Exit], arguments: argparse.Namespace) -> int:
    """Run a command; every expected error becomes a line on stderr and its exit code."""
    console = Console(as_json=getattr(arguments, "output", "text") == "json")
    configure_logs("cli", "console", "error")
    try:
        return command(arguments, console)
    except Stop as error:
        return _fail(str(error), error.code)
    except InvalidSetting as error:
        return _fail(str(error), Exit.USAGE)
    except (StoreUnavailable, Unavailable) as error:
        return _fail(str(error), Exit.UNAVAILABLE)
    except TenureError as error:
        return _fail(str(error), Exit.REFUSED)
    except RedisError as error:
        return _fail(f"a store's server: {error}", Exit.FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", Exit.FAILED)
    except KeyboardInterrupt:
        return _fail("stopped; what was not finished is cleared away by the next run", Exit.INTERRUPTED)


def _fail(text: str, code: Exit) -> Exit:
    sys.stderr.write(f"error: {without_passwords(text)}\n")
    return code


def megabytes(count: float) -> str:
    """Bytes, for people."""
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"


def span(seconds: float) -> str:
    """A length of time, for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"
