"""TenureService: what search programs, the command line and the console call."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import structlog

from tenure import __version__
from tenure.common import ids, limits
from tenure.common.errors import InvalidInput, Overloaded, TenureError, Unavailable, UnknownSearch, WrongState
from tenure.common.retry import check_policy
from tenure.common.spec import ARCHITECTURE_FORMATS
from tenure.common.states import TaskState
from tenure.master.core.admission import admit, check_task_ids
from tenure.master.core.liveness import worker_status
from tenure.master.loops.sweeper import cancel_open_tasks
from tenure.master.rpc import messages
from tenure.master.rpc.code import SubmitDefaults, has_code, program_settings, put_code
from tenure.master.rpc.tail_call import TailCall
from tenure.master.store.compute import Compute
from tenure.master.task_spans import Submits
from tenure.proto import convert, tenure_pb2, tenure_pb2_grpc

if TYPE_CHECKING:
    from tenure.master.master import Master

log = structlog.get_logger()

KEEPALIVE_SECONDS = 10.0


class ClientService(tenure_pb2_grpc.TenureServiceServicer):
    """See proto/tenure.proto. Method names are the protocol's."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._store = master.store
        # Remembered until the search changes.
        self._submit_defaults: dict[str, SubmitDefaults] = {}

    def note_search_changed(self, search: str) -> None:
        """Its format, evaluator or code may be another now."""
        self._submit_defaults.pop(search, None)

    # ---- tasks ----------------------------------------------------------------------------------------------------

    async def Submit(self, request: tenure_pb2.SubmitRequest, context: Any) -> tenure_pb2.SubmitResponse:
        """Take up to 100 tasks, all or none."""
        if self._master.sweeper.memory_short:
            raise Overloaded(
                "the store is near its memory limit",
                field="tasks",
                expected="wait until tasks end and are forgotten, or raise the store's maxmemory",
            )
        specs = [convert.spec_from_message(task) for task in request.tasks]
        ids.check_search_name(request.search)
        known = await self._settings_of(request.search)
        specs = [known.complete(spec) for spec in specs]
        # Big graphs take milliseconds to check: not on the event loop.
        if sum(len(spec.architecture) for spec in specs) > 65_536:
            await asyncio.to_thread(admit, request.search, specs, known.architecture_format)
        else:
            admit(request.search, specs, known.architecture_format)
        submits = Submits(request.search, specs)
        try:
            submitted = await self._store.tasks.submit(request.search, submits.specs, known.architecture_format)
        except TenureError as error:
            submits.refused(error)
            raise
        submits.end(submitted)
        created = sum(each.created for each in submitted)
        fields = {"tasks": len(specs), "created": created, "ids": [each.task_id for each in submitted]}
        log.info("task.submit", search=request.search, **fields)
        return tenure_pb2.SubmitResponse(
            tasks=[
                tenure_pb2.Submitted(task_id=each.task_id, key=each.key, created=each.created, state=each.state.value)
                for each in submitted
            ]
        )

    async def GetTasks(self, request: tenure_pb2.GetTasksRequest, context: Any) -> tenure_pb2.GetTasksResponse:
        """Tasks by id; unknown ids are named, not an error."""
        task_ids = check_task_ids(request.task_ids)
        views = await self._store.tasks.show(task_ids, full=request.full)
        return tenure_pb2.GetTasksResponse(
            tasks=[messages.task_message(views[task_id]) for task_id in task_ids if task_id in views],
            unknown_ids=[task_id for task_id in task_ids if task_id not in views],
        )

    async def ListTasks(self, request: tenure_pb2.ListTasksRequest, context: Any) -> tenure_pb2.ListTasksResponse:
        """One page of a search's tasks in the order of their submission."""
        await self._store.searches.get(ids.check_search_name(request.search))
        size = request.page_size or limits.PAGE_SIZE_DEFAULT
        if not 1 <= size <= limits.PAGE_SIZE_MAX:
            raise InvalidInput(
                "out of range", field="page_size", given=request.page_size, expected=f"1 to {limits.PAGE_SIZE_MAX}"
            )
        if request.page_token and not (request.page_token.isascii() and request.page_token.isdigit()):
            raise InvalidInput(
                "is no page token", field="page_token", given=request.page_token, expected="use next_page_token"
            )
        states = [_state(number) for number in request.states]
        cursor = request.page_token
        task_ids: list[str] = []
        while True:
            cursor, more = await self._store.tasks.page(request.search, states, cursor, size - len(task_ids))
            task_ids += more
            if not cursor or len(task_ids) == size:
                break
        views = await self._store.tasks.show(task_ids)
        return tenure_pb2.ListTasksResponse(
            tasks=[messages.task_message(views[task_id]) for task_id in task_ids if task_id in views],
            next_page_token=cursor,
        )

    async def CancelTasks(self, request: tenure_pb2.TaskIds, context: Any) -> tenure_pb2.TaskVerdicts:
        """Stop tasks."""
        verdicts = await self._store.tasks.cancel(check_task_ids(request.task_ids))
        return _verdicts(verdicts)

    async def RequeueTasks(self, request: tenure_pb2.TaskIds, context: Any) -> tenure_pb2.TaskVerdicts:
        """Give ended tasks fresh budgets."""
        verdicts = await self._store.tasks.requeue(check_task_ids(request.task_ids))
        return _verdicts(verdicts)

    async def Watch(self, request: tenure_pb2.WatchRequest, context: Any) -> None:
        """Every transition after the cursor, then live; resumable at any master."""
        if request.search:
            await self._store.searches.get(ids.check_search_name(request.search))
        subscription = await self._master.follower.subscribe()
        self._master.metrics.watchers.inc()
        try:
            cursor = subscription.start
            if request.cursor:
                await self._store.events.check(request.cursor)
                # The first response carries no events, wherever the watch begins.
                await context.write(tenure_pb2.WatchResponse(cursor=request.cursor))
                async for past, events in self._store.events.between(request.cursor, cursor):
                    await context.write(_watch_response(past, events, request.search))
            await context.write(tenure_pb2.WatchResponse(cursor=cursor))
            while True:
                try:
                    batch = await asyncio.wait_for(subscription.next(), KEEPALIVE_SECONDS)
                except TimeoutError:
                    await context.write(tenure_pb2.WatchResponse(cursor=cursor))
                    continue
                if batch is None:
                    why = "this master is stopping" if self._master.stopping else "it fell behind, or events were lost"
                    raise Unavailable(f"the watch has ended: {why}", expected="resume by the last cursor")
                cursor, events = batch
                await context.write(_watch_response(cursor, events, request.search))
        finally:
            self._master.follower.unsubscribe(subscription)
            self._master.metrics.watchers.dec()

    async def TailTask(self, request: tenure_pb2.TailTaskRequest, context: Any) -> None:
        """What a task's evaluation prints; resumable at any master."""
        await TailCall(self._store, self._master.tails, request, context).run()

    # ---- searches -------------------------------------------------------------------------------------------------

    async def PutSearch(self, request: tenure_pb2.PutSearchRequest, context: Any) -> tenure_pb2.Search:
        """Create a search or change its settings."""
        ids.check_search_name(request.name, "name")
        await self._store.searches.put(request.name, _search_settings(request))
        self.note_search_changed(request.name)
        return await self._search(request.name)

    async def GetSearch(self, request: tenure_pb2.SearchName, context: Any) -> tenure_pb2.Search:
        """One search."""
        return await self._search(ids.check_search_name(request.name, "name"))

    async def ListSearches(
        self, request: tenure_pb2.ListSearchesRequest, context: Any
    ) -> tenure_pb2.ListSearchesResponse:
        """Every search, the newest first."""
        searches = [search for overview in await self._store.searches.overview() for search in overview.searches]
        searches.sort(key=lambda search: -search.created_unix_ms)
        return tenure_pb2.ListSearchesResponse(searches=[messages.search_message(search) for search in searches])

    async def PauseSearch(self, request: tenure_pb2.SearchName, context: Any) -> tenure_pb2.Search:
        """Give out no more tasks of the search; those that run go on."""
        if (await self._search(ids.check_search_name(request.name, "name"))).status == "cancelled":
            raise WrongState("the search is cancelled", field="name", given=request.name, expected="resume it first")
        return await self._set_status(request.name, "paused")

    async def ResumeSearch(self, request: tenure_pb2.SearchName, context: Any) -> tenure_pb2.Search:
        """Serve the search again."""
        return await self._set_status(request.name, "active")

    async def CancelSearch(self, request: tenure_pb2.SearchName, context: Any) -> tenure_pb2.Search:
        """Cancel every task of the search that has not ended. Should this master die meanwhile, a sweep goes on."""
        await self._set_status(request.name, "cancelled")
        await cancel_open_tasks(self._store.tasks, request.name)
        return await self._search(request.name)

    async def HasCode(self, request: tenure_pb2.CodeName, context: Any) -> tenure_pb2.CodeState:
        """How much of an archive has come."""
        return await has_code(self._store, request)

    async def PutCode(self, request: tenure_pb2.PutCodeRequest, context: Any) -> tenure_pb2.CodeState:
        """The next piece of an archive."""
        return await put_code(self._store, self._master.sweeper, request)

    # ---- workers and figures --------------------------------------------------------------------------------------

    async def ListWorkers(self, request: tenure_pb2.ListWorkersRequest, context: Any) -> tenure_pb2.ListWorkersResponse:
        """Registered workers; with ``all`` those that are gone too."""
        ttl = self._master.settings.lease_ttl_ms
        views, leases = await self._store.workers.find(), await self._store.tasks.lease_counts()
        workers = [messages.worker_message(view, leases[view.worker_id], ttl) for view in views]
        workers.sort(key=lambda worker: worker.worker_id)
        return tenure_pb2.ListWorkersResponse(
            workers=[worker for worker in workers if request.all or worker.status != "gone"]
        )

    async def DrainWorker(self, request: tenure_pb2.WorkerName, context: Any) -> tenure_pb2.Worker:
        """Hand back what it holds, with checkpoints, and take nothing more."""
        return await self._set_mode(request.worker_id, "draining")

    async def CordonWorker(self, request: tenure_pb2.WorkerName, context: Any) -> tenure_pb2.Worker:
        """Take nothing more; what it holds runs on."""
        return await self._set_mode(request.worker_id, "cordoned")

    async def UncordonWorker(self, request: tenure_pb2.WorkerName, context: Any) -> tenure_pb2.Worker:
        """Take tasks again."""
        return await self._set_mode(request.worker_id, "active")

    async def GetStats(self, request: tenure_pb2.StatsRequest, context: Any) -> tenure_pb2.StatsResponse:
        """The whole broker in figures."""
        overviews = await self._store.searches.overview()
        searches = [search for overview in overviews for search in overview.searches]
        ttl = self._master.settings.lease_ttl_ms
        live = [
            worker
            for worker in await self._store.workers.find()
            if worker_status(seen_ms_ago=worker.seen_ms_ago, left=worker.fields.get("left") == "1", lease_ttl_ms=ttl)
            == "live"
        ]
        counters: dict[str, int] = {}
        for overview in overviews:
            for name, value in overview.counters.items():
                counters[name] = counters.get(name, 0) + value
        return tenure_pb2.StatsResponse(
            tasks={state.value: sum(search.counts[state] for search in searches) for state in TaskState},
            workers_live=len(live),
            slots=int(sum(worker.number("slots") for worker in live)),
            slots_busy=int(sum(worker.number("slots_busy") for worker in live)),
            leases_live=sum(overview.leases for overview in overviews),
            lease_clock_ms=max(overview.lease_clock_ms for overview in overviews),
            oldest_queued_ms=max((search.oldest_queued_ms or 0 for search in searches), default=0),
            master_id=self._master.master_id,
            version=__version__,
            store=self._store.description,
            durability=self._store.durability,
            counters=counters,
            compute=messages.compute_message(Compute.total(search.compute for search in searches)),
        )

    async def Fsck(self, request: tenure_pb2.FsckRequest, context: Any) -> tenure_pb2.FsckResponse:
        """Prove that indexes and tasks agree."""
        checked, violations = await self._store.fsck.run()
        self._master.metrics.fsck_violations.set(len(violations))
        self._master.metrics.fsck_timestamp_seconds.set_to_current_time()
        if violations:
            log.error("store.fsck", checked=checked, violations=len(violations), first=violations[0])
        return tenure_pb2.FsckResponse(tasks_checked=checked, violations=violations[:10_000])

    async def _search(self, name: str) -> tenure_pb2.Search:
        return messages.search_message(await self._store.searches.get(name))

    async def _set_status(self, name: str, status: str) -> tenure_pb2.Search:
        ids.check_search_name(name, "name")
        await self._store.searches.put(name, {}, status=status, create=False)
        log.info("search.status", search=name, status=status)
        return await self._search(name)

    async def _set_mode(self, worker_id: str, mode: str) -> tenure_pb2.Worker:
        ids.check_id(worker_id, "worker_id")
        await self._store.workers.set_mode(worker_id, mode)
        self._master.pusher.note_mode(worker_id)
        log.info("worker.mode", worker=worker_id, mode=mode)
        view, leases = await self._store.workers.get(worker_id), await self._store.tasks.leases([worker_id])
        return messages.worker_message(view, len(leases), self._master.settings.lease_ttl_ms)

    async def _settings_of(self, search: str) -> SubmitDefaults:
        known = self._submit_defaults.get(search)
        if known is None:
            try:
                view = await self._store.searches.get(search)
            except UnknownSearch:
                return SubmitDefaults()
            known = SubmitDefaults(view.architecture_format, view.evaluator, view.code)
            if len(self._submit_defaults) > 10_000:
                self._submit_defaults.clear()
            self._submit_defaults[search] = known
        return known


