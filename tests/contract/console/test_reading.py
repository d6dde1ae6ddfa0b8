"""What the console reads is what the client API says, bounded, and safe to show."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from typing import Any

import pytest
from console_page import ConsolePage
from processes import eventually, start_master
from raw_peers import Broker, OpenSession, renewal_of
from store_server import StoreServer

from tenure.proto import tenure_pb2, worker_pb2

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\u2028"
PAGES = ("glance", "workers", "queues", "leases", "events", "dead")


async def shown(console: ConsolePage, path: str, wanted: Any, **query: Any) -> Any:
    """The page's JSON once ``wanted`` holds of it; answers are shared for a second."""

    async def look() -> Any:
        found = await asyncio.to_thread(console.read, path, **query)
        return [found] if wanted(found) else None

    return (await eventually(look, what=path))[0]


async def test_a_fresh_console_shows_every_page(console: ConsolePage) -> None:
    for page in PAGES:
        assert isinstance(console.read(f"/api/{page}"), dict), page


async def test_the_glance_names_the_master_and_counts_as_the_api_does(
    console: ConsolePage, broker: Broker, search: str
) -> None:
    await broker.submit(search, 3)
    stats = await broker.api.GetStats(tenure_pb2.StatsRequest())
    glance = await shown(console, "/api/glance", lambda it: it["tasks"]["QUEUED"] == stats.tasks["QUEUED"])
    assert (glance["master"]["master_id"], glance["master"]["durability"]) == (stats.master_id, "strict")
    assert str(glance["master"]["port"]) == broker.address.rpartition(":")[2]
    (mine,) = [one for one in glance["searches"] if one["name"] == search]
    assert mine["tasks"]["QUEUED"] == 3


