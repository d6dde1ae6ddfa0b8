"""A Tenure for rolling restarts: masters on a store whose servers are supervised, workers, and a search that goes on.

The search program is a user's: the real client in a thread of its own, which keeps some tasks open, takes results as
they come, and submits more until it is told to stop.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import ARCHITECTURE
from ops_scripts import end_what_was_started
from processes import MasterProcess, eventually, start_master
from worker_process import WorkerProcess

from tenure.client import Client, TaskRecord
from tenure.common.errors import TenureError

SEARCH = "first"
# Steps with a checkpoint each: a drain finds something to save, and whoever goes on something to load.
EXTRA = {"steps": "20", "seconds": "1", "checkpoint": "1"}


class Fleet:
    """Masters and workers below one folder, to be restarted by scripts: they are known by their ready files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.masters: list[MasterProcess] = []
        self.workers: list[WorkerProcess] = []

    @property
    def addresses(self) -> str:
        return ",".join(master.address for master in self.masters)

    @property
    def ready_files(self) -> list[Path]:
        return self.masters_ready + self.workers_ready

    @property
    def masters_ready(self) -> list[Path]:
        return [master.folder / "ready.json" for master in self.masters]

    @property
    def workers_ready(self) -> list[Path]:
        return [self.root / f"{worker.name}.ready" for worker in self.workers]

    async def start(self, masters: int, workers: int, **master_settings: Any) -> Fleet:
        """Start them, and wait until they serve and a master has heard every worker, which can be later."""
        settings = {"lease_ttl_seconds": 6, "heartbeat_seconds": 0.5, **master_settings}
        for number in range(masters):
            self.masters.append(await asyncio.to_thread(start_master, self.root / f"master-{number}", **settings))
        self.workers += [WorkerProcess(self.root, f"w{number}") for number in range(1, workers + 1)]
        await asyncio.gather(*(worker.start(self.addresses) for worker in self.workers))
        for worker in self.workers:
            await eventually(lambda name=worker.name: self._is_registered(name), what=f"{worker.name} at a master")
        return self

    def _is_registered(self, worker_id: str) -> bool:
        return any(master.logged("session.up", worker=worker_id) for master in self.masters)

    async def destroy(self) -> None:
        """End what was started here, and what scripts have started in its place."""
        end_what_was_started(self.root)
        for worker in self.workers:
            await worker.destroy()
        for master in self.masters:
            master.remove()


class SearchProgram:
    """A search that goes on until :meth:`finish`.

    Attributes:
        results: Fitness by task id, of what has ended.
        errors: What the client raised; none, one hopes.
    """

    def __init__(self, addresses: str, *, parallelism: int = 6) -> None:
        self.results: dict[str, float] = {}
        self.errors: list[str] = []
        self._addresses = addresses
        self._parallelism = parallelism
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="search-program", daemon=True)

    def start(self) -> SearchProgram:
        self._thread.start()
        return self

    async def finish(self) -> dict[str, TaskRecord]:
        """Submit no more, take the results that are left; every task's record with its attempt records."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, 90)
        assert not self._thread.is_alive(), "the search program does not come to its end"

        def read() -> dict[str, TaskRecord]:
            with Client(self._addresses, timeout_seconds=30) as client:
                return dict(client.get_tasks(self.results, full=True))

        return await asyncio.to_thread(read)

    def _run(self) -> None:
        try:
            with Client(self._addresses, timeout_seconds=120) as client:
                search = client.search(SEARCH)
                submitted, open_handles = 0, []
                while open_handles or not self._stopping.is_set():
                    while len(open_handles) < self._parallelism and not self._stopping.is_set():
                        submitted += 1
                        spec = {"architecture": ARCHITECTURE, "config": {"extra": EXTRA}, "key": f"trial-{submitted}"}
                        open_handles += search.submit_many([spec])
                    ended = next(iter(search.as_completed(open_handles)))
                    open_handles.remove(ended)
                    self.results[ended.task_id] = ended.result().metrics["fitness"]
        except TenureError as error:
            self.errors.append(repr(error))


class Supervisor:
    """Starts a server again whenever it has ended, as systemd does.

    Args:
        start: Starts it; blocks until it answers.
        process: What runs now.
    """

    def __init__(self, start: Callable[[], object], process: Callable[[], subprocess.Popen[bytes] | None]) -> None:
        self._start, self._process = start, process
        self._off = threading.Event()
        threading.Thread(target=self._watch, name="supervisor", daemon=True).start()

    def stop(self) -> None:
        """From now on whoever ends stays down."""
        self._off.set()

    def _watch(self) -> None:
        while not self._off.is_set():
            process = self._process()
            assert process is not None
            process.wait()
            if not self._off.is_set():
                self._start()


def shutdown_command(address: str) -> str:
    """A command that ends a server (``HOST:PORT``, or a path) in order."""
    return f"{sys.executable} -S {Path(__file__).with_name('ending_server.py')} {address}"
