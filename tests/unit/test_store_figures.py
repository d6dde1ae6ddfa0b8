"""What the master exports of its store: labels are bounded, sums stay whole, and a scrape finds every series."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from tenure.common.registry import OTHER, KeptLabel
from tenure.common.spec import Requirements
from tenure.common.states import TaskState
from tenure.master.loops.figures import StoreFigures, requirements_text
from tenure.master.metrics import (
    CAUSE_LABELS_MAX,
    LABEL_BOUNDS,
    REQUIREMENT_LABELS_MAX,
    SAVING_CAUSES,
    SEARCH_LABELS_MAX,
    WASTE_CAUSES,
    WORKER_LABELS_MAX,
    MasterMetrics,
)
from tenure.master.store.compute import Compute
from tenure.master.store.looks import Queue
from tenure.master.store.records import ACCEPTS_CODE_LABEL, Overview, SearchView, WorkerView
from tenure.master.store.server_figures import ServerFigures


def search(name: str, created: int = 0, queued: int = 0, best: float | None = None, **compute: Any) -> SearchView:
    counts = dict.fromkeys(TaskState, 0) | {TaskState.QUEUED: queued}
    return SearchView(
        name, "active", 0, 1.0, 0, "graph", created, 0, counts, None, best, "", compute=Compute(**compute)
    )


def overview(*searches: SearchView, **counters: int) -> Overview:
    return Overview(0, 2, 1, 0, counters, list(searches))


def worker(name: str, seen_ms_ago: int = 0, **fields: str) -> WorkerView:
    return WorkerView(name, seen_ms_ago, {"slots": "4", "slots_busy": "1", "gpus_per_slot": "2", **fields})


class Exported:
    """A master's metrics, filled by hand."""

    def __init__(self) -> None:
        self.metrics = MasterMetrics()
        self.figures = StoreFigures(self.metrics, lease_ttl_ms=30_000)

    def searches(
        self,
        overviews: list[Overview],
        queues: list[Queue] | None = None,
        classes: Mapping[str, Requirements] | None = None,
    ) -> None:
        self.figures.show_searches(overviews, queues or [], classes or {})

    def read(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of a metric by their labels' values, in the order of its labels."""
        found = {}
        for family in self.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == name:
                    found[tuple(sample.labels.values())] = sample.value
        return found


@pytest.fixture
def exported() -> Exported:
    return Exported()


# ---- bounds --------------------------------------------------------------------------------------------------------


def test_searches_beyond_the_newest_are_shown_together(exported: Exported) -> None:
    many = [
        search(f"s{number:04}", created=number, queued=1, best=number / 10, useful_ms=1000, wasted_ms={"loss": 500})
        for number in range(SEARCH_LABELS_MAX + 800)
    ]
    exported.searches([overview(*many[::2]), overview(*many[1::2])])
    tasks = exported.read("tenure_tasks")
    names = {name for name, _ in tasks}
    assert len(names) == SEARCH_LABELS_MAX + 1
    # The oldest gave way.
    assert (OTHER in names, "s0000" in names, "s0999" in names) == (True, False, True)
    assert sum(value for (_, state), value in tasks.items() if state == "QUEUED") == 1000
    assert tasks[OTHER, "QUEUED"] == 800
    assert exported.read("tenure_best_fitness")[(OTHER,)] == 79.9
    useful = exported.read("tenure_compute_useful_seconds_total")
    assert (len(useful), useful[(OTHER,)], sum(useful.values())) == (SEARCH_LABELS_MAX + 1, 800, 1000)
    assert exported.read("tenure_compute_wasted_seconds_total")[OTHER, "loss"] == 400


def test_requirements_beyond_the_bound_are_shown_together(exported: Exported) -> None:
    classes = {f"c{number}": Requirements(0, {f"label{number:04}": ""}) for number in range(1000)}
    queues = [Queue("s", name, 2, 1000 * number) for number, name in enumerate(classes)]
    exported.searches([overview(search("s"))], queues, classes)
    depth = exported.read("tenure_queue_depth")
    assert len(depth) == REQUIREMENT_LABELS_MAX + 1
    assert sum(depth.values()) == 2000
    assert depth["s", "any"] == 0
    # One of the 100 is `any`.
    assert depth["s", OTHER] == 2 * (1000 - (REQUIREMENT_LABELS_MAX - 1))
    assert exported.read("tenure_queue_oldest_seconds")["s", OTHER] == 999
    # A flood that is over leaves room for others.
    exported.searches([overview(search("t"))], [Queue("t", "c999", 1, 0)], classes)
    assert exported.read("tenure_queue_depth") == {("t", "any"): 0, ("t", "labels=label0999"): 1}


def test_labels_of_workers_beyond_the_bound_are_shown_together(exported: Exported) -> None:
    exported.figures.show_workers([worker(f"w{n}", labels=f"rack={n:04}\nzone=a") for n in range(1000)])
    slots = exported.read("tenure_label_slots")
    assert len(slots) == 2 * (WORKER_LABELS_MAX + 1)
    assert slots["rack=0000", "free"] == 3
    assert sum(slots.values()) == 2 * 4 * 1000
    assert sum(exported.read("tenure_label_gpus").values()) == 2 * 8 * 1000
    assert exported.read("tenure_slots") == {("busy",): 1000, ("free",): 3000}


def test_error_classes_beyond_the_bound_are_shown_together(exported: Exported) -> None:
    values = {exported.metrics.causes.value(f"Error{number}") for number in range(1000)}
    assert len(values) == CAUSE_LABELS_MAX + 1
    assert exported.metrics.causes.value("Error0") == "Error0"
    assert exported.metrics.causes.value("Error999") == OTHER


def test_searches_of_this_master_s_own_figures_are_bounded_and_give_way(exported: Exported) -> None:
    exported.searches([overview()])
    for number in range(1000):
        exported.metrics.observe_start(f"s{number}", 1.0)
    counts = exported.read("tenure_schedule_to_start_seconds_count")
    assert (len(counts), counts[(OTHER,)]) == (SEARCH_LABELS_MAX + 1, 1000 - SEARCH_LABELS_MAX)
    for _ in range(2):
        exported.searches([overview(search("s999", created=5), search("s1", created=1))])
    assert set(exported.read("tenure_schedule_to_start_seconds_count")) == {("s1",), (OTHER,)}
    exported.metrics.observe_start("s999", 1.0)
    assert exported.read("tenure_schedule_to_start_seconds_count")[("s999",)] == 1


def test_no_start_is_lost_when_there_are_more_searches_than_labels(exported: Exported) -> None:
    """The newest have their labels, whether their tasks start first or last; starts of old ones are with the others."""
    many = [search(f"s{number:04}", created=number) for number in range(SEARCH_LABELS_MAX + 30)]
    old, new = many[:30], many[30:]
    # A master that has just begun, of which workers take tasks at once.
    exported.metrics.observe_start("s0000", 1.0)
    for _ in range(3):
        exported.searches([overview(*many)])
        for each in [*old, *new[:100]]:
            exported.metrics.observe_start(each.name, 1.0)
    exported.searches([overview(*many)])
    counts = exported.read("tenure_schedule_to_start_seconds_count")
    assert counts == {(OTHER,): 3 * 30 + 1} | {(each.name,): 3 for each in new[:100]}


def test_the_starts_of_a_new_search_are_its_own_before_a_sweep_has_seen_it(exported: Exported) -> None:
    others = [search(f"s{number}", created=1) for number in range(5)]
    exported.searches([overview(*others)])
    exported.metrics.observe_start("new", 1.0)
    # This one was under way when it began.
    exported.searches([overview(*others)])
    exported.searches([overview(*others, search("new", created=2))])
    assert exported.read("tenure_schedule_to_start_seconds_count") == {("new",): 1}


def test_causes_of_a_newer_version_make_no_series(exported: Exported) -> None:
    exported.searches([overview(search("s", saved_ms={"magic": 7, "late": 2000}, wasted_ms={"magic": 7}))])
    saved = exported.read("tenure_compute_saved_seconds_total")
    assert set(saved) == {("s", cause) for cause in SAVING_CAUSES}
    assert saved["s", "late"] == 2
    assert set(exported.read("tenure_compute_wasted_seconds_total")) == {("s", cause) for cause in WASTE_CAUSES}


def test_every_label_has_its_bound_and_every_metric_its_way_to_be_joined() -> None:
    metrics = MasterMetrics()
    made = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    used = {label for each in made for label in each._labelnames}
    build = {"version", "python", "grpc", "protobuf"}
    assert set(LABEL_BOUNDS) == used | build
    names = {family.name for family in metrics.registry.collect() if family.name.startswith("tenure_")}
    assert names == set(metrics.join)


def test_what_has_few_labels_is_there_before_the_first(exported: Exported) -> None:
    assert exported.read("tenure_leases_expired_total") == {("silent",): 0, ("disconnected",): 0}
    assert exported.read("tenure_outcomes_total")["success", "", "accepted"] == 0
    assert exported.read("tenure_run_seconds_count")[("loss",)] == 0


def test_a_label_gives_up_only_what_is_not_to_be_kept() -> None:
    label = KeptLabel(2)
    assert label.value("a") == OTHER
    assert label.keep(()) == set()
    assert [label.value(text) for text in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
    # What was read before it began may not name it: it has until the next time.
    assert label.keep({"b", "c"}) == set()
    # Nor does it get anything that would be lost then.
    assert [label.value(text) for text in ("a", "c", "b")] == [OTHER, OTHER, "b"]
    assert label.keep({"b", "c"}) == {"a"}
    assert [label.value(text) for text in ("c", "b", "a")] == ["c", "b", OTHER]


# ---- what is shown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        (Requirements(), "any"),
        (Requirements(2, {}, 16 << 30), "gpus=2,memory=16GiB"),
        (Requirements(1, {"zone": "b", "arch": "a100", "fast": ""}), "gpus=1,labels=arch:a100+fast+zone:b"),
        (Requirements(0, {}, 512 << 20), "memory=512MiB"),
        (Requirements(0, {ACCEPTS_CODE_LABEL: "1"}), "code"),
        (Requirements(0, {ACCEPTS_CODE_LABEL: "1", "a": "b"}), "labels=a:b,code"),
    ],
)
def test_requirements_as_text(requirements: Requirements, text: str) -> None:
    assert requirements_text(requirements) == text


