"""Uploads packed code to the masters' store: once, by its digest, in pieces that any master takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenure.client.code import PackedCode
from tenure.client.connection import Connection, Deadline
from tenure.common.errors import TenureError
from tenure.common.limits import CODE_PIECE_BYTES_MAX
from tenure.proto import tenure_pb2

# Others may upload the same at the same time, so that pieces of ours come too late; each round but a few gets on.
_IDLE_ROUNDS_MAX = 100


def upload(
    connection: Connection,
    search: str,
    code: PackedCode,
    deadline: Deadline | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Have the code in the store, for this search; whether anything had to be sent.

    Holds on return: it is there, whole, and stays for an hour at least, and then as long as the search or one of its
    tasks names it. An upload that was broken off goes on where it stopped.

    Args:
        progress: Called with (bytes that have come, all bytes).

    Raises:
        MasterUnavailable: Nobody answered in time; calling again is safe.
        Overloaded: The store has no room for it.
    """
    state = connection.call("HasCode", tenure_pb2.CodeName(search=search, digest=code.digest), deadline=deadline)
    sent = not state.whole
    idle = 0
    while not state.whole:
        start = state.received_bytes
        if progress is not None:
            progress(start, len(code.archive))
        if start >= len(code.archive):
            # The master that took the last piece did not live to compare the digest: any piece has that done.
            start = 0
        state = connection.call("PutCode", _piece(search, code, start), deadline=deadline)
        idle = idle + 1 if state.received_bytes <= start else 0
        if idle > _IDLE_ROUNDS_MAX:
            raise TenureError("the upload doesn't get on", field="code", given=code.digest, expected="try again")
    if progress is not None:
        progress(len(code.archive), len(code.archive))
    return sent


def _piece(search: str, code: PackedCode, start: int) -> Any:
    return tenure_pb2.PutCodeRequest(
        search=search,
        digest=code.digest,
        size_bytes=len(code.archive),
        offset=start,
        data=code.archive[start : start + CODE_PIECE_BYTES_MAX],
    )


def accepting_workers(connection: Connection) -> int:
    """How many live workers are given tasks that name their evaluator."""
    response = connection.call("ListWorkers", tenure_pb2.ListWorkersRequest())
    return sum(worker.status == "live" and worker.accepts_code for worker in response.workers)
