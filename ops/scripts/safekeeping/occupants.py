"""Who lives in a directory that is about to be changed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import psutil
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tenure.master.store.embedded import find_socket


def occupant_of(data_dir: Path) -> str:
    """What runs on a master's data directory, for people; '' if nothing does. Leaves no trace."""
    if not data_dir.is_dir():
        return ""
    descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = ""
        with contextlib.suppress(OSError):
            pid = (data_dir / "master.lock").read_text().strip()
        return f"a master{f' (pid {pid})' if pid else ''}"
    finally:
        os.close(descriptor)
    with contextlib.suppress(RedisError, OSError):
        socket = str(find_socket(data_dir))
        with redis.Redis(unix_socket_path=socket, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)) as client:
            client.ping()
            return f"a store's server on {socket}"
    return user_of(data_dir / "store")


def user_of(folder: Path) -> str:
    """A process that works in a folder or has a file open below it, for people; '' if none is seen.

    Of other users' processes only root sees that.
    """
    root = os.path.realpath(folder)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            paths = [process.cwd(), *(file.path for file in process.open_files())]
            if process.pid != os.getpid() and any(path == root or path.startswith(f"{root}/") for path in paths):
                return f"{process.name()} (pid {process.pid})"
    return ""
