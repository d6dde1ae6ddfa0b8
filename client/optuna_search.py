"""A search driven by Optuna: ask, build an architecture, submit, wait, tell. Needs the ``search`` extra.

    study = optuna.create_study(direction="maximize")
    driver = OptunaSearch(client.search("digits-cnn"), cnn_space_for("digits"), study, config={"dataset": "digits"})
    driver.run(trials=200)
    print(study.best_value, study.best_params)

Trial number N is the task with the key ``trial-N``, and each task carries its trial's parameters. So the program may
be killed at any moment and started again with the same search and a study from the same storage, or even with an
empty in-memory study: what the broker has is taken over, what runs is waited for, and nothing is evaluated twice.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from tenure.client.connection import Deadline
from tenure.client.records import TaskRecord
from tenure.client.search import Search
from tenure.client.specs import checked, task_spec
from tenure.client.tasks import TaskFailed, TaskHandle, TaskResult
from tenure.common import limits
from tenure.common.errors import InvalidInput, TenureError, UnknownTask, WrongState
from tenure.common.spec import Config, TaskSpec, content_key

log = logging.getLogger("tenure.client")

Space = Callable[[Trial], Any]
"""Suggests parameters and returns an architecture, or a pair (architecture, config)."""

# Where a task keeps its trial's parameters and their distributions: in the graph's metadata, which no evaluator
# reads, or, for architectures of another format, in config.extra.
PARAMETERS_NAME = "optuna"
_KEY = re.compile(r"^trial-(\d+)$")


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended. ``result`` or ``error`` is None. ``repeated``: an earlier trial had the same architecture."""

    number: int
    task_id: str
    result: TaskResult | None
    error: TenureError | None
    repeated: bool


@dataclass(frozen=True)
class _Pending:
    trial: Trial
    handle: TaskHandle
    repeated: bool


