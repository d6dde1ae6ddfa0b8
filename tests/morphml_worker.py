"""A worker that speaks nothing but MorphML 1.0's fields and lives as MorphML's does: it registers, serves Evaluate,
heartbeats when the test says so, and never pulls.

In a test's own process its evaluations end when the test says so. Run as a program (``morphml_worker.py MASTER
WORKER_ID``) its evaluations never end: for tests that kill it. It prints ``evaluate TASK_ID`` for each.
"""

from __future__ import annotations

import itertools
import socket
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc
import morphml
from morphml import messages as m

OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50))
WAIT_SECONDS = 30.0


class Ending(NamedTuple):
    """How an evaluation is to end. ``submit``: whether the result is told by SubmitResult before Evaluate returns, as
    MorphML does it. ``abort``: Evaluate ends with this status instead of a response."""

    submit: bool = True
    success: bool = True
    metrics: dict[str, float] = {"fitness": 0.5}  # noqa: RUF012 - of a tuple that nobody changes
    error: str = ""
    abort: grpc.StatusCode | None = None


class MorphmlWorker:
    """One worker; ``with`` stops it.

    Attributes:
        requests: What Evaluate was called with, in order.
        cancels: What CancelTask was called with.
        at_once_max: The most evaluations that ran at one time.
    """

    def __init__(self, master: str, worker_id: str, host: str = "127.0.0.1") -> None:
        self.worker_id = worker_id
        self.host = host
        self.requests: list[Any] = []
        self.cancels: list[Any] = []
        self.at_once_max = 0
        self._changed = threading.Condition()
        self._running: list[str] = []
        self._endings: dict[str, Ending] = {}
        self._stopped = False
        self._server: grpc.Server | None = None
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        # Ours from now on; nobody answers there until `listen`.
        self.port = self._reserved.getsockname()[1]
        self._connect(master)

    def __enter__(self) -> MorphmlWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- what MorphML's worker does by itself ---------------------------------------------------------------------

    def register(self) -> Any:
        """RegisterWorker, before the server listens, as MorphML does it."""
        request = m.RegisterRequest(worker_id=self.worker_id, host=self.host, port=self.port, num_gpus=1)
        response = self.master.RegisterWorker(request, timeout=10)
        assert response.success
        return response

    def listen(self) -> None:
        """Serve."""
        self._server = grpc.server(futures.ThreadPoolExecutor(10))
        methods = {
            "Evaluate": self._evaluate,
            "GetStatus": self._get_status,
            "Shutdown": lambda request, context: m.ShutdownResponse(acknowledged=True),
            "CancelTask": self._cancel_task,
        }
        self._server.add_generic_rpc_handlers((morphml.handler("WorkerService", methods),))
        assert self._server.add_insecure_port(f"127.0.0.1:{self.port}") == self.port
        self._server.start()

    def start(self) -> MorphmlWorker:
        """Register, then listen."""
        self.register()
        self.listen()
        return self

    def heartbeat(self, status: str = "", current_task_id: str | None = None) -> Any:
        """One heartbeat; by default of what it runs."""
        running = self.running
        if current_task_id is None:
            current_task_id = running[0] if running else ""
        request = m.HeartbeatRequest(
            worker_id=self.worker_id,
            status=status or ("busy" if running else "idle"),
            current_task_id=current_task_id,
        )
        return self.master.Heartbeat(request, timeout=WAIT_SECONDS, wait_for_ready=True)

    def submit_result(self, task_id: str, ending: Ending = Ending()) -> Any:  # noqa: B008 - immutable
        """SubmitResult."""
        request = m.ResultRequest(
            task_id=task_id,
            worker_id=self.worker_id,
            success=ending.success,
            metrics=ending.metrics if ending.success else {},
            error=ending.error,
            duration=1.0,
        )
        return self.master.SubmitResult(request, timeout=10)

    # ---- what the test does with it -------------------------------------------------------------------------------

    @property
    def running(self) -> list[str]:
        """Tasks under evaluation."""
        with self._changed:
            return list(self._running)

    def wait_for_request(self, number: int, seconds: float | None = WAIT_SECONDS) -> Any:
        """The number-th (from 1) Evaluate request, once it has come."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.requests) >= number, seconds)
        assert came, f"{self.worker_id} got {len(self.requests)} requests, not {number}"
        return self.requests[number - 1]

    def end(self, task_id: str, **ending: Any) -> None:
        """Let an evaluation end, and wait until it has."""
        with self._changed:
            self._endings[task_id] = Ending(**ending)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: task_id not in self._running, WAIT_SECONDS)

    def reconnect(self, master: str) -> None:
        """The master is at another address, as after a restart behind one name."""
        self._channel.close()
        self._connect(master)

    def stop_listening(self) -> None:
        """Break every call; evaluations run on, and nobody hears of their ends."""
        assert self._server is not None
        self._server.stop(grace=0).wait()
        self._server = None

    def stop(self) -> None:
        """End everything."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._server is not None:
            self._server.stop(grace=0).wait()
        self._channel.close()
        self._reserved.close()

    # ---- WorkerService --------------------------------------------------------------------------------------------

    def _evaluate(self, request: Any, context: grpc.ServicerContext) -> Any:
        task_id = request.task_id
        with self._changed:
            self.requests.append(request)
            self._running.append(task_id)
            self.at_once_max = max(self.at_once_max, len(self._running))
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopped or task_id in self._endings)
            ending = self._endings.pop(task_id, Ending(submit=False))
        if ending.submit and not self._stopped:
            self.submit_result(task_id, ending)
        with self._changed:
            self._running.remove(task_id)
            self._changed.notify_all()
        if ending.abort is not None:
            context.abort(ending.abort, ending.error)
        return m.EvaluateResponse(
            task_id=task_id,
            success=ending.success,
            metrics=ending.metrics if ending.success else {},
            error=ending.error,
            duration=1.0,
        )

    def _get_status(self, request: Any, context: grpc.ServicerContext) -> Any:
        running = self.running
        return m.StatusResponse(status="busy" if running else "idle", current_task_id=running[0] if running else "")

    def _cancel_task(self, request: Any, context: grpc.ServicerContext) -> Any:
        """MorphML answers success, and the work goes on."""
        with self._changed:
            self.cancels.append(request)
            self._changed.notify_all()
        return m.CancelResponse(success=True, message="cancelled")

    def _connect(self, master: str) -> None:
        self._channel = grpc.insecure_channel(master, options=OPTIONS)
        self.master: SimpleNamespace = morphml.stub(self._channel, "MasterService")


MakeWorker = Callable[..., MorphmlWorker]


def main(master: str, worker_id: str) -> None:
    """Serve until killed."""
    worker = MorphmlWorker(master, worker_id).start()
    for number in itertools.count(1):
        request = worker.wait_for_request(number, seconds=None)
        sys.stdout.write(f"evaluate {request.task_id}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
