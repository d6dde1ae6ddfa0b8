"""The processes of a seed: a store, masters, workers, and a relay on every way between them.

::

    search program ── relay ──┐                       ┌── relay ── store
                              ├── master (one or two) ┘
           workers ── relay ──┘
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import redis
from processes import MasterProcess, eventually, make_master
from redis.backoff import NoBackoff
from redis.retry import Retry
from store_server import StoreServer
from tcp_relay import TcpRelay
from worker_process import WorkerProcess

from chaos_suite.disks import SmallDisks
from chaos_suite.history import History
from chaos_suite.plan import Plan
from tenure.client import Client

LEASE_SECONDS = 4.0
# A silence that costs no lease, though a heartbeat was due, a clock jumps meanwhile, and a busy machine takes a second
# to find the way back.
HARMLESS_SECONDS = 1.5
MASTER_SETTINGS = {
    "lease_ttl_seconds": LEASE_SECONDS,
    "heartbeat_seconds": 1.0,
    # The default: shorter breaks cost nothing, and the checker holds the cluster to that.
    "grace_seconds": 2.0,
    "tick_seconds": 0.2,
    "retry_base_seconds": 0.1,
    "retry_max_seconds": 1.0,
}
START_SECONDS = 90.0
TESTS = Path(__file__).resolve().parent.parent


class Fleet:
    """See the module. :meth:`start` it, and :meth:`destroy` it whatever happened.

    Attributes:
        root: Everything is below it; short, since sockets are.
        masters: By name, ``m1`` and ``m2``.
        ways: Relays by who uses them (``worker``, ``client``, ``store``) and the master's name.
        workers: All that ever were, by name.
        gone: Names of workers that are not to come back.
        client: Talks to the masters without a relay.
    """

    def __init__(self, root: Path, plan: Plan, history: History) -> None:
        self.root = root
        self.plan = plan
        self.disks = SmallDisks(root)
        self.store: StoreServer | None = None
        self.masters: dict[str, MasterProcess] = {}
        self.ways: dict[str, dict[str, TcpRelay]] = {"worker": {}, "client": {}, "store": {}}
        self.workers: dict[str, WorkerProcess] = {}
        self.gone: set[str] = set()
        self.client: Client
        self._history = history
        self._slots: dict[str, int] = {}
        self._names = (f"w{number}" for number in itertools.count(1))
        self._ready: set[str] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._stack = contextlib.AsyncExitStack()

    # ---- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Store, masters, relays; workers are added one by one."""
        self.disks.make("store", 48)
        self.disks.make("checkpoints", 12)
        if self.plan.store == "external":
            self.store = StoreServer(self.root / "store")
            await asyncio.to_thread(self.store.start)
        for number in range(1, self.plan.masters + 1):
            await self._add_master(f"m{number}")
        self.client = Client(",".join(master.address for master in self.masters.values()), timeout_seconds=60)

    async def _add_master(self, name: str) -> None:
        # The embedded store's files are on the small disk, too.
        where = {"store": "embedded", "data_dir": self.root / "store" / "data"}
        if self.store is not None:
            relay = await self._stack.enter_async_context(TcpRelay(self.store.socket))
            self.ways["store"][name] = relay
            where = {"store": f"redis://{relay.address}/0", "data_dir": self.root / name / "data"}
        self.masters[name] = make_master(self.root / name, **where, **MASTER_SETTINGS)
        await asyncio.to_thread(self.masters[name].start)
        for who in ("worker", "client"):
            port = int(self.masters[name].address.rpartition(":")[2])
            self.ways[who][name] = await self._stack.enter_async_context(TcpRelay(port))

    async def destroy(self) -> None:
        """End everything, whatever state it is in."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        if hasattr(self, "client"):
            await asyncio.to_thread(self.client.close)
        for worker in self.workers.values():
            await worker.destroy()
        for master in self.masters.values():
            await asyncio.to_thread(master.remove)
        if self.store is not None:
            self.store.remove()
        await self._stack.aclose()
        with contextlib.suppress(OSError):
            shutil.copy(next((self.root / "store").rglob("server.log"), ""), self.root / "store.log")
        await asyncio.to_thread(self.disks.remove)

    # ---- workers --------------------------------------------------------------------------------------------------

    async def add_worker(self, slots: int) -> str:
        """One more, under a name that was never used; returns before it is ready."""
        name = next(self._names)
        await asyncio.to_thread(self.disks.make, name, 24)
        await self.start_worker(name, slots)
        return name

    async def start_worker(self, name: str, slots: int | None = None) -> None:
        """Start a worker, again if there was one of this name; returns before it is ready."""
        self._slots[name] = slots or self._slots[name]
        self._ready.discard(name)
        worker = self.workers.get(name) or WorkerProcess(self.root, name)
        self.workers[name] = worker
        await worker.spawn(
            self.addresses("worker"),
            slots=self._slots[name],
            stop_grace_seconds=1,
            drain_grace_seconds=15,
            rpc_timeout_seconds=4,
            log_level="info",
        )
        self._history.note("worker", worker=name, slots=self._slots[name], pid=worker.pid)
        task = asyncio.create_task(self._await_ready(name, worker.pid))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _await_ready(self, name: str, pid: int) -> None:
        worker = self.workers[name]
        ready = self.root / f"{name}.ready"

        def over() -> bool:
            return ready.exists() or worker.pid != pid or worker.returncode is not None

        with contextlib.suppress(AssertionError):
            await eventually(over, START_SECONDS)
        if ready.exists() and worker.pid == pid:
            self._ready.add(name)
            self._history.note("ready", worker=name)

    async def all_ready(self) -> None:
        """Until every worker that was started is up, or is gone again."""
        await asyncio.gather(*self._starting)

    def living(self) -> list[str]:
        """Names of workers that run and are not about to leave."""
        return [name for name, each in self.workers.items() if each.returncode is None and name not in self.gone]

    def serving(self) -> list[str]:
        """Those of them that have come up: a process that is still importing has no handler for SIGTERM yet."""
        return [name for name in self.living() if name in self._ready]

    def slots_of(self, name: str) -> int:
        """How many tasks a worker takes at once."""
        return self._slots[name]

    def pids_of(self, names: list[str]) -> list[int]:
        """Of these workers' executors now."""
        return [child.pid for name in names for child in self.workers[name].executors()]

    async def replace_worker(self, name: str) -> None:
        """A worker was lost for good: another takes its place."""
        self.gone.add(name)
        await self.add_worker(self._slots[name])

    async def kill_worker(self, name: str) -> None:
        """SIGKILL to the supervisor; its executors end by themselves."""
        self.workers[name].signal(signal.SIGKILL)
        await self.workers[name].wait()

    def signal_worker(self, name: str, number: signal.Signals, *, executors: bool) -> None:
        """Signal the supervisor and, if asked, all of its executors."""
        children = self.workers[name].executors() if executors else []
        with contextlib.suppress(ProcessLookupError):
            self.workers[name].signal(number)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    # ---- ways -----------------------------------------------------------------------------------------------------

    def addresses(self, who: str) -> str:
        """Of all masters, through the relays of ``worker`` or ``client``."""
        return ",".join(relay.address for relay in self.ways[who].values())

    # ---- the store ------------------------------------------------------------------------------------------------

    @property
    def store_pid(self) -> int:
        """Of the store's server."""
        return self.store.pid if self.store is not None else next(iter(self.masters.values())).store_pid

    def redis(self) -> redis.Redis:
        """A connection to the store, past masters and relays; use it with ``with``."""
        socket = self.root / "store" / "data" / "store.sock" if self.store is None else self.store.socket
        return redis.Redis(unix_socket_path=str(socket), socket_timeout=5, retry=Retry(NoBackoff(), 0))

    async def store_is_back(self, killed: int) -> None:
        """After the death of the store's server: start it, or see that its master has."""
        if self.store is not None:
            # Takes notice of the end of a server that ended by itself.
            await asyncio.to_thread(self.store.kill)
            await asyncio.to_thread(self.store.start)
        else:
            await eventually(lambda: self.store_pid != killed, START_SECONDS, "a new embedded store")

    # ---- the search program ---------------------------------------------------------------------------------------

    def start_program(self, journal: Path, stop_file: Path) -> subprocess.Popen[bytes]:
        """The program whose search this is."""
        arguments = {
            "--master": self.addresses("client"),
            "--seed": str(self.plan.seed),
            "--journal": str(journal),
            "--stop-file": str(stop_file),
            "--max-leased": str(self.plan.max_leased),
        }
        with (self.root / "program.log").open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "chaos_suite.search_program",
                    *(part for pair in arguments.items() for part in pair),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
                start_new_session=True,
            )
