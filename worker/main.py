"""The worker as a process: ``run(settings)`` from start to exit code."""

from __future__ import annotations

import asyncio
import signal
import sys

import structlog

from tenure.common import tracing
from tenure.common.cancelling import cancel_all
from tenure.common.errors import StartupError
from tenure.common.exits import ExitCode, exit_code_of
from tenure.common.logs import bind_process, configure_logs
from tenure.common.notify import Notifier
from tenure.worker.identity import Identity, claim_identity
from tenure.worker.settings import WorkerSettings, load_settings
from tenure.worker.supervisor import Supervisor

log = structlog.get_logger()

_START_MARGIN_SECONDS = 60.0


def run(settings: WorkerSettings) -> int:
    """Run a worker until it is told to end.

    The first SIGTERM or SIGINT drains: runs save and are handed back, their verdicts are awaited, within
    ``drain_grace_seconds``. A second one kills. SIGUSR1 is a preemption notice: a drain within
    ``preemption_grace_seconds``, which the first SIGTERM that follows doesn't cut short. SIGHUP does nothing.

    Returns:
        The process's exit code, see common/exits.py: 0 drained or shut down, 1 a drain cut short by a second signal,
        5 a master that refuses this worker, 7 superseded by a newer process with this worker's id, 8 preempted, 70
        crashed, else that of the error that kept it from starting, which is one line on stderr beside the log's.
    """
    configure_logs("worker", settings.log_format, settings.log_level)
    # Before anything is started that would inherit it.
    notifier = Notifier.take()
    try:
        with claim_identity(settings) as identity:
            bind_process(worker=identity.worker_id)
            tracing.start("tenure-worker", settings.traces, instance=identity.worker_id)
            return int(asyncio.run(_run(settings, identity, notifier)))
    except StartupError as error:
        log.error(
            "worker.refused",
            code=error.code,
            field=error.field,
            given=error.given,
            error=error.message,
            remedy=error.expected,
        )
        sys.stderr.write(f"error: {error}\n")
        return exit_code_of(error)
    except Exception:
        log.exception("worker.crashed")
        return ExitCode.INTERNAL
    finally:
        tracing.stop()


async def _run(settings: WorkerSettings, identity: Identity, notifier: Notifier) -> ExitCode:
    supervisor = Supervisor(settings, identity, notifier=notifier)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, supervisor.signalled)
    loop.add_signal_handler(signal.SIGUSR1, supervisor.preempted, "signal")
    # A handler, not SIG_IGN: that would be inherited by everything an evaluation starts.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    notifier.watch(supervisor.standing)
    # An executor says itself when importing takes too long.
    beat = asyncio.create_task(notifier.run(settings.start_timeout_seconds + _START_MARGIN_SECONDS))
    try:
        return await supervisor.run()
    finally:
        await cancel_all((beat,))


def main() -> int:
    """``python -m tenure.worker``: a worker with its settings from the environment."""
    try:
        settings = load_settings()
    except StartupError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code_of(error)
    return run(settings)
