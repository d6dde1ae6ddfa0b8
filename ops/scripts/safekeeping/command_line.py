"""Options that several of the commands have."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import shutil
from pathlib import Path

from safekeeping.console import Misused, Refused
from safekeeping.servers import EMBEDDED
from tenure.common import paths

# man systemd.time
_JOURNAL_SPAN = re.compile(
    r"(?:\d+ ?(?:s|sec|seconds?|m|min|minutes?|h|hr|hours?|d|days?|w|weeks?|M|months?|y|years?) ?)+"
)
EXIT_CODES = """\
Exit codes:
    0  done, and what was made or looked at is good (or, with --dry-run, it could be done)
    1  done, but the answer is no: not verified, violations found, a promise not kept; the output says what
    2  bad usage; nothing was changed
    3  no store or master answers; nothing was changed
    5  the state of things forbids it: no room, in use, no permission; nothing was changed
    6  it went wrong on the way; the message says what is left to do
  130  stopped by Ctrl-C
"""


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Which store. The defaults are those of ``tenure master``, from the same variables."""
    environ = os.environ
    parser.add_argument(
        "--store",
        metavar="URL|embedded",
        default=environ.get("TENURE_MASTER_STORE", EMBEDDED),
        help="the masters' --store (TENURE_MASTER_STORE; default: embedded)",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        default=Path(environ.get("TENURE_MASTER_DATA_DIR") or paths.master_data_dir()),
        help="the master's --data-dir, with an embedded store (TENURE_MASTER_DATA_DIR; default: %(default)s)",
    )
    parser.add_argument(
        "--key-prefix",
        metavar="TEXT",
        default=environ.get("TENURE_MASTER_KEY_PREFIX", "tenure"),
        help="the masters' --key-prefix (TENURE_MASTER_KEY_PREFIX; default: tenure)",
    )
    add_server_option(parser)


def add_server_option(parser: argparse.ArgumentParser) -> None:
    """Which program verifies."""
    parser.add_argument(
        "--server-binary",
        metavar="PATH",
        type=_program,
        help="server that copies are verified with (default: the embedded store's); it must read what the store wrote",
    )


def count(text: str) -> int:
    """An option's value that is a number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def seconds(text: str) -> float:
    """An option's value that is a length of time."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")


def journal_span(text: str) -> str:
    """An option's value that is a length of time as journalctl reads it."""
    if _JOURNAL_SPAN.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time, as in 2d, 90min or 1h30min")
    return text


def check_writable(folder: Path, option: str) -> None:
    """Whether a folder can be written or made, as far as can be told without trying.

    Args:
        folder: What is to be there.
        option: That named it.

    Raises:
        Misused: A file is in its way.
        Refused: This user may not.
    """
    # What can't be seen is taken as not there: the folder above it then says no.
    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.exists(each))
    if not nearest.is_dir():
        raise Misused(f"{option} {folder}: {nearest} is a file; give a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise Refused(f"{option} {folder}: {nearest} can't be written by this user; give another folder")


def _program(text: str) -> str:
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no program that can be run")
    return os.path.abspath(found)


def store_of(arguments: argparse.Namespace) -> tuple[str, Path]:
    """(URL or ``embedded``, data directory)."""
    return arguments.store, arguments.data_dir
