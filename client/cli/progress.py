"""Progress on stderr: a bar on a terminal, a line now and then elsewhere (logs of cron and CI)."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from tenure.client.cli.output import print_note

_LINE_SECONDS_MIN = 10.0


class Counter:
    """Counts up to a total.

    Args:
        what: The activity (``submitting``).
        total: Where it ends.
    """

    def __init__(self, what: str, total: int) -> None:
        self.done = 0
        self._what = what
        self._total = total
        self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance_to(self, done: int, *, total: int | None = None, note: str = "") -> None:
        """So many are done, of ``total`` if that changed; ``note`` is appended to what is shown."""
        self.done = done
        self._total = self._total if total is None else total
        what = f"{self._what} {note}".rstrip()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=self._total, description=what)
        elif time.monotonic() - self._last_line >= _LINE_SECONDS_MIN:
            self._last_line = time.monotonic()
            print_note(f"{what}: {done} of {self._total}")

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print_note(text)
