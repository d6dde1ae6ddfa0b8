"""What a worker listens on: WorkerService with health and reflection, and the HTTP endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import grpc.aio
from grpc_health.v1 import health, health_pb2
from prometheus_client import CollectorRegistry

from tenure import __version__
from tenure.common.addresses import Address
from tenure.common.endpoint import HttpEndpoint, Probe
from tenure.common.errors import AddressInUse
from tenure.proto import worker_pb2, worker_pb2_grpc
from tenure.proto.serving import SERVER_OPTIONS, add_health_and_reflection, bind
from tenure.worker.gpu.devices import SlotDevices
from tenure.worker.identity import Identity, host_name
from tenure.worker.settings import WorkerSettings

SERVICE_NAME = "morphml.distributed.WorkerService"
# How far a default port may be moved.
_PORTS_MAX = 100
_LOOP_ANSWERS_SECONDS = 2.0
_STOP_SECONDS = 2.0

T = TypeVar("T")


class Servers:
    """The two servers of a worker.

    Attributes:
        grpc_address: Where WorkerService listens, once started.
        http_address: Where /metrics is, once started.
    """

    def __init__(self, settings: WorkerSettings, registry: CollectorRegistry, ready: Probe) -> None:
        self.grpc_address = settings.listen_address
        self.http_address = settings.http_address
        self._settings = settings
        self._registry = registry
        self._ready = ready
        self._grpc: grpc.aio.Server | None = None
        self._health: health.aio.HealthServicer | None = None
        self._http: HttpEndpoint | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def start(self, servicer: worker_pb2_grpc.WorkerServiceServicer) -> tuple[str, int]:
        """Listen. Health says NOT_SERVING until :meth:`serving`.

        Returns:
            The host and port that masters are told to call.

        Raises:
            AddressInUse: Somebody listens there, and the address was chosen by somebody.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        server = grpc.aio.server(options=SERVER_OPTIONS)
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)
        self._health = add_health_and_reflection(server, [SERVICE_NAME])
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.grpc_address = _bind_near(
            settings.listen_address, settings.is_explicit("listen"), lambda address: bind(server, address)
        )
        self._grpc = server
        self._http = _bind_near(
            settings.http_address,
            settings.is_explicit("http"),
            lambda address: HttpEndpoint(address, self._registry, _loop_probe(loop), self._ready),
        )
        self.http_address = self._http.address
        await server.start()
        advertise = settings.advertise_address
        if advertise is not None:
            return advertise.bare_host, advertise.port
        host = self.grpc_address.bare_host
        return (socket.gethostname() if host in ("0.0.0.0", "::", "*") else host), self.grpc_address.port

    def serving(self, value: bool) -> None:
        """What health says from now on."""
        status = health_pb2.HealthCheckResponse.SERVING if value else health_pb2.HealthCheckResponse.NOT_SERVING
        task = asyncio.create_task(self._set_health(status))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def stop(self) -> None:
        """Stop listening; calls that are being answered may end first."""
        if self._grpc is not None:
            await self._grpc.stop(_STOP_SECONDS)
        if self._http is not None:
            await asyncio.to_thread(self._http.close)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        if self._health is not None:
            for name in ("", SERVICE_NAME):
                await self._health.set(name, status)


def registration_of(
    settings: WorkerSettings,
    identity: Identity,
    advertised: tuple[str, int],
    devices: Sequence[SlotDevices],
) -> worker_pb2.RegisterRequest:
    """How this worker introduces itself."""
    pull = settings.dispatch == "pull"
    return worker_pb2.RegisterRequest(
        worker_id=identity.worker_id,
        host=advertised[0],
        port=advertised[1],
        num_gpus=len({gpu for slot in devices for gpu in slot.gpus}),
        gpu_ids=sorted({index for slot in devices for index in slot.indices}),
        metadata={
            "hostname": host_name(),
            "pid": str(os.getpid()),
            "python": platform.python_version(),
            "version": __version__,
            "evaluator": settings.evaluator,
        },
        instance_id=identity.instance_id,
        slots=len(devices),
        gpus_per_slot=devices[0].gpu_count,
        labels=settings.label_map,
        dispatch=worker_pb2.DISPATCH_PULL if pull else worker_pb2.DISPATCH_PUSH,
        version=__version__,
        tails=pull,
        accepts_code=settings.accept_code,
    )


def write_ready_file(path: Path, worker_id: str, servers: Servers) -> None:
    """Say, in one atomic step, that the worker serves and where."""
    content = {
        "pid": os.getpid(),
        "grpc": str(servers.grpc_address),
        "http": str(servers.http_address),
        "worker_id": worker_id,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        json.dump(content, file)
    os.replace(file.name, path)


def _bind_near(address: Address, explicit: bool, listen: Callable[[Address], T]) -> T:
    """Listen at ``address``; unless somebody chose it, at one of the next ports if it is in use."""
    if explicit:
        return listen(address)
    for port in range(address.port, address.port + _PORTS_MAX):
        if _is_free(candidate := Address(address.host, port)):
            with contextlib.suppress(AddressInUse):
                return listen(candidate)
    return listen(address)


def _is_free(address: Address) -> bool:
    """Whether nobody listens there now. Asked first because gRPC prints an error when it can't bind."""
    family = socket.AF_INET6 if ":" in address.bare_host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.bare_host, address.port))
        except OSError:
            return False
    return True


def _loop_probe(loop: asyncio.AbstractEventLoop) -> Probe:
    """For /healthz, asked in the HTTP thread: whether the event loop still turns."""

    def healthy() -> tuple[bool, dict[str, object]]:
        future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
        try:
            future.result(_LOOP_ANSWERS_SECONDS)
        except TimeoutError:
            future.cancel()
            return False, {"event_loop": "does not answer"}
        return True, {}

    return healthy
