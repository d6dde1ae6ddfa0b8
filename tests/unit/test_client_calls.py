"""What every call of the client does when masters are away, slow, wrong or closed; and what it refuses itself."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import grpc
import pytest
from scripted_service import Book, ScriptedMaster

from tenure.client import Client
from tenure.common.errors import (
    BatchTooLarge,
    InvalidArchitecture,
    InvalidConfig,
    InvalidInput,
    InvalidSetting,
    MasterUnavailable,
    NotFound,
    Overloaded,
    StoreUnavailable,
    TenureError,
    UnknownTask,
    WrongState,
)

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
def silent_address() -> Iterator[str]:
    """Refuses connections: bound, so that nobody else gets the port, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


class TestImport:
    def test_the_package_imports_nothing_heavy(self) -> None:
        code = (
            "import sys; import tenure.client; "
            "print([m for m in ('grpc', 'pydantic', 'torch', 'optuna', 'rich', 'typer') if m in sys.modules])"
        )
        assert _python(code) == "[]"

    def test_the_client_needs_grpc_and_tenacity_only(self) -> None:
        code = (
            "import sys; from tenure.client import Client; "
            "print([m for m in ('pydantic', 'torch', 'optuna', 'rich', 'typer', 'structlog') if m in sys.modules])"
        )
        assert _python(code) == "[]"

    def test_every_export_is_there(self) -> None:
        import tenure.client

        for name in tenure.client.__all__:
            assert getattr(tenure.client, name) is not None

    def test_a_name_that_is_not_exported_is_an_attribute_error(self) -> None:
        import tenure.client

        with pytest.raises(AttributeError, match="nonsense"):
            _ = tenure.client.nonsense


class TestSettings:
    @pytest.mark.parametrize("text", ["", "localhost", "host:port", "a:1,,b:2", "a:70000"])
    def test_what_is_no_address_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidSetting) as caught:
            Client(text)
        assert caught.value.field == "master"

    def test_without_an_address_the_environment_decides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TENURE_MASTER", "a:1,b:2")
        with Client() as client:
            assert client.addresses == ("a:1", "b:2")
        monkeypatch.delenv("TENURE_MASTER")
        with Client() as client:
            assert client.addresses == ("127.0.0.1:50051",)

    def test_a_timeout_of_zero_and_an_unknown_compression_are_refused(self) -> None:
        with pytest.raises(InvalidSetting, match="above 0"):
            Client("a:1", timeout_seconds=0)
        with pytest.raises(InvalidSetting, match="compression"):
            Client("a:1", compression="zip")  # type: ignore[arg-type]


class TestRetries:
    def test_a_refused_connection_goes_to_the_next_address(self, master: ScriptedMaster, silent_address: str) -> None:
        with Client(f"{silent_address},{master.address}", timeout_seconds=60) as client:
            assert client.stats().master_id == master.address

    @pytest.mark.parametrize(
        "fault",
        [
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
            StoreUnavailable("the store is down"),
            Overloaded("too much"),
        ],
    )
    def test_a_passing_fault_is_tried_again_with_the_same_request(
        self, book: Book, master: ScriptedMaster, fault: TenureError | grpc.StatusCode
    ) -> None:
        book.faults["Submit"] = [fault, fault]
        with Client(master.address, timeout_seconds=30) as client:
            handle = client.search("s").submit(GRAPH)
        requests = book.calls("Submit")
        assert len(requests) == 3
        assert requests[0] == requests[1] == requests[2]
        assert handle.key.startswith("content:")

    def test_a_fault_that_stays_is_raised_at_the_deadline(self, book: Book, master: ScriptedMaster) -> None:
        book.faults["GetStats"] = [StoreUnavailable("the store is down")] * 1000
        # On a busy machine half a second may be over before the first answer.
        for seconds in (0.5, 5, 30):
            before = len(book.calls("GetStats"))
            with Client(master.address, timeout_seconds=seconds) as client, pytest.raises(TenureError) as caught:
                client.stats()
            if len(book.calls("GetStats")) > before + 1:
                break
        assert isinstance(caught.value, StoreUnavailable)
        assert re.search(r"the store is down, tried for \d", str(caught.value))
        assert len(book.calls("GetStats")) > before + 1

    def test_nobody_at_all_is_told_with_the_addresses_and_the_remedy(self, silent_address: str) -> None:
        with Client(silent_address, timeout_seconds=0.3) as client, pytest.raises(MasterUnavailable) as caught:
            client.stats()
        assert caught.value.given == silent_address
        assert "tenure master" in caught.value.expected

    def test_a_master_that_starts_late_is_found(self, book: Book) -> None:
        first = ScriptedMaster(book)
        first.stop()
        results: list[str] = []
        with Client(first.address, timeout_seconds=60) as client:
            caller = threading.Thread(target=lambda: results.append(client.stats().master_id))
            caller.start()
            second = ScriptedMaster(book, first.port)
            caller.join(timeout=60)
        second.stop()
        assert results == [first.address]

    def test_an_answer_is_not_retried(self, book: Book, master: ScriptedMaster) -> None:
        book.faults["GetStats"] = [WrongState("no")] * 2
        with Client(master.address) as client, pytest.raises(WrongState):
            client.stats()
        assert len(book.calls("GetStats")) == 1

    def test_closing_ends_a_call_that_waits(self, silent_address: str) -> None:
        client = Client(silent_address, timeout_seconds=None)
        errors: list[TenureError] = []

        def call() -> None:
            try:
                client.stats()
            except TenureError as error:
                errors.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        client.close()
        caller.join(timeout=60)
        assert not caller.is_alive()
        assert "closed" in str(errors[0])
        with pytest.raises(TenureError, match="closed"):
            client.stats()


