"""Real Redis-compatible servers for tests, and a store on them: the same binary that the embedded store runs.

Import the fixtures into a ``conftest.py``: ``from store_server import open_test_store, store, store_server``.
One server serves the whole session; each test has a key prefix of its own, and what it left is deleted behind it.
``TENURE_TEST_SERVER=/usr/bin/redis-server pytest tests/contract/store`` runs them against another server.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.utils
from redis.backoff import NoBackoff
from redis.retry import Retry

from tenure.master.store import Store, StoreOptions, open_store
from tenure.master.store.embedded import find_server
from tenure.master.store.pipeline import ObserveScript

# redis-py reads its own package's metadata for every connection: a sixth of the time that tests of the store took.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)

START_TIMEOUT_SECONDS = 90.0
# The session's server fsyncs at every write; what a power cut would do to it is nothing that these tests ask.
MEMORY_FOLDER = Path("/dev/shm")
# A test run that is killed must not leave servers behind: the server asks to be ended with it (Linux).
_TIED_TO_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""

OpenStore = Callable[..., Awaitable[Store]]
_numbers = itertools.count()


class StoreServer:
    """One server process on a unix socket, with its append-only file fsynced always unless told otherwise.

    Args:
        folder: Where its files are.
        binary: Which server; by default the one of the embedded store.
        settings: More of its configuration; ``_`` in names stands for ``-``.

    Attributes:
        environment: What it has beside this process's when it is started.
    """

    def __init__(self, folder: Path, binary: str | None = None, **settings: str) -> None:
        self.folder = folder
        self.binary = binary or os.environ.get("TENURE_TEST_SERVER") or find_server()
        # A unix socket's path is short; pytest's folders are not.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="tenure-store-"))
        self.socket = self._socket_folder / "s"
        self._settings = {
            "port": "0",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For :func:`open_store`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> StoreServer:
        """Start it, on the data that is there, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {**self._settings, "unixsocket": str(self.socket), "dir": str(self.folder.absolute())}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", _TIED_TO_PARENT, self.binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "server.log").read_text(errors="replace")[-2000:])
            time.sleep(0.01)
        return self

    def client(self) -> redis.Redis:
        """A connection of the test's own, to look and to meddle; close it, or use it with ``with``."""
        return redis.Redis(
            unix_socket_path=str(self.socket),
            password=self._settings.get("requirepass"),
            retry=Retry(NoBackoff(), 0),
        )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """End it and delete the socket's folder; its data stays with the test's folder."""
        self.kill()
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def keys_of(client: redis.Redis, prefix: str) -> list[str]:
    """All keys under a prefix."""
    return sorted(key.decode() for key in client.scan_iter(match=f"{prefix}:*", count=1000))


def delete_keys(client: redis.Redis, prefix: str) -> None:
    """Delete everything under a prefix."""
    keys = keys_of(client, prefix)
    for start in range(0, len(keys), 1000):
        client.unlink(*keys[start : start + 1000])


def new_prefix() -> str:
    """A key prefix that nobody had in this process."""
    return f"t{next(_numbers)}"


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """The session's server. Tests that kill or reconfigure one start their own :class:`StoreServer`."""
    in_memory = os.access(MEMORY_FOLDER, os.W_OK)
    folder = Path(tempfile.mkdtemp(dir=MEMORY_FOLDER)) if in_memory else tmp_path_factory.mktemp("store")
    server = StoreServer(folder).start()
    yield server
    server.remove()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def open_test_store(store_server: StoreServer) -> AsyncIterator[OpenStore]:
    """Opens stores with any :class:`StoreOptions`; by default on the session's server under one new prefix a test.

    ``observe`` is told every script call. They are closed, and their keys deleted, behind the test.
    """
    prefix = new_prefix()
    opened: list[Store] = []

    async def open_one(observe: ObserveScript = lambda *_: None, **options: Any) -> Store:
        store = await open_store(StoreOptions(**{"url": store_server.url, "prefix": prefix, **options}), observe)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()
    prefixes = {store.keys.prefix for store in opened if store.options.url == store_server.url}
    # A test may have ended its server; this one is the session's.
    with contextlib.suppress(redis.ConnectionError), store_server.client() as client:
        for used in prefixes:
            delete_keys(client, used)


@pytest.fixture
async def store(open_test_store: OpenStore) -> AsyncIterator[Store]:
    """A store of the test's own. Behind each test its indexes and tasks must still agree (fsck)."""
    opened = await open_test_store()
    yield opened
    _, violations = await opened.fsck.run()
    assert violations == []
