"""Checkpoints that are whole on storage and not yet known to be registered.

A checkpoint exists only once a master has registered it. While none answers, announcements wait here; of those that
no master can have seen only the newest of a run is kept, and the files of the others are deleted. One that was sent
may be registered already, so it stays until there is a verdict.

Those that are registered are remembered while their run lasts, and announced again on a new connection: a store that
came back older than it was has lost them, and every other one answers that it has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from tenure.proto import worker_pb2
from tenure.worker.leases import LeaseKey


@dataclass
class _Waiting:
    message: worker_pb2.RegisterCheckpoint
    sends: int = 0


class Announcements:
    """Announcements without a verdict, by lease, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[LeaseKey, list[_Waiting]] = {}
        # By URL, oldest first.
        self._registered: dict[LeaseKey, dict[str, worker_pb2.RegisterCheckpoint]] = {}

    def add(self, key: LeaseKey, checkpoint: worker_pb2.Checkpoint) -> list[str]:
        """Keep one more; returns the URLs that it makes superfluous."""
        waiting = self._waiting.setdefault(key, [])
        superfluous = [one.message.checkpoint.url for one in waiting if not one.sends]
        message = worker_pb2.RegisterCheckpoint(task_id=key.task_id, lease_token=key.token, checkpoint=checkpoint)
        self._waiting[key] = [*(one for one in waiting if one.sends), _Waiting(message)]
        return superfluous

    def registered(self, key: LeaseKey, checkpoint: worker_pb2.Checkpoint) -> None:
        """A master has this one, newer than all that it was told to have before."""
        message = worker_pb2.RegisterCheckpoint(task_id=key.task_id, lease_token=key.token, checkpoint=checkpoint)
        self._registered.setdefault(key, {})[checkpoint.url] = message

    def retired(self, key: LeaseKey, urls: Iterable[str]) -> None:
        """A master needs these no more."""
        for url in urls:
            self._registered.get(key, {}).pop(url, None)

    def to_send(self, *, again: bool) -> list[worker_pb2.RegisterCheckpoint]:
        """Those that were never sent; with ``again`` (a new connection) all, the registered first. They count as sent
        now."""
        messages = []
        if again:
            for key, registered in self._registered.items():
                waiting = {one.message.checkpoint.url for one in self._waiting.get(key, ())}
                messages += [message for url, message in registered.items() if url not in waiting]
        for one in itertools.chain.from_iterable(self._waiting.values()):
            if again or not one.sends:
                one.sends += 1
                messages.append(one.message)
        return messages

    def settle(self, key: LeaseKey, url: str, *, registered: bool = False) -> bool:
        """There is a verdict on one: it is registered, or never will be.

        Returns:
            Whether that was the answer to the only time it was ever sent.
        """
        waiting = self._waiting.get(key, [])
        settled = [one for one in waiting if one.message.checkpoint.url == url]
        if settled and registered:
            self.registered(key, settled[0].message.checkpoint)
        left = [one for one in waiting if one.message.checkpoint.url != url]
        if left:
            self._waiting[key] = left
        else:
            self._waiting.pop(key, None)
        return bool(settled) and settled[0].sends == 1

    def drop(self, key: LeaseKey) -> list[str]:
        """Nobody will register checkpoints of this lease any more; the URLs that no master can have seen."""
        self._registered.pop(key, None)
        return [one.message.checkpoint.url for one in self._waiting.pop(key, ()) if not one.sends]

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))
