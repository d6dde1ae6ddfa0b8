"""What a run is evaluated with: the worker's own evaluator, or the one that its task names, maybe in code that comes
with the search. Running such code is the decision of the worker's operator (``accept_code``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenure.common.code import check_program
from tenure.common.errors import InvalidCode, InvalidInput
from tenure.proto import worker_pb2
from tenure.worker.channels import CallObserver
from tenure.worker.code.cache import CodeCache
from tenure.worker.code.fetch import CodeFetcher, CodeUnavailable
from tenure.worker.code.wheel import check_wheel
from tenure.worker.settings import WorkerSettings


@dataclass(frozen=True)
class Program:
    """What an executor is started with.

    Attributes:
        evaluator: ``module:function``.
        code: Digest of the archive that it is in; empty: it is installed.
        directory: Where that is unpacked.
    """

    evaluator: str
    code: str = ""
    directory: str = ""


class Programs:
    """Finds the program of each run.

    Args:
        own: The worker's own.
        cache, fetcher: Where code is and comes from; None: tasks may not name their evaluator here.
        path: Where executors look for installed packages.

    Attributes:
        own: The worker's own.
    """

    def __init__(
        self,
        own: Program,
        cache: CodeCache | None = None,
        fetcher: CodeFetcher | None = None,
        path: Sequence[str] = (),
    ) -> None:
        self.own = own
        self._cache = cache
        self._fetcher = fetcher
        self._path = path

    def is_of(self, program: Program, request: worker_pb2.EvaluateRequest) -> bool:
        """Whether an executor of this program can carry the request out."""
        wanted = (request.evaluator, request.code) if request.evaluator else (self.own.evaluator, self.own.code)
        return (program.evaluator, program.code) == wanted

    async def of(self, request: worker_pb2.EvaluateRequest) -> Program:
        """The program of a request, its code fetched and unpacked.

        Raises:
            CodeUnavailable: Not to be had here, or not now: the task is to be handed back.
            InvalidCode: It can't run here, and won't the next time.
            OSError: The disk.
        """
        if not request.evaluator and not request.code:
            return self.own
        if self._cache is None or self._fetcher is None:
            raise CodeUnavailable(
                "the task names its evaluator, and this worker runs only its own: start it with --accept-code"
            )
        try:
            check_program(request.evaluator, request.code)
        except InvalidInput as error:
            raise InvalidCode(error.message, field=error.field, given=error.given, expected=error.expected) from None
        if not request.code:
            return Program(request.evaluator)
        fetcher, search, digest = self._fetcher, request.search, request.code
        directory = await self._cache.get(digest, lambda file: fetcher.fetch(search, digest, file))
        check_wheel(directory, self._path)
        return Program(request.evaluator, digest, str(directory))


def make_programs(
    settings: WorkerSettings, work_dir: Path, in_use: Callable[[], Collection[str]], observe: CallObserver | None = None
) -> Programs:
    """As the worker was told; ``in_use``: digests of code that executors run; ``observe``: told of calls to masters."""
    own = Program(settings.evaluator)
    if not settings.accept_code:
        return Programs(own)
    fetcher = CodeFetcher(settings.masters, settings.compression, settings.rpc_timeout_seconds, observe)
    path = [*filter(None, settings.python_path.split(os.pathsep)), *sys.path]
    return Programs(own, CodeCache(work_dir / "code", in_use), fetcher, path)
