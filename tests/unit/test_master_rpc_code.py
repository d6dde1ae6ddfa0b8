"""Uploads of code are refused before they would make the store's memory short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from tenure.common.errors import Overloaded
from tenure.common.spec import TaskSpec
from tenure.master.rpc.code import SubmitDefaults, put_code
from tenure.master.store import Store
from tenure.master.store.code import CodeState
from tenure.proto import tenure_pb2


@dataclass
class Memory:
    memory_short: bool = False
    memory_left_bytes: int | None = None


class Taking:
    """A store that takes every piece."""

    @property
    def code(self) -> Taking:
        return self

    async def put(self, *arguments: Any) -> CodeState:
        return CodeState(False, 1)


@pytest.mark.parametrize(
    ("memory", "offset", "taken"),
    [
        (Memory(), 0, True),
        (Memory(memory_left_bytes=100), 0, True),
        (Memory(memory_left_bytes=99), 0, False),
        # What has come by now is in the figure already.
        (Memory(memory_left_bytes=99), 1, True),
        (Memory(memory_short=True), 0, False),
    ],
)
async def test_an_upload_must_fit(memory: Memory, offset: int, taken: bool) -> None:
    request = tenure_pb2.PutCodeRequest(search="s", digest="0" * 64, size_bytes=100, offset=offset, data=b"x")
    store = cast(Store, Taking())
    if taken:
        assert (await put_code(store, memory, request)).received_bytes == 1
    else:
        with pytest.raises(Overloaded, match="too near its memory limit for 100 bytes"):
            await put_code(store, memory, request)


def test_a_task_that_names_an_evaluator_keeps_it() -> None:
    defaults = SubmitDefaults("json", "m:f", "0" * 64)
    own = TaskSpec("{}", evaluator="m:g")
    assert defaults.complete(own) is own
    assert defaults.complete(TaskSpec("{}")) == TaskSpec("{}", evaluator="m:f", code="0" * 64)
    assert SubmitDefaults().complete(TaskSpec("{}")) == TaskSpec("{}")
