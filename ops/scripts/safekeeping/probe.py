"""Measures for how long a store's servers answer nobody, while something else is done to them."""

from __future__ import annotations

import threading
import time

import redis
from redis.exceptions import RedisError

_PAUSE_SECONDS = 0.02


class Probe:
    """Asks each server again and again; ``longest_seconds`` is the longest that one took. Use it with ``with``."""

    def __init__(self, clients: list[redis.Redis]) -> None:
        self.longest_seconds = 0.0
        self._clients = clients
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(client,), daemon=True) for client in clients]

    def __enter__(self) -> Probe:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client: redis.Redis) -> None:
        while not self._over.wait(_PAUSE_SECONDS):
            began = time.monotonic()
            try:
                client.ping()
            except (RedisError, OSError):
                continue  # who copies will meet it too, and say what it is
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