def test_a_queue_that_is_empty_again_is_shown_so_until_its_search_is_gone(exported: Exported) -> None:
    classes = {"c": Requirements(1)}
    exported.searches([overview(search("s"))], [Queue("s", "c", 3, 5000), Queue("unknown", "c", 1, 0)], classes)
    assert exported.read("tenure_queue_depth") == {("s", "any"): 0, ("s", "gpus=1"): 3}
    assert exported.read("tenure_queue_oldest_seconds")["s", "gpus=1"] == 5
    exported.searches([overview(search("s"))], [], classes)
    assert exported.read("tenure_queue_depth") == {("s", "any"): 0, ("s", "gpus=1"): 0}
    exported.searches([overview()])
    assert exported.read("tenure_queue_depth") == {}
    assert exported.read("tenure_tasks") == {}


def test_workers_that_don_t_live_have_no_slots(exported: Exported) -> None:
    exported.figures.show_workers(
        [
            worker("a", mode="cordoned", slots_cordoned="3", slots_busy="2"),
            worker("b", seen_ms_ago=40_000, labels="x="),
            worker("c", left="1"),
        ]
    )
    # What runs on a slot that is cordoned meanwhile is no free slot.
    assert exported.read("tenure_slots") == {("busy",): 1, ("free",): 0}
    assert exported.read("tenure_gpus") == {("busy",): 2, ("free",): 0}
    assert exported.read("tenure_label_slots") == {}
    assert sum(exported.read("tenure_workers").values()) == 3


