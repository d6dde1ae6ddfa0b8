"""Which submits are taken. All of a request, or nothing of it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from tenure.common import ids, limits
from tenure.common.errors import BatchTooLarge, InvalidInput, TenureError
from tenure.common.spec import TaskSpec, check_settings, check_spec

# Equal architectures come again and again (seeds, learning rates), and checking a graph costs more than all the rest.
_REMEMBERED_MAX = 4096
_good_architectures: OrderedDict[bytes, None] = OrderedDict()


def admit(search: str, specs: Sequence[TaskSpec], architecture_format: str) -> None:
    """Check a submit.

    Raises:
        InvalidInput, InvalidArchitecture, InvalidConfig, BatchTooLarge: With the field (``tasks[3].config.dataset``),
            what was given, and what would be right.
    """
    ids.check_search_name(search)
    if not specs:
        raise InvalidInput("must not be empty", field="tasks", expected=f"1 to {limits.BATCH_TASKS_MAX} tasks")
    check_batch(len(specs), "tasks")
    for index, spec in enumerate(specs):
        try:
            _check(spec, architecture_format)
        except TenureError as error:
            raise error.within(f"tasks[{index}]") from None


def _check(spec: TaskSpec, architecture_format: str) -> None:
    text = f"{architecture_format}\0{spec.architecture}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16).digest()
    if digest in _good_architectures:
        check_settings(spec, architecture_format)
        return
    check_spec(spec, architecture_format)
    _good_architectures[digest] = None
    if len(_good_architectures) > _REMEMBERED_MAX:
        _good_architectures.popitem(last=False)


def check_batch(count: int, field: str) -> None:
    """At most 100 items in one request; else BatchTooLarge."""
    if count > limits.BATCH_TASKS_MAX:
        raise BatchTooLarge(
            f"{count} in one request",
            field=field,
            expected=f"at most {limits.BATCH_TASKS_MAX}: send them in several requests",
        )


def check_task_ids(task_ids: Sequence[str], field: str = "task_ids") -> list[str]:
    """The ids without repetitions, in order; else InvalidInput or BatchTooLarge."""
    if not task_ids:
        raise InvalidInput("must not be empty", field=field, expected="give task ids")
    check_batch(len(task_ids), field)
    return list(dict.fromkeys(ids.check_id(task_id, f"{field}[{n}]") for n, task_id in enumerate(task_ids)))
