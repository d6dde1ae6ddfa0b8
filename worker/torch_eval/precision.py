"""What a network computes in, and whether it is compiled: autocast, the gradient scaler, ``torch.compile``."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from tenure.common.errors import InvalidSetting

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Of one network: full, last and validation batch, each in parts of two sizes.
_SHAPES_MAX = 64
_CPU_COMPILERS = ("g++", "clang++", "c++")


class Precision:
    """Mixed precision on one device: the forward pass in a short type, weights and optimizer in float32.

    ``float16`` has so small a range that small gradients vanish: the loss is scaled up before the backward pass, and
    the scale is a state that a resumed training needs.

    Args:
        name: ``float32``, ``bfloat16`` or ``float16``.
        device: Where the network is; see :func:`check_precision`.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device_type = device.type
        self._dtype = _DTYPES.get(name)
        self._scaler = torch.amp.GradScaler(device.type) if name == "float16" else None

    def autocast(self) -> torch.autocast:
        """Within it, the network computes in the short type."""
        return torch.autocast(self._device_type, dtype=self._dtype, enabled=self._dtype is not None)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to those that are there."""
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], clip: float) -> None:
        """One step along the gradients, whose norm is limited to ``clip`` first (0 = not).

        A step whose scaled gradients are not finite is left out, and the scale becomes smaller: as GradScaler does.
        """
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(parameters, clip)
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    def to_state(self) -> dict[str, Any] | None:
        """The scaler's state; None without one."""
        return None if self._scaler is None else dict(self._scaler.state_dict())

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """What :meth:`to_state` gave."""
        if self._scaler is not None and state is not None:
            self._scaler.load_state_dict(dict(state))


def check_precision(name: str, device: torch.device) -> None:
    """InvalidSetting if this worker's device can't compute in it; another's may."""
    on_cuda = device.type == "cuda"
    if name == "float16" and not on_cuda:
        _refuse(name, device, "bfloat16 or float32 on a CPU; for float16 require a GPU")
    if name == "bfloat16" and on_cuda and not torch.cuda.is_bf16_supported():
        _refuse(name, device, "float16 or float32: this GPU has no bfloat16")


def compiled(module: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """``module``, compiled. It shares the parameters; state is to be read from ``module`` itself, whose names stay.

    Every shape of a batch has a compilation of its own (``dynamic=False``): with shared ones the kernels, and with them
    the last bits, would depend on which shape came first, which is another one after a resume.

    Raises:
        InvalidSetting: This machine has nothing to compile with.
    """
    check_compiler(device)
    return torch.compile(module, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """InvalidSetting if ``torch.compile`` lacks what it makes kernels with: a C++ compiler, or Triton for CUDA."""
    if device.type == "cuda":
        try:
            importlib.import_module("triton")
        except ImportError as error:
            _no_compiler(f"can't compile for CUDA: {error}", "install triton on the worker")
    named = os.environ.get("CXX", "")
    if not any(shutil.which(name) for name in ((named,) if named else _CPU_COMPILERS)):
        looked_for = named or ", ".join(_CPU_COMPILERS)
        _no_compiler(f"finds no C++ compiler on this worker (looked for {looked_for})", "install g++ on the worker")


@contextmanager
def compilation() -> Iterator[None]:
    """Within it compiled networks may run; a failed compilation is InvalidSetting, which says what went wrong.

    Nothing falls back to running uncompiled: whether it did would change the last bits. Kernels are compiled in this
    process: a pool of processes would outlive the training.
    """
    from torch._dynamo import config as dynamo
    from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException
    from torch._inductor import config as inductor
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    limits: dict[str, Any] = {
        name: _SHAPES_MAX for name in ("recompile_limit", "cache_size_limit") if hasattr(dynamo, name)
    }
    try:
        with dynamo.patch({"suppress_errors": False} | limits), inductor.patch(compile_threads=1):
            yield
    except (BackendCompilerFailed, TorchDynamoException, CppCompileError, InvalidCxxCompiler) as error:
        _no_compiler(f"failed: {type(error).__name__}: {str(error)[:1000]}", "a network that torch can compile")
    finally:
        # What was compiled holds its network, and all of its memory.
        torch.compiler.reset()


def _refuse(name: str, device: torch.device, expected: str) -> NoReturn:
    raise InvalidSetting(
        "this worker's device can't compute in it",
        field="config.extra.precision",
        given=f"{name} on {device}",
        expected=expected,
    )


def _no_compiler(what: str, expected: str) -> NoReturn:
    raise InvalidSetting(
        f"torch.compile {what}", field="config.extra.compile", given="on", expected=f"{expected}, or compile=off"
    )