class OptunaSearch:
    """Runs an Optuna study on a Tenure search. One program at a time; not thread-safe.

    Args:
        search: Where the tasks go. One search for one study: keys are ``trial-N``.
        space: Called with each trial, see :data:`Space`. Must suggest the same parameters when it is called again
            with the same trial.
        study: Any study, in whatever storage. None: in memory, maximising, with TPE that knows of running trials.
        config: Training configuration of every task; a config that ``space`` returns goes before it.
        parallelism: Tasks submitted at a time: as many as there are slots, or a few more to keep them busy.
        metrics: What is told to the study, one for each of its directions.
        spec_options: Further arguments of :func:`tenure.client.task_spec` for every task (``max_attempts``, …).

    A task that ends FAILED or CANCELLED, or lacks a metric, is told as FAIL. An architecture that an earlier trial
    had with the same config is not evaluated again: the trial gets that task's result.
    """

    def __init__(
        self,
        search: Search,
        space: Space,
        study: optuna.Study | None = None,
        *,
        config: Mapping[str, Any] | Config | None = None,
        parallelism: int = 4,
        metrics: Sequence[str] = ("fitness",),
        spec_options: Mapping[str, Any] | None = None,
    ) -> None:
        if parallelism < 1:
            raise InvalidInput("must be at least 1", field="parallelism", given=parallelism)
        self.study = study or optuna.create_study(direction="maximize")
        if len(metrics) != len(self.study.directions):
            raise InvalidInput(
                f"the study has {len(self.study.directions)} directions",
                field="metrics",
                given=tuple(metrics),
                expected="name one metric for each direction",
            )
        self._search = search
        self._space = space
        self._config = config
        self._parallelism = parallelism
        self._metrics = tuple(metrics)
        self._spec_options = dict(spec_options or {})
        self._pending: dict[Future[TaskResult], list[_Pending]] = {}
        self._by_content: dict[str, TaskHandle] = {}

    def run(
        self,
        trials: int,
        *,
        timeout: float | None = None,
        on_end: Callable[[TrialEnd], None] | None = None,
    ) -> optuna.Study:
        """Go on until the study has ``trials`` trials, those of earlier programs included, and all have ended.

        Outlives masters and workers that come and go. If it raises, tasks in flight run on: a later call waits for
        them.

        Raises:
            TimeoutError: Not done after ``timeout`` seconds.
            WrongState: The search has tasks of another study.
            TenureError: A submit was refused, or found no master for the client's timeout; or the client was closed.
        """
        deadline = Deadline.after(timeout)
        self._take_over()
        asked = len(self.study.get_trials(deepcopy=False, states=_ASKED))
        while True:
            room = min(self._parallelism - self._tasks_in_flight(), trials - asked)
            if room > 0:
                self._submit([self.study.ask() for _ in range(room)])
                asked += room
                continue
            if not self._pending:
                return self.study
            done, _ = wait(self._pending, deadline.left, FIRST_COMPLETED)
            if not done:
                raise TimeoutError(f"{len(self._pending)} tasks have not ended")
            for future in done:
                for pending in self._pending.pop(future):
                    end = self._tell(pending, future)
                    if on_end is not None:
                        on_end(end)
                    elif end.error is not None:
                        log.warning("trial %d failed: %s", end.number, end.error)

    # ---- asking and submitting ------------------------------------------------------------------------------------

    def _submit(self, trials: list[Trial]) -> None:
        """Submit the trials' tasks in one go, but for repetitions; and wait for all of them."""
        fresh: dict[str, tuple[Trial, TaskSpec]] = {}
        repeated: list[tuple[Trial, str]] = []
        for trial in trials:
            spec = self._spec_of(trial)
            if spec is None:
                continue
            content = _content_of(spec.architecture, spec.config)
            if content in self._by_content or content in fresh:
                repeated.append((trial, content))
            else:
                fresh[content] = (trial, _with_parameters(spec, trial, self._search.architecture_format()))
        handles = self._search.submit_many(spec for _, spec in fresh.values())
        for (content, (trial, _)), handle in zip(fresh.items(), handles, strict=True):
            self._by_content[content] = handle
            self._await(trial, handle, repeated=False)
        for trial, content in repeated:
            self._await(trial, self._by_content[content], repeated=True)

    def _spec_of(self, trial: Trial) -> TaskSpec | None:
        """The trial's task, checked; None if the space pruned it."""
        try:
            suggested = self._space(trial)
            architecture, config = suggested if isinstance(suggested, tuple) else (suggested, self._config)
            spec = task_spec(architecture, config, key=f"trial-{trial.number}", **self._spec_options)
            return checked(spec, self._search.architecture_format())
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            return None
        except BaseException:
            # The study must not keep a trial running that has no task.
            self.study.tell(trial, state=TrialState.FAIL)
            raise

    def _await(self, trial: Trial, handle: TaskHandle, *, repeated: bool) -> None:
        trial.set_user_attr("tenure_task_id", handle.task_id)
        self._pending.setdefault(handle.future(), []).append(_Pending(trial, handle, repeated))

    def _tasks_in_flight(self) -> int:
        return len({pending.handle.task_id for group in self._pending.values() for pending in group})

    # ---- telling --------------------------------------------------------------------------------------------------

    def _tell(self, pending: _Pending, future: Future[TaskResult]) -> TrialEnd:
        """Tell how the task ended. What says nothing of the task (a closed client) is raised: the trial runs on."""
        number, task_id = pending.trial.number, pending.handle.task_id
        try:
            result = future.result()
        except (TaskFailed, UnknownTask) as error:
            return self._tell_failure(pending, error)
        missing = [name for name in self._metrics if name not in result.metrics]
        if missing:
            message = f"the result has no metric {', '.join(missing)}"
            return self._tell_failure(pending, TenureError(message, field=f"task {task_id}"))
        pending.trial.set_user_attr("metrics", dict(result.metrics))
        self.study.tell(number, [result.metrics[name] for name in self._metrics], skip_if_finished=True)
        return TrialEnd(number, task_id, result, None, pending.repeated)

    def _tell_failure(self, pending: _Pending, error: TenureError) -> TrialEnd:
        pending.trial.set_user_attr("error", str(error))
        self.study.tell(pending.trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return TrialEnd(pending.trial.number, pending.handle.task_id, None, error, pending.repeated)

    # ---- taking over from an earlier program ----------------------------------------------------------------------

    def _take_over(self) -> None:
        """Bring study and broker together: after this, every trial that runs has a task that is waited for."""
        awaited = {pending.trial.number for group in self._pending.values() for pending in group}
        records = self._tasks_by_number()
        known = self.study.get_trials(deepcopy=False)
        orphans: list[Trial] = []
        for number in range(max(len(known), max(records, default=-1) + 1)):
            record = records.get(number)
            if record is not None:
                content = _content_of(record.architecture, record.config or Config())
                self._by_content.setdefault(content, self._handle(record))
            if number >= len(known):
                self._recreate(number, record)
            elif known[number].state is TrialState.RUNNING and number not in awaited:
                trial = Trial(self.study, known[number]._trial_id)
                if record is None:
                    orphans.append(trial)
                else:
                    _check_same(known[number], record)
                    self._await(trial, self._handle(record), repeated=False)
        # The program ended between ask and submit; a trial that was asked again suggests what it suggested.
        self._submit(orphans)

    def _tasks_by_number(self) -> dict[int, TaskRecord]:
        """The search's tasks that are trials, as full records."""
        if self._search.exists():
            numbers = {
                record.task_id: int(match[1]) for record in self._search.tasks() if (match := _KEY.match(record.key))
            }
            records = self._search.records(numbers, full=True)
            return {numbers[task_id]: record for task_id, record in records.items()}
        return {}

    def _recreate(self, number: int, record: TaskRecord | None) -> None:
        """A trial that the study doesn't have: from its task, or, without one, a placeholder for its number."""
        stored = _stored_parameters(record) if record is not None else None
        if record is None or stored is None:
            if record is not None:
                log.warning("task %s has no parameters of a trial; trial %d counts as failed", record.task_id, number)
            self.study.add_trial(create_trial(state=TrialState.FAIL))
            return
        params, distributions = stored
        self.study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))
        frozen = self.study.get_trials(deepcopy=False)[number]
        self._await(Trial(self.study, frozen._trial_id), self._handle(record), repeated=False)

    def _handle(self, record: TaskRecord) -> TaskHandle:
        return TaskHandle(self._search, record.task_id, record.key, False)


