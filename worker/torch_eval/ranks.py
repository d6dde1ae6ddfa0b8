"""The processes of a training over several devices: spawned, talked to, and gone when the training is.

Rank 0 is the executor itself. It says what is done next, down a pipe to each other rank, so that all of them meet in
the same collectives in the same order whatever happens to it: only rank 0 hears that it is to stop, and only it saves.
Messages are bytes: JSON, or what ``torch.save`` wrote.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from tenure.worker.executor.watchdog import die_with_parent
from tenure.worker.torch_eval.loader import signals_ignored

# To import torch, read the data set and build the network, on a busy machine.
_START_SECONDS = 600.0
_LEAVE_SECONDS = 5.0
# A collective that hangs for so long without a dead rank is a fault of its own.
_COLLECTIVE_TIMEOUT = timedelta(minutes=30)
# So long may rank 0 be in one step with a rank that is dead. Gloo notices within milliseconds, NCCL may never.
_NOTICE_SECONDS = 60.0
_LOOK_SECONDS = 0.2
_MESSAGE_CHARS_MAX = 4000

Main = Callable[..., None]
"""Runs in each rank but 0: ``main(rank, pipe, *arguments)``. Importable by name."""


class RankDied(RuntimeError):
    """Another rank of the training has ended. The work since the last checkpoint is lost. Counts as an attempt."""


class Ranks:
    """All ranks but 0, as rank 0 sees them. :meth:`close` it whatever happens.

    Args:
        count: Of all ranks.
        main: See :data:`Main`.
        arguments: For it.
    """

    def __init__(self, count: int, main: Main, arguments: tuple[Any, ...]) -> None:
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._closing = threading.Event()
        # Since when rank 0 is where it may wait for another, monotonic seconds.
        self._waiting_since: float | None = None
        self._wake, self._woken = multiprocessing.Pipe(duplex=False)
        # Spawned: a fork would copy the mutexes of this process's threads in whatever state they are.
        spawning = multiprocessing.get_context("spawn")
        try:
            with signals_ignored():
                for rank in range(1, count):
                    ours, theirs = spawning.Pipe()
                    self._pipes.append(ours)
                    process = spawning.Process(
                        target=_run, args=(main, rank, theirs, os.getpid(), *arguments), name=f"rank {rank}"
                    )
                    process.start()
                    self._processes.append(process)
                    theirs.close()
        except BaseException:
            self.close()
            raise
        self._watch = threading.Thread(target=self._notice_deaths, name="tenure-ranks", daemon=True)
        self._watch.start()

    @property
    def pids(self) -> list[int]:
        """Of ranks 1, 2, …"""
        return [process.pid or 0 for process in self._processes]

    def tell(self, do: str, **details: Any) -> None:
        """Have every other rank do something.

        Raises:
            RankDied: One can't hear it.
        """
        message = json.dumps({"do": do, **details}).encode()
        with self.watched():
            for pipe in self._pipes:
                pipe.send_bytes(message)

    def hear(self) -> list[bytes]:
        """What ranks 1, 2, … say next, each one thing.

        Raises:
            RankDied: One ended instead, or said nothing for ten minutes.
        """
        with self.watched():
            said = []
            for rank, pipe in enumerate(self._pipes, start=1):
                if not pipe.poll(_START_SECONDS):
                    raise RankDied(f"rank {rank} has said nothing for {_START_SECONDS:.0f} s")
                data = pipe.recv_bytes()
                if data.startswith(_FAILED):
                    _raise_failure(rank, data)
                said.append(data)
            return said

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within it rank 0 may wait for the others, and what goes wrong because one of them has ended says so."""
        outermost = self._waiting_since is None
        if outermost:
            self._waiting_since = time.monotonic()
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, RankDied | torch.OutOfMemoryError):
                raise
            self._raise_cause(error)
            raise
        finally:
            if outermost:
                self._waiting_since = None

    def close(self) -> None:
        """End them: at once, unless all of them wait for what to do. Waits until they are gone."""
        self._closing.set()
        for pipe in self._pipes:
            # Whoever waits there reads the end of the pipe, and leaves.
            pipe.close()
        deadline = time.monotonic() + (_LEAVE_SECONDS if sys.exc_info()[0] is None else 0.0)
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        with contextlib.suppress(OSError):
            self._woken.send_bytes(b".")
        if hasattr(self, "_watch"):
            self._watch.join()
        self._wake.close()
        self._woken.close()
        for process in self._processes:
            process.close()
        self._pipes, self._processes = [], []

    def _raise_cause(self, error: BaseException) -> None:
        """Raise what ended another rank, if one has ended; a moment may pass until that is known."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        while time.monotonic() < deadline:
            for rank, (process, pipe) in enumerate(zip(self._processes, self._pipes, strict=True), start=1):
                with contextlib.suppress(OSError, EOFError):
                    while pipe.poll(0):
                        if (data := pipe.recv_bytes()).startswith(_FAILED):
                            _raise_failure(rank, data)
                if process.exitcode is not None:
                    raise RankDied(f"rank {rank} of the training {_ending(process.exitcode)}") from error
            time.sleep(0.01)

    def _notice_deaths(self) -> None:
        """In a thread: rank 0 may hang in a collective with a rank that is gone. Then nothing helps but its end."""
        sentinels = {process.sentinel: rank for rank, process in enumerate(self._processes, start=1)}
        ready = multiprocessing.connection.wait([self._wake, *sentinels])
        dead = [rank for sentinel, rank in sentinels.items() if sentinel in ready]
        while dead and not self._closing.wait(_LOOK_SECONDS):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > _NOTICE_SECONDS:
                sys.stderr.write(f"tenure: rank {dead[0]} of the training has ended; rank 0 waits for it for ever\n")
                sys.stderr.flush()
                os._exit(1)


_FAILED = b'{"failed"'


def _run(main: Main, rank: int, pipe: Connection, parent_pid: int, *arguments: Any) -> None:
    """The life of a rank: it ends with rank 0, however that ends."""
    die_with_parent(parent_pid)
    # A service manager signals every process of a worker. When this one ends is rank 0's to say.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = 0
    try:
        main(rank, pipe, *arguments)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # rank 0 has closed the pipe, or is gone
    except BaseException as error:  # noqa: BLE001 - translated: rank 0 raises it
        code = 1
        traceback.print_exc()
        out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        text = f"{type(error).__name__}: {error}"[:_MESSAGE_CHARS_MAX]
        with contextlib.suppress(OSError):
            pipe.send_bytes(json.dumps({"failed": text, "out_of_memory": out_of_memory}).encode())
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Not in order: whoever takes its leave of the group may wait for ranks that are gone.
    os._exit(code)


def receive(pipe: Connection) -> dict[str, Any]:
    """In a rank: what rank 0 says next; EOFError when it is gone."""
    message: dict[str, Any] = json.loads(pipe.recv_bytes())
    return message


def join_group(rank: int, devices: tuple[str, ...], meeting_point: Path) -> None:
    """Make the default process group of torch.distributed, of one rank for each device, all on this machine.

    Args:
        rank: This process's.
        devices: Of all ranks, by rank: NCCL if all are CUDA's, else gloo, which listens on the loopback only.
        meeting_point: A file on a local disk that isn't there yet; the same for all.
    """
    nccl = all(device.startswith("cuda") for device in devices)
    interface = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ["GLOO_SOCKET_IFNAME"] = interface or ("lo0" if sys.platform == "darwin" else "lo")
    try:
        dist.init_process_group(
            "nccl" if nccl else "gloo",
            store=dist.FileStore(str(meeting_point), len(devices)),  # type: ignore[attr-defined]
            rank=rank,
            world_size=len(devices),
            timeout=_COLLECTIVE_TIMEOUT,
        )
    finally:
        if interface is None:
            del os.environ["GLOO_SOCKET_IFNAME"]


def _raise_failure(rank: int, data: bytes) -> NoReturn:
    failure = json.loads(data)
    text = f"rank {rank} of the training failed: {failure['failed']}"
    if failure["out_of_memory"]:
        raise torch.OutOfMemoryError(text)
    raise RankDied(text)


def _ending(exitcode: int) -> str:
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"was killed by {name}"
