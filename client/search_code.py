"""What evaluates the tasks of one search, as its program knows it: named by the search's settings, shipped by it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from tenure.client.code import PackedCode, pack
from tenure.client.code_upload import accepting_workers, upload
from tenure.common.code import check_reference
from tenure.common.errors import InvalidInput, TenureError, UnknownCode
from tenure.common.spec import TaskSpec
from tenure.proto import tenure_pb2

if TYPE_CHECKING:
    from tenure.client.broker_records import SearchStatus
    from tenure.client.connection import Connection

T = TypeVar("T")

log = logging.getLogger("tenure.client")

DEFAULT = "default"
"""As an evaluator: the workers' own."""

NOBODY_ACCEPTS = (
    "no live worker takes tasks that name their evaluator: they wait until one is started with --accept-code"
)


class SearchCode:
    """Of one search. Thread-safe."""

    def __init__(self, connection: Connection, search: str) -> None:
        self._connection = connection
        self._search = search
        self._lock = threading.Lock()
        self._program = ("", "")
        # What this program has shipped, for a store that comes back without it.
        self._packed: PackedCode | None = None

    def prepare(
        self, request: tenure_pb2.PutSearchRequest, evaluator: str | None, code: str | os.PathLike[str] | None
    ) -> PackedCode | None:
        """Put into the request what its author named; what is to be shipped is packed and uploaded.

        Raises:
            InvalidInput, InvalidCode: They can't be right; nothing was sent.
        """
        if evaluator is None:
            if code is None:
                return None
            raise InvalidInput(
                "is missing", field="evaluator", expected="name the function in the code: module:function"
            )
        if evaluator == DEFAULT:
            if code is not None:
                raise InvalidInput("is given, and the workers' own evaluator is to be used", field="code", given=code)
            request.evaluator = request.code = ""
            return None
        request.evaluator, request.code = check_reference(evaluator), ""
        if code is None:
            return None
        packed = pack(code, evaluator)
        if upload(self._connection, self._search, packed):
            log.info("uploaded %d files of code as %s", len(packed.files), packed.digest)
        request.code = packed.digest
        return packed

    def check_taken(self, request: tenure_pb2.PutSearchRequest, status: SearchStatus) -> None:
        """A master of an earlier version passes over what it doesn't know; raises TenureError then."""
        if request.HasField("evaluator") and (request.evaluator, request.code) != (status.evaluator, status.code):
            raise TenureError(
                "the master doesn't know that searches may name an evaluator",
                field="master",
                expected="update it to this version or a newer one",
            )

    def learn(self, status: SearchStatus, packed: PackedCode | None = None) -> None:
        """What the search names by now, and what this program has shipped for it."""
        with self._lock:
            self._program = (status.evaluator, status.code)
            if packed is not None:
                self._packed = packed

    def complete(self, spec: TaskSpec) -> TaskSpec:
        """The task with the search's evaluator and code, if it names none of its own."""
        with self._lock:
            evaluator, code = self._program
        if spec.evaluator or spec.code or not evaluator:
            return spec
        return replace(spec, evaluator=evaluator, code=code)

    def sent(self, send: Callable[[], T]) -> T:
        """What ``send`` returns. If the store has lost what this program shipped, it is uploaded again first."""
        try:
            return send()
        except UnknownCode:
            with self._lock:
                packed = self._packed
            if packed is None or not upload(self._connection, self._search, packed):
                raise
            return send()

    def is_served(self) -> bool:
        """Whether any live worker takes this search's tasks, as far as naming an evaluator goes."""
        with self._lock:
            evaluator, _ = self._program
        return not evaluator or accepting_workers(self._connection) > 0

    def warn_unserved(self, evaluator: str | None) -> None:
        """Say so if the evaluator was named just now and nobody would run it."""
        if evaluator and not self.is_served():
            log.warning("search %s: %s", self._search, NOBODY_ACCEPTS)