def test_counters_of_all_shards_are_summed(exported: Exported) -> None:
    exported.searches([overview(duplicates=2), overview(duplicates=3, released=1)])
    assert exported.read("tenure_store_counter") == {("duplicates",): 5, ("released",): 1}
    assert exported.read("tenure_leases_live") == {(): 4}


def test_a_scrape_between_two_rounds_finds_every_series(exported: Exported) -> None:
    """Cleared and filled again, a counter would have been reset."""
    rounds = [overview(*(search(f"s{n}", useful_ms=1000 * (turn + 1)) for n in range(50))) for turn in range(40)]
    exported.searches([rounds[0]])
    seen: list[int] = []
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            seen.append(len(exported.read("tenure_compute_useful_seconds_total")))

    thread = threading.Thread(target=scrape)
    thread.start()
    for each in rounds:
        exported.searches([each])
    done.set()
    thread.join()
    assert set(seen) == {50}


# ---- the store's server --------------------------------------------------------------------------------------------

INFO = {
    "used_memory": 50,
    "maxmemory": 100,
    "aof_last_write_status": "ok",
    "aof_current_size": 10,
    "aof_base_size": 5,
    "aof_rewrite_in_progress": 0,
    "aof_last_bgrewrite_status": "ok",
    "aof_delayed_fsync": 3,
    "aof_pending_bio_fsync": 1,
    "latest_fork_usec": 2500,
    "connected_clients": 7,
    "connected_slaves": 2,
    "server_name": "valkey",
    "valkey_version": "9.1.0",
    "redis_version": "7.2.4",
}


def test_the_nodes_of_a_cluster_are_shown_as_the_worst_or_the_sum(exported: Exported) -> None:
    other = {
        **INFO,
        "used_memory": 90,
        "aof_last_write_status": "err",
        "aof_rewrite_in_progress": 1,
        "aof_last_bgrewrite_status": "err",
        "latest_fork_usec": 500_000,
        "connected_slaves": 0,
    }
    exported.figures.show_server(ServerFigures.together([ServerFigures.of(INFO), ServerFigures.of(other)]), "strict")
    assert {name: exported.read(f"tenure_store_{name}")[()] for name in ("aof_ok", "clients", "replicas")} == {
        "aof_ok": 0,
        "clients": 14,
        "replicas": 0,
    }
    assert exported.read("tenure_store_memory_bytes") == {("used",): 90, ("max",): 100}
    assert exported.read("tenure_store_aof_bytes") == {("current",): 20, ("base",): 10}
    assert exported.read("tenure_store_aof_rewrite_in_progress") == {(): 1}
    assert exported.read("tenure_store_aof_rewrite_failed") == {(): 1}
    assert exported.read("tenure_store_fsync_delayed_total") == {(): 6}
    assert exported.read("tenure_store_fsync_pending") == {(): 2}
    assert exported.read("tenure_store_fork_seconds") == {(): 0.5}
    assert exported.read("tenure_store_info") == {("valkey", "9.1.0", "strict"): 1}


def test_a_server_that_tells_little_counts_as_healthy(exported: Exported) -> None:
    figures = ServerFigures.of({"redis_version": "7.0.1"})
    assert (figures.server, figures.version, figures.aof_healthy, figures.rewrite_failed) == (
        "redis",
        "7.0.1",
        True,
        False,
    )
    assert (figures.aof_bytes, figures.fork_seconds, figures.max_bytes) == (0, 0.0, 0)
