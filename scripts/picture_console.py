#!/usr/bin/env python3
"""Take the pictures of docs/console.md: a master, two workers and searches that train, seen by Chromium.

.venv/bin/python scripts/picture_console.py                       # docs/images/console-*.png
.venv/bin/python scripts/picture_console.py --out /tmp/pictures   # elsewhere

Everything in them is real: networks for scikit-learn's digits, trained by the built-in evaluator. Two networks diverge
on purpose, one executor is killed, one search asks for GPUs that nobody has. It takes two to five minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from tenure.client import Client
from tenure.client.demo.processes import Process
from tenure.common.states import TaskState

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
PICTURE_BYTES_MAX = 300_000
SECONDS_MAX = 300.0
FLAGS = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")


def network(units: int, depth: int, dropout: float) -> dict[str, Any]:
    """Dense layers over the 64 pixels, as graph JSON."""
    names = [f"hidden{number}" for number in range(depth)]
    nodes: list[dict[str, Any]] = [
        {"id": name, "operation": "dense", "params": {"units": units, "activation": "relu"}} for name in names
    ]
    if dropout:
        names.append("dropout")
        nodes.append({"id": "dropout", "operation": "dropout", "params": {"rate": dropout}})
    names.append("output")
    nodes.append({"id": "output", "operation": "dense", "params": {"units": 10}})
    edges = [{"id": f"{a}-{b}", "source_id": a, "target_id": b} for a, b in itertools.pairwise(names)]
    return {"nodes": nodes, "edges": edges}


def tasks(count: int, seed: int, epochs: int, **spec: Any) -> Iterator[dict[str, Any]]:
    """Random networks with random training; later ones larger and trained better, as a search would come to propose."""
    rng = random.Random(seed)
    for number in range(count):
        part = number / count
        units = rng.choice([4, 8, 16, 32]) if rng.random() > part else rng.choice([48, 64, 96, 128])
        rate = 10 ** rng.uniform(-3.6 + part, -2.2)
        config = {"dataset": "digits", "num_epochs": epochs, "batch_size": rng.choice([32, 64]), "learning_rate": rate}
        yield {"architecture": network(units, rng.randint(1, 3), rng.choice([0, 0, 0.2])), "config": config, **spec}


def submit_all(client: Client) -> None:
    """The searches of the pictures."""
    client.search("wide-h100").submit_many(tasks(12, 3, 5, requirements={"gpus": 8, "labels": {"pool": "h100"}}))
    paused = client.search("learning-rates")
    paused.submit_many(tasks(40, 4, 4))
    paused.pause()
    client.search("digits-deep").submit_many(tasks(24, 2, 12))
    client.search("digits-mlp").submit_many(tasks(160, 1, 3))
    diverging = {"dataset": "digits", "num_epochs": 4, "learning_rate": 1e9, "extra": {"optimizer": "sgd"}}
    client.search("digits-mlp").submit_many(
        {"architecture": network(units, 2, 0), "config": diverging, "priority": 5} for units in (16, 24)
    )
    long = {"dataset": "digits", "num_epochs": 100_000}
    client.search("long-run").submit_many(
        {"architecture": network(units, 2, 0), "config": long, "max_losses": 1, "priority": 9} for units in (64, 128)
    )


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for it, and say what is waited for."""
    print(f"until {what} …", flush=True)
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not within {SECONDS_MAX:g} s: {what}")
        time.sleep(0.2)


def kill_executor_of(client: Client, worker: Process, task_id: str) -> None:
    """SIGKILL to the process of the worker that trains this task: the one that computes most."""
    until(lambda: client.task(task_id).progress is not None, "the task that will be killed has begun")
    children = psutil.Process(worker.pid).children()
    max(children, key=lambda child: sum(child.cpu_times()[:2])).kill()
    until(lambda: client.task(task_id).state is TaskState.FAILED, "its loss is noticed")


def take(page: Page, url: str, out: Path, name: str, wait_for: str, size: tuple[int, int]) -> None:
    """One picture, once the text is there."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(url)
    page.get_by_text(wait_for).first.wait_for(timeout=60_000)
    # Two rounds of the page's own clock: the curves of a page come with the second.
    page.wait_for_timeout(2500)
    path = out / f"console-{name}.png"
    page.screenshot(path=path)
    size_bytes = path.stat().st_size
    print(f"{path.name}: {size_bytes / 1000:.0f} kB", flush=True)
    if size_bytes > PICTURE_BYTES_MAX:
        raise SystemExit(f"{path.name} is larger than {PICTURE_BYTES_MAX} bytes")


def photograph(console: str, out: Path, chromium: str, dead_task: str) -> None:
    """Every picture."""
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else [*FLAGS]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for scheme, shots in {
            "light": [
                ("searches", "#/", "digits-deep", (1280, 800)),
                ("search", "#/search?name=digits-mlp", "best so far", (1280, 1180)),
                ("queue", "#/queue", "Why they wait", (1280, 470)),
                ("failures", "#/failures", "dead letters", (1280, 720)),
                ("task", f"#/task?id={dead_task}", "SIGKILL", (1280, 800)),
                ("narrow", "#/search?name=digits-mlp", "best so far", (400, 860)),
            ],
            "dark": [
                ("workers", "#/workers", "Memory a slot", (1280, 560)),
                ("leases", "#/leases", "Lease left", (1280, 470)),
            ],
        }.items():
            page = browser.new_page(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            for name, path, text, size in shots:
                take(page, console + path, out, name, text, size)
            page.close()
        browser.close()


def main() -> None:
    """Start, submit, wait, photograph, end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    given = parser.parse_args()
    if not given.chromium:
        sys.exit("no chromium on PATH: apt-get install chromium, or give --chromium")
    given.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tenure-console-")))

        def start(name: str, *arguments: str) -> Process:
            process = Process(name, list(arguments), folder, {})
            stack.callback(process.kill)
            process.wait_ready()
            return process

        addresses = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        master = start("master", "master", *addresses, "--console", "127.0.0.1:0", "--data-dir", str(folder / "data"))
        client = stack.enter_context(contextlib.closing(Client(master.facts["grpc"])))
        submit_all(client)
        workers = [
            start(
                name,
                *("worker", "--master", master.facts["grpc"], *addresses, "--worker-id", name, "--slots", slots),
                *("--labels", labels, "--work-dir", str(folder / name), "--checkpoints", str(folder / "checkpoints")),
            )
            for name, slots, labels in (("gpu-box-1", "2", "pool=a100"), ("gpu-box-2", "1", "pool=l4,rack=7"))
        ]
        doomed = next(task.task_id for task in client.tasks("long-run"))
        until(lambda: client.task(doomed).worker_id, "the long run has begun")
        holder = next(each for each in workers if each.name == client.task(doomed).worker_id)
        kill_executor_of(client, holder, doomed)
        client.search("long-run").cancel_search()
        until(lambda: client.search("digits-mlp").status().tasks[TaskState.SUCCEEDED] >= 60, "60 networks are trained")
        photograph(master.facts["console"], given.out, given.chromium, doomed)


if __name__ == "__main__":
    main()
