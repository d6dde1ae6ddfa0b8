"""Why tasks wait, in words."""

from __future__ import annotations

import pytest

from tenure.common.spec import Requirements
from tenure.common.states import TaskState
from tenure.master.console.waiting import Candidate, why_waiting
from tenure.master.core.matching import Capabilities
from tenure.master.store.records import ACCEPTS_CODE_LABEL, SearchView

GIB = 2**30


def search(status: str = "active", max_leased: int = 0, leased: int = 0) -> SearchView:
    counts = dict.fromkeys(TaskState, 0) | {TaskState.LEASED: leased, TaskState.QUEUED: 5}
    return SearchView("s", status, 0, 1.0, max_leased, "graph", 1, 0, counts, 0, None, "")


def worker(
    gpus: int = 0,
    labels: dict[str, str] | None = None,
    memory_bytes: int = 0,
    *,
    accepts_code: bool = False,
    live: bool = True,
    mode: str = "active",
    slots: int = 2,
    leases: int = 0,
) -> Candidate:
    capabilities = Capabilities(gpus, labels or {}, accepts_code, memory_bytes)
    return Candidate("w", capabilities, live, mode, slots, leases)


@pytest.mark.parametrize("status", ["paused", "cancelled"])
def test_a_search_that_is_not_served_says_so_before_anything_else(status: str) -> None:
    why = why_waiting(search(status), Requirements(), [])
    assert (why.code, why.stuck) == (status, True)
    assert "resume" in why.text


def test_a_cap_is_named_with_its_numbers() -> None:
    why = why_waiting(search(max_leased=3, leased=3), Requirements(), [worker()])
    assert (why.code, why.stuck) == ("capped", False)
    assert "3 of 3" in why.text


@pytest.mark.parametrize("workers", [[], [worker(live=False)]])
def test_without_a_live_worker_a_newcomer_is_told_how_to_start_one(workers: list[Candidate]) -> None:
    why = why_waiting(search(), Requirements(), workers)
    assert (why.code, why.stuck) == ("no_workers", True)
    assert "tenure worker" in why.text


@pytest.mark.parametrize(
    ("requirements", "workers", "lacking"),
    [
        (Requirements(gpus=4), [worker(gpus=2)], "more than 2 GPUs"),
        (Requirements(gpus=1), [worker()], "no slot has a GPU"),
        (Requirements(memory_bytes=80 * GIB), [worker(memory_bytes=24 * GIB)], "more than 24 GiB of memory"),
        (Requirements(labels={"pool": "h100"}), [worker(labels={"pool": "a100"})], "the label pool=h100"),
        (Requirements(labels={ACCEPTS_CODE_LABEL: "1"}), [worker()], "--accept-code"),
        (Requirements(gpus=2, labels={"a": "b"}), [worker(gpus=2), worker(labels={"a": "b"})], "none has all"),
    ],
)
def test_what_no_worker_has_is_named(requirements: Requirements, workers: list[Candidate], lacking: str) -> None:
    why = why_waiting(search(), requirements, workers)
    assert (why.code, why.stuck) == ("no_fit", True)
    assert lacking in why.text


def test_workers_that_could_but_are_cordoned_are_counted() -> None:
    workers = [worker(mode="cordoned"), worker(mode="draining"), worker(live=False)]
    why = why_waiting(search(), Requirements(), workers)
    assert (why.code, why.stuck) == ("cordoned", True)
    assert "2 workers" in why.text
    assert "cordoned or draining" in why.text


def test_only_slots_that_fit_count_as_free_or_busy() -> None:
    fitting, other = worker(gpus=1, slots=2, leases=2), worker(slots=9)
    busy = why_waiting(search(), Requirements(gpus=1), [fitting, other])
    assert (busy.code, busy.stuck) == ("busy", False)
    assert "2 slots of 1 worker" in busy.text
    soon = why_waiting(search(), Requirements(), [fitting, other])
    assert (soon.code, soon.stuck) == ("soon", False)
    assert "9 fitting slots" in soon.text
