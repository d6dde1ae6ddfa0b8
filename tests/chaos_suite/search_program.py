"""A search program as its author would write it: submits by key, waits for results, may be killed and started again.

Run by the suite as a process of its own. It writes what it was told to a journal (JSON lines, one write each) and ends
with status 0 once the stop file exists and every task it submitted has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from chaos_suite.workload import SEARCH, make_task
from tenure.client import Client, TaskFailed, TaskHandle, TaskResult

# Enough that no slot is ever idle, few enough that the queue drains soon once the faults are over.
OPEN_MAX = 14
BATCH = 4
_WAIT_SECONDS = 0.2


class SearchProgram:
    """See the module."""

    def __init__(self, client: Client, seed: int, journal: Path, stop_file: Path, max_leased: int) -> None:
        self._search = client.search(SEARCH, max_leased=max_leased)
        self._seed = seed
        self._stop_file = stop_file
        self._descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._changed = threading.Condition()
        self._open = 0

    def run(self) -> None:
        """From the first task on; those that an earlier process has submitted are the same."""
        self._note("program", state="started")
        number = 0
        while not self._stop_file.exists():
            with self._changed:
                if self._open > OPEN_MAX - BATCH:
                    self._changed.wait(_WAIT_SECONDS)
                    continue
            self._submit(range(number, number + BATCH))
            number += BATCH
        with self._changed:
            while self._open:
                self._changed.wait(_WAIT_SECONDS)
        self._note("program", state="ended", tasks=number)

    def _submit(self, numbers: Sequence[int]) -> None:
        tasks = [make_task(self._seed, number) for number in numbers]
        self._note("submitting", keys=[task.key for task in tasks])
        handles = self._search.submit_many(task.spec() for task in tasks)
        for handle in handles:
            self._note("submitted", task_id=handle.task_id, key=handle.key, created=handle.created)
        with self._changed:
            self._open += len(handles)
        for handle, future in zip(handles, self._search.futures(handles), strict=True):
            future.add_done_callback(lambda done, handle=handle: self._see(handle, done))

    def _see(self, handle: TaskHandle, future: Future[TaskResult]) -> None:
        error = future.exception()
        if error is None:
            self._note("seen", task_id=handle.task_id, state="SUCCEEDED", fitness=future.result().metrics["fitness"])
        elif isinstance(error, TaskFailed):
            self._note("seen", task_id=handle.task_id, state=error.task.state.value, fitness=None)
        else:
            self._note("unexpected", text=f"waiting for {handle.task_id} raised {error!r}")
        with self._changed:
            self._open -= 1
            self._changed.notify()

    def _note(self, what: str, **fields: Any) -> None:
        line = json.dumps({"time": time.monotonic(), "what": what, **fields})
        os.write(self._descriptor, line.encode() + b"\n")


def main() -> None:
    """``python -m chaos_suite.search_program``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--master", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--stop-file", type=Path, required=True)
    parser.add_argument("--max-leased", type=int, default=0)
    given = parser.parse_args()
    with Client(given.master, timeout_seconds=120) as client:
        SearchProgram(client, given.seed, given.journal, given.stop_file, given.max_leased).run()


if __name__ == "__main__":
    main()