def _search_settings(request: tenure_pb2.PutSearchRequest) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if request.HasField("priority"):
        if not limits.PRIORITY_MIN <= request.priority <= limits.PRIORITY_MAX:
            raise _out_of_range("priority", request.priority, limits.PRIORITY_MIN, limits.PRIORITY_MAX)
        settings["priority"] = request.priority
    if request.HasField("weight"):
        if not math.isfinite(request.weight) or not limits.WEIGHT_MIN <= request.weight <= limits.WEIGHT_MAX:
            raise _out_of_range("weight", request.weight, limits.WEIGHT_MIN, limits.WEIGHT_MAX)
        settings["weight"] = request.weight
    if request.HasField("max_leased"):
        if not 0 <= request.max_leased <= 10**9:
            raise _out_of_range("max_leased", request.max_leased, 0, 10**9)
        settings["max_leased"] = request.max_leased
    if request.HasField("architecture_format"):
        if request.architecture_format not in ARCHITECTURE_FORMATS:
            raise InvalidInput(
                "unknown format",
                field="architecture_format",
                given=request.architecture_format,
                expected=f"one of {', '.join(ARCHITECTURE_FORMATS)}",
            )
        settings["format"] = request.architecture_format
    return settings | _retry_settings(request) | program_settings(request)


