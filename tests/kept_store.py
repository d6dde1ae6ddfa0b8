"""A store with tasks in every state, on a server of the test's own: what backups are made of."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from ops_scripts import Said
from safekeeping import console
from store_scene import Scene, open_scene
from store_server import StoreServer

from tenure.master.store import Store, StoreOptions, open_store


class KeptStore:
    """Server, store and scene. Make one by :meth:`start`, and close it."""

    def __init__(self, server: StoreServer, store: Store, scene: Scene) -> None:
        self.server = server
        self.store = store
        self.scene = scene

    @classmethod
    async def start(cls, folder: Path, *, tasks: int = 40, ballast_mb: int = 0, **settings: str) -> KeptStore:
        """A server with ``tasks`` tasks, some of them ended, and so much else beside."""
        server = StoreServer(folder, **settings).start()
        store = await open_store(StoreOptions(url=server.url))
        kept = cls(server, store, open_scene(store, server))
        for number in range(ballast_mb):
            kept.scene.client.set(f"ballast:{number}", bytes(1 << 20))
        for start in range(0, tasks, 1000):
            await kept.scene.submit(min(1000, tasks - start))
        await kept.evaluate(5)
        await kept.scene.claim("w-lost", 2)
        return kept

    async def evaluate(self, count: int) -> None:
        """Have so many tasks succeed."""
        for grant in await self.scene.claim("w1", count):
            await self.scene.complete(grant)

    async def states(self) -> dict[str, int]:
        """Tasks by state, as backups tell them."""
        total: Counter[str] = Counter()
        for overview in await self.store.searches.overview():
            for search in overview.searches:
                total.update({state.value: number for state, number in search.counts.items()})
        return {state: number for state, number in sorted(total.items()) if number}

    async def close(self) -> None:
        """Close the connections and end the server; its files stay."""
        self.scene.client.close()
        await self.store.close()
        await asyncio.to_thread(self.server.remove)


async def run_here(main: Callable[[list[str]], int], *words: str | Path) -> Said:
    """A script's command in this process, whose logs are left alone; it spares a second of importing. One at a time."""
    out, err = io.StringIO(), io.StringIO()

    def call() -> int:
        mask = os.umask(0)
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                mock.patch.object(console, "configure_logs"),
            ):
                return main([str(word) for word in words])
        finally:
            os.umask(mask)

    code = await asyncio.to_thread(call)
    return Said(code, out.getvalue(), err.getvalue())
