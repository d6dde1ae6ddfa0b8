"""One simulation from start to end: a server of its own, the simulation, the audit."""

from __future__ import annotations

import gc
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog
from store_server import StoreServer

from simulation.audit import audit
from simulation.clock import virtual_time
from simulation.options import Options
from simulation.report import Costs
from simulation.simulation import Simulation
from tenure.master.store import StoreOptions, open_store

from simulation.cluster import STANDING_TTL_MS  # isort: skip
from simulation.workers import LEASE_TTL_MS  # isort: skip


async def simulate(options: Options, say: Callable[[str], None]) -> tuple[Simulation, Costs]:
    """Run it; the simulation's ledger holds the violations, if there were any."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    calls: Counter[str] = Counter()

    def observe(script: str, seconds: float, items: int) -> None:
        calls["calls"] += 1
        calls["items"] += items

    with tempfile.TemporaryDirectory(prefix="tenure-simulation-") as folder:
        # What a crash of the server's host would do is nothing that is asked here: no append-only file.
        server = StoreServer(Path(folder), appendonly="no").start()
        try:
            with virtual_time():
                ttl_ms = STANDING_TTL_MS if options.routine == "elided" else LEASE_TTL_MS
                store = await open_store(
                    StoreOptions(url=server.url, durability="relaxed", lease_ttl_ms=ttl_ms), observe
                )
            with server.client() as client:
                before = client.info("everything")
                started = time.monotonic()
                gc.freeze()
                simulation = Simulation(options, store, client, say)
                await simulation.run()
                seconds = time.monotonic() - started
                after = client.info("everything")
                checked = await audit(store, simulation.ledger, options.tasks)
            await store.close()
        finally:
            server.remove()
    cpu = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
    memory = int(after["used_memory"] - before["used_memory"])
    return simulation, Costs(cpu, memory, calls["calls"], calls["items"], seconds, checked)