async def test_a_search_has_its_curve_its_pace_and_its_results(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    ids = await broker.submit(search, 4)
    worker = await open_session(want=4)
    for task, fitness in zip(await worker.hear_tasks(4), (0.5, 0.3, 0.8, float("-inf")), strict=True):
        await worker.end(task, metrics={"fitness": fitness} if fitness > 0 else {"accuracy": 1.0})
    curve = await shown(console, "/api/curve", lambda it: it["count"] == 4, name=search)
    assert [point[1:] for point in curve["points"]] == [[1, 0.5], [2, 0.3], [3, 0.8], [4, None]]
    assert [step[1:3] for step in curve["steps"]] == [[1, 0.5], [3, 0.8]]
    assert {step[3] for step in curve["steps"]} <= set(ids)
    small = await shown(console, "/api/curves", lambda it: search in it, name=[search, "unheard of"])
    assert {name: one["count"] for name, one in small.items()} == {search: 4}
    found = await shown(console, "/api/search", lambda it: it["search"]["tasks"]["SUCCEEDED"] == 4, name=search)
    assert found["search"]["best_fitness"] == 0.8
    assert found["forecast"]["eta_ms"] is None
    assert found["forecast"]["why"] == "every task has ended"
    # However late one looks: it is counted until the last end.
    took = max(1000, int(found["search"]["last_ended_unix_ms"]) - int(found["search"]["created_unix_ms"]))
    assert found["forecast"]["window_ms"] == took
    assert found["forecast"]["per_hour"] == pytest.approx(4 * 3_600_000 / took)
    results = await shown(console, "/api/results", lambda it: len(it["tasks"]) == 4, name=search)
    assert sorted(task["task_id"] for task in results["tasks"]) == sorted(ids)


async def test_a_lease_is_shown_with_its_step_its_renewal_and_its_checkpoint(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    (task_id,) = await broker.submit(search)
    worker = await open_session(want=1)
    task = await worker.hear_task()
    await worker.register_checkpoint(task, "file:///c/1", step=7)
    await worker.heartbeat(renewal_of(task, sequence=1, step=9, total_steps=20))

    def mine(page: Any) -> Any:
        return [one for one in page["leases"] if one["task_id"] == task_id and one.get("progress")]

    (lease,) = mine(await shown(console, "/api/leases", mine))
    assert (lease["worker_id"], lease["search"], lease["epoch"]) == (worker.worker_id, search, 1)
    assert (lease["progress"]["step"], lease["progress"]["total_steps"]) == (9, 20)
    assert lease["checkpoint"]["step"] == 7
    assert lease["leased_unix_ms"] <= lease["checkpointed_unix_ms"] <= lease["leased_unix_ms"] + 600_000
    assert 0 < lease["lease_left_ms"] <= 30_000


async def test_the_queue_says_why_nothing_runs(console: ConsolePage, broker: Broker, search: str) -> None:
    await broker.submit(search, 2, requirements=tenure_pb2.Requirements(gpus=8))

    def mine(page: Any) -> Any:
        return [queue for queue in page["queues"] if queue["search"] == search]

    (queue,) = mine(await shown(console, "/api/queues", mine))
    assert (queue["tasks"], queue["requirements"]) == (2, "gpus=8")
    assert queue["why"]["code"] in ("no_workers", "no_fit")
    assert queue["why"]["stuck"] is True


async def test_workers_are_shown_with_slots_and_gpus(
    console: ConsolePage, search: str, open_session: OpenSession
) -> None:
    worker = await open_session(want=1, labels={"pool": "a100"}, num_gpus=1)
    gpu = worker_pb2.GpuFigures(gpu="0", model="A100", slots=[0], utilization=87.5, temperature_celsius=61)
    slot = worker_pb2.SlotFigures(slot=0, state="free", gpus=["0"])
    await worker.heartbeat(metrics=worker_pb2.WorkerMetrics(cpu_usage=12.5, gpus=[gpu], slots=[slot]))

    def mine(page: Any) -> Any:
        return [one for one in page["workers"] if one["worker_id"] == worker.worker_id and one.get("gpus")]

    (shown_worker,) = mine(await shown(console, "/api/workers", mine))
    assert (shown_worker["status"], shown_worker["mode"], shown_worker["labels"]) == (
        "live",
        "active",
        {"pool": "a100"},
    )
    assert shown_worker["gpus"][0]["utilization"] == 87.5
    assert shown_worker["slot_list"][0]["state"] == "free"


async def test_a_dead_letter_has_the_evidence_of_every_lease(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    (task_id,) = await broker.submit(search, max_losses=2)
    worker = await open_session(want=1)
    for epoch in (1, 2):
        task = await worker.hear_task()
        end = {"error_class": "Killed", "error_message": HOSTILE, "exit_signal": 9, "log_tail": f"line {epoch}"}
        await worker.end(task, worker_pb2.OUTCOME_LOSS, **end)
        await worker.want(1)
    dead = await shown(console, "/api/dead", lambda it: it["total"] == 1, name=search)
    assert dead["by_search"] == {search: 1}
    assert dead["tasks"][0]["failure"]["message"] == HOSTILE
    task = console.read("/api/task", id=task_id)["task"]
    assert [(one["epoch"], one["outcome"], one["exit_signal"], one["log_tail"]) for one in task["attempt_records"]] == [
        (1, "loss", 9, "line 1"),
        (2, "loss", 9, "line 2"),
    ]
    assert {one["worker_id"] for one in task["attempt_records"]} == {worker.worker_id}


async def test_the_output_of_an_ended_task_is_its_last_lines(
    console: ConsolePage, broker: Broker, search: str, open_session: OpenSession
) -> None:
    (task_id,) = await broker.submit(search)
    worker = await open_session(want=1)
    end = {"retryable": False, "error_class": "ValueError", "log_tail": "grün\n"}
    await worker.end(await worker.hear_task(), worker_pb2.OUTCOME_FAILURE, **end)
    items = console.read("/api/output", id=task_id)["items"]
    (output,) = [item["output"] for item in items if "output" in item]
    assert base64.b64decode(output["data"]).decode() == "grün\n"
    assert items[-1]["end"]["state"] == "FAILED"


async def test_tasks_come_in_pages(console: ConsolePage, broker: Broker, search: str) -> None:
    ids = await broker.submit(search, 60)
    first = console.read("/api/tasks", name=search)
    second = console.read("/api/tasks", name=search, cursor=first["cursor"])
    assert [task["task_id"] for task in first["tasks"] + second["tasks"]] == ids
    assert second["cursor"] == ""
    assert console.read("/api/tasks", name=search, state="FAILED")["tasks"] == []


async def test_events_come_newest_first(console: ConsolePage, broker: Broker, search: str) -> None:
    (task_id,) = await broker.submit(search)
    await broker.api.CancelTasks(tenure_pb2.TaskIds(task_ids=[task_id]))

    def mine(page: Any) -> Any:
        return len([one for one in page["events"] if one.get("task_id") == task_id]) == 2

    events = (await shown(console, "/api/events", mine))["events"]
    assert [(one["transition"], one["state"]) for one in events if one.get("task_id") == task_id] == [
        ("cancel", "CANCELLED"),
        ("submit", "QUEUED"),
    ]


async def test_a_long_architecture_is_cut_and_says_so(console: ConsolePage, broker: Broker, search: str) -> None:
    await broker.api.PutSearch(tenure_pb2.PutSearchRequest(name=search, architecture_format="json"))
    (task_id,) = await broker.submit(search, architecture=json.dumps({"text": "x" * 30_000}))
    task = console.read("/api/task", id=task_id)["task"]
    assert len(task["architecture"]) + task["architecture_left_out"] == 30_012
    assert len(task["architecture"]) == 20_000


async def test_bad_questions_get_typed_errors(console: ConsolePage, search: str) -> None:
    for path, query, status, code in [
        ("/api/search", {"name": "unheard of"}, 404, "UNKNOWN_SEARCH"),
        ("/api/search", {}, 400, "INVALID_INPUT"),
        ("/api/search", {"name": ["a", "b"]}, 400, "INVALID_INPUT"),
        ("/api/search", {"name": "x" * 200}, 400, "INVALID_INPUT"),
        ("/api/task", {"id": "0-unheardof"}, 404, "UNKNOWN_TASK"),
        ("/api/task", {"id": "a\nb"}, 400, "INVALID_INPUT"),
        ("/api/tasks", {"name": search, "state": "DONE"}, 400, "INVALID_INPUT"),
        ("/api/tasks", {"name": search, "cursor": "-1"}, 400, "INVALID_INPUT"),
        ("/api/output", {"id": "0-x", "epoch": "1e3"}, 400, "INVALID_INPUT"),
        ("/api/curves", {"name": ["s"] * 65}, 400, "INVALID_INPUT"),
        ("/api/dead", {"name": "unheard of"}, 404, "UNKNOWN_SEARCH"),
        ("/api/curve", {"name": "unheard of"}, 404, "UNKNOWN_SEARCH"),
    ]:
        answer = console.get(path, **query)
        assert (answer.status, answer.json["error"]["code"]) == (status, code), (path, query, answer)
        assert answer.json["error"]["text"]


async def test_with_several_masters_each_shows_the_same(
    store_server: StoreServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    masters = [
        start_master(tmp_path_factory.mktemp(name), store=store_server.url, data_dir=None, console="127.0.0.1:0")
        for name in ("a", "b")
    ]
    brokers = [Broker(master.address) for master in masters]
    try:
        pages = [ConsolePage(master.facts["console"]) for master in masters]
        await brokers[0].submit("shared", 3)
        await shown(pages[1], "/api/glance", lambda it: it["tasks"]["QUEUED"] == 3)
        assert pages[1].act(action="pause_search", search="shared").status == 200
        found = await shown(pages[0], "/api/search", lambda it: it["search"]["status"] == "paused", name="shared")
        assert found["forecast"]["why"] == "the search is paused"
        assert {page.read("/api/glance")["master"]["master_id"] for page in pages} == {
            master.master_id for master in masters
        }
    finally:
        for broker in brokers:
            await broker.close()
        for master in masters:
            master.remove()


async def test_without_its_store_a_master_says_so_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    master = start_master(tmp_path_factory.mktemp("storeless"), console="127.0.0.1:0")
    try:
        page = ConsolePage(master.facts["console"])
        page.read("/api/glance")
        # Held, not dead: nobody starts it again.
        os.kill(master.store_pid, signal.SIGSTOP)

        async def says_so() -> bool:
            answer = await asyncio.to_thread(page.get, "/api/events")
            return answer.status == 503 and "the store does not answer" in answer.json["error"]["text"]

        await eventually(says_so)
        assert page.get("/").status == 200
        os.kill(master.store_pid, signal.SIGCONT)
        await shown_again(page)
    finally:
        master.remove()


async def shown_again(page: ConsolePage) -> None:
    """Once the store is back, so is the page."""

    async def works() -> bool:
        return (await asyncio.to_thread(page.get, "/api/events")).status == 200

    await eventually(works)