def _retry_settings(request: tenure_pb2.PutSearchRequest) -> dict[str, str]:
    if request.default_retry:
        if request.HasField("retry"):
            raise InvalidInput("both are given", field="retry", expected="a policy, or default_retry")
        return {"retry": "", "retry_id": ""}
    if not request.HasField("retry"):
        return {}
    text = json.dumps(check_policy(convert.retry_from_message(request.retry)).to_plain(), sort_keys=True)
    return {"retry": text, "retry_id": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _out_of_range(field: str, value: float, least: float, most: float) -> TenureError:
    return InvalidInput("out of range", field=field, given=value, expected=f"{least:g} to {most:g}")


def _state(number: int) -> TaskState:
    state = convert.state_from_message(number)
    if state is None:
        raise InvalidInput(
            "unknown state", field="states", given=number, expected=f"one of {', '.join(TaskState.__members__)}"
        )
    return state


def _verdicts(verdicts: dict[str, tuple[str, str]]) -> tenure_pb2.TaskVerdicts:
    return tenure_pb2.TaskVerdicts(
        verdicts=[
            tenure_pb2.TaskVerdict(task_id=task_id, verdict=verdict, state=state if state else "TASK_STATE_UNSPECIFIED")
            for task_id, (verdict, state) in verdicts.items()
        ]
    )


def _watch_response(cursor: str, events: list[Any], search: str) -> tenure_pb2.WatchResponse:
    wanted = [event for event in events if event.task_id and (not search or event.search == search)]
    return tenure_pb2.WatchResponse(cursor=cursor, events=[messages.event_message(event) for event in wanted])
