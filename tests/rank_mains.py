"""What ranks of a training do in tests of them: they are named by where they are imported from."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing.connection import Connection

from tenure.worker.torch_eval.ranks import receive


def echo(rank: int, pipe: Connection) -> None:
    """Say back what was heard, with the rank."""
    while True:
        pipe.send_bytes(f"{rank} {receive(pipe)['do']}".encode())


def fail(rank: int, pipe: Connection) -> None:
    """Rank 2 can't go on."""
    if rank == 2:
        raise ValueError("as asked")
    echo(rank, pipe)


def exhaust(rank: int, pipe: Connection) -> None:
    """Run out of memory."""
    raise MemoryError("as asked")


def be_killed(rank: int, pipe: Connection) -> None:
    """Be gone in the middle of something."""
    receive(pipe)
    os.kill(os.getpid(), signal.SIGKILL)


def hang(rank: int, pipe: Connection) -> None:
    """Be deaf to everything."""
    pipe.send_bytes(b"deaf")
    threading.Event().wait()
