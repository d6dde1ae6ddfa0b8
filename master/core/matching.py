"""Which tasks a worker can be given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from tenure.common.spec import Requirements
from tenure.master.core.liveness import worker_status
from tenure.master.store.records import WorkerView


@dataclass(frozen=True)
class Capabilities:
    """What a worker has, for each of its slots."""

    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def meets(self, requirements: Requirements) -> bool:
        """Whether a task with these requirements can run here."""
        return self.gpus >= requirements.gpus and all(
            self.labels.get(name) == value for name, value in requirements.labels.items()
        )


class Pool:
    """Which classes the live workers of all masters can serve.

    Args:
        workers: What each live worker has that is neither drained nor cordoned.
    """

    def __init__(self, workers: Mapping[str, Capabilities]) -> None:
        self._workers = workers
        self._servers: dict[str, tuple[Requirements, frozenset[str]]] = {}

    def elsewhere(self, worker_id: str, classes: Iterable[str], known: Mapping[str, Requirements]) -> tuple[str, ...]:
        """Those of ``classes`` that some other worker can serve, too."""
        return tuple(name for name in classes if name in known and self._two_servers(name, known[name]) - {worker_id})

    def _two_servers(self, name: str, requirements: Requirements) -> frozenset[str]:
        # Two are enough to know whether there is another one.
        remembered = self._servers.get(name)
        if remembered is None or remembered[0] != requirements:
            fitting = (worker for worker, has in self._workers.items() if has.meets(requirements))
            remembered = self._servers[name] = (requirements, frozenset(islice(fitting, 2)))
        return remembered[1]


def capabilities_of(worker: WorkerView) -> Capabilities:
    """What a registered worker has, for each of its slots."""
    slots = max(1, int(worker.number("slots")))
    labels = dict(pair.split("=", 1) for pair in worker.fields.get("labels", "").split("\n") if "=" in pair)
    return Capabilities(int(worker.number("num_gpus")) // slots, labels)


def live_pool(workers: Iterable[WorkerView], lease_ttl_ms: int) -> Pool:
    """Of the registry: who lives and takes tasks."""
    return Pool(
        {
            worker.worker_id: capabilities_of(worker)
            for worker in workers
            if worker.fields.get("mode", "active") == "active"
            and worker_status(
                seen_ms_ago=worker.seen_ms_ago, left=worker.fields.get("left") == "1", lease_ttl_ms=lease_ttl_ms
            )
            == "live"
        }
    )


def servable_classes(classes: Mapping[str, Requirements], capabilities: Capabilities) -> tuple[str, ...]:
    """The requirement classes that this worker can serve, the most demanding first.

    Between equally deserving searches the order decides, and a worker that meets rare requirements should rather be
    given the tasks that others can't run.
    """
    fitting = [name for name, requirements in classes.items() if capabilities.meets(requirements)]
    fitting.sort(key=lambda name: (-classes[name].gpus, -len(classes[name].labels), name))
    return tuple(fitting)
