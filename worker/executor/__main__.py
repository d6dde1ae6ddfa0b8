"""Start-up of an executor, and its loop over evaluations."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import importlib
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback

from tenure.worker.executor.cleanup import Cleanup, adopt_orphans
from tenure.worker.executor.surroundings import Surroundings
from tenure.worker.executor.watchdog import start_watchdog
from tenure.worker.host_memory import limit_this_process
from tenure.worker.pipe import Message, PipeBroken, receive_frame


def main() -> int:
    """Serve evaluations until told to leave, or until the supervisor is gone."""
    arguments = _parse()
    # Before anything with threads or weight is imported: it forks.
    start_watchdog(arguments.pipe, arguments.supervisor)
    os.set_inheritable(arguments.pipe, False)
    faulthandler.enable()
    if arguments.memory_max:
        limit_this_process(arguments.memory_max)
    _leave_signals_to_the_supervisor()
    _append_working_directory()
    return _Executor(arguments).serve()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tenure.worker.executor", description="Started by a Tenure worker, not by hand."
    )
    parser.add_argument("--pipe", type=int, required=True, help="descriptor of the pipe to the supervisor")
    parser.add_argument("--supervisor", type=int, required=True, help="its process id")
    parser.add_argument("--evaluator", required=True, help="module:function")
    parser.add_argument("--code", default="", help="directory of shipped code that the evaluator is in")
    parser.add_argument("--devices", default="cpu", help="as torch names them, separated by commas")
    parser.add_argument("--checkpoints", required=True, help="URL")
    parser.add_argument("--max-parameters", type=int, default=0)
    parser.add_argument("--memory-max", type=int, default=0, help="bytes; 0: no limit")
    parser.add_argument("--traces", action="store_true", help="tell spans")
    return parser.parse_args()


def _leave_signals_to_the_supervisor() -> None:
    """A service manager signals every process of the worker; whether evaluations stop is the supervisor's to say.

    Handlers rather than SIG_IGN, and not in forked children: what an evaluation starts must die of SIGTERM as usual.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: None)
    # Slurm may send its notice to every process of a job. Ignored, not handled: so is it by what an evaluation starts.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def restore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    os.register_at_fork(after_in_child=restore)


def _append_working_directory() -> None:
    """Evaluators beside the shell's prompt are found, but never hide an installed module."""
    with contextlib.suppress(FileNotFoundError):
        sys.path.append(os.getcwd())


def _put_in_front(code: str) -> None:
    """Shipped code is found before anything installed; what this process itself needs is imported by now."""
    if code:
        sys.path.insert(0, code)
        # For processes that an evaluation starts.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH", ""))))


class _Executor:
    def __init__(self, arguments: argparse.Namespace) -> None:
        # The modules behind these are heavier than the watchdog should be.
        from tenure.worker.executor.outbox import Outbox

        self._arguments = arguments
        self._sock = socket.socket(fileno=arguments.pipe)
        self._outbox = Outbox(self._sock)
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._stops: dict[int, threading.Event] = {}

    def serve(self) -> int:
        threading.Thread(target=self._receive, name="tenure-pipe", daemon=True).start()
        if self._arguments.traces:
            from tenure.worker.executor.spans import start_tracing

            # Before the evaluator is imported: what it imports may trace, too.
            start_tracing(self._outbox.send)
        if not self._import_evaluator():
            return 1
        # What is imported stays anyway; collections between runs need not walk it.
        gc.collect()
        gc.freeze()
        adopt_orphans()
        self._cleanup = Cleanup()
        self._surroundings = Surroundings()
        self._outbox.send({"type": "ready", "pid": os.getpid()})
        with contextlib.suppress(PipeBroken):
            while (message := self._inbox.get())["type"] == "evaluate":
                self._evaluate(message)
        return 0

    def _import_evaluator(self) -> bool:
        from tenure.worker.executor import evaluation

        module_name, _, function_name = self._arguments.evaluator.partition(":")
        _put_in_front(self._arguments.code)
        try:
            evaluator = getattr(importlib.import_module(module_name), function_name)
            if not callable(evaluator):
                raise TypeError(f"{self._arguments.evaluator} is {type(evaluator).__name__}, not a function")
        except BaseException as error:  # noqa: BLE001 - translated: the supervisor refuses the setting with it
            if not _is_absent(error, module_name):
                # Where in the user's module it went wrong. Of a module that isn't there importlib's frames say nothing.
                traceback.print_exc()
            self._outbox.send({"type": "refused", "error": f"{type(error).__name__}: {error}"})
            return False
        self._evaluator = evaluator
        self._carry_out = evaluation.carry_out
        return True

    def _evaluate(self, message: Message) -> None:
        run = int(message["run"])
        started = time.monotonic()
        leftovers = contextlib.ExitStack()
        ending = self._carry_out(
            self._evaluator,
            message,
            checkpoints_url=self._arguments.checkpoints,
            devices=tuple(self._arguments.devices.split(",")),
            max_parameters=self._arguments.max_parameters,
            outbox=self._outbox,
            stop=self._stops[run],
            leftovers=leftovers,
        )
        ending["seconds"] = time.monotonic() - started
        # The output must be in the pipe before the supervisor hears of the end.
        self._surroundings.flush()
        self._outbox.send(ending)
        del self._stops[run]
        leftovers.close()
        self._surroundings.restore()
        self._outbox.send({"type": "idle", "run": run, **self._cleanup.after_run()})

    def _receive(self) -> None:
        """The reading thread: evaluations into the inbox, stops to where the evaluation looks."""
        try:
            while True:
                message = receive_frame(self._sock)
                if message["type"] == "evaluate":
                    self._stops[int(message["run"])] = threading.Event()
                if message["type"] == "stop":
                    if (stop := self._stops.get(int(message["run"]))) is not None:
                        stop.set()
                else:
                    self._inbox.put(message)
        except PipeBroken:
            # Without a supervisor nobody holds the lease. The watchdog does this when the GIL is held.
            os.killpg(0, signal.SIGKILL)


def _is_absent(error: BaseException, module_name: str) -> bool:
    """Whether the module itself, or a package it stands in, is what could not be found."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return False
    return module_name == error.name or module_name.startswith(f"{error.name}.")


if __name__ == "__main__":
    sys.exit(main())
