"""What makes trainings equal to the last bit: deterministic kernels, a number of threads, random generators."""

from __future__ import annotations

import hashlib
import os
import platform
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenure import __version__
from tenure.common.errors import InvalidSetting

THREADS_ENV = "TENURE_TORCH_THREADS"
# Without the variable: more threads than this slow the small networks of a search down.
_THREADS_DEFAULT_MAX = 4
_THREADS_MAX = 1024
_SEED_BITS = 63


def check_device(name: str) -> torch.device:
    """The device of this name, if it is there.

    Raises:
        InvalidSetting: It isn't a device, or this process sees none of its kind: the worker's fault, not the task's.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidSetting("is not a device", field="device", given=name, expected="cpu or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidSetting("no CUDA device is visible", field="device", given=name, expected="cpu, or a driver")
    if device.type == "cuda" and device.index is None:
        # Tensors on it say which; comparisons of devices need the same.
        return torch.device("cuda", torch.cuda.current_device())
    return device


def choose_threads(asked: int, recorded: int = 0) -> int:
    """How many CPU threads torch gets.

    The first of: ``asked`` (``config.extra.threads``); ``recorded``, the number that this training began with, if this
    machine has as many cores, since sums depend on it; ``$TENURE_TORCH_THREADS``; ``$OMP_NUM_THREADS``, which a worker
    sets to its cores divided by its slots; the cores this process may use, at most 4.

    Raises:
        InvalidSetting: The variable holds no number of threads.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked:
        return asked
    if 0 < recorded <= cores:
        return recorded
    if text := os.environ.get(THREADS_ENV):
        if not text.isdecimal() or not 0 < int(text) <= _THREADS_MAX:
            raise InvalidSetting(
                "is no number of threads", field=THREADS_ENV, given=repr(text), expected=f"from 1 to {_THREADS_MAX}"
            )
        return int(text)
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    return min(cores, _THREADS_DEFAULT_MAX)


@contextmanager
def reproducible(device: torch.device, threads: int, deterministic: bool = True) -> Iterator[None]:
    """Deterministic algorithms and ``threads`` threads within the block; then everything as it was.

    An operation without a deterministic implementation on this device still runs, with torch's warning in the output.
    Not ``deterministic``: whatever is fastest, with TF32 for products of matrices, and cuDNN trying its algorithms out.
    """
    if device.type == "cuda":
        # cuBLAS reads it when its first handle is made; it refuses to be deterministic without.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.benchmark,
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
    )
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    cudnn.benchmark = not deterministic
    torch.set_float32_matmul_precision("highest" if deterministic else "high")
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        cudnn.benchmark = before[2]
        torch.set_num_threads(before[3])
        torch.set_float32_matmul_precision(before[4])


def derived_seed(*parts: int | str) -> int:
    """A seed for one purpose, the same everywhere: SHA-256 over the parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)


def seed_everything(seed: int) -> None:
    """Python's, numpy's and torch's global generators, CUDA's too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The CPU's global generators begin at ``seed`` within the block; then they go on as if nothing had been drawn."""
    before = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def capture_generators(device: torch.device) -> dict[str, Any]:
    """The global generators' states as tensors and lists."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_generators(state: Mapping[str, Any], device: torch.device) -> None:
    """What :func:`capture_generators` gave; without a CUDA state (captured on a CPU) CUDA's stays as it is."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = state["numpy"]
    keys: Tensor = numpy_state["keys"]
    np.random.set_state(
        (
            numpy_state["name"],
            keys.numpy().astype(np.uint32),
            numpy_state["position"],
            numpy_state["has_gauss"],
            numpy_state["cached"],
        )
    )
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def environment(device: torch.device, threads: int) -> dict[str, str | int]:
    """What the last bits of a training depend on beside its task."""
    on_cuda = device.type == "cuda"
    cudnn = torch.backends.cudnn.version() if on_cuda else None  # type: ignore[no-untyped-call]
    return {
        "tenure": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "device": torch.cuda.get_device_name(device) if on_cuda else device.type,
        "cuda": f"{torch.version.cuda}, cuDNN {cudnn}" if on_cuda else "",
        "instructions": str(torch.backends.cpu.get_cpu_capability()),
        "machine": platform.machine(),
        "threads": threads,
    }
