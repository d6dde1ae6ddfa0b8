"""The operations of an architecture graph, with their parameters and activations, read from JSON.

:func:`read_layer` knows them all: MorphML's names and those of its text language. It makes a typed layer of a
node's ``params``, so that nobody behind it parses anything. All that needs no input shape is checked here.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeGuard

from tenure.common import limits
from tenure.common.errors import InvalidArchitecture

Pair = tuple[int, int]
"""Height, then width."""
Padding = Pair | Literal["same"]
"""Cells on each side of the height and of the width, or as many as ``ceil(size / stride)`` windows need."""

ACTIVATIONS = ("relu", "sigmoid", "tanh", "softmax", "elu", "gelu", "leaky_relu", "selu", "swish")
NO_ACTIVATION = ("linear", "none")
SYNONYMS = {
    "max_pool": "maxpool",
    "avg_pool": "avgpool",
    "batch_norm": "batchnorm",
    "linear": "dense",
    "output": "dense",
}


@dataclass(frozen=True, slots=True)
class PassOn:
    """``input``, ``identity``: the value as it came."""


@dataclass(frozen=True, slots=True)
class Conv2d:
    """``conv2d``."""

    filters: int
    kernel_size: Pair
    stride: Pair
    padding: Padding
    use_bias: bool


@dataclass(frozen=True, slots=True)
class Pool:
    """``maxpool``, ``avgpool``."""

    kind: Literal["max", "avg"]
    pool_size: Pair
    stride: Pair
    padding: Padding


@dataclass(frozen=True, slots=True)
class Dense:
    """``dense``."""

    units: int
    use_bias: bool


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """``batchnorm``."""


@dataclass(frozen=True, slots=True)
class Dropout:
    """``dropout``; the rate is in [0, 1)."""

    rate: float


@dataclass(frozen=True, slots=True)
class Flatten:
    """``flatten``."""


@dataclass(frozen=True, slots=True)
class Function:
    """``relu``, ``sigmoid``, ``tanh``, ``softmax``: an activation as an operation of its own."""

    name: str


Layer = PassOn | Conv2d | Pool | Dense | BatchNorm | Dropout | Flatten | Function


class Parameters:
    """One node's ``params``, read name by name. Null counts as absent; what nobody asks for is ignored.

    Every reader raises InvalidArchitecture for a value that can't be right.

    Args:
        values: The JSON object.
        where: The dotted path of ``values``.
        node: How messages name the node.
    """

    def __init__(self, values: Mapping[str, object], where: str, node: str) -> None:
        self._values = values
        self._where = where
        self._node = node

    def size(self, name: str, default: int) -> int:
        """A whole number of at least 1."""
        value = self._values.get(name)
        if value is None:
            return default
        if not _whole(value, 1):
            self.refuse(name, "must be a whole number of at least 1", f"for example {default}")
        return self._bounded(name, value)

    def pair(self, names: tuple[str, ...], default: Pair, *, bounded: bool = True) -> Pair:
        """A whole number of at least 1, or two of them.

        The first of ``names`` that is given wins; the others are not read.
        """
        name = next((name for name in names if self._values.get(name) is not None), None)
        if name is None:
            return default
        pair = _pair(self._values[name], 1)
        if pair is None:
            self.refuse(name, "must be a whole number of at least 1 or a pair of them", "for example 3, or [3, 5]")
        if bounded:
            self._bounded(name, max(pair))
        return pair

    def padding(self, default: Pair) -> Padding:
        """A whole number of at least 0, two of them, "same" or "valid"."""
        value = self._values.get("padding")
        if value is None:
            return default
        if value == "same":
            return "same"
        if value == "valid":
            return (0, 0)
        pair = _pair(value, 0)
        if pair is None:
            self.refuse(
                "padding",
                "can't be that",
                'give a whole number of at least 0 or a pair of them, "same" or "valid"',
            )
        self._bounded("padding", max(pair))
        return pair

    def flag(self, name: str, default: bool) -> bool:
        """true, false, or an integer, 0 being false: MorphML's mutations scale booleans too."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, int):
            self.refuse(name, "must be true or false", "a whole number other than 0 counts as true")
        return bool(value)

    def fraction(self, name: str, default: float) -> float:
        """A number in [0, 1)."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self.refuse(name, "must be a number of at least 0 and below 1", f"for example {default}")
        return float(value)

    def activation(self) -> str | None:
        """The activation's name; None where none is given or it does nothing."""
        value = self._values.get("activation")
        if value is None or value in NO_ACTIVATION:
            return None
        if not isinstance(value, str) or value not in ACTIVATIONS:
            self.refuse("activation", "is unknown", f"one of {', '.join((*ACTIVATIONS, *NO_ACTIVATION))}")
        return value

    def refuse(self, name: str, message: str, expected: str) -> NoReturn:
        """Raise InvalidArchitecture about the parameter ``name``."""
        raise InvalidArchitecture(
            f"{self._node}: {name} {message}",
            field=f"{self._where}.{name}",
            given=show(self._values.get(name)),
            expected=expected,
        )

    def _bounded(self, name: str, value: int) -> int:
        # What is larger makes a tensor above the limit on any input: refused before a worker sees it.
        if value > limits.TENSOR_ELEMENTS_MAX:
            self.refuse(name, "is too large", f"no tensor may have more than {limits.TENSOR_ELEMENTS_MAX} elements")
        return value