_ASKED = tuple(state for state in TrialState if state is not TrialState.WAITING)


def _with_parameters(spec: TaskSpec, trial: Trial, architecture_format: str) -> TaskSpec:
    """The spec with the trial's parameters in it, if there is room."""
    stored = {
        name: [trial.params[name], json.loads(distribution_to_json(distribution))]
        for name, distribution in trial.distributions.items()
    }
    if architecture_format == "graph":
        graph = json.loads(spec.architecture)
        graph["metadata"] = {**(graph.get("metadata") or {}), PARAMETERS_NAME: stored}
        return replace(spec, architecture=json.dumps(graph, separators=(",", ":")))
    text = json.dumps(stored, separators=(",", ":"))
    room = limits.CONFIG_EXTRA_BYTES_MAX - len(PARAMETERS_NAME) - len(text.encode())
    if room < 0 or len(spec.config.extra) >= limits.CONFIG_EXTRA_ENTRIES_MAX:
        log.warning("trial %d has too many parameters to keep with its task: use a study storage", trial.number)
        return spec
    return replace(spec, config=replace(spec.config, extra={**spec.config.extra, PARAMETERS_NAME: text}))


def _without_parameters(architecture: str, config: Config) -> tuple[str, Config, Any]:
    """(architecture, config, what :func:`_with_parameters` put there or None); empty metadata counts as none."""
    stored: Any = None
    parsed = json.loads(architecture)
    if isinstance(parsed, dict) and isinstance(parsed.get("metadata"), dict):
        metadata = parsed.pop("metadata")
        stored = metadata.pop(PARAMETERS_NAME, None)
        architecture = json.dumps({**parsed, "metadata": metadata} if metadata else parsed)
    extra = dict(config.extra)
    if PARAMETERS_NAME in extra:
        stored = json.loads(extra.pop(PARAMETERS_NAME))
    return architecture, replace(config, extra=extra), stored


def _content_of(architecture: str, config: Config) -> str:
    """What two trials must share for their tasks to be one."""
    architecture, config, _ = _without_parameters(architecture, config)
    return content_key(architecture, config)


def _stored_parameters(record: TaskRecord) -> tuple[dict[str, Any], dict[str, Any]] | None:
    _, _, stored = _without_parameters(record.architecture, record.config or Config())
    if stored is None:
        return None
    params = {name: value for name, (value, _) in stored.items()}
    return params, {name: json_to_distribution(json.dumps(each)) for name, (_, each) in stored.items()}


def _check_same(trial: FrozenTrial, record: TaskRecord) -> None:
    stored = _stored_parameters(record)
    if stored is None:
        return
    params = json.loads(json.dumps(trial.params))
    if any(stored[0].get(name, value) != value for name, value in params.items()):
        raise WrongState(
            f"task {record.key} has other parameters than trial {trial.number} of this study",
            field="search",
            given=record.search,
            expected="use one search for one study: choose another name",
        )
