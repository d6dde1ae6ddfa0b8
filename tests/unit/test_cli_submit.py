"""``tasks submit`` when the master goes away in the middle, and when a file changes between its two readings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from scripted_service import Book, ScriptedMaster

from tenure.client import Client
from tenure.client.cli.submission import submit_file
from tenure.client.search import Search
from tenure.common.errors import InvalidInput, StoreUnavailable

LINE = json.dumps({"architecture": {"nodes": [{"id": "a", "operation": "dense"}]}}) + "\n"


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def master(book: Book) -> Iterator[ScriptedMaster]:
    master = ScriptedMaster(book)
    yield master
    master.stop()


def test_what_was_submitted_is_told_and_the_same_command_goes_on(
    book: Book,
    master: ScriptedMaster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tenure = CommandLine(master.address, capsys, monkeypatch)
    file = tmp_path / "tasks.jsonl"
    file.write_text(LINE * 250)
    # The first request is taken, every try of the second is refused.
    book.faults["Submit"] = [None, *[StoreUnavailable("the store is down")] * 1000]
    said = tenure("tasks", "submit", "--search", "s", str(file), "--timeout", "0.5")
    assert said.code == 3
    assert "100 of 250 tasks were submitted; run the same command again to go on" in said.err
    assert said.err.splitlines()[-1].startswith("error: the store is down")
    book.faults.clear()
    said = tenure("tasks", "submit", "--search", "s", str(file))
    assert said.out == "submitted 250 tasks to search s: 150 new, 100 already known\n"


def test_a_file_that_changes_meanwhile_is_refused(
    master: ScriptedMaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(LINE)
    many = Search.submit_many

    def submit_many_of_another_file(search: Search, *arguments: object, **named: object) -> object:
        file.write_text("nonsense\n")
        return many(search, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Search, "submit_many", submit_many_of_another_file)
    with Client(master.address) as client, pytest.raises(InvalidInput, match="changed while it was read"):
        submit_file(client.search("s"), str(file))
