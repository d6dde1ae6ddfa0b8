"""How long it took from each fault until things went on; a pure function of the history."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chaos_suite.history import Event
from chaos_suite.story import Story

_RUN_ENDS = ("run_end", "run_stopped")
# The broker gives out or takes.
_BROKER_WORKS = ("claim", "complete", "release")


@dataclass(frozen=True)
class Recovery:
    """One strike and what followed.

    Attributes:
        seconds: None when there was nothing to recover: no run was ended by it, or nothing was left to do.
    """

    kind: str
    seconds: float | None


def recoveries(events: Sequence[Event], measures: Mapping[str, str]) -> list[Recovery]:
    """Each strike's, by the measure of its kind; and each fate's of an evaluation, as ``fate_…``.

    Args:
        events: A history in order of time.
        measures: ``restart`` or ``progress`` by kind.
    """
    story = Story(events)
    found = []
    for strike, healed in story.strikes():
        if measures.get(strike["kind"]) == "restart":
            seconds = _until_restarted(story, strike)
        else:
            seconds = _until_progress(story, healed)
        found.append(Recovery(strike["kind"], seconds))
    return found + list(_of_fates(story))


def _until_restarted(story: Story, strike: Event) -> float | None:
    """Until every run in the struck executors has a successor, or its task has ended."""
    struck = set(strike["pids"])
    running: dict[str, int] = {}
    for event in story.events:
        if event["time"] > strike["time"]:
            break
        if event["what"] == "run_start" and event["pid"] in struck:
            running[event["task_id"]] = event["epoch"]
        elif event["what"] in _RUN_ENDS and running.get(event["task_id"]) == event["epoch"]:
            del running[event["task_id"]]
    waits = [_restart_of(story, task_id, epoch, strike["time"]) for task_id, epoch in running.items()]
    return max((wait for wait in waits if wait is not None), default=None)


def _restart_of(story: Story, task_id: str, epoch: int, since: float) -> float | None:
    times = [
        event["time"]
        for event in story.of("run_start")
        if event["task_id"] == task_id and event["epoch"] > epoch and event["time"] > since
    ]
    times += [
        event["time"]
        for event in story.transitions.get(task_id, ())
        if event["state"] in ("SUCCEEDED", "FAILED", "CANCELLED") and event["time"] > since
    ]
    return min(times) - since if times else None


def _until_progress(story: Story, healed: float) -> float | None:
    works = sorted(event["time"] for event in story.of("transition") if event["transition"] in _BROKER_WORKS)
    position = bisect.bisect_left(works, healed)
    return works[position] - healed if position < len(works) else None


def _of_fates(story: Story) -> Iterator[Recovery]:
    for event in story.of("run_fate"):
        if event["fate"] == "gil":
            # Costs nothing: the run goes on by itself.
            yield Recovery("fate_gil", None)
        else:
            yield Recovery(f"fate_{event['fate']}", _restart_of(story, event["task_id"], event["epoch"], event["time"]))