class TestErrors:
    def test_a_typed_error_arrives_as_it_was_sent(self, book: Book, master: ScriptedMaster) -> None:
        sent = BatchTooLarge("has 101 tasks", field="tasks", given=101, expected="at most 100")
        book.faults["GetStats"] = [sent]
        with Client(master.address) as client, pytest.raises(BatchTooLarge) as caught:
            client.stats()
        assert str(caught.value) == str(sent)

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
            (grpc.StatusCode.NOT_FOUND, NotFound),
            (grpc.StatusCode.FAILED_PRECONDITION, WrongState),
            (grpc.StatusCode.INTERNAL, TenureError),
        ],
    )
    def test_a_bare_status_becomes_the_nearest_error(
        self, book: Book, master: ScriptedMaster, status: grpc.StatusCode, error: type[TenureError]
    ) -> None:
        book.faults["GetStats"] = [status]
        with Client(master.address) as client, pytest.raises(error, match="as scripted"):
            client.stats()

    def test_a_master_without_the_call_is_named(self, master: ScriptedMaster) -> None:
        with Client(master.address) as client, pytest.raises(TenureError) as caught:
            client.workers()
        assert caught.value.field == "master"
        assert caught.value.given == master.address

    def test_an_unknown_task(self, master: ScriptedMaster) -> None:
        with Client(master.address) as client, pytest.raises(UnknownTask) as caught:
            client.task("0-nothing")
        assert caught.value.given == "0-nothing"


