"""The calls about code that searches ship, and what a search says for tasks that say nothing of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from tenure.common import ids
from tenure.common.code import check_digest, check_program
from tenure.common.errors import InvalidCode, InvalidInput, Overloaded
from tenure.common.limits import CODE_BYTES_MAX, CODE_PIECE_BYTES_MAX
from tenure.common.spec import TaskSpec
from tenure.master.store import Store
from tenure.proto import tenure_pb2, worker_pb2

log = structlog.get_logger()


class MemoryWatch(Protocol):
    """Who knows how much the store can take.

    Attributes:
        memory_short: Submits are refused.
        memory_left_bytes: Until they are; None if nothing limits it.
    """

    memory_short: bool
    memory_left_bytes: int | None


@dataclass(frozen=True)
class SubmitDefaults:
    """What holds for the tasks of a search that is submitted to."""

    architecture_format: str = "graph"
    evaluator: str = ""
    code: str = ""

    def complete(self, spec: TaskSpec) -> TaskSpec:
        """The task with the search's evaluator and code, if it names none: it keeps them whatever the search names
        later."""
        if spec.evaluator or spec.code or not self.evaluator:
            return spec
        return replace(spec, evaluator=self.evaluator, code=self.code)


def program_settings(request: tenure_pb2.PutSearchRequest) -> dict[str, str]:
    """The settings of PutSearch that say what evaluates the search's tasks; InvalidInput if they can't."""
    if not request.HasField("evaluator"):
        if request.HasField("code"):
            raise InvalidInput("is given without an evaluator", field="code", given=request.code, expected="give both")
        return {}
    check_program(request.evaluator, request.code)
    return {"evaluator": request.evaluator, "code": request.code}


async def has_code(store: Store, request: tenure_pb2.CodeName) -> tenure_pb2.CodeState:
    """How much of an archive has come."""
    ids.check_search_name(request.search)
    state = await store.code.state(request.search, check_digest(request.digest))
    return tenure_pb2.CodeState(whole=state.whole, received_bytes=state.received_bytes)


async def put_code(store: Store, memory: MemoryWatch, request: tenure_pb2.PutCodeRequest) -> tenure_pb2.CodeState:
    """Take the next piece of an archive, if the store has room for the whole of it."""
    ids.check_search_name(request.search)
    check_digest(request.digest)
    size = request.size_bytes
    if not 1 <= size <= CODE_BYTES_MAX:
        raise InvalidCode(f"is {size} bytes long", field="size_bytes", expected=f"1 to {CODE_BYTES_MAX}")
    if not 1 <= len(request.data) <= CODE_PIECE_BYTES_MAX:
        raise InvalidInput(
            f"is {len(request.data)} bytes long", field="data", expected=f"1 to {CODE_PIECE_BYTES_MAX} bytes a piece"
        )
    if not 0 <= request.offset < size:
        raise InvalidInput("out of range", field="offset", given=request.offset, expected=f"0 to {size - 1}")
    left = memory.memory_left_bytes
    if memory.memory_short or (left is not None and size - request.offset > left):
        raise Overloaded(
            f"the store is too near its memory limit for {size} bytes of code",
            field="data",
            expected="wait until tasks end and are forgotten, ship less, or raise the store's maxmemory",
        )
    state = await store.code.put(request.search, request.digest, size, request.offset, request.data)
    if state.whole:
        log.info("code.stored", search=request.search, code=request.digest, size_bytes=state.received_bytes)
    return tenure_pb2.CodeState(whole=state.whole, received_bytes=state.received_bytes)


async def get_code(store: Store, request: worker_pb2.CodeRequest) -> worker_pb2.CodePiece:
    """A piece of an archive, for a worker."""
    ids.check_search_name(request.search)
    check_digest(request.digest)
    if not 0 <= request.offset < CODE_BYTES_MAX:
        raise InvalidInput("out of range", field="offset", given=request.offset, expected=f"0 to {CODE_BYTES_MAX - 1}")
    size, piece = await store.code.read(request.search, request.digest, request.offset)
    return worker_pb2.CodePiece(size_bytes=size, data=piece)
