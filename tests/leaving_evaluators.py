"""Evaluators that leave something behind, or lose their device; what a run does is said by ``config.extra["does"]``.

========== ============================================================================================
``host``    keeps ``mib`` MiB of host memory for ever
``freed``   takes ``mib`` MiB in small pieces and lets them go
``mapped``  keeps at least ``mib`` MiB of the file ``file`` mapped, and has read them
``process`` leaves a child process
``daemon``  leaves a grandchild that has moved to a session of its own, its parent gone
``pool``    leaves a process pool, and uses it in every run
``joblib``  leaves joblib's workers
``thread``  leaves ``count`` threads
``lose``    raises the CUDA error ``message``, as torch would, once the file ``gate`` exists
``wait``    runs until it is stopped or killed
``moves``   changes its working directory and environment
``closes``  closes the standard streams, and their descriptors
``diverts`` puts a closed file in the place of each standard stream
``prints``  a line to each standard stream
``nothing`` what it says
========== ============================================================================================

Each run prints ``devices`` and ``visible`` (``CUDA_VISIBLE_DEVICES``) into the result's detail, with the pids it made.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tenure.worker.evaluator import Context, EvaluationTask, Result, Stopped

_SLEEP = (sys.executable, "-c", "import time; time.sleep(3600)")
_DAEMON = (
    "import os, subprocess, sys;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'],"
    " stdout=subprocess.DEVNULL, start_new_session=True);"
    "print(child.pid, flush=True)"
)
_kept: list[Any] = []
_mapped: list[mmap.mmap] = []
_pools: list[ProcessPoolExecutor] = []


def evaluate(task: EvaluationTask, context: Context) -> Result:
    """See the module."""
    extra = task.config.extra
    pids: list[int] = []
    match extra.get("does", "nothing"):
        case "host":
            # Written to, or it would not be resident.
            _kept.append(bytearray(os.urandom(1 << 20)) * int(extra["mib"]))
        case "freed":
            pieces = [bytearray(1000) for _ in range(int(extra["mib"]) * 1000)]
            del pieces
        case "mapped":
            with open(extra["file"], "rb") as file:
                while sum(map(len, _mapped)) < int(extra["mib"]) << 20:
                    _mapped.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
                    _kept.append(sum(_mapped[-1][:: mmap.PAGESIZE]))
        case "process":
            pids.append(subprocess.Popen(_SLEEP).pid)
        case "daemon":
            done = subprocess.run([sys.executable, "-c", _DAEMON], stdout=subprocess.PIPE, check=True)
            pids.append(int(done.stdout))
        case "pool":
            if not _pools:
                _pools.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
            pids.append(_pools[0].submit(os.getpid).result())
        case "joblib":
            import joblib

            pids += joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(2))
        case "thread":
            for number in range(int(extra.get("count", "1"))):
                threading.Thread(target=time.sleep, args=(3600,), name=f"left-{number}", daemon=True).start()
        case "lose":
            while "gate" in extra and not os.path.exists(extra["gate"]):
                time.sleep(0.005)
            raise RuntimeError(extra.get("message", "CUDA error: unspecified launch failure"))
        case "moves":
            os.chdir("/")
            os.environ["LEFT_BEHIND"] = "1"
            del os.environ["HOME"]
        case "closes":
            sys.stdout.close()
            sys.stderr.close()
            os.closerange(1, 3)
        case "diverts":
            for name in ("stdout", "stderr"):
                file = open(os.devnull, "w")  # noqa: SIM115 - what is tested
                setattr(sys, name, file)
                file.close()
        case "prints":
            sys.stdout.write("to stdout\n")
            sys.stderr.write("to stderr\n")
        case "wait":
            context.report(1)
            while not context.should_stop:
                time.sleep(0.01)
            raise Stopped
    where = {"directory": os.getcwd(), "environment": dict(os.environ)}
    detail = {"devices": context.devices, "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "pids": pids}
    return Result(
        {"fitness": 0.5}, detail=json.dumps({**detail, **where, "pid": os.getpid(), "device": context.device})
    )