class TestSubmit:
    def test_the_same_content_is_the_same_task(self, master: ScriptedMaster) -> None:
        with Client(master.address) as client:
            search = client.search("s")
            first = search.submit(GRAPH, {"num_epochs": 2})
            second = search.submit({"edges": [], "nodes": GRAPH["nodes"]}, {"num_epochs": 2})
            other = search.submit(GRAPH, {"num_epochs": 3})
        assert (first.created, second.created, other.created) == (True, False, True)
        assert first.task_id == second.task_id != other.task_id

    def test_many_go_in_requests_of_a_hundred_and_are_read_no_further_ahead(
        self, book: Book, master: ScriptedMaster
    ) -> None:
        read_at_request: list[int] = []
        seen = 0

        def tasks() -> Iterator[dict[str, object]]:
            nonlocal seen
            for number in range(250):
                seen += 1
                yield {"architecture": GRAPH, "key": f"k{number}"}

        with Client(master.address) as client:
            handles = client.search("s").submit_many(tasks(), progress=lambda done: read_at_request.append(seen - done))
        assert [len(request.tasks) for request in book.calls("Submit")] == [100, 100, 50]
        assert [handle.key for handle in handles] == [f"k{number}" for number in range(250)]
        assert max(read_at_request) <= 1

    def test_heavy_architectures_go_in_smaller_requests(self, book: Book, master: ScriptedMaster) -> None:
        text = '{"nodes": [{"id": "a", "operation": "dense"}], "metadata": {"pad": "' + "x" * 5_000_000 + '"}}'
        with Client(master.address, compression="gzip") as client:
            client.search("s").submit_many({"architecture": text, "key": str(n)} for n in range(7))
        assert [len(request.tasks) for request in book.calls("Submit")] == [3, 3, 1]

    @pytest.mark.parametrize(
        ("task", "error", "field"),
        [
            ({"architecture": "{"}, InvalidArchitecture, "tasks[1].architecture"),
            ({"architecture": {1, 2}}, InvalidArchitecture, "tasks[1].architecture"),
            ({"architecture": GRAPH, "config": {"num_epochs": -1}}, InvalidConfig, "tasks[1].config.num_epochs"),
            (
                {"architecture": GRAPH, "config": {"learning_rate": float("nan")}},
                InvalidConfig,
                "tasks[1].config.learning_rate",
            ),
            ({"architecture": GRAPH, "config": {"dataset": "imagenet"}}, InvalidConfig, "tasks[1].config.dataset"),
            ({"architecture": GRAPH, "config": {"epochs": 3}}, InvalidConfig, "tasks[1].config.epochs"),
            ({"architecture": GRAPH, "config": 3}, InvalidConfig, "tasks[1].config"),
            ({"architecture": GRAPH, "config": {"extra": {"a": 1}}}, InvalidConfig, "tasks[1].config.extra.a"),
            ({"architecture": GRAPH, "priority": 101}, InvalidInput, "tasks[1].priority"),
            ({"architecture": GRAPH, "max_attempts": 0}, InvalidInput, "tasks[1].max_attempts"),
            ({"architecture": GRAPH, "timeout_seconds": -1}, InvalidInput, "tasks[1].timeout_seconds"),
            ({"architecture": GRAPH, "key": "k" * 10_240}, InvalidInput, "tasks[1].key"),
            ({"architecture": GRAPH, "colour": "red"}, InvalidInput, "tasks[1].colour"),
            (
                {"architecture": GRAPH, "requirements": {"gpus": -1}},
                InvalidInput,
                "tasks[1].requirements.gpus",
            ),
            ({"config": {}}, InvalidArchitecture, "tasks[1].architecture"),
        ],
    )
    def test_what_can_not_be_right_is_refused_before_anything_is_sent(
        self,
        book: Book,
        master: ScriptedMaster,
        task: dict[str, object],
        error: type[InvalidInput],
        field: str,
    ) -> None:
        with Client(master.address) as client, pytest.raises(error) as caught:
            client.search("s").submit_many([{"architecture": GRAPH}, task])
        assert caught.value.field == field
        assert book.calls("Submit") == []

    @pytest.mark.parametrize("name", ["", "x" * 10_240, "a\nb", " a"])
    def test_a_search_name_that_can_not_be_right_is_refused(self, name: str) -> None:
        with Client("127.0.0.1:1") as client, pytest.raises(InvalidInput) as caught:
            client.search(name)
        assert caught.value.field == "search"

    def test_a_search_of_format_json_takes_any_json(self, book: Book, master: ScriptedMaster) -> None:
        with Client(master.address) as client:
            client.search("mine", architecture_format="json").submit([1, 2, 3], {"dataset": "whatever"})
        with Client(master.address) as client:  # another program: the format is asked for
            client.search("mine").submit({"layers": 3})
        assert len(book.calls("Submit")) == 2

    def test_durations_become_milliseconds_rounded_up(self, book: Book, master: ScriptedMaster) -> None:
        with Client(master.address) as client:
            client.search("s").submit(GRAPH, timeout_seconds=1.1, progress_deadline_seconds=0.0001, delay_seconds=5)
        spec = book.calls("Submit")[0].tasks[0]
        assert (spec.timeout_ms, spec.progress_deadline_ms, spec.delay_ms) == (1100, 1, 5000)


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
