"""The broker at a glance: what every page of the console has at its top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenure import __version__
from tenure.common.states import TaskState
from tenure.master.console.asking import Asker, now_unix_ms
from tenure.master.console.fleet import Fleet
from tenure.master.console.plain import plain
from tenure.master.console.searches import Searches
from tenure.master.rpc import messages

SEARCHES_MAX = 200
WARNINGS_MAX = 20


class Glance:
    """Thread-safe; raises what the client API would."""

    def __init__(self, asker: Asker, searches: Searches, fleet: Fleet) -> None:
        self._asker = asker
        self._searches = searches
        self._fleet = fleet
        self._started_unix_ms = now_unix_ms()

    def look(self) -> dict[str, Any]:
        """Figures, searches, and what an operator should know before anything else."""
        return self._asker.shared("glance", self._look)

    def _look(self) -> dict[str, Any]:
        overviews, searches = self._searches.all()
        workers = [worker for worker in self._fleet.all_workers() if worker.get("status") != "gone"]
        counters: dict[str, int] = {}
        for overview in overviews:
            for name, value in overview.counters.items():
                counters[name] = counters.get(name, 0) + value
        return {
            "now_unix_ms": now_unix_ms(),
            "master": self._master(),
            "warnings": self._warnings(workers)[:WARNINGS_MAX],
            "tasks": {state.value: sum(search.counts.get(state, 0) for search in searches) for state in TaskState},
            "leases": sum(overview.leases for overview in overviews),
            "counters": counters,
            "workers": _sums(workers),
            "searches": [plain(messages.search_message(search)) for search in searches[:SEARCHES_MAX]],
            "searches_left_out": max(0, len(searches) - SEARCHES_MAX),
        }

    def _master(self) -> dict[str, Any]:
        master = self._asker.master
        return {
            "master_id": master.master_id,
            "port": self._asker.port,
            "version": __version__,
            "started_unix_ms": self._started_unix_ms,
            "store": master.store.description,
            "durability": master.store.durability,
            "lease_ttl_ms": master.settings.lease_ttl_ms,
        }

    def _warnings(self, workers: Sequence[Mapping[str, Any]]) -> list[str]:
        master = self._asker.master
        found = []
        if any(sample.value for metric in master.metrics.reaper_paused.collect() for sample in metric.samples):
            found.append("Reaping is paused, since most leases would end at once: look at the network and the workers.")
        if master.sweeper.memory_short:
            found.append("The store is near its memory limit: new tasks are refused.")
        if master.store.durability_warning:
            found.append(f"Acknowledged work can be lost: {master.store.durability_warning}")
        for worker in workers:
            reasons = {slot.get("cordon_reason", "") for slot in worker.get("slot_list", ())} - {""}
            found += [f"Worker {worker['worker_id']} has cordoned a slot: {reason}" for reason in sorted(reasons)]
        return found


def _sums(workers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    live = [worker for worker in workers if worker.get("status") == "live"]
    return {
        "live": len(live),
        "silent": len(workers) - len(live),
        "cordoned": sum(worker.get("mode") == "cordoned" for worker in workers),
        "draining": sum(worker.get("mode") == "draining" for worker in workers),
        "slots": sum(worker.get("slots", 0) for worker in live),
        "slots_busy": sum(min(worker.get("leases", 0), worker.get("slots", 0)) for worker in live),
        "gpus": sum(worker.get("num_gpus", 0) for worker in live),
    }
