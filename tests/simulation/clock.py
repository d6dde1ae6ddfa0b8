"""Virtual time for the real Lua scripts: one function of theirs is exchanged, the one that asks the server's clock."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import redis

from tenure.master.store.keys import Keys
from tenure.master.store.scripts import Script, load_scripts

# As in lua/lib/base.lua, the one place where a script reads the server's clock.
WALL_MS = re.compile(rb"local function wall_ms\(\)\n.*?\nend\n", re.DOTALL)
SIMULATED_WALL_MS = b"""local function wall_ms()
  return tonumber(redis.call('GET', key('simulated-time')))
end
"""
# Virtual time begins at a date that people recognise in what the scripts write.
BEGINNING_UNIX_MS = 1_700_000_000_000


def scripts_on_virtual_time() -> dict[str, Script]:
    """The scripts as they are, but for where ``wall_ms`` takes the time from.

    Raises:
        ValueError: A script reads the server's clock elsewhere, too, so that it would live in two times.
    """
    return {name: _on_virtual_time(script) for name, script in load_scripts().items()}


def _on_virtual_time(script: Script) -> Script:
    body, exchanged = WALL_MS.subn(lambda _: SIMULATED_WALL_MS, script.body)
    if exchanged > 1 or re.search(rb"['\"]TIME['\"]", body):
        raise ValueError(f"{script.name}.lua reads the server's clock outside of wall_ms")
    return dataclasses.replace(script, body=body, sha=hashlib.sha1(body, usedforsecurity=False).hexdigest().encode())


@contextmanager
def virtual_time() -> Iterator[None]:
    """Stores that are opened inside run their scripts on virtual time."""
    scripts = scripts_on_virtual_time()
    with mock.patch("tenure.master.store.pipeline.load_scripts", return_value=scripts):
        yield


class VirtualClock:
    """What the scripts take for the time.

    Attributes:
        now_ms: Virtual milliseconds since the simulation's beginning.
        offset_ms: By how much the host's clock is wrong; a clock step changes it.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._names = [clock.rpartition(":")[0] + ":simulated-time" for clock in (*keys.clocks, keys.workers)]
        self._written: int | None = None
        self.now_ms = 0
        self.offset_ms = 0

    def show(self) -> None:
        """Let the scripts see the present virtual time."""
        wall_ms = BEGINNING_UNIX_MS + self.now_ms + self.offset_ms
        if wall_ms != self._written:
            times: dict[Any, Any] = dict.fromkeys(self._names, wall_ms)
            self._client.mset(times)
            self._written = wall_ms
