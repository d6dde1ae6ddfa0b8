"""Which process imports what: style.md's fifth house rule, as far as the worker goes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def modules_after(*imports: str) -> set[str]:
    """The modules of a fresh process that imports these."""
    program = f"import {', '.join(imports)}, sys, json; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout)} | set(json.loads(done.stdout))


def test_an_executor_never_imports_grpc() -> None:
    loaded = modules_after(
        "tenure.worker.executor.__main__",
        "tenure.worker.executor.outbox",
        "tenure.worker.executor.evaluation",
        "tenure.worker.evaluator",
        "tenure.worker.checkpoint",
    )
    assert not loaded & {"grpc", "google.protobuf", "tenure.proto", "redis", "torch"}


def test_the_supervisor_never_imports_torch_or_user_code() -> None:
    loaded = modules_after("tenure.worker.main")
    assert not loaded & {"torch", "numpy", "sklearn", "mlxtend", "redis", "fsspec", "tenure.worker.torch_eval"}


def test_the_watchdog_is_forked_before_anything_heavy_is_imported() -> None:
    loaded = modules_after("tenure.worker.executor.__main__")
    assert not loaded & {"tenure.worker.checkpoint", "tenure.worker.executor.evaluation", "tenure.common.spec"}


@pytest.mark.torch
def test_the_torch_evaluator_brings_no_grpc_into_the_executor() -> None:
    pytest.importorskip("torch")
    loaded = modules_after("tenure.worker.torch_eval")
    assert not loaded & {"grpc", "tenure.proto", "redis"}
