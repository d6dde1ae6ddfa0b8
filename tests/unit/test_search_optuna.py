"""The Optuna-driven search: parallel, resumable from a study's storage or from the broker alone, honest of failures."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from scripted_service import Book, ScriptedMaster

from tenure.client import Client, Search
from tenure.client.optuna_search import OptunaSearch, TrialEnd
from tenure.common.errors import InvalidArchitecture, InvalidInput, TenureError, WrongState
from tenure.proto import tenure_pb2

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def master(book: Book) -> Iterator[ScriptedMaster]:
    master = ScriptedMaster(book)
    yield master
    master.stop()


@pytest.fixture
def search(master: ScriptedMaster) -> Iterator[Search]:
    with Client(master.address, timeout_seconds=60) as client:
        yield client.search("s")


class Evaluating:
    """Ends each queued task of a book by a function of its units, as a worker would, until it is left."""

    def __init__(self, book: Book, evaluate: Callable[[str, int], None]) -> None:
        self._book = book
        self._evaluate = evaluate
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self.in_flight_max = 0
        self.evaluated: list[str] = []

    def __enter__(self) -> Evaluating:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._book.changed:
            self._over = True
            self._book.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._book.changed:
                self._book.changed.wait_for(lambda: self._over or self._queued())
                if self._over:
                    return
                queued = self._queued()
                self.in_flight_max = max(self.in_flight_max, len(queued))
                task_id = queued[0]
                self.evaluated.append(self._book.tasks[task_id].key)
            self._evaluate(task_id, _units(self._book, task_id))

    def _queued(self) -> list[str]:
        return [task_id for task_id, task in self._book.tasks.items() if task.state == tenure_pb2.QUEUED]


def _units(book: Book, task_id: str) -> int:
    units: int = json.loads(book.tasks[task_id].architecture)["nodes"][0]["params"]["units"]
    return units


def space(trial: optuna.Trial) -> dict[str, Any]:
    units = trial.suggest_int("units", 1, 1000)
    return {"nodes": [{"id": "a", "operation": "dense", "params": {"units": units}}], "edges": []}


def study(seed: int = 0, storage: str | None = None) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return optuna.create_study(
        direction="maximize", sampler=sampler, storage=storage, study_name="s", load_if_exists=True
    )


def sqlite(path: Path) -> str:
    return f"sqlite:///{path}/study.db"


def test_runs_the_trials_and_tells_their_fitness(book: Book, search: Search) -> None:
    ends: list[TrialEnd] = []
    driver = OptunaSearch(search, space, study(), parallelism=3, config={"dataset": "digits"})
    with Evaluating(book, lambda task_id, units: book.end(task_id, fitness=units / 1000)) as worker:
        result = driver.run(10, timeout=60, on_end=ends.append)
    assert [trial.state.name for trial in result.trials] == ["COMPLETE"] * 10
    for trial in result.trials:
        assert trial.value == trial.params["units"] / 1000
        assert trial.user_attrs["metrics"] == {"fitness": trial.value}
    assert {task.key for task in book.tasks.values()} == {f"trial-{n}" for n in range(10)}
    assert {task.config.dataset for task in book.tasks.values()} == {"digits"}
    assert worker.in_flight_max <= 3
    assert sorted(end.number for end in ends) == list(range(10))


def test_failed_tasks_and_missing_metrics_are_told_as_fail(book: Book, search: Search) -> None:
    def evaluate(task_id: str, units: int) -> None:
        if units % 3 == 0:
            book.fail(task_id)
        elif units % 3 == 1:
            book.move(task_id, tenure_pb2.SUCCEEDED, "complete", metrics={"loss": 1.0})
        else:
            book.end(task_id)

    ends: list[TrialEnd] = []
    with Evaluating(book, evaluate):
        result = OptunaSearch(search, space, study()).run(12, timeout=60, on_end=ends.append)
    for trial in result.trials:
        good = trial.params["units"] % 3 == 2
        assert trial.state.name == ("COMPLETE" if good else "FAIL")
        assert ("error" in trial.user_attrs) is not good
    assert {end.number for end in ends if end.error} == {t.number for t in result.trials if t.state.name == "FAIL"}


def test_the_same_architecture_is_evaluated_once(book: Book, search: Search) -> None:
    def narrow(trial: optuna.Trial) -> dict[str, Any]:
        units = trial.suggest_int("units", 1, 3)
        return {"nodes": [{"id": "a", "operation": "dense", "params": {"units": units}}]}

    ends: list[TrialEnd] = []
    with Evaluating(book, lambda task_id, units: book.end(task_id, fitness=float(units))) as worker:
        result = OptunaSearch(search, narrow, study()).run(20, timeout=60, on_end=ends.append)
    assert len(worker.evaluated) == len(book.tasks) == 3
    assert [trial.value for trial in result.trials] == [float(trial.params["units"]) for trial in result.trials]
    assert sum(end.repeated for end in ends) == 17


def test_goes_on_with_the_study_of_a_program_that_died(book: Book, search: Search, tmp_path: Path) -> None:
    first = OptunaSearch(search, space, study(storage=sqlite(tmp_path)), parallelism=4)
    with pytest.raises(TimeoutError):
        first.run(8, timeout=0.3)  # nobody evaluates: four tasks are in flight
    # Asked, but the program died before it submitted.
    orphan = study(seed=1, storage=sqlite(tmp_path)).ask()
    assert orphan.number == 4

    with Evaluating(book, lambda task_id, units: book.end(task_id, fitness=float(units))) as worker:
        second = OptunaSearch(search, space, study(seed=3, storage=sqlite(tmp_path)), parallelism=4)
        result = second.run(8, timeout=60)
    assert [trial.state.name for trial in result.trials] == ["COMPLETE"] * 8
    assert [trial.value for trial in result.trials] == [float(trial.params["units"]) for trial in result.trials]
    assert sorted(worker.evaluated) == [f"trial-{n}" for n in range(8)]


def test_goes_on_from_the_broker_alone(book: Book, search: Search) -> None:
    with Evaluating(book, lambda task_id, units: book.fail(task_id) if units < 300 else book.end(task_id)) as worker:
        before = OptunaSearch(search, space, study()).run(6, timeout=60)
        after = OptunaSearch(search, space, study(seed=1)).run(9, timeout=60)
    assert len(worker.evaluated) == 9
    for old, new in zip(before.trials, after.trials[:6], strict=True):
        assert (old.params, old.state, old.values, old.distributions) == (
            new.params,
            new.state,
            new.values,
            new.distributions,
        )


def test_a_gap_in_the_broker_keeps_the_numbers(book: Book, search: Search) -> None:
    with Evaluating(book, lambda task_id, units: book.end(task_id)):
        OptunaSearch(search, space, study()).run(3, timeout=60)
        book.tasks = {task_id: task for task_id, task in book.tasks.items() if task.key != "trial-1"}
        result = OptunaSearch(search, space, study()).run(4, timeout=60)
    assert [trial.state.name for trial in result.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_another_study_on_the_same_search_is_refused(book: Book, search: Search) -> None:
    with pytest.raises(TimeoutError):
        OptunaSearch(search, space, study(seed=0)).run(2, timeout=0.2)
    other = study(seed=7)
    trial = other.ask()
    trial.suggest_int("units", 1, 1000)
    with pytest.raises(WrongState, match="other parameters"):
        OptunaSearch(search, space, other).run(2, timeout=60)


def test_calling_run_again_goes_on_with_what_is_in_flight(book: Book, search: Search) -> None:
    driver = OptunaSearch(search, space, study(), parallelism=2)
    with pytest.raises(TimeoutError):
        driver.run(4, timeout=0.2)
    with Evaluating(book, lambda task_id, units: book.end(task_id)) as worker:
        result = driver.run(4, timeout=60)
    assert len(worker.evaluated) == 4
    assert [trial.state.name for trial in result.trials] == ["COMPLETE"] * 4


def test_a_pruned_trial_has_no_task(book: Book, search: Search) -> None:
    def picky(trial: optuna.Trial) -> dict[str, Any]:
        graph = space(trial)
        if trial.number % 2:
            raise optuna.TrialPruned
        return graph

    with Evaluating(book, lambda task_id, units: book.end(task_id)):
        result = OptunaSearch(search, picky, study()).run(4, timeout=60)
    assert [trial.state.name for trial in result.trials] == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED"]
    assert len(book.tasks) == 2


def test_an_architecture_that_can_not_be_right_is_raised(search: Search) -> None:
    result = study()
    with pytest.raises(InvalidArchitecture):
        OptunaSearch(search, lambda trial: {"nodes": []}, result).run(3, timeout=60)
    assert result.trials[0].state.name == "FAIL"


def test_a_space_may_choose_the_config_and_the_study_two_metrics(book: Book, search: Search) -> None:
    def both(trial: optuna.Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        return space(trial), {"learning_rate": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}

    def evaluate(task_id: str, units: int) -> None:
        metrics = {"fitness": 0.9, "params": float(units)}
        book.move(task_id, tenure_pb2.SUCCEEDED, "complete", metrics=metrics)

    two = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0))
    with Evaluating(book, evaluate):
        result = OptunaSearch(search, both, two, metrics=("fitness", "params")).run(3, timeout=60)
    for trial in result.trials:
        assert trial.values == [0.9, float(trial.params["units"])]
    rates = {task.config.learning_rate for task in book.tasks.values()}
    assert rates == {trial.params["lr"] for trial in result.trials}


def test_arguments_that_can_not_be_right(search: Search) -> None:
    with pytest.raises(InvalidInput, match="parallelism"):
        OptunaSearch(search, space, study(), parallelism=0)
    with pytest.raises(InvalidInput, match="directions"):
        OptunaSearch(search, space, study(), metrics=("a", "b"))


def test_a_closed_client_fails_no_trial(book: Book, master: ScriptedMaster, search: Search, tmp_path: Path) -> None:
    with Client(master.address, timeout_seconds=60) as client:
        driver = OptunaSearch(client.search("s"), space, study(storage=sqlite(tmp_path)), parallelism=2)
        closing = threading.Thread(target=lambda: (book.wait_for_calls("Watch", 1), client.close()))
        closing.start()
        with pytest.raises(TenureError, match="closed"):
            driver.run(3, timeout=60)
        closing.join()
    assert {trial.state.name for trial in study(storage=sqlite(tmp_path)).trials} == {"RUNNING"}
    with Evaluating(book, lambda task_id, units: book.end(task_id)):
        result = OptunaSearch(search, space, study(seed=3, storage=sqlite(tmp_path))).run(3, timeout=60)
    assert [trial.state.name for trial in result.trials] == ["COMPLETE"] * 3