def read_layer(operation: str, params: Parameters) -> Layer | None:
    """The layer that ``operation`` means with these parameters; None if no operation is called so.

    Raises:
        InvalidArchitecture: A parameter can't be right.
    """
    reader = _READERS.get(SYNONYMS.get(operation, operation))
    return None if reader is None else reader(params)


def show(value: object) -> str:
    """``value`` for a message: bounded, and printable whatever is in it (lone surrogates are escaped)."""
    return _SHORT.repr(value)


def _whole(value: object, least: int) -> TypeGuard[int]:
    # In Python true is an int and 16.0 equals 16; in a graph neither is a whole number.
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _pair(value: object, least: int) -> Pair | None:
    if _whole(value, least):
        return value, value
    if isinstance(value, list) and len(value) == 2:
        height, width = value
        if _whole(height, least) and _whole(width, least):
            return height, width
    return None


def _conv2d(params: Parameters) -> Conv2d:
    return Conv2d(
        filters=params.size("filters", 64),
        kernel_size=params.pair(("kernel_size", "pool_size"), (3, 3)),
        stride=_stride(params, (1, 1)),
        padding=params.padding((1, 1)),
        use_bias=params.flag("use_bias", True),
    )


def _pool(kind: Literal["max", "avg"]) -> Callable[[Parameters], Pool]:
    def read(params: Parameters) -> Pool:
        pool_size = params.pair(("pool_size", "kernel_size"), (2, 2))
        padding = params.padding((0, 0))
        if padding != "same" and any(2 * pad > size for pad, size in zip(padding, pool_size, strict=True)):
            params.refuse("padding", "is above half the window", f"the window is {pool_size[0]}×{pool_size[1]}")
        return Pool(kind=kind, pool_size=pool_size, stride=_stride(params, pool_size), padding=padding)

    return read


def _stride(params: Parameters, default: Pair) -> Pair:
    # No bound: a stride beyond the input just leaves one window.
    return params.pair(("stride", "strides"), default, bounded=False)


def _dense(params: Parameters) -> Dense:
    return Dense(units=params.size("units", 10), use_bias=params.flag("use_bias", True))


def _function(name: str) -> Callable[[Parameters], Function]:
    return lambda params: Function(name)


_READERS: dict[str, Callable[[Parameters], Layer]] = {
    "input": lambda params: PassOn(),
    "identity": lambda params: PassOn(),
    "conv2d": _conv2d,
    "maxpool": _pool("max"),
    "avgpool": _pool("avg"),
    "dense": _dense,
    "batchnorm": lambda params: BatchNorm(),
    "dropout": lambda params: Dropout(params.fraction("rate", 0.5)),
    "flatten": lambda params: Flatten(),
    "relu": _function("relu"),
    "sigmoid": _function("sigmoid"),
    "tanh": _function("tanh"),
    "softmax": _function("softmax"),
}
OPERATIONS = (*_READERS, *SYNONYMS)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3
