"""Starts a real server on a copy of a store's files, to prove that the copy is one.

It runs on a view of the files (``appendonly.link_for_reading``), so they stay as they are. It dies with this process,
it is the first that the kernel ends when memory is short, and it gives way to whatever else wants a processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from safekeeping.appendonly import FOLDER, link_for_reading
from safekeeping.console import Failed, Refused
from safekeeping.looks import Look, look_at
from tenure.master.store import StoreOptions, open_store
from tenure.master.store.embedded import find_server

_SOCKETS = "tenure-check-"
_POLL_SECONDS = 0.02
_STOP_SECONDS = 30.0
# Loading takes about what the files take, and as much again for what a server needs beside.
_MEMORY_FACTOR = 1.25
_LAUNCHER = """
import contextlib, ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
os.nice(10)
os.execv(sys.argv[2], sys.argv[2:])
"""

OnLoading = Callable[[float], None]


class ThrowawayServer:
    """A server on a folder that holds an ``appendonlydir``, on a socket of its own; use it with ``with``.

    Args:
        folder: It is written to.
        binary: The server's program; by default that of the embedded store.
        on_loading: Told how far loading is, 0 to 1.
        strict: Whether an end that is no whole record is an error; else the server cuts it off.
    """

    def __init__(
        self,
        folder: Path,
        binary: str | None = None,
        on_loading: OnLoading = lambda _: None,
        *,
        strict: bool = False,
    ) -> None:
        self._folder = folder
        self._binary = binary or find_server()
        self._on_loading = on_loading
        self._strict = strict
        _clear_away()
        # A unix socket's path is short; where backups are, paths may be long.
        self._socket_folder = Path(tempfile.mkdtemp(prefix=f"{_SOCKETS}{os.getpid()}-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For the store's own code."""
        return f"unix://{self._socket_folder / 's'}"

    def client(self) -> redis.Redis:
        """A connection; the caller closes it."""
        return redis.Redis(unix_socket_path=str(self._socket_folder / "s"), retry=Retry(NoBackoff(), 0))

    def __enter__(self) -> ThrowawayServer:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; what it holds is a copy."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _start(self) -> None:
        log = self._folder / "server.log"
        options = {
            "port": "0",
            "unixsocket": str(self._socket_folder / "s"),
            "unixsocketperm": "700",
            "dir": str(self._folder.absolute()),
            "logfile": str(log.absolute()),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "no",
            "aof-load-truncated": "no" if self._strict else "yes",
            "auto-aof-rewrite-percentage": "0",
            "maxmemory": "0",
            "hash-max-listpack-value": "512",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", _LAUNCHER, str(os.getpid()), self._binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(f"can't start {self._binary}: {error.strerror}") from None
        with self.client() as client:
            while not self._loaded(client):
                status = self._process.poll()
                if status is not None:
                    raise Failed(f"a server can't load the copy: {_last_words(log, status)}")
                time.sleep(_POLL_SECONDS)

    def _loaded(self, client: redis.Redis) -> bool:
        with contextlib.suppress(BusyLoadingError, RedisError, OSError):
            info = client.info("persistence")
            if not int(info.get("loading", 0)):
                return True
            self._on_loading(float(info.get("loading_loaded_perc", 0)) / 100)
        return False


def _clear_away() -> None:
    """Folders of sockets that killed processes have left."""
    for path in Path(tempfile.gettempdir()).glob(f"{_SOCKETS}*-*"):
        pid = path.name.removeprefix(_SOCKETS).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdecimal() and not psutil.pid_exists(int(pid)) and path.stat().st_uid == os.geteuid():
                shutil.rmtree(path)


def _last_words(log: Path, status: int) -> str:
    text = log.read_bytes()[-4000:].decode("utf-8", "replace") if log.exists() else ""
    grave = [line.partition(" # ")[2] for line in text.splitlines() if " # " in line]
    told = " / ".join(grave[-2:]) or f"it wrote no log and ended with status {status}"
    if "RDB format version" in told or "RDB version" in told:
        told += " (give --server-binary: the server of the version that wrote it)"
    return told


def check_memory(needed_bytes: int) -> None:
    """Refuse to load what this machine has no memory for: it may be the one that the store itself runs on.

    Raises:
        Refused: Too little is free.
    """
    available = psutil.virtual_memory().available
    if needed_bytes * _MEMORY_FACTOR > available:
        raise Refused(
            f"a throw-away server would need about {needed_bytes * _MEMORY_FACTOR / 1e9:.1f} GB of memory and "
            f"{available / 1e9:.1f} GB are free here. Give --skip-verify, and verify on another machine: "
            "`backup --check BACKUP`"
        )


@dataclass(frozen=True)
class Proof:
    """What a server that was started on a copy said.

    Attributes:
        look: What the copy holds.
        tasks_checked, violations: Of fsck.
        size_bytes: Of the last increment, once what is no whole record was cut off; -1 if there is none.
        load_seconds: How long the server took.
        read: What the caller wanted to read of it.
    """

    look: Look
    tasks_checked: int
    violations: list[str]
    size_bytes: int
    load_seconds: float
    read: Any = None


@contextlib.contextmanager
def serving(
    folder: Path, scratch: Path, binary: str | None, on_loading: OnLoading = lambda _: None, *, strict: bool = False
) -> Iterator[tuple[ThrowawayServer, Path | None]]:
    """A server on a view of an append-only folder: (it, its copy of the last increment).

    Args:
        folder: The append-only folder; stays as it is.
        scratch: Where the view is made, on the same file system; gone afterwards.
        binary, on_loading, strict: See ThrowawayServer.
    """
    view = Path(tempfile.mkdtemp(prefix=".view-", dir=scratch))
    try:
        last = link_for_reading(folder, view / FOLDER)
        with ThrowawayServer(view, binary, on_loading, strict=strict) as server:
            yield server, last
    finally:
        shutil.rmtree(view, ignore_errors=True)


def prove(
    folder: Path,
    scratch: Path,
    prefix: str,
    shards: int,
    binary: str | None = None,
    on_loading: OnLoading = lambda _: None,
    *,
    strict: bool = False,
    read: Callable[[str], Any] = lambda _: None,
) -> Proof:
    """Load an append-only folder, count its tasks, and have fsck prove that indexes and tasks agree.

    Args:
        folder, scratch, binary, on_loading, strict: See serving.
        prefix, shards: Of the store.
        read: Called with the server's URL, for more.

    Raises:
        Failed: A server can't load it.
    """
    began = time.monotonic()
    with serving(folder, scratch, binary, on_loading, strict=strict) as (server, last):
        load_seconds = time.monotonic() - began
        # Only then: opening a store for fsck makes a schema where none is.
        look = look_at(server.url, prefix, shards)
        checked, violations = asyncio.run(_fsck(server.url, prefix, shards))
        size = last.stat().st_size if last is not None else -1
        more = read(server.url)
    return Proof(look, checked, violations, size, load_seconds, more)


async def _fsck(url: str, prefix: str, shards: int) -> tuple[int, list[str]]:
    store = await open_store(StoreOptions(url=url, prefix=prefix, shards=shards, durability="relaxed"))
    try:
        return await store.fsck.run()
    finally:
        await store.close()
