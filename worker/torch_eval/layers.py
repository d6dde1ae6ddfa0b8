"""The torch modules and functions that graphs are built of, where torch's own don't do what a graph means.

Parameters and buffers have the names of torch's own modules.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenure.common.operations import Pair
from tenure.common.shapes import Window

Margins = tuple[int, int, int, int]
"""Left, right, top, bottom: the order of ``torch.nn.functional.pad``."""


class Conv2d(nn.Conv2d):
    """A convolution over a window that may be padded unevenly."""

    def __init__(self, channels: int, filters: int, window: Window, *, bias: bool) -> None:
        padding, margins = _padding(window)
        super().__init__(channels, filters, _size(window), stride=_stride(window), padding=padding, bias=bias)
        self.margins = margins

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """(N, channels, height, width) → (N, filters, windows, windows)."""
        return super().forward(_pad(input, self.margins, 0.0))


class MaxPool2d(nn.MaxPool2d):
    """A max pool over a window that may be padded unevenly; no padded cell is ever the largest."""

    def __init__(self, window: Window) -> None:
        padding, margins = _padding(window)
        super().__init__(_size(window), stride=_stride(window), padding=padding)
        self.margins = margins

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """(N, channels, height, width) → (N, channels, windows, windows)."""
        pooled: Tensor = super().forward(_pad(input, self.margins, float("-inf")))
        return pooled


class AvgPool2d(nn.AvgPool2d):
    """An average pool over a window that may be padded unevenly; padded cells count as zeros."""

    def __init__(self, window: Window) -> None:
        padding, margins = _padding(window)
        super().__init__(_size(window), stride=_stride(window), padding=padding, count_include_pad=True)
        self.margins = margins

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """(N, channels, height, width) → (N, channels, windows, windows)."""
        return super().forward(_pad(input, self.margins, 0.0))


class Dense(nn.Linear):
    """A Linear that flattens what it gets."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """(N, …) → (N, units)."""
        return super().forward(input.flatten(1))


class BatchNorm1d(nn.BatchNorm1d):
    """A batch norm that also trains on a single sample: see :func:`_is_single`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """(N, features) → the same shape."""
        return _by_running_statistics(self, input) if _is_single(self, input) else super().forward(input)


class BatchNorm2d(nn.BatchNorm2d):
    """A batch norm that also trains on a single sample of 1×1: see :func:`_is_single`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """(N, channels, height, width) → the same shape."""
        return _by_running_statistics(self, input) if _is_single(self, input) else super().forward(input)


class Activation(nn.Module):
    """An activation as a module of its own.

    Args:
        name: A key of :data:`ACTIVATIONS`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in torch's own
        """Any shape → the same shape."""
        return ACTIVATIONS[self.name](input)

    def extra_repr(self) -> str:
        """The name, for ``repr``."""
        return self.name


def pool_to(images: Tensor, size: Pair) -> Tensor:
    """Adaptive average pooling of (N, channels, height, width) to ``size``.

    On CUDA torch's own has no deterministic gradient. Where determinism is asked for
    (``torch.use_deterministic_algorithms``) it is done by two matrix products instead: a window's mean is the
    mean over its rows of the means over its columns.
    """
    if images.shape[2:] == size:
        return images
    if not torch.are_deterministic_algorithms_enabled():
        return F.adaptive_avg_pool2d(images, size)
    rows = _mean_windows(images.shape[2], size[0], images)
    columns = _mean_windows(images.shape[3], size[1], images)
    return rows @ images @ columns.T


def _mean_windows(cells: int, windows: int, like: Tensor) -> Tensor:
    """A (windows, cells) matrix that takes the mean of cells ⌊i·cells/windows⌋ to ⌈(i+1)·cells/windows⌉."""
    position = torch.arange(cells, device=like.device)
    window = torch.arange(windows, device=like.device)[:, None]
    first = window * cells // windows
    end = ((window + 1) * cells + windows - 1) // windows
    return ((position >= first) & (position < end)).to(like.dtype) / (end - first).to(like.dtype)


def _softmax(value: Tensor) -> Tensor:
    return F.softmax(value, dim=1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": _softmax,
    "elu": F.elu,
    "gelu": F.gelu,
    "leaky_relu": F.leaky_relu,
    "selu": F.selu,
    "swish": F.silu,
}


def _is_single(norm: nn.BatchNorm1d | nn.BatchNorm2d, value: Tensor) -> bool:
    """Whether a training batch has one value for each channel: the last batch of an epoch may be one sample.

    It has no variance, and torch refuses it. The running statistics normalise it then, and stay as they are.
    """
    return norm.training and value.numel() == norm.num_features


def _by_running_statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d, value: Tensor) -> Tensor:
    return F.batch_norm(value, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _size(window: Window) -> Pair:
    return window.height.size, window.width.size


def _stride(window: Window) -> Pair:
    return window.height.stride, window.width.stride


def _padding(window: Window) -> tuple[Pair, Margins | None]:
    """What torch's operation pads itself, and what must be padded before it because the two ends differ."""
    height, width = window.height, window.width
    if (height.before, width.before) == (height.behind, width.behind):
        return (height.before, width.before), None
    return (0, 0), (width.before, width.behind, height.before, height.behind)


def _pad(value: Tensor, margins: Margins | None, filling: float) -> Tensor:
    return value if margins is None else F.pad(value, margins, value=filling)
