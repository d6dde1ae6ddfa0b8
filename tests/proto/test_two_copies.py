"""MorphML's descriptors and ours in one process, whichever is imported first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
CONTRACT = "from tenure.proto import worker_pb2, worker_pb2_grpc, RegisterRequest, EvaluateRequest"
BESIDE = "import morphml; legacy = morphml.messages.RegisterRequest"
# Both classes work, neither knows the other, and each pool has its own file.
USE_BOTH = """
from google.protobuf import descriptor_pool
from tenure.proto.pool import POOL
assert legacy is not RegisterRequest
assert 'instance_id' not in legacy.DESCRIPTOR.fields_by_name
assert 'instance_id' in RegisterRequest.DESCRIPTOR.fields_by_name
default = descriptor_pool.Default()
assert default.FindMessageTypeByName('morphml.distributed.RegisterRequest') is legacy.DESCRIPTOR
assert POOL.FindMessageTypeByName('morphml.distributed.RegisterRequest') is RegisterRequest.DESCRIPTOR
try:
    default.FindFileByName('tenure.proto')
except KeyError:
    pass
else:
    raise AssertionError('tenure.proto is in the default pool')
assert RegisterRequest.FromString(legacy(worker_id='w').SerializeToString()).worker_id == 'w'
"""


def run_python(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=TESTS, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_import_that_the_protocol_promises() -> None:
    run_python(CONTRACT)


@pytest.mark.parametrize("imports", [(BESIDE, CONTRACT), (CONTRACT, BESIDE)], ids=["morphml first", "tenure first"])
def test_both_copies_live_in_one_process(imports: tuple[str, str]) -> None:
    run_python("\n".join((*imports, USE_BOTH)))


def test_importing_the_protocol_pulls_neither_torch_nor_the_store() -> None:
    run_python(
        f"import sys; {CONTRACT}\n"
        "heavy = {'torch', 'redis', 'pydantic', 'optuna', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
