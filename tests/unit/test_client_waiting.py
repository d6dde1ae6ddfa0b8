"""Waiting for tasks: results, as_completed, futures, whole searches; over restarts and trimmed events, no polling."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from scripted_service import Book, ScriptedMaster

from tenure.client import Client, Search, SearchStatus, TaskFailed, TaskHandle, TaskState
from tenure.common.errors import CursorExpired, TenureError, UnknownSearch, UnknownTask
from tenure.proto import tenure_pb2

GRAPH = {"nodes": [{"id": "a", "operation": "dense", "params": {"units": 10}}], "edges": []}


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def master(book: Book) -> Iterator[ScriptedMaster]:
    master = ScriptedMaster(book)
    yield master
    master.stop()


@pytest.fixture
def client(master: ScriptedMaster) -> Iterator[Client]:
    with Client(master.address, timeout_seconds=60) as client:
        yield client


@pytest.fixture
def search(client: Client) -> Search:
    return client.search("s")


def submit(search: Search, number: int) -> list[TaskHandle]:
    return search.submit_many({"architecture": GRAPH, "key": f"k{n}"} for n in range(number))


class TestResult:
    def test_comes_when_the_task_ends(self, book: Book, search: Search) -> None:
        (handle,) = submit(search, 1)
        assert not handle.done()
        ender = threading.Thread(target=lambda: (book.wait_for_calls("Watch", 1), book.end(handle.task_id)))
        ender.start()
        assert handle.result(timeout=30).metrics == {"fitness": 0.5}
        ender.join()
        assert handle.done()

    def test_of_a_task_that_ended_before_opens_no_watch(self, book: Book, search: Search) -> None:
        (handle,) = submit(search, 1)
        book.end(handle.task_id)
        assert handle.result().metrics == {"fitness": 0.5}
        assert handle.result().key == "k0"
        assert book.calls("Watch") == []
        assert len(book.calls("GetTasks")) == 1

    def test_of_a_failed_task_is_the_evidence(self, book: Book, search: Search) -> None:
        (handle,) = submit(search, 1)
        book.fail(handle.task_id)
        with pytest.raises(TaskFailed) as caught:
            handle.result()
        text = str(caught.value)
        for part in (handle.task_id, "3 of 3 attempts", "ValueError: bad loss", "exit signal 9", "| two"):
            assert part in text
        assert caught.value.task.attempt_records[0].worker_id == "w1"
        again = pickle.loads(pickle.dumps(caught.value))
        assert again.task == caught.value.task

    def test_of_a_cancelled_task(self, book: Book, search: Search) -> None:
        (handle,) = submit(search, 1)
        book.move(handle.task_id, tenure_pb2.CANCELLED, "cancel")
        with pytest.raises(TaskFailed, match="cancelled"):
            search.result(handle.task_id)

    def test_not_in_time(self, search: Search) -> None:
        (handle,) = submit(search, 1)
        with pytest.raises(TimeoutError):
            handle.result(timeout=0.2)

    def test_not_in_time_because_no_master_answers(self, master: ScriptedMaster, search: Search) -> None:
        (handle,) = submit(search, 1)
        master.stop()
        with pytest.raises(TimeoutError):
            handle.result(timeout=0.3)

    def test_of_an_unknown_task(self, search: Search) -> None:
        with pytest.raises(UnknownTask):
            search.result("0-none")


class TestAsCompleted:
    def test_gives_each_once_in_the_order_of_their_ends(self, book: Book, search: Search) -> None:
        handles = submit(search, 3)
        completed = search.as_completed(handles + handles, timeout=30)
        book.end(handles[2].task_id, fitness=0.9)
        assert next(completed) is handles[2]
        book.fail(handles[0].task_id)
        assert next(completed) is handles[0]
        book.end(handles[1].task_id)
        assert next(completed) is handles[1]
        assert list(completed) == []

    def test_asks_for_many_at_once_and_results_cost_no_call(self, book: Book, search: Search) -> None:
        handles = submit(search, 250)
        for handle in handles:
            book.end(handle.task_id)
        assert {handle.result().key for handle in search.as_completed(handles)} == {h.key for h in handles}
        assert len(book.calls("GetTasks")) == 3

    def test_does_not_poll_while_nothing_ends(self, book: Book, search: Search) -> None:
        handles = submit(search, 5)
        completed = search.as_completed(handles, timeout=30)
        book.end(handles[0].task_id)
        next(completed)
        before = len(book.requests)
        with pytest.raises(TimeoutError):
            list(search.as_completed(handles[1:], timeout=1.0))
        assert len(book.requests) - before <= 2

    def test_survives_a_restart_of_the_master(self, book: Book, master: ScriptedMaster, search: Search) -> None:
        handles = submit(search, 2)
        completed = search.as_completed(handles, timeout=60)
        book.end(handles[0].task_id)
        assert next(completed) is handles[0]
        master.stop()
        book.end(handles[1].task_id)  # nobody can be told
        second = ScriptedMaster(book, master.port)
        try:
            assert next(completed) is handles[1]
        finally:
            second.stop()
        resumed = [request.cursor for request in book.calls("Watch")]
        assert resumed[0] == ""
        assert all(resumed[1:])

    def test_goes_to_another_master(self, book: Book) -> None:
        first, second = ScriptedMaster(book), ScriptedMaster(book)
        try:
            with Client(f"{first.address},{second.address}", timeout_seconds=60) as client:
                search = client.search("s")
                handles = submit(search, 2)
                completed = search.as_completed(handles, timeout=60)
                book.end(handles[0].task_id)
                next(completed)
                first.stop()
                book.end(handles[1].task_id)
                assert next(completed) is handles[1]
        finally:
            second.stop()

    def test_looks_itself_when_events_were_trimmed_meanwhile(
        self, book: Book, master: ScriptedMaster, search: Search
    ) -> None:
        handles = submit(search, 3)
        completed = search.as_completed(handles, timeout=60)
        book.end(handles[0].task_id)
        next(completed)
        master.stop()
        book.end(handles[1].task_id)
        book.trim()
        second = ScriptedMaster(book, master.port)
        try:
            assert next(completed) is handles[1]
            book.end(handles[2].task_id)
            assert next(completed) is handles[2]
        finally:
            second.stop()

    def test_a_task_that_was_forgotten_does_not_block(self, book: Book, search: Search) -> None:
        handles = [*submit(search, 1), search.handle("0-gone")]
        book.end(handles[0].task_id)
        completed = list(search.as_completed(handles, timeout=30))
        assert completed == handles
        with pytest.raises(UnknownTask):
            completed[1].result()

    def test_without_handles_gives_the_whole_search(self, book: Book, search: Search) -> None:
        handles = submit(search, 3)
        book.end(handles[0].task_id)
        completed = search.as_completed(timeout=30)
        assert next(completed).key == "k0"
        book.end(handles[2].task_id)
        assert next(completed).key == "k2"
        late = search.submit(GRAPH, key="late")
        book.end(handles[1].task_id)
        assert next(completed).key == "k1"
        book.end(late.task_id)
        assert [handle.key for handle in completed] == ["late"]

    def test_the_whole_search_is_listed_again_when_events_were_trimmed(
        self, book: Book, master: ScriptedMaster, search: Search
    ) -> None:
        handles = submit(search, 3)
        book.end(handles[0].task_id)
        completed = search.as_completed(timeout=60)
        next(completed)
        master.stop()
        book.end(handles[1].task_id)
        book.end(handles[2].task_id)
        book.trim()
        second = ScriptedMaster(book, master.port)
        try:
            assert {handle.key for handle in completed} == {"k1", "k2"}
        finally:
            second.stop()

    def test_of_nothing_is_over_at_once(self, book: Book, search: Search) -> None:
        assert list(search.as_completed([])) == []
        assert book.calls("Watch") == []

    def test_many_threads_share_one_watch(self, book: Book, search: Search) -> None:
        handles = submit(search, 20)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            waits = [pool.submit(handle.result, 60) for handle in handles]
            book.wait_for_calls("GetTasks", 40)
            for handle in handles:
                book.end(handle.task_id)
            assert len([wait.result() for wait in waits]) == 20
        assert len(book.calls("Watch")) == 1

    def test_closing_the_client_ends_the_wait(self, book: Book, client: Client, search: Search) -> None:
        handles = submit(search, 1)
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                list(search.as_completed(handles))
            except TenureError as error:
                errors.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        book.wait_for_calls("GetTasks", 1)
        client.close()
        waiter.join(timeout=30)
        assert not waiter.is_alive()
        assert "closed" in str(errors[0])


class TestFutures:
    def test_resolve_as_tasks_end(self, book: Book, search: Search) -> None:
        handles = submit(search, 3)
        book.end(handles[0].task_id)
        futures = search.futures(handles)
        done, _ = concurrent.futures.wait(futures, 30, concurrent.futures.FIRST_COMPLETED)
        assert done == {futures[0]}
        book.end(handles[1].task_id, fitness=0.7)
        assert futures[1].result(30).metrics == {"fitness": 0.7}
        book.fail(handles[2].task_id)
        with pytest.raises(TaskFailed, match="bad loss"):
            futures[2].result(30)

    def test_can_be_awaited(self, book: Book, search: Search) -> None:
        (handle,) = submit(search, 1)
        book.end(handle.task_id)

        async def main() -> float:
            result = await asyncio.wrap_future(handle.future())
            return result.metrics["fitness"]

        assert asyncio.run(main()) == 0.5

    def test_of_forgotten_tasks_and_closed_clients_raise(self, client: Client, search: Search) -> None:
        (handle,) = submit(search, 1)
        gone = search.handle("0-gone").future()
        with pytest.raises(UnknownTask):
            gone.result(30)
        future = handle.future()
        client.close()
        with pytest.raises(TenureError, match="closed"):
            future.result(30)


class TestSearchWait:
    def test_returns_when_nothing_is_open(self, book: Book, search: Search) -> None:
        handles = submit(search, 2)
        seen: list[int] = []

        def progress(status: SearchStatus) -> None:
            seen.append(status.open)
            if status.open:
                book.end(handles[2 - status.open].task_id)

        status = search.wait(timeout=30, progress=progress)
        assert status.tasks[TaskState.SUCCEEDED] == status.total == 2
        assert seen == [2, 1, 0]

    def test_not_in_time(self, search: Search) -> None:
        submit(search, 1)
        with pytest.raises(TimeoutError, match="1 tasks had not ended"):
            search.wait(timeout=1.0)

    def test_of_an_unknown_search(self, search: Search) -> None:
        with pytest.raises(UnknownSearch):
            search.wait(timeout=30)


class TestWatch:
    def test_goes_on_from_a_cursor(self, book: Book, client: Client, search: Search) -> None:
        watch = client.watch("s")
        start = next(watch)
        assert start.events == ()
        submit(search, 1)
        batch = next(watch)
        assert [event.transition for event in batch.events] == ["submit"]
        watch.close()
        again = client.watch("s", start.cursor)
        next(again)
        assert next(again) == batch
        again.close()

    def test_an_expired_cursor_is_said(self, book: Book, client: Client, search: Search) -> None:
        submit(search, 3)
        book.trim()
        with pytest.raises(CursorExpired):
            next(client.watch("s", "0"))


def test_a_program_that_never_closes_its_client_ends_quietly(book: Book, master: ScriptedMaster) -> None:
    code = f"""
from tenure.client import Client
search = Client("{master.address}").search("s")
handle = search.submit({GRAPH!r}, key="k0")
try:
    handle.result(timeout=0.1)
except TimeoutError:
    print("over")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
