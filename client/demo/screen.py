"""What the demo shows: a live line on a terminal, plain lines elsewhere; at the end two tables and a verdict."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tenure.client.broker_records import SearchStatus
from tenure.client.demo.accounting import ACCURACY_METRIC, Account, Promise
from tenure.client.records import TaskRecord
from tenure.common.states import TaskState

_BEST_SHOWN = 5
_PLAIN_WIDTH = 160


class Screen:
    """Writes to stdout. Use it as a context manager around the live part."""

    def __init__(self, trials: int) -> None:
        from rich.console import Console

        tty = sys.stdout.isatty()
        self._console = Console(width=None if tty else _PLAIN_WIDTH, highlight=False, markup=False, emoji=False)
        self._started = time.monotonic()
        self._trials = trials
        self._live: Any = None
        if tty:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._live = Progress(*columns, console=self._console, transient=True)
            self._live.add_task("starting", total=trials)

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """One line that stays, with the time."""
        self._console.print(f"[{self.seconds:5.1f} s] {text}", soft_wrap=True)

    def update(self, status: SearchStatus) -> None:
        """The live line."""
        if self._live is not None:
            ended = status.total - status.open
            best = f", best {status.best_fitness:.4f}" if status.best_fitness is not None else ""
            text = f"{self.seconds:.0f} s, {status.tasks[TaskState.LEASED]} running{best}"
            self._live.update(self._live.task_ids[0], completed=ended, description=text)

    def show_best(self, records: Iterable[TaskRecord]) -> None:
        """The table of the best architectures."""
        best = sorted(
            (record for record in records if ACCURACY_METRIC in record.metrics),
            key=lambda record: -record.metrics[ACCURACY_METRIC],
        )[:_BEST_SHOWN]
        self._table(
            f"The best {len(best)} architectures, by accuracy on held-out data",
            (">ACCURACY", ">PARAMETERS", "TASK", ">SECONDS", "WORKER", "ARCHITECTURE"),
            [
                (
                    f"{record.metrics[ACCURACY_METRIC]:.4f}",
                    f"{record.metrics.get('params', 0.0):.0f}",
                    record.key,
                    f"{record.duration_seconds:.1f}",
                    record.worker_id,
                    describe(record.architecture),
                )
                for record in best
            ],
        )

    def show_account(self, figures: Account, *, trials: int) -> None:
        """The figures, from the broker's records; of the trials, those without a task of their own are told."""
        rows = [
            ("submitted", figures.submitted),
            ("succeeded", figures.succeeded),
            ("resumed from a checkpoint", figures.resumed),
            ("lost", figures.lost),
            ("evaluated twice", figures.evaluated_twice),
        ]
        self._table("Tasks, by the broker's own records", ("TASKS", ">NUMBER"), [(n, str(v)) for n, v in rows])
        if trials > figures.submitted:
            shared = trials - figures.submitted
            self.print(f"({trials} trials: {shared} had an earlier one's architecture and got its result)")

    def show_promises(self, found: Sequence[Promise]) -> None:
        """Each promise and what was seen."""
        rows = [("kept" if promise.kept else "BROKEN", promise.text, promise.seen) for promise in found]
        self._table("Promises", ("", "PROMISE", "SEEN"), rows)

    def print(self, text: str = "") -> None:
        """A plain line."""
        self._console.print(text, soft_wrap=True)

    def _table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        from rich.table import Table

        self.print(f"\n{title}")
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)


def describe(architecture: str) -> str:
    """A network in one line: ``conv 32 5×5 bn max · conv 16 3×3 · dense 64 · dropout 0.1``."""
    graph = json.loads(architecture)
    inputs: dict[str, int] = {}
    for edge in graph["edges"]:
        inputs[edge["target_id"]] = inputs.get(edge["target_id"], 0) + 1
    parts: list[str] = []
    for node in graph["nodes"]:
        operation, params = node["operation"], node["params"]
        if node["metadata"].get("is_output") or operation == "input":
            continue
        if operation == "conv2d":
            skip = "skip+" if inputs.get(node["id"], 0) > 1 else ""
            size = params["kernel_size"]
            parts.append(f"{skip}conv {params['filters']} {size}×{size}")
        elif operation == "batchnorm":
            parts[-1] += " bn"
        elif operation in ("maxpool", "avgpool"):
            parts[-1] += f" {operation[:3]}"
        else:
            parts.append(" ".join([operation, *(f"{v:g}" for v in params.values() if not isinstance(v, str))]))
    return " · ".join(parts)
