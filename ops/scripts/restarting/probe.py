"""Clients like a user's, that call and watch all through a restart: how long they had to wait, and what went wrong.

Only calls that read, by default: the figures of the broker, ten times a second, and a watch that stays open. Nothing
is left behind of that. With writes, each client also submits a task again and again under the same key, to a search of
its own that is paused: one task in all, which no worker is given, and which is cancelled at the end.

There is a client for each master that comes first in a client's list of addresses, since that is whom it talks to
until it has to go to the next.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenure.client import Client
from tenure.common.addresses import parse_addresses
from tenure.common.errors import TenureError

SEARCH = "rolling-restart-probe"
_PAUSE_SECONDS = 0.1
_CLIENTS_MAX = 4
# How long a call that is under way at the end may still take before it counts as one that nobody answers.
_END_SECONDS = 60.0
_GRAPH = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}


@dataclass
class Seen:
    """What the clients saw.

    Attributes:
        clients: How many there were.
        calls: How many calls were answered.
        longest_seconds: The longest that one had to wait for its answer.
        longest_step: What was being done when that call was made.
        by_step: The longest of each step.
        usual_seconds: The median of all.
        errors: Calls and watches that ended in an error, a sentence each.
    """

    clients: int = 0
    calls: int = 0
    longest_seconds: float = 0.0
    longest_step: str = ""
    by_step: dict[str, float] = field(default_factory=dict)
    usual_seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


class Probe:
    """The clients; they run between :meth:`start` and :meth:`stop`.

    Args:
        addresses: The masters', as a client is given them.
        writes: Whether they submit, too.
        timeout_seconds: For how long a call is tried, as of any client.

    Attributes:
        step: What is being done now; set by whoever does it.
        erred: Set once a client has seen an error.
    """

    def __init__(self, addresses: str, *, writes: bool = False, timeout_seconds: float = 600.0) -> None:
        self.step = ""
        self.erred = threading.Event()
        self._writes = writes
        masters = [str(address) for address in parse_addresses(addresses, "master")]
        orders = [masters[first:] + masters[:first] for first in range(min(len(masters), _CLIENTS_MAX))]
        self._clients = [Client(",".join(order), timeout_seconds=timeout_seconds) for order in orders]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._waits: dict[str, list[float]] = defaultdict(list)
        self._under_way: dict[int, tuple[float, str]] = {}
        self._errors: list[str] = []
        self._callers: list[threading.Thread] = []

    def start(self) -> None:
        """Begin. Raises TenureError if the search for writes can't be made."""
        if self._writes:
            self._clients[0].search(SEARCH, weight=1.0).pause()
        for number, client in enumerate(self._clients):
            self._callers.append(self._run(self._call, number, client))
            self._run(self._watch, client)

    def stop(self, patience_seconds: float = _END_SECONDS) -> Seen:
        """End the clients, once the calls that are under way have been answered, and say what they saw."""
        self._stopping.set()
        deadline = time.monotonic() + patience_seconds
        for caller in self._callers:
            caller.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            for began, step in self._under_way.values():
                waited = time.monotonic() - began
                self._waits[step].append(waited)
                self._errors.append(f"a call made during {step} has no answer after {waited:.0f} s")
        if self._writes and not self._errors:
            self._clear_away()
        self._close()
        return self._summary()

    # ---- inside --------------------------------------------------------------------------------------------

    @staticmethod
    def _run(work: Callable[..., None], *arguments: Any) -> threading.Thread:
        # A daemon: a call that nobody answers must not keep the script from ending.
        thread = threading.Thread(target=work, args=arguments, daemon=True, name="probe")
        thread.start()
        return thread

    def _call(self, number: int, client: Client) -> None:
        calls: list[Callable[[], object]] = [client.stats]
        if self._writes:
            calls.append(lambda: _submit(client))
        while not self._stopping.is_set():
            for call in calls:
                self._timed(number, call)
            self._stopping.wait(_PAUSE_SECONDS)

    def _timed(self, number: int, call: Callable[[], object]) -> None:
        began, step = time.monotonic(), self.step
        with self._lock:
            self._under_way[number] = (began, step)
        try:
            call()
        except TenureError as error:
            self._note_error(f"a call made during {step}: {error}")
        with self._lock:
            self._under_way.pop(number, None)
            self._waits[step].append(time.monotonic() - began)

    def _watch(self, client: Client) -> None:
        try:
            for _ in client.watch():
                if self._stopping.is_set():
                    return
        except TenureError as error:
            self._note_error(f"a watch, during {self.step}: {error}")

    def _note_error(self, sentence: str) -> None:
        # That the clients are closed at the end is no error.
        if not self._stopping.is_set():
            with self._lock:
                self._errors.append(sentence)
            self.erred.set()

    def _clear_away(self) -> None:
        try:
            self._clients[0].cancel_tasks([_submit(self._clients[0])])
        except TenureError as error:
            self._errors.append(f"the probe's task in {SEARCH} could not be cancelled: {error}")

    def _close(self) -> None:
        for client in self._clients:
            client.close()

    def _summary(self) -> Seen:
        with self._lock:
            waits = {step: list(found) for step, found in self._waits.items() if found}
            errors = list(self._errors)
        everything = sorted(wait for found in waits.values() for wait in found)
        by_step = {step: max(found) for step, found in waits.items()}
        longest = max(by_step, key=lambda step: by_step[step], default="")
        return Seen(
            clients=len(self._clients),
            calls=len(everything),
            longest_seconds=by_step.get(longest, 0.0),
            longest_step=longest,
            by_step=by_step,
            usual_seconds=_median(everything),
            errors=errors,
        )


def _submit(client: Client) -> str:
    """The id of the one task of this key."""
    (handle,) = client.search(SEARCH).submit_many([{"architecture": _GRAPH, "config": {}, "key": "probe"}])
    return handle.task_id


def _median(values: Sequence[float]) -> float:
    return values[len(values) // 2] if values else 0.0
