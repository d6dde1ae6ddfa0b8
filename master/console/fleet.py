"""Workers, what waits for them and what they hold, as the console shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenure.common.states import TaskState
from tenure.master.console.asking import Asker
from tenure.master.console.plain import plain
from tenure.master.console.searches import Searches
from tenure.master.console.tasks import Tasks
from tenure.master.console.waiting import Candidate, why_waiting
from tenure.master.loops.figures import requirements_text
from tenure.master.rpc import messages
from tenure.master.rpc.devices import capabilities_of
from tenure.master.store.records import WorkerView

WORKERS_MAX = 500
QUEUES_MAX = 300
LEASES_MAX = 200


class Fleet:
    """Thread-safe; raises what the client API would."""

    def __init__(self, asker: Asker, searches: Searches, tasks: Tasks) -> None:
        self._asker = asker
        self._searches = searches
        self._tasks = tasks

    def all_workers(self) -> list[dict[str, Any]]:
        """Every registered worker, those that are gone, too."""
        return self._asker.shared("all workers", lambda: [self._worker(view) for view in self._views()])

    def workers(self) -> dict[str, Any]:
        """Every worker that has not gone, and how many have. Slots of those that aren't heard name the tasks that they
        hold by the store: what they said last is of another time."""
        return self._asker.shared("present workers", self._workers)

    def _workers(self) -> dict[str, Any]:
        workers = self.all_workers()
        present = [worker for worker in workers if worker.get("status") != "gone"]
        present.sort(key=lambda worker: str(worker["worker_id"]))
        left_out = max(0, len(present) - WORKERS_MAX)
        shown = self._holding(present[:WORKERS_MAX])
        return {"workers": shown, "left_out": left_out, "gone": len(workers) - len(present)}

    def _holding(self, workers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """These, without the tasks that silent ones hold no more."""
        silent = [worker for worker in workers if worker.get("status") != "live"]
        # Leases of the silent run out soon, so mostly there is nothing to ask for.
        named = [slot.get("task_id", "") for worker in silent if worker.get("leases") for slot in _slots(worker)]
        tasks = self._tasks.by_id(list(filter(None, named)))
        held = {
            (task.get("worker_id"), task["task_id"]) for task in tasks if task.get("state") == TaskState.LEASED.value
        }
        found = []
        for worker in workers:
            if worker.get("status") == "live":
                found.append(worker)
                continue
            slots = [
                slot if (worker["worker_id"], slot.get("task_id")) in held else slot | {"task_id": ""}
                for slot in _slots(worker)
            ]
            found.append(worker | {"slot_list": slots})
        return found

    def queues(self) -> dict[str, Any]:
        """What waits, by search and requirement class, the longest wait first; and why."""
        return self._asker.shared("queues", self._queues)

    def _queues(self) -> dict[str, Any]:
        store = self._asker.master.store
        classes = self._asker.ask(store.searches.requirement_classes())
        queues = sorted(self._asker.ask(store.looks.queues()), key=lambda queue: -queue.oldest_wait_ms)
        searches = {search.name: search for search in self._searches.all()[1]}
        candidates = self._candidates()
        rows = []
        for queue in queues[:QUEUES_MAX]:
            requirements, search = classes.get(queue.requirement_class), searches.get(queue.search)
            if requirements is None or search is None:
                continue  # made or forgotten between two looks
            why = why_waiting(search, requirements, candidates)
            rows.append({**vars(queue), "requirements": requirements_text(requirements), "why": vars(why)})
        return {"queues": rows, "left_out": max(0, len(queues) - QUEUES_MAX)}

    def _candidates(self) -> list[Candidate]:
        found = []
        for view in self._views():
            worker = self._worker(view)
            if worker.get("status") != "gone":
                live = worker.get("status") == "live"
                slots, leases = worker.get("slots", 0), worker.get("leases", 0)
                mode = worker.get("mode", "active")
                found.append(Candidate(view.worker_id, capabilities_of(view), live, mode, slots, leases))
        return found

    def leases(self) -> dict[str, Any]:
        """The leases with the least time left first: whoever was not heard of for long stands at the top."""
        return self._asker.shared("leases", self._leases)

    def _leases(self) -> dict[str, Any]:
        total, task_ids = self._asker.ask(self._asker.master.store.looks.expiring(LEASES_MAX))
        tasks = [task for task in self._tasks.by_id(task_ids) if task.get("state") == TaskState.LEASED.value]
        tasks.sort(key=lambda task: task.get("lease_left_ms", 0))
        return {"leases": tasks[:LEASES_MAX], "left_out": max(0, total - min(len(tasks), LEASES_MAX))}

    def _views(self) -> list[WorkerView]:
        return self._asker.shared("workers", lambda: self._asker.ask(self._asker.master.store.workers.find()))

    def _lease_counts(self) -> Mapping[str, int]:
        store = self._asker.master.store
        return self._asker.shared("lease counts", lambda: self._asker.ask(store.tasks.lease_counts()))

    def _worker(self, view: WorkerView) -> dict[str, Any]:
        leases = self._lease_counts().get(view.worker_id, 0)
        return plain(messages.worker_message(view, leases, self._asker.master.settings.lease_ttl_ms))


def _slots(worker: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As it said last; none of one that doesn't say."""
    slots: list[dict[str, Any]] = worker.get("slot_list", [])
    return slots
