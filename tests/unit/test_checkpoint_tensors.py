"""States with tensors: torch's format, read with ``weights_only``."""

from __future__ import annotations

import errno
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tenure.common.errors import CheckpointError, CorruptCheckpoint, InvalidInput  # noqa: E402
from tenure.worker.checkpoint import local, read_checkpoint, write_checkpoint  # noqa: E402
from tenure.worker.checkpoint.naming import local_path  # noqa: E402
from tenure.worker.checkpoint.snapshot import Snapshot  # noqa: E402

pytestmark = pytest.mark.torch


def training_state() -> dict[str, Any]:
    model = torch.nn.Sequential(torch.nn.Linear(20, 10), torch.nn.BatchNorm1d(10))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 20)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "tuple": (1, (2.5, None)),
        "bytes": b"\0\1",
        "empty": {},
    }


def test_models_and_optimizers_come_back_bit_for_bit(tmp_path: Path) -> None:
    state = training_state()
    written = write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, state)
    loaded = read_checkpoint(written.url, written.digest)
    assert isinstance(loaded["model"], OrderedDict)
    for name, tensor in state["model"].items():
        assert torch.equal(loaded["model"][name], tensor)
        assert loaded["model"][name].dtype is tensor.dtype
    moments = loaded["optimizer"]["state"][0]
    assert torch.equal(moments["exp_avg"], state["optimizer"]["state"][0]["exp_avg"])
    assert loaded["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert torch.equal(loaded["rng"], state["rng"])
    assert (loaded["tuple"], loaded["bytes"], loaded["empty"]) == (state["tuple"], b"\0\1", {})


def test_every_region_of_the_file_is_covered(tmp_path: Path) -> None:
    written = write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, {"weights": torch.arange(100)})
    directory = local_path(written.url)
    assert directory is not None
    path = directory / "state.pt"
    whole = path.read_bytes()
    for index in range(0, len(whole), 7):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(CorruptCheckpoint, match=r"state\.pt: SHA-256 differs"):
            read_checkpoint(written.url, written.digest)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 30])
def test_a_disk_that_fills_up_inside_torch_save(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    class FullOs:
        def __getattr__(self, name: str) -> Any:
            return self.write if name == "write" else getattr(os, name)

        def write(self, descriptor: int, data: memoryview) -> int:
            nonlocal count
            count += 1
            if count >= n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.write(descriptor, data)

    monkeypatch.setattr(local, "os", FullOs())
    with pytest.raises(CheckpointError, match="the storage is full"):
        write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, training_state())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_numpy_values_are_refused_when_saving_not_when_resuming(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    for value in (numpy.float64(0.5), numpy.zeros(3), numpy.int64(1)):
        with pytest.raises(InvalidInput, match=r"state\.metrics\.loss: can't be kept"):
            write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, {"metrics": {"loss": value}})


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), torch.optim.SGD, torch.float32],
    ids=["meta", "sparse", "class", "dtype"],
)
def test_what_is_no_dense_tensor_is_refused(tensor: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"state\.x"):
        write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, {"x": tensor})


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    """Even with a manifest that vouches for it."""
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(marker),))

    malicious = Snapshot("torch", pickle.dumps({"x": Payload()}))
    written = write_checkpoint(str(tmp_path), "search", "0-task", 1, 1, malicious)
    with pytest.raises(CorruptCheckpoint, match="can't be decoded"):
        read_checkpoint(written.url, written.digest)
    assert not marker.exists()
