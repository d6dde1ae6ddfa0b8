"""No executor outlives its supervisor, nor does anything that an evaluation started.

A supervisor killed by SIGKILL can't tell its executors, and an evaluation that holds the GIL can't notice. So each
executor forks, before it has a thread or a big module, one tiny process that only waits: for the pipe to the
supervisor to hang up, or for the executor's end. Then it kills the process group. The executor asks the kernel for a
parent-death signal besides; the watchdog must not, or it would be dead before it has killed the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1


def start_watchdog(pipe: int, supervisor_pid: int) -> None:
    """Fork the watchdog of this process's group; ends this process if the supervisor is gone already.

    Args:
        pipe: Descriptor of the executor's end of the pipe.
        supervisor_pid: Whose death counts; the caller's parent.
    """
    if os.getpgrp() != os.getpid():
        raise RuntimeError("an executor leads a process group of its own: start it in a new session")
    die_with_parent(supervisor_pid)
    executor_pid = os.getpid()
    if os.fork() == 0:
        # Never returns: this copy of the process must not run anything else.
        try:
            _watch(pipe, executor_pid)
        finally:
            os._exit(1)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, or has died (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)


def _watch(pipe: int, executor_pid: int) -> None:
    # Holding the executor's output open would hide its end.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    poll = select.poll()
    # Nothing but the hang-up, which is always reported: the messages are the executor's.
    poll.register(pipe, 0)
    if hasattr(os, "pidfd_open"):
        # Readable once the executor has ended. Elsewhere its supervisor's word for that has to do.
        with contextlib.suppress(ProcessLookupError):
            poll.register(os.pidfd_open(executor_pid), select.POLLIN)
    if os.getppid() == executor_pid:
        poll.poll()
    os.killpg(0, signal.SIGKILL)
