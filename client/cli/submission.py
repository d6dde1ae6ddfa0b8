"""How ``tenure tasks submit`` reads, checks, sends and waits."""

from __future__ import annotations

import contextlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from tenure.client.cli.output import print_error, print_note
from tenure.client.cli.progress import Counter
from tenure.client.cli.task_lines import BadLine, read_tasks
from tenure.client.client import Client
from tenure.client.search import Search
from tenure.client.search_code import NOBODY_ACCEPTS
from tenure.client.tasks import TaskHandle
from tenure.common.errors import InvalidInput, TenureError
from tenure.common.spec import TaskSpec
from tenure.common.states import TaskState

_BAD_LINES_SHOWN_MAX = 20


def named_search(client: Client, name: str, evaluator: str | None, code: str | None) -> Search:
    """The search, set to this evaluator and code if any is given; says so if no worker takes such tasks."""
    search = client.search(name, evaluator=evaluator, code=code)
    search.architecture_format()
    # Whoever names an evaluator has it said by the client's log, which goes to stderr.
    if evaluator is None and not search.is_served():
        print_note(f"search {name}: {NOBODY_ACCEPTS}")
    return search


def submit_file(search: Search, file: str) -> list[TaskHandle]:
    """Submit the tasks of a file (``-``: stdin), once all its lines have been found right.

    Raises:
        InvalidInput: The file can't be read, or lines of it can't be right; each was told on stderr. Nothing was
            submitted.
        TenureError: The master refused or went away on the way; what was submitted before stays so.
    """
    with _rewindable(file) as stream:
        total = _check(stream, search)
        stream.seek(0)
        with Counter("submitting", total) as counter:
            try:
                return search.submit_many(_good_tasks(stream, search), progress=counter.advance_to)
            except TenureError:
                print_note(
                    f"{counter.done} of {total} tasks were submitted; run the same command again to go on:"
                    " nothing is submitted twice"
                )
                raise


def wait_for_tasks(search: Search, handles: list[TaskHandle]) -> int:
    """Wait until all have ended; returns how many of them have no result, each told on stderr."""
    without_result = 0
    distinct = list({handle.task_id: handle for handle in handles}.values())
    with Counter("waiting", len(distinct)) as counter:
        for done, handle in enumerate(search.as_completed(distinct), start=1):
            record = handle.record()
            if record.state is not TaskState.SUCCEEDED:
                without_result += 1
                reason = f": {record.failure.error_class}: {record.failure.message}" if record.failure else ""
                counter.note(f"task {record.task_id} ended {record.state}{reason}")
            counter.advance_to(done)
    return without_result


def _check(stream: BinaryIO, search: Search) -> int:
    """The number of tasks, all of them right."""
    total = bad = 0
    for task in read_tasks(stream, search.architecture_format(), search.complete):
        total += 1
        if isinstance(task, BadLine):
            bad += 1
            if bad <= _BAD_LINES_SHOWN_MAX:
                print_error(str(task.error))
    if bad:
        more = f", the first {_BAD_LINES_SHOWN_MAX} are told above" if bad > _BAD_LINES_SHOWN_MAX else ""
        raise InvalidInput(f"{bad} of {total} lines can't be right{more}; nothing was submitted", field="FILE")
    if total == 0:
        print_note("there is no task in it: what wrote it may have failed")
    return total


def _good_tasks(stream: BinaryIO, search: Search) -> Iterator[TaskSpec]:
    for task in read_tasks(stream, search.architecture_format(), search.complete):
        if isinstance(task, BadLine):
            raise InvalidInput(f"the file changed while it was read: {task.error}", field="FILE")
        yield task


@contextlib.contextmanager
def _rewindable(file: str) -> Iterator[BinaryIO]:
    """The file, so that it can be read twice: stdin and pipes are copied to a temporary file first."""
    if file == "-":
        with _copied(sys.stdin.buffer) as stream:
            yield stream
        return
    try:
        with Path(file).open("rb") as stream:
            if stat.S_ISREG(Path(file).stat().st_mode):
                yield stream
            else:
                with _copied(stream) as copy:
                    yield copy
    except OSError as error:
        raise InvalidInput(
            f"can't be read: {error.strerror}", field="FILE", given=file, expected="give a file of JSON lines, or -"
        ) from None


@contextlib.contextmanager
def _copied(stream: IO[bytes]) -> Iterator[Any]:
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy
