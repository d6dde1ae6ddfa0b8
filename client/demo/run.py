"""The demo's story: start, search, kill, account."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import optuna

from tenure.client.client import Client
from tenure.client.cnn_space import CnnSpace
from tenure.client.demo import DemoOptions
from tenure.client.demo.accounting import account, promises
from tenure.client.demo.chaos import Chaos, Damage
from tenure.client.demo.processes import Fleet
from tenure.client.demo.screen import Screen
from tenure.client.optuna_search import OptunaSearch, TrialEnd
from tenure.client.search import Search
from tenure.common.errors import InvalidSetting, TenureError, UnknownSearch

# Small networks, so that a trial takes seconds on one core.
SPACE = CnnSpace(blocks_max=2, filters=(8, 16, 32), dense_units=(0, 32, 64), dropout_max=0.3)
CONFIG = {
    "dataset": "digits",
    "num_epochs": 10,
    "batch_size": 64,
    "learning_rate": 0.003,
    # A training takes seconds: no checkpoint would be worth it, and the worker that is killed is to leave one.
    "extra": {"checkpoint_every_epochs": "1"},
}
_LOOK_SECONDS = 0.1
# When a search that does not come to its end is given up: many times what a slow machine needs.
_SECONDS_BASE = 240.0
_SECONDS_A_TRIAL = 60.0


class Demo:
    """One run of the demo."""

    def __init__(self, options: DemoOptions) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # What goes wrong is told on the screen.
        logging.getLogger("tenure.client").setLevel(logging.ERROR)
        self._options = options
        self._screen = Screen(options.trials)
        self._damage = Damage()
        self._study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=options.seed, n_startup_trials=8)
        )
        self._failure: Exception | None = None

    def run(self) -> int:
        """0 if every promise held, else 1."""
        given = self._options.data_dir
        directory = _made(given) if given is not None else Path(tempfile.mkdtemp(prefix="tenure-demo-"))
        kept = False
        # SIGTERM ends the demo as Ctrl-C does: with its processes. Ctrl-C works where a shell started it in the
        # background, too: such a process begins with SIGINT ignored.
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        before_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with Fleet(directory) as fleet:
                kept = self._search_and_account(fleet)
        finally:
            signal.signal(signal.SIGTERM, before)
            signal.signal(signal.SIGINT, before_interrupt)
            if not kept:
                self._screen.print(f"\nlogs of all processes: {directory / 'logs'}")
            elif given is None:
                shutil.rmtree(directory, ignore_errors=True)
        return 0 if kept else 1

    def _search_and_account(self, fleet: Fleet) -> bool:
        with self._screen:
            self._start(fleet)
            with Client(fleet.master.facts["grpc"], timeout_seconds=120) as client:
                search = client.search(f"demo-{time.strftime('%Y%m%d-%H%M%S')}")
                self._run_search(fleet, search)
                if self._failure is not None:
                    self._screen.say(f"the search failed: {self._failure}")
                return self._show_account(client, search)

    def _start(self, fleet: Fleet) -> None:
        options = self._options
        self._screen.say(f"starting a master with its embedded store, and {options.workers} workers")
        fleet.start_master().wait_ready()
        self._screen.say(f"watch it at {fleet.master.facts['console']}")
        workers = [fleet.start_worker() for _ in range(options.workers)]
        for worker in workers:
            worker.wait_ready()
        self._screen.say(f"searching {options.trials} convolutional networks for scikit-learn's digits, with Optuna")

    def _run_search(self, fleet: Fleet, search: Search) -> None:
        """The search in a thread of its own, as a user's program; screen and chaos in this one."""
        searching = threading.Thread(target=self._drive, args=(search,), name="demo-search", daemon=True)
        searching.start()
        chaos = Chaos(fleet, search, self._options.trials, self._screen.say) if self._options.chaos else None
        self._damage = chaos.damage if chaos is not None else self._damage
        while searching.is_alive():
            with contextlib.suppress(UnknownSearch):  # until its first task
                status = search.status()
                self._screen.update(status)
                if chaos is not None:
                    chaos.step(status)
            searching.join(_LOOK_SECONDS)

    def _drive(self, search: Search) -> None:
        try:
            # One more than there are slots: a worker that ends a task finds the next one waiting.
            driver = OptunaSearch(search, SPACE, self._study, config=CONFIG, parallelism=self._options.workers + 1)
            seconds = _SECONDS_BASE + _SECONDS_A_TRIAL * self._options.trials / self._options.workers
            driver.run(self._options.trials, timeout=seconds, on_end=self._note_end)
        except (TenureError, TimeoutError) as error:
            self._failure = error

    def _note_end(self, end: TrialEnd) -> None:
        if end.result is None:
            self._screen.say(f"trial {end.number} failed: {str(end.error).splitlines()[0]}")
            return
        metrics = end.result.metrics
        how = "the same architecture as before" if end.repeated else f"on {end.result.worker_id}"
        resumed = f", resumed at epoch {metrics['resumed_from']:.0f}" if metrics.get("resumed_from") else ""
        self._screen.say(
            f"trial {end.number:>2}: accuracy {metrics['val_accuracy']:.4f},"
            f" {metrics['params']:.0f} parameters, {how}{resumed}"
        )

    def _show_account(self, client: Client, search: Search) -> bool:
        # What the search program was told was taken; each trial keeps its task's id from the acknowledgement on.
        submitted = {trial.user_attrs["tenure_task_id"] for trial in self._study.trials if trial.user_attrs}
        full = client.get_tasks(submitted, full=True)
        figures = account(submitted, full, client.stats(), self._damage)
        found = promises(figures, full, client.fsck(), self._damage, chaos=self._options.chaos)
        self._screen.show_best(full.values())
        self._screen.show_account(figures, trials=len(self._study.trials))
        self._screen.show_promises(found)
        broken = [promise for promise in found if not promise.kept]
        seconds = self._screen.seconds
        if broken or self._failure is not None:
            self._screen.print(f"\nbroken after {seconds:.0f} s: " + "; ".join(f"{p.text} ({p.seen})" for p in broken))
            return False
        self._screen.print(f"\nevery promise was kept, in {seconds:.0f} s")
        return True


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            f"can't be used: {error.strerror}",
            field="data_dir",
            given=str(directory),
            expected="give a directory that this user may write",
        ) from None
    return directory
