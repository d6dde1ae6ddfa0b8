"""Which program a slot's executor is of, and the way to another one: fetched, unpacked, and given up when the run that
wanted it is taken back meanwhile."""

from __future__ import annotations

import asyncio

from tenure.common.errors import InvalidCode
from tenure.proto import worker_pb2
from tenure.worker.code.programs import Program, Programs
from tenure.worker.slots.executor_start import ExecutorUnusable, failed


class Fitting:
    """Of one slot.

    Attributes:
        program: What its executor is of, or the next one is to be of.
    """

    def __init__(self, programs: Programs) -> None:
        self.program = programs.own
        self._programs = programs
        self._finding: asyncio.Task[Program] | None = None

    def fits(self, request: worker_pb2.EvaluateRequest) -> bool:
        """Whether an executor of the present program can carry the request out."""
        return self._programs.is_of(self.program, request)

    async def find(self, request: worker_pb2.EvaluateRequest) -> Program | None:
        """The program of a request; None once it was given up.

        Raises:
            CodeUnavailable: See :meth:`Programs.of`.
            ExecutorUnusable: No executor can be of it.
            OSError: The disk.
        """
        finding = self._finding = asyncio.create_task(self._programs.of(request))
        try:
            await asyncio.wait((finding,))
        finally:
            self._finding = None
            finding.cancel()
        if finding.cancelled():
            return None
        try:
            return finding.result()
        except InvalidCode as error:
            raise ExecutorUnusable(str(error), failed("InvalidCode", str(error), retryable=False)) from error

    def give_up(self) -> None:
        """The run that waits for its program is taken back."""
        if self._finding is not None:
            self._finding.cancel()

    def fall_back(self) -> bool:
        """Back to the worker's own, as an executor of the present program can't be; False if it is the own."""
        changed = self.program != self._programs.own
        self.program = self._programs.own
        return changed
