"""Targets that are started from another version, and back from there."""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import replace

from restarting.master_target import LocalMaster
from restarting.processes import CannotRestart, Recipe, Running
from restarting.steps import MasterStep, Step, WorkersStep
from restarting.worker_target import LocalWorker, WorkerTarget

from upgrading.versions import Versions


def moved(recipe: Recipe, versions: Versions, name: str) -> Recipe:
    """The recipe, from the environment of this version.

    Raises:
        CannotRestart: It isn't started from a version's environment.
    """
    places = re.compile(rf"{re.escape(str(versions.root))}/(?:versions/[^/:]+|current|(?=bin/))/?(?=[/:]|bin/|$)")
    target = str(versions.path(name))

    def move(text: str) -> str:
        return places.sub(lambda found: target + ("/" if found[0].endswith("/") else ""), text)

    argv = tuple(map(move, recipe.argv))
    if not argv[0].startswith(f"{target}/"):
        raise CannotRestart(
            f"{recipe.argv[0]} is not below {versions.root}/versions: start this process once by "
            f"{versions.root}/bin/tenure, then it can be upgraded; or give --masters-via and --workers-via"
        )
    return replace(recipe, argv=argv, environ={key: move(value) for key, value in recipe.environ.items()})


def forward(step: Step, versions: Versions, name: str) -> Step:
    """The step, starting what is on this machine from a version."""
    if isinstance(step, MasterStep) and isinstance(step.target, LocalMaster):
        return replace(step, target=step.target.started_as(moved(step.target.recipe, versions, name)))
    if isinstance(step, WorkersStep):
        return replace(step, targets=[_forward_worker(target, versions, name) for target in step.targets])
    return step


def _forward_worker(target: WorkerTarget, versions: Versions, name: str) -> WorkerTarget:
    if isinstance(target, LocalWorker):
        return target.started_as(moved(target.recipe, versions, name))
    return target


def back(step: Step, original: Step) -> Step:
    """What takes a step back: ends what runs now, if anything does, and starts what ran before."""
    if isinstance(step, MasterStep) and isinstance(original, MasterStep):
        target, before = step.target, original.target
        if isinstance(target, LocalMaster) and isinstance(before, LocalMaster):
            running = running_now(target.running, target.child)
            # One that came up and doesn't serve may not heed a SIGTERM either.
            return replace(step, target=replace(target, recipe=before.recipe, running=running, ending=signal.SIGKILL))
    if isinstance(step, WorkersStep) and isinstance(original, WorkersStep):
        pairs = zip(step.targets, original.targets, strict=True)
        return replace(step, targets=[_back_worker(target, before) for target, before in pairs])
    return step


def _back_worker(target: WorkerTarget, before: WorkerTarget) -> WorkerTarget:
    if isinstance(target, LocalWorker) and isinstance(before, LocalWorker):
        running = running_now(target.running, target.child) or target.running
        return replace(target, recipe=before.recipe, running=running)
    return target


def running_now(running: Running | None, child: subprocess.Popen[bytes] | None) -> Running | None:
    """What runs of a process and the one that was started after it."""
    if child is not None and child.poll() is None:
        return Running(child.pid)
    return running if running is not None and not running.ended else None
