"""A state as bytes: torch's file format where torch is in use, else JSON.

What may be in a state is checked before anything is written. ``torch.save`` would gladly write objects that
``torch.load(weights_only=True)`` then refuses (a numpy number is enough), and that would come out only when a
killed evaluation is to be resumed.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, BinaryIO, Protocol

from tenure.common.errors import CheckpointError, CorruptCheckpoint, InvalidInput

_DEPTH_MAX = 64
# Exact types: numpy.float64 is a float too, yet pickles as something else.
_PLAIN = (type(None), bool, int, float, str)


class Sink(Protocol):
    """What a state is written to."""

    def write(self, data: Any, /) -> int:
        """All of ``data`` (anything with a buffer); how many bytes that is."""


def choose_encoding(state: Mapping[str, Any]) -> str:
    """``torch`` when torch is loaded in this process (a state with tensors implies that), else ``json``.

    Raises:
        InvalidInput: The state holds something that could not be read back; the message names where.
    """
    encoding = "json" if sys.modules.get("torch") is None else "torch"
    if not isinstance(state, Mapping):
        raise InvalidInput("must be a mapping", field="state", given=type(state).__name__)
    for key, value in state.items():
        _check_key(key, "state", encoding)
        _check(value, f"state.{key}", encoding, 0)
    return encoding


def decode_state(stream: BinaryIO, encoding: str, where: str) -> dict[str, Any]:
    """The state in ``stream``, tensors on the CPU. Runs no code from the file.

    Raises:
        CorruptCheckpoint: It can't be decoded.
        CheckpointError: It needs torch and this process has none.
    """
    if encoding == "json":
        try:
            state = json.loads(stream.read().decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise CorruptCheckpoint(f"can't be decoded: {error}", field=where) from error
    else:
        state = _torch_load(stream, where)
    if not isinstance(state, dict):
        raise CorruptCheckpoint(f"holds a {type(state).__name__}, not a mapping", field=where)
    return state


def _torch_load(stream: BinaryIO, where: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            "holds tensors and torch is not installed", field=where, expected="pip install 'tenure[torch]'"
        ) from error
    try:
        return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch documents no set of exceptions: unpickling, zip and storage errors of many classes come
        # through here.
        raise CorruptCheckpoint(f"can't be decoded: {error}", field=where) from error


def _check(value: Any, where: str, encoding: str, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise InvalidInput(f"is nested deeper than {_DEPTH_MAX} levels", field=where)
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind in (dict, OrderedDict):
        for key, inner in value.items():
            _check_key(key, where, encoding)
            _check(inner, f"{where}.{key}", encoding, depth + 1)
    elif kind is list or (kind is tuple and encoding == "torch"):
        for index, inner in enumerate(value):
            _check(inner, f"{where}[{index}]", encoding, depth + 1)
    elif encoding == "json" or not (kind is bytes or _is_plain_tensor(value)):
        raise InvalidInput(
            "can't be kept in a checkpoint",
            field=where,
            given=f"{kind.__module__}.{kind.__qualname__}",
            expected=_EXPECTED[encoding],
        )


def _check_key(key: Any, where: str, encoding: str) -> None:
    allowed = (str,) if encoding == "json" else (str, int)
    if type(key) not in allowed:
        raise InvalidInput(
            "has a key that can't be kept in a checkpoint",
            field=where,
            given=repr(key),
            expected=f"keys are {' or '.join(kind.__name__ for kind in allowed)}",
        )


def _is_plain_tensor(value: Any) -> bool:
    import torch

    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and not value.is_quantized
        and value.device.type != "meta"
    )


_EXPECTED = {
    "torch": "dense tensors, numbers, texts, bytes, None, and lists, tuples and dicts of them; "
    "turn numpy values into tensors or plain numbers",
    "json": "numbers, texts, None, and lists and dicts of them (tensors, tuples, bytes need torch loaded)",
}
