"""docs/client.md: its blocks, run in their order as one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tenure.client.demo.processes import Fleet

ROOT = Path(__file__).resolve().parents[2]


def test_every_block_runs(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "client.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    program = "\n".join(blocks).replace('Client("127.0.0.1:50051")', "Client()")
    with Fleet(tmp_path) as fleet:
        fleet.start_master().wait_ready()
        own = ("--evaluator", "evaluators:noop", "--python-path", str(ROOT / "tests"))
        fleet.start_worker("--accept-code", *own).wait_ready()
        environment = {**os.environ, "TENURE_MASTER": fleet.master.facts["grpc"]}
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("content:") == 20
