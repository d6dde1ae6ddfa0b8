"""What a support bundle holds of the broker and its store. Each part is asked for by itself, whatever else is dead."""

from __future__ import annotations

import itertools
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from safekeeping.servers import source
from tenure.client import Client
from tenure.client.cli.output import plain
from tenure.common.states import TaskState

_SCRAPE_BYTES_MAX = 32 << 20
# What a dead letter's evaluation printed last, of each lease.
_OUTPUT_CHARACTERS_MAX = 4000
_SLOW_CALLS = 128
# Looked at in each search, to find the last ones.
_DEAD_LETTERS_MAX = 10_000
# Payloads are of no use for a diagnosis, and are somebody's work.
_LEFT_OUT = ("architecture", "config")


def page(address: str, path: str, seconds: float) -> str:
    """A page of a process's HTTP endpoint, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=seconds) as answer:
            body: bytes = answer.read(_SCRAPE_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            body = f"status {error.code}\n".encode() + error.read(_SCRAPE_BYTES_MAX)
    return body.decode("utf-8", "replace")


class Broker:
    """A master, asked with patience for a few seconds; once it has not answered it is asked no more."""

    def __init__(self, masters: str, seconds: float) -> None:
        self._masters = masters
        self._seconds = seconds
        self._dead: str = ""

    def ask(self, what: str, *arguments: Any) -> str:
        """The answer of one of the methods below, as JSON."""
        if self._dead:
            raise ConnectionError(self._dead)
        with Client(self._masters, timeout_seconds=self._seconds) as client:
            try:
                found = getattr(self, f"_{what}")(client, *arguments)
            except Exception as error:
                if what == "stats":
                    self._dead = f"no master answers: {error}"
                raise
        return json.dumps(plain(found), indent=1, ensure_ascii=False, default=str) + "\n"

    @staticmethod
    def _stats(client: Client) -> Any:
        return client.stats()

    @staticmethod
    def _searches(client: Client) -> Any:
        return client.searches()

    @staticmethod
    def _workers(client: Client) -> Any:
        return client.workers(include_gone=True)

    @staticmethod
    def _fsck(client: Client) -> Any:
        return client.fsck()

    @staticmethod
    def _leased(client: Client, most: int) -> Any:
        records = (record for search in client.searches() for record in client.tasks(search.name, [TaskState.LEASED]))
        return [_slim(record) for record in itertools.islice(records, most)]

    @staticmethod
    def _dead_letters(client: Client, most: int) -> Any:
        """The last of each search, with the evidence of every lease."""
        found: dict[str, Any] = {}
        for search in client.searches():
            failed = list(itertools.islice(client.tasks(search.name, [TaskState.FAILED]), _DEAD_LETTERS_MAX))
            failed.sort(key=lambda record: record.ended_unix_ms, reverse=True)
            ids = [record.task_id for record in failed[:most]]
            records = client.get_tasks(ids, full=True)
            found[search.name] = {"looked_at": len(failed), "last": [_slim(records[each]) for each in ids]}
        return found


def _slim(record: Any) -> Any:
    facts: dict[str, Any] = plain(record)
    for name in _LEFT_OUT:
        facts.pop(name, None)
    for attempt in facts.get("attempt_records", ()):
        for name, value in attempt.items():
            if isinstance(value, str) and len(value) > _OUTPUT_CHARACTERS_MAX:
                attempt[name] = f"… {value[-_OUTPUT_CHARACTERS_MAX:]}"
    return facts


class StoreServers:
    """The store's servers, asked past the masters."""

    def __init__(self, store: str, data_dir: Path) -> None:
        self._store = store
        self._data_dir = data_dir

    def ask(self, what: str) -> str:
        """``info``, ``config``, ``slowlog``, ``memory``, ``latency`` or ``keys`` of each server, as JSON."""
        with source(self._store, self._data_dir) as found:
            answers = {server.place: _asked(server.client, what) for server in found.servers}
        return json.dumps(answers, indent=1, ensure_ascii=False, default=_text) + "\n"


def _asked(client: redis.Redis, what: str) -> Any:
    commands: dict[str, tuple[Any, ...]] = {
        "config": ("CONFIG GET", "*"),
        "slowlog": ("SLOWLOG GET", _SLOW_CALLS),
        "memory": ("MEMORY STATS",),
        "latency": ("LATENCY LATEST",),
        "replication": ("ROLE",),
    }
    try:
        if what == "info":
            return client.info("everything")
        answer: Any = client.execute_command(*commands[what])  # type: ignore[no-untyped-call]
    except RedisError as error:
        return f"refused: {error}"
    return [_call(entry) for entry in answer] if what == "slowlog" else answer


def _call(entry: Any) -> Any:
    """A slow call without its arguments but the first ones: those are tasks."""
    if isinstance(entry, dict):
        entry = {**entry, "command": _first_words(entry.get("command", b""))}
    return entry


def _first_words(command: Any) -> str:
    return re.sub(r"\s+", " ", _text(command))[:200]


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
