"""Runs one master until it is told to stop. What the command line's ``tenure master`` calls."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from tenure import __version__
from tenure.common import tracing
from tenure.common.addresses import Address
from tenure.common.cancelling import cancel_all
from tenure.common.endpoint import HttpEndpoint
from tenure.common.errors import AddressInUse, TenureError
from tenure.common.exits import ExitCode, exit_code_of
from tenure.common.logs import configure_logs
from tenure.common.notify import Notifier
from tenure.master.console.server import ConsoleServer
from tenure.master.health import Health
from tenure.master.master import Master
from tenure.master.metrics import MasterMetrics
from tenure.master.settings import MasterSettings
from tenure.master.store import Store, StoreOptions, open_store

log = structlog.get_logger()

T = TypeVar("T")

HTTP_PORTS_TRIED = 100
# Never onto the ports at which others are looked for.
CONSOLE_PORT_STEP = 10


def run(settings: MasterSettings) -> int:
    """Run a master until SIGTERM or SIGINT.

    Returns:
        The process's exit code, see common/exits.py: 0 stopped, 70 crashed, else that of the error that kept it from
        starting, which is one line on stderr.
    """
    configure_logs("master", settings.log_format, settings.log_level)
    # Before anything is started that would inherit it.
    notifier = Notifier.take()
    try:
        tracing.start("tenure-master", settings.traces, instance=f"{platform.node()}-{os.getpid()}")
        return asyncio.run(_run(settings, notifier))
    except TenureError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who typed the command
        return exit_code_of(error)
    finally:
        tracing.stop()


async def _run(settings: MasterSettings, notifier: Notifier) -> int:
    beat = asyncio.create_task(notifier.run())
    try:
        return await _serve(settings, notifier)
    finally:
        await cancel_all((beat,))


async def _serve(settings: MasterSettings, notifier: Notifier) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = MasterMetrics()
    health = Health(loop, notifier)
    notifier.watch(health.standing, health.stuck)
    # Probes are answered while the store loads, too: who restarted the process for that would do so for ever.
    endpoint = _open_endpoint(settings, metrics, health)
    log.info("master.starting", http=str(endpoint.address), version=__version__)
    stopped = asyncio.create_task(stop.wait())
    try:
        store = await _open_store(settings, metrics, health, stopped)
        if store is not None:
            return await _work(settings, store, metrics, health, notifier, endpoint.address, stopped)
        log.info("master.stopped")
        return ExitCode.OK
    finally:
        notifier.stopping()
        await cancel_all((stopped,))
        # Not on the loop: what probes ask at this moment is answered there.
        await asyncio.to_thread(endpoint.close)


async def _open_store(
    settings: MasterSettings, metrics: MasterMetrics, health: Health, stopped: asyncio.Task[bool]
) -> Store | None:
    """The store; None if the master is told to stop before it is open: then its server has ended."""
    options = StoreOptions(
        url=settings.store,
        data_dir=settings.data_dir,
        durability=settings.durability,
        lease_ttl_ms=settings.lease_ttl_ms,
        prefix=settings.key_prefix,
        shards=settings.shards,
        memory_bytes_max=settings.store_memory_max_bytes,
        replicas=settings.store_replicas,
    )
    opening = asyncio.create_task(open_store(options, metrics.observe_script, health.note_loading))
    await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if opening.done():
        return opening.result()
    health.stop()
    log.info("master.stopping", crashed=False)
    # Once only: a second one would come in between while the server is being ended.
    opening.cancel()
    await asyncio.wait({opening})
    if not opening.cancelled():
        if (error := opening.exception()) is None:
            await opening.result().close()
        else:
            log.warning("store.not_opened", error=str(error))
    return None


async def _work(
    settings: MasterSettings,
    store: Store,
    metrics: MasterMetrics,
    health: Health,
    notifier: Notifier,
    http: Address,
    stopped: asyncio.Task[bool],
) -> int:
    loop = asyncio.get_running_loop()
    master = health.master = Master(settings, store, metrics)
    console: ConsoleServer | None = None
    # What is there by now stays. A full collection that walks all of it would hold up every call for tens of ms.
    gc.collect()
    gc.freeze()
    try:
        address = await master.start()
        health.measures = True
        console = _open_console(settings, master, loop, address.port)
        _announce(settings.ready_file, master, address, http, console.url if console else "")
        notifier.ready()
        died = asyncio.create_task(master.died.wait())
        await asyncio.wait({stopped, died}, return_when=asyncio.FIRST_COMPLETED)
        log.info("master.stopping", crashed=died.done())
        return ExitCode.INTERNAL if died.done() else ExitCode.OK
    finally:
        notifier.stopping()
        if console is not None:
            # Not on the loop: what browsers ask at this moment is answered there.
            await asyncio.to_thread(console.close)
        await master.stop()
        if settings.ready_file is not None:
            settings.ready_file.unlink(missing_ok=True)
        log.info("master.stopped")


def _open_endpoint(settings: MasterSettings, metrics: MasterMetrics, health: Health) -> HttpEndpoint:
    def open_at(address: Address) -> HttpEndpoint:
        return HttpEndpoint(address, metrics.registry, health.alive, health.ready, lambda: health.measures)

    return _at_free_port(settings.http_address, settings.is_explicit("http"), open_at)


def _open_console(
    settings: MasterSettings, master: Master, loop: asyncio.AbstractEventLoop, port: int
) -> ConsoleServer | None:
    wanted = settings.console_address
    if wanted is None:
        return None

    def open_at(address: Address) -> ConsoleServer:
        return ConsoleServer(address, master, loop, port, settings.console_name_list)

    return _at_free_port(wanted, settings.is_explicit("console"), open_at, step=CONSOLE_PORT_STEP)


def _at_free_port(wanted: Address, explicit: bool, open_at: Callable[[Address], T], step: int = 1) -> T:
    """What listens at this address or, when nobody chose it, at the next port that is free, by ``step``."""
    tries = 1 if explicit else HTTP_PORTS_TRIED
    for offset in range(tries):
        try:
            return open_at(Address(wanted.host, wanted.port + offset * step))
        except AddressInUse:
            if offset == tries - 1:
                raise
    raise AssertionError("unreachable")


def _announce(ready_file: Path | None, master: Master, address: Address, http: Address, console: str) -> None:
    embedded = master.store.embedded
    facts = {
        "pid": os.getpid(),
        "grpc": str(address),
        "http": str(http),
        "console": console,
        "master_id": master.master_id,
        "store": master.store.description,
        "store_pid": embedded.pid if embedded else 0,
    }
    log.info("master.ready", durability=master.store.durability, version=__version__, **facts)
    if ready_file is not None:
        # Whole or not at all: a script may be waiting for it.
        scratch = ready_file.with_name(ready_file.name + ".part")
        scratch.write_text(json.dumps(facts) + "\n")
        scratch.replace(ready_file)
