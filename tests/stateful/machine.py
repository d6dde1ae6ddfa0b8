"""Drives the real store and the model side by side, by two masters in turn, requests sent once or twice."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from stateful.comparison import seen, should_be_seen
from stateful.model import LEASE_TTL_MS, Model, Search, Task
from store_scene import Scene, failure, release, renewal
from store_server import StoreServer, delete_keys, new_prefix

from tenure.common.retry import Jitter, RetryPolicy
from tenure.common.spec import TaskSpec
from tenure.common.states import TRANSITIONS_BY_NAME, TaskState
from tenure.master.store import StoreOptions, open_store
from tenure.master.store.records import ClaimRequest, FailureKind, Grant, Verdict

T = TypeVar("T")

# How often each happens, in proportion.
OF_HOLDERS = {"complete": 2, "fail": 3, "release": 2, "renew": 3, "checkpoint": 1, "cut": 1, "give_back": 1}
OF_CLIENTS = {"submit": 3, "submit_again": 1, "cancel": 1, "requeue": 2, "set_status": 1, "set_search": 1, "forget": 1}
OF_OTHERS = {"claim": 5, "advance": 2, "expire": 1, "lose_all_leases": 2, "promote": 1, "lose_scripts": 1}
WEIGHTS = OF_HOLDERS | OF_CLIENTS | OF_OTHERS
ACTIONS = [action for action, weight in WEIGHTS.items() for _ in range(weight)]
FOREVER_MS = 10**12


class Choices:
    """Takes one number apart into choices, so that a step is printed short and shrinks well."""

    def __init__(self, number: int) -> None:
        self._number = number

    def of(self, options: Sequence[T]) -> T:
        """One of the options."""
        self._number, index = divmod(self._number, len(options))
        return options[index]


class StoreMachine(RuleBasedStateMachine):
    """See the module.

    One rule for all: Hypothesis switches rules off at random, and without claims, say, nothing else happens either.
    """

    server: ClassVar[StoreServer]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.runner = asyncio.Runner()
        self.client = self.server.client()
        options = StoreOptions(url=self.server.url, prefix=new_prefix(), lease_ttl_ms=LEASE_TTL_MS)
        self.stores = [self.run(open_store(options)) for _ in range(2)]
        self.masters = itertools.cycle([Scene(store, self.client) for store in self.stores])
        self.grants: list[tuple[str, Grant]] = []
        self.numbers = itertools.count()

    @rule(action=st.sampled_from(ACTIONS), choice=st.integers(0, 10**9), twice=st.booleans())
    def step(self, action: str, choice: int, twice: bool) -> None:
        if not self.model.tasks:
            action = "submit"
        elif not self.grants and action in OF_HOLDERS:
            action = "claim"
        getattr(self, action)(Choices(choice), twice)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @property
    def scene(self) -> Scene:
        """One of the masters; the next time the other."""
        return next(self.masters)

    def sent(self, call: Callable[[], Coroutine[Any, Any, T]], twice: bool) -> T:
        """The answer to a request, which was sent again at once when ``twice``: that changes nothing and says the
        same."""
        answer = self.run(call())
        if twice:
            before = self.scene.dump()
            assert self.run(call()) == answer
            assert self.scene.dump() == before
        return answer

    def pick_task(self, choices: Choices) -> Task:
        return choices.of(list(self.model.tasks.values()))

    def pick_grant(self, choices: Choices) -> tuple[str, Grant, Task]:
        """A lease: of a present holder, of one that the reaper took it from, one given away again or whose task another
        one ended, or any there ever was."""
        wanted = choices.of(
            [
                lambda task, grant: task.token == grant.token,
                lambda task, grant: task.reaped_token == grant.token,
                lambda task, grant: grant.epoch < task.epoch or task.reported_token not in ("", grant.token),
                lambda task, grant: True,
            ]
        )
        fitting = [each for each in self.grants if wanted(self.model.tasks[each[1].task_id], each[1])]
        worker, grant = choices.of(fitting or self.grants)
        return worker, grant, self.model.tasks[grant.task_id]

    def pick_reporter(self, choices: Choices) -> tuple[str, Grant, Task]:
        """The same, of a peer that reports: now and then a legacy one, which knows no tokens."""
        worker, grant, task = self.pick_grant(choices)
        legacy = choices.of([False, False, False, False, True])
        return worker, dataclasses.replace(grant, token="") if legacy else grant, task

    # ---- clients ----------------------------------------------------------------------------------------------------

    def submit(self, choices: Choices, twice: bool) -> None:
        search = choices.of(["a", "b", "c"])
        count, priority, delay_ms = choices.of([1, 2, 3]), choices.of([0, 1, -1]), choices.of([0, 0, 5_000])
        max_attempts, max_losses = choices.of([2, 3, 1]), choices.of([2, 3, 1])
        specs = [
            TaskSpec(
                f"[{number % 5}]",
                key=f"k{number}",
                priority=priority,
                delay_ms=delay_ms,
                max_attempts=max_attempts,
                max_out_of_memory=max_attempts,
                max_losses=max_losses,
            )
            for number in itertools.islice(self.numbers, count)
        ]
        settings = self.model.searches.setdefault(search, Search())
        if settings.status == "cancelled":
            settings.status = "active"
            self.run(self.scene.store.searches.put(search, {}, status="active"))
        for each in self.run(self.scene.tasks.submit(search, specs)):
            assert each.created
            state = TaskState.SCHEDULED if delay_ms else TaskState.QUEUED
            self.model.tasks[each.task_id] = Task(
                each.task_id,
                search,
                each.key,
                next(self.numbers),
                priority,
                max_attempts,
                max_losses,
                state,
                self.model.now_ms + delay_ms,
            )

    def submit_again(self, choices: Choices, twice: bool) -> None:
        task = self.pick_task(choices)
        if self.model.searches[task.search].status == "cancelled":
            return
        spec = TaskSpec('{"other": "content"}', key=task.key)
        (known,) = self.run(self.scene.tasks.submit(task.search, [spec]))
        assert (known.task_id, known.created, known.state) == (task.task_id, False, task.state)

    def cancel(self, choices: Choices, twice: bool) -> None:
        task = self.pick_task(choices)
        expected = self.model.cancel(task)
        assert self.run(self.scene.tasks.cancel([task.task_id])) == {task.task_id: expected}

    def requeue(self, choices: Choices, twice: bool) -> None:
        wrong = choices.of([False, False, False, True])
        letters = [task for task in self.model.in_state(TaskState.FAILED, TaskState.CANCELLED) if not wrong]
        task = choices.of(letters) if letters else self.pick_task(choices)
        expected = self.model.requeue(task)
        assert self.run(self.scene.tasks.requeue([task.task_id])) == {task.task_id: expected}

    def set_status(self, choices: Choices, twice: bool) -> None:
        search = self.pick_task(choices).search
        status = choices.of(["active", "paused", "active", "cancelled"])
        self.model.searches[search].status = status
        self.sent(lambda: self.scene.store.searches.put(search, {}, status=status, create=False), twice)

    def set_search(self, choices: Choices, twice: bool) -> None:
        search = self.pick_task(choices).search
        settings = self.model.searches[search]
        settings.priority, settings.max_leased = choices.of([0, 1, -1]), choices.of([1, 0, 2])
        wanted = {"priority": settings.priority, "max_leased": settings.max_leased, "weight": choices.of([1, 3, 0.5])}
        self.sent(lambda: self.scene.store.searches.put(search, wanted), twice)

    def forget(self, choices: Choices, twice: bool) -> None:
        search, keep = self.pick_task(choices).search, choices.of([0, 1, 3])
        ended = [task for task in self.model.tasks.values() if task.search == search and task.state.terminal]
        forgotten = self.run(self.scene.tasks.forget(search, keep, FOREVER_MS))
        left = self.run(self.scene.tasks.show([task.task_id for task in ended]))
        for state in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED):
            before = sum(task.state is state for task in ended)
            assert sum(view.state is state for view in left.values()) == min(before, keep)
        assert forgotten == len(ended) - len(left)
        for task in ended:
            if task.task_id not in left:
                del self.model.tasks[task.task_id]
        self.grants = [(worker, grant) for worker, grant in self.grants if grant.task_id in self.model.tasks]

    # ---- workers ----------------------------------------------------------------------------------------------------

    def claim(self, choices: Choices, twice: bool) -> None:
        worker, count = choices.of(["w1", "w2", "w3"]), choices.of([1, 2, 4])
        tokens = [f"{next(self.numbers):032x}" for _ in range(count)]
        grants = self.run(self.scene.tasks.claim(ClaimRequest(worker, tokens, ["-"])))
        for grant, token in zip(grants, tokens, strict=False):
            assert grant.task_id in self.model.next_ones()
            task = self.model.tasks[grant.task_id]
            self.model.grant(task, token, worker)
            expected = (token, task.epoch, task.spent["attempts"] + 1, task.search)
            assert (grant.token, grant.epoch, grant.attempt, grant.search) == expected
            self.grants.append((worker, grant))
        assert len(grants) == count or not self.model.next_ones()

    def complete(self, choices: Choices, twice: bool) -> None:
        worker, grant, task = self.pick_reporter(choices)
        fitness = choices.of([0.5, -1.0, 0.7, 0.6])
        expected = self.model.complete(task, grant.token, worker, fitness)
        assert self.sent(lambda: self.scene.complete(grant, worker, fitness), twice) == expected

    def fail(self, choices: Choices, twice: bool) -> None:
        worker, grant, task = self.pick_reporter(choices)
        kind, wait_ms = choices.of(list(FailureKind)), choices.of([0, 20_000, 40_000])
        jitter = choices.of([Jitter.FULL, Jitter.NONE])
        retryable = choices.of([True, True, True, False])
        refused = self.model.report(task, grant.token, worker)
        end = failure(grant, worker, kind=kind, retryable=retryable, retry=RetryPolicy(wait_ms, wait_ms, jitter=jitter))
        verdict, state = self.sent(lambda: self.scene.tasks.fail(end), twice)
        if refused is None:
            # With full jitter the wait is the store's to draw, within the bound; without jitter it is known.
            drawn = (self.run(self.scene.view(task.task_id))).scheduled_in_ms or 0
            assert 0 <= drawn <= (0 if kind is FailureKind.LOSS else wait_ms)
            self.model.fail(task, kind, retryable, drawn)
            waits = kind is not FailureKind.LOSS and not task.state.terminal
            assert drawn == wait_ms or jitter is Jitter.FULL or not waits
        assert (verdict, state) == (refused or Verdict.OK, task.state)

    def release(self, choices: Choices, twice: bool) -> None:
        worker, grant, task = self.pick_reporter(choices)
        refused = self.model.report(task, grant.token, worker)
        if refused is None:
            self.model.release(task)
        verdict, _ = self.sent(lambda: self.scene.tasks.release(release(grant, worker)), twice)
        assert verdict == (refused or Verdict.OK)

    def renew(self, choices: Choices, twice: bool) -> None:
        worker, grant, task = self.pick_grant(choices)
        expected = self.model.renew(task, grant.token)
        known = choices.of([{}, {"epoch": 0}])
        assert self.run(self.scene.tasks.renew(renewal(grant, worker, **known))) == expected

    def checkpoint(self, choices: Choices, twice: bool) -> None:
        worker, grant, task = self.pick_grant(choices)
        step, score = choices.of(range(1, 7)), choices.of([None, 0.5, 0.9, 0.1])
        holds = task.state is TaskState.LEASED and task.token == grant.token
        verdict, _ = self.run(self.scene.checkpoint(grant, step, score, worker))
        assert verdict == (Verdict.OK if holds else Verdict.STALE)
        before = self.scene.dump()
        again, _ = self.run(self.scene.checkpoint(grant, step, score, worker))
        assert (again, self.scene.dump()) == (verdict, before)

    def cut(self, choices: Choices, twice: bool) -> None:
        _, grant, task = self.pick_grant(choices)
        grace_ms = choices.of([2_000, 0, 20_000])
        expected = self.model.cut(task, grant.token, grace_ms)
        assert self.run(self.scene.tasks.cut([(grant.task_id, grant.token)], grace_ms)) == expected

    def give_back(self, choices: Choices, twice: bool) -> None:
        """A claim's answer was lost: what it was given goes back without a trace."""
        start, count = choices.of(range(len(self.grants))), choices.of([1, 2, 4])
        tokens = {grant.token for _, grant in self.grants[start : start + count]}
        held = [task for task in self.model.in_state(TaskState.LEASED) if task.token in tokens]
        assert self.run(self.scene.tasks.give_back(sorted(tokens))) == len(held)
        for task in held:
            assert self.model.report(task, task.token, task.worker) is None
            self.model.release(task)
            task.records.pop()

    # ---- time, and the server ---------------------------------------------------------------------------------------

    def advance(self, choices: Choices, twice: bool) -> None:
        ms = choices.of([2_000, 10_000, 1_999, 1, LEASE_TTL_MS])
        self.model.now_ms += ms
        assert self.run(self.scene.advance(ms)) == self.model.now_ms

    def expire(self, choices: Choices, twice: bool) -> None:
        expected = self.model.expire()
        assert {each.task_id for each in self.run(self.scene.tasks.expire(0, 100))} == expected

    def lose_all_leases(self, choices: Choices, twice: bool) -> None:
        self.model.now_ms += LEASE_TTL_MS
        self.run(self.scene.advance(LEASE_TTL_MS))
        self.expire(choices, twice)

    def promote(self, choices: Choices, twice: bool) -> None:
        expected = self.model.promote()
        assert self.run(self.scene.tasks.promote(0, 100)) == expected

    def lose_scripts(self, choices: Choices, twice: bool) -> None:
        self.client.script_flush()

    # ---- what must hold after every step ----------------------------------------------------------------------------

    @invariant()
    def indexes_and_tasks_agree(self) -> None:
        checked, violations = self.run(self.scene.store.fsck.run())
        assert (checked, violations) == (len(self.model.tasks), [])

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        ids = list(self.model.tasks)
        views: dict[str, Any] = {}
        for start in range(0, len(ids), 100):
            views |= self.run(self.scene.tasks.show(ids[start : start + 100], full=True))
        assert list(views) == ids
        for task_id, view in views.items():
            assert seen(view) == should_be_seen(self.model.tasks[task_id], self.model.now_ms)
        for name, settings in self.model.searches.items():
            shown = self.run(self.scene.store.searches.get(name))
            assert shown.best_fitness == settings.best
            for state, count in shown.counts.items():
                assert count == sum(task.search == name for task in self.model.in_state(state))

    def teardown(self) -> None:
        try:
            self.every_event_is_an_edge_of_the_table()
        finally:
            for store in self.stores:
                self.run(store.close())
            delete_keys(self.client, self.stores[0].keys.prefix)
            self.client.close()
            self.runner.close()

    def every_event_is_an_edge_of_the_table(self) -> None:
        states: dict[str, TaskState] = {}
        for event in self.run(self.events()):
            if not event.task_id:
                continue
            before = states.pop(event.task_id, None)
            after = None if event.transition == "forget" else TaskState(event.state)
            assert (before, after) in TRANSITIONS_BY_NAME[event.transition].edges, event
            if after is not None:
                states[event.task_id] = after
        assert states == {task_id: task.state for task_id, task in self.model.tasks.items()}

    async def events(self) -> list[Any]:
        log = self.scene.store.events
        return [event async for _, batch in log.between("0-0", await log.now()) for event in batch]
