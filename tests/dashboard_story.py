"""The pictures of docs/dashboards.md: a real cluster works and breaks for ten minutes, then they are drawn.

Real are the processes, the training (an Optuna search of convolutional networks for scikit-learn's digits), the faults
and the Prometheus; of GPUs there is a recording. Windows and durations of the alerts are a third of the real ones, and
so is the scrape interval, so that alerts fire within the time shown.

    make dashboard-images                    # the same as below, into docs/images
    PYTHONPATH=tests python -m dashboard_story --folder /tmp/pictures --minutes 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import optuna
from failure_scene import a_result_comes_late, submit
from observed_cluster import ObservedCluster
from PIL import Image
from worker_process import TESTS, WorkerProcess

from tenure.client.cnn_space import CnnSpace
from tenure.client.optuna_search import OptunaSearch

ROOT = TESTS.parent
sys.path.insert(0, str(ROOT / "ops" / "scripts"))

from picturing.command import main as draw  # noqa: E402 - of the scripts, which are no package

FACTOR = 3
# So small that its append-only file is rewritten within the time shown.
STORE = {"maxmemory": "64mb", "maxmemory-policy": "noeviction", "auto-aof-rewrite-min-size": "1mb"}
TORCH = "tenure.worker.torch_eval:evaluate"
SPACE = CnnSpace(blocks_max=2, filters=(8, 16, 32), dense_units=(0, 32, 64), dropout_max=0.3)
CONFIG = {
    "dataset": "digits",
    "num_epochs": 25,
    "batch_size": 64,
    "learning_rate": 0.003,
    "extra": {"checkpoint_every_epochs": "2"},
}
SWEEP = {"steps": "12", "seconds": "14", "checkpoint": "3"}
FATES = ("ok", "ok", "ok", "error", "ok", "kill", "ok", "memory", "invalid_architecture", "ok", "exit", "ok")
OTHERS = ("cluster", "workers", "store", "failures")
COLOURS = 256


class Story:
    """What happens when, in minutes of ``minutes``: everything is spread over the time that there is."""

    def __init__(self, cluster: ObservedCluster, minutes: float) -> None:
        self._cluster = cluster
        self._minutes = minutes
        self._started = time.monotonic()

    async def play(self) -> None:
        """All of it."""
        cluster = self._cluster
        await self._start_workers()
        _say(f"workers are up; {self._minutes:g} minutes of work and faults")
        searching = asyncio.create_task(asyncio.to_thread(self._optuna))
        feeding = asyncio.create_task(self._feed())
        for share, act in (
            (0.05, cluster.fsck),
            (0.22, self._kill_a_worker),
            (0.38, self._restart_a_worker),
            (0.45, self._kill_a_master),
            (0.55, self._restart_a_master),
            (0.66, self._preempt),
            (0.76, self._break_a_gpu),
            (0.82, self._cut_a_worker_off),
        ):
            await self._at(share, act)
        await self._at(1.0, cluster.fsck)
        for task in (searching, feeding):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _at(self, share: float, act: Callable[[], Awaitable[Any]]) -> None:
        moment = self._started + share * self._minutes * 60
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        _say(f"{share:4.0%} {act.__name__.strip('_').replace('_', ' ')}")
        try:
            await act()
        except AssertionError as error:
            # On a busy machine something takes longer than a test would wait; the story goes on.
            _say(f"     late: {error}")

    async def _start_workers(self) -> None:
        cluster = self._cluster
        gpus = cluster.workers["gpu-1"] = WorkerProcess(cluster.root, "gpu-1")
        gpus.program = (str(TESTS / "worker_with_gpus.py"), "xid", str(cluster.root))
        await cluster.add_worker("north-1", slots=2, labels="site=north,kind=torch", evaluator=TORCH)
        await cluster.add_worker("north-2", slots=2, labels="site=north,kind=torch", evaluator=TORCH)
        await cluster.add_worker("north-3", slots=3, labels="site=north,kind=cpu")
        await cluster.start_worker(gpus, labels="site=south,gpu=h100")
        notice = {"preemption_file": cluster.root / "preempted", "preemption_poll_seconds": 0.5}
        await cluster.add_worker("spot-1", slots=2, labels="site=south,kind=spot", **notice)

    def _optuna(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1))
        options = {"requirements": {"labels": {"kind": "torch"}}}
        search = self._cluster.client.search("digits-cnn")
        driver = OptunaSearch(search, SPACE, study, config=CONFIG, parallelism=7, spec_options=options)
        # It is ended with the cluster: whoever is asked then answers no more.
        with contextlib.suppress(Exception):
            driver.run(10_000, timeout=self._minutes * 60)

    async def _feed(self) -> None:
        """Two more searches beside it: one that only takes time, one whose code fails; and one that nobody serves."""
        cluster = self._cluster
        south = {"requirements": {"labels": {"site": "south"}}}
        await submit(cluster, "lunar", ["l1", "l2", "l3"], {}, requirements={"gpus": 2, "labels": {"site": "moon"}})
        for number in itertools.count():
            extra = {**SWEEP, "fitness": f"{0.5 + 0.4 * (1 - 0.97**number):.4f}"}
            keys = [f"s{number}-{index}" for index in range(2)]
            await submit(cluster, "sweep", keys, extra, **south)
            # The same again: answered by what there is.
            await submit(cluster, "sweep", keys[:1], extra, **south)
            fate = FATES[number % len(FATES)]
            broken = {"steps": "8", "seconds": "6", "checkpoint": "3", "fate": fate, "fate_step": "6"}
            cpu = {"requirements": {"labels": {"kind": "cpu"}}, "max_attempts": 2}
            await submit(cluster, "fragile", [f"f{number}"], broken, **cpu)
            await asyncio.sleep(9)

    async def _kill_a_worker(self) -> None:
        """As if its machine had lost its power."""
        worker = self._cluster.workers["north-2"]
        for executor in worker.executors():
            executor.kill()
        worker.signal(signal.SIGKILL)
        await worker.wait()

    async def _restart_a_worker(self) -> None:
        worker = self._cluster.workers["north-2"]
        await self._cluster.start_worker(worker, slots=2, labels="site=north,kind=torch", evaluator=TORCH)

    async def _kill_a_master(self) -> None:
        await asyncio.to_thread(self._cluster.masters[0].kill)

    async def _restart_a_master(self) -> None:
        await self._cluster.restart(self._cluster.masters[0])

    async def _preempt(self) -> None:
        (self._cluster.root / "preempted").touch()

    async def _cut_a_worker_off(self) -> None:
        await a_result_comes_late(self._cluster, "sweep")

    async def _break_a_gpu(self) -> None:
        for xid in (31, 94, 79):
            (self._cluster.root / f"xid-{xid}").touch()


def _shrink(folder: Path) -> None:
    """To a third of their size: dashboards have few colours."""
    for path in folder.glob("dashboard-*.png"):
        with Image.open(path) as picture:
            few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def tell(folder: Path, minutes: float) -> int:
    """Play it and draw every dashboard into the folder; the status of the drawing."""
    with tempfile.TemporaryDirectory(prefix="tenure-story-") as root:
        settings = {"lease_ttl_seconds": 20.0, "heartbeat_seconds": 3.0}
        replacing = {"TenureDeadLetters": {"> 10": "> 2"}}
        cluster = await ObservedCluster.start(
            Path(root), masters=2, external=STORE, factor=FACTOR, replacing=replacing, **settings
        )
        started = time.time()
        try:
            await Story(cluster, minutes).play()
            arguments = ["--prometheus", cluster.prometheus.url, "--last", f"{round(time.time() - started)}s"]
            arguments += ["--scrape-interval", f"{round(15 / FACTOR)}s", "--folder", str(folder)]
            status = await asyncio.to_thread(draw, [*arguments, "--var", "search=digits-cnn", "search"])
            status = status or await asyncio.to_thread(draw, [*arguments, *OTHERS])
            _shrink(folder)
            return status
        finally:
            await cluster.destroy()


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the story takes (default %(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images", help="where the pictures go")
    given = parser.parse_args()
    return asyncio.run(tell(given.folder, given.minutes))


if __name__ == "__main__":
    raise SystemExit(main())
