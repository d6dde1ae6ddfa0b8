"""The chaos suite's judge: it finds nothing wrong with a good history, and what is wrong with each bad one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from chaos_suite.checker import check
from chaos_suite.history import Event
from chaos_suite.recovery import Recovery, recoveries
from chaos_suite.sample import POISON, good_history
from chaos_suite.table import fault_table

Change = Callable[[list[Event]], Any]


def find(events: list[Event], what: str, **fields: Any) -> Event:
    """The first such event."""
    wanted = {"what": what, **fields}
    return next(event for event in events if wanted.items() <= event.items())


def after(events: list[Event], event: Event, **changed: Any) -> None:
    """Put a changed copy of an event right behind it, and have the watch told of it as well."""
    events.insert(events.index(event) + 1, {**copy.deepcopy(event), **changed})


def transition(events: list[Event], task_id: str, name: str, epoch: int = 0) -> Event:
    """The first such transition."""
    fields = {"epoch": epoch} if epoch else {}
    return find(events, "transition", task_id=task_id, transition=name, **fields)


def cancel_undone(events: list[Event]) -> None:
    events.append({"time": 900.0, "what": "cancel", "task_id": "a", "verdict": "ok"})


def two_runs_at_once(events: list[Event]) -> None:
    """Of two tasks, on the one slot of ``w2``, as long as ``a`` runs there."""
    start = find(events, "run_start", epoch=2)
    after(events, transition(events, "a", "claim", 2), task_id="q", worker="w1")
    after(events, start, task_id="q", epoch=2)
    after(events, transition(events, "a", "complete"), task_id="q", worker="w1")
    # On the same worker, to say it with two tasks that end well.
    for event in events:
        if event["what"] == "transition" and event["epoch"] == 2 and event["task_id"] == "a":
            event["worker"] = "w1"


def run_begins_late(events: list[Event]) -> None:
    start = find(events, "run_start", epoch=2)
    start["time"] = transition(events, "a", "claim", 2)["time"] + 100


def unharmed(events: list[Event]) -> None:
    find(events, "strike")["harms"] = []


def too_late(events: list[Event]) -> None:
    """The strike was healed long before the lease went."""
    find(events, "strike")["time"] = -100.0
    find(events, "heal")["time"] = -99.0


def executor_lost_by_itself(events: list[Event]) -> None:
    record = find(events, "record", task_id="a")
    record["runs"][0]["outcome"] = "loss"
    transition(events, "a", "expire").update(transition="fail")
    find(events, "watched", task_id="a", transition="expire")["transition"] = "fail"
    unharmed(events)


# (what is wrong, how to make it so, which invariant says so, and words of what it says)
BAD: list[tuple[str, Change, str, str]] = [
    (
        "a process ended by itself",
        lambda e: e.append({"time": 900.0, "what": "unexpected", "text": "w1 died"}),
        "other",
        "w1 died",
    ),
    ("it broke off", lambda e: e.remove(find(e, "replayed")), "other", "before its 'replayed'"),
    ("a task is gone", lambda e: e.remove(find(e, "record", task_id="a")), "I1", "is gone"),
    ("a key was given twice", lambda e: after(e, find(e, "submitted"), task_id="b"), "I1", "acknowledged as"),
    ("a task nobody wanted", lambda e: find(e, "submitting").update(keys=[POISON.key]), "I1", "never submitted"),
    ("counts differ", lambda e: find(e, "counts").update(tasks={"SUCCEEDED": 2}), "I1", "the search counts"),
    ("made twice", lambda e: after(e, transition(e, "a", "submit")), "I1", "was made 2 times"),
    ("fsck complains", lambda e: find(e, "fsck").update(violations=["no index"]), "I1", "no index"),
    ("an event was missed", lambda e: e.remove(find(e, "watched", transition="complete")), "I1", "missed [('a'"),
    ("an event was told twice", lambda e: after(e, find(e, "watched", transition="complete")), "I1", "twice [('a'"),
    ("completed twice", lambda e: after(e, transition(e, "a", "complete")), "I2", "completed 2 times"),
    (
        "two successes",
        lambda e: find(e, "record", task_id="a")["runs"][0].update(outcome="success"),
        "I2",
        "2 successes",
    ),
    ("the result changed", lambda e: find(e, "seen", task_id="a").update(fitness=0.1), "I2", "and changed"),
    ("two leases at once", lambda e: e.remove(transition(e, "a", "expire")), "I3", "leased twice"),
    ("an epoch fell", lambda e: transition(e, "a", "claim", 2).update(epoch=1), "I3", "at epoch 1 after 1"),
    (
        "re-adopted while leased",
        lambda e: after(e, transition(e, "a", "claim"), transition="readopt"),
        "I3",
        "re-adopted",
    ),
    ("runs of one epoch", lambda e: find(e, "record", task_id="p")["runs"][1].update(epoch=1), "I3", "epochs [1, 1]"),
    (
        "claimed after its end",
        lambda e: after(e, transition(e, "a", "complete"), transition="claim", state="LEASED"),
        "I4",
        "from SUCCEEDED",
    ),
    (
        "another state than its last",
        lambda e: find(e, "record", task_id="p").update(state="CANCELLED"),
        "I4",
        "led to FAILED",
    ),
    ("a cancel undone", cancel_undone, "I4", "acknowledged and undone"),
    ("never ended", lambda e: find(e, "record", task_id="p").update(state="LEASED"), "I8", "still LEASED"),
    (
        "poison succeeded",
        lambda e: find(e, "record", task_id="p").update(state="SUCCEEDED", fitness=POISON.fitness()),
        "I8",
        "ended SUCCEEDED",
    ),
    ("charged without a record", lambda e: find(e, "record", task_id="a").update(losses=2), "I5", "charged 2 losses"),
    ("over its budget", lambda e: find(e, "record", task_id="p").update(max_losses=1), "I5", "over its budget"),
    (
        "an attempt for a fault",
        lambda e: find(e, "record", task_id="a")["runs"][0].update(outcome="failure"),
        "I5",
        "was charged a failure",
    ),
    (
        "above the cap",
        lambda e: after(e, transition(e, "a", "claim"), task_id="q", time=9.1) or find(e, "plan").update(max_leased=1),
        "I6",
        "the search's cap is 1",
    ),
    ("more than its slots", two_runs_at_once, "I6", "w1 had 2 runs at once"),
    ("a lease without a run", run_begins_late, "I6", "held lease 2 of task a for 100.0 s without a run"),
    ("a key made a task anew", lambda e: find(e, "replay", request="submit").update(answer="new"), "I7", "made anew"),
    (
        "an old checkpoint was taken",
        lambda e: find(e, "replay", request="checkpoint").update(answer="OK"),
        "I7",
        "was taken",
    ),
    ("a replay changed the store", lambda e: find(e, "replayed").update(changed=["k"]), "I7", "changed k"),
    ("a lease expired unstruck", unharmed, "I9", "lease 1 of w1 expired"),
    ("a lease expired long after", too_late, "I9", "lease 1 of w1 expired"),
    ("an executor was lost unstruck", executor_lost_by_itself, "I9", "was counted as a loss"),
    ("a zombie was heard", lambda e: find(e, "zombie").update(answer="OK"), "I3", "came late, and was answered OK"),
    ("keys stay", lambda e: find(e, "keys").update(left=["tenure:{0}:ready:x"]), "I10", "ready:x"),
    (
        "another fitness",
        lambda e: [each.update(fitness=0.25) for each in e if each.get("task_id") == "a" and "fitness" in each],
        "I11",
        "undisturbed",
    ),
    ("resumed from the future", lambda e: find(e, "run_start", epoch=2).update(resumed_from=5), "I11", "never reached"),
]


def test_a_good_history_is_good() -> None:
    assert check(good_history()) == []


@pytest.mark.parametrize(("make_bad", "invariant", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_history_is_found_out(make_bad: Change, invariant: str, words: str) -> None:
    events = good_history()
    make_bad(events)
    found = [str(violation) for violation in check(events)]
    assert any(text.startswith(f"{invariant}: ") and words in text for text in found), found


def test_every_invariant_has_a_bad_history() -> None:
    assert {row[2] for row in BAD} == {"other", *(f"I{number}" for number in range(1, 12))}


def test_recovery_is_measured_until_the_struck_run_has_started_again() -> None:
    events = good_history()
    strike, restart = find(events, "strike"), find(events, "run_start", epoch=2)
    assert Recovery("worker_kill", restart["time"] - strike["time"]) in recoveries(events, {"worker_kill": "restart"})


def test_recovery_is_measured_until_the_broker_goes_on() -> None:
    events = good_history()
    claimed, healed = transition(events, "a", "claim", 2), find(events, "heal")
    assert Recovery("worker_kill", claimed["time"] - healed["time"]) in recoveries(events, {"worker_kill": "progress"})


def test_a_strike_that_hit_nothing_has_no_recovery() -> None:
    events = good_history()
    find(events, "strike")["pids"] = []
    assert Recovery("worker_kill", None) in recoveries(events, {"worker_kill": "restart"})


def test_the_table_counts_strikes_and_recoveries_apart() -> None:
    lines = fault_table([Recovery("a", 1.0), Recovery("a", 4.0), Recovery("a", None), Recovery("b", None)])
    assert [line.split() for line in lines[1:]] == [
        ["a", "3", "2", "2.50", "s", "4.00", "s"],
        ["b", "1", "0", "–", "–"],
        ["all", "4"],
    ]


@pytest.mark.parametrize("struck", [True, False])
def test_a_run_that_died_by_itself_may_expire_only_under_a_fault(struck: bool) -> None:
    """Regression: seed 37 killed the store while a run died; the report of its end came after the lease's."""
    events = good_history()
    unharmed(events)
    after(events, find(events, "run_step", step=2), what="run_fate", fate="kill")
    if not struck:
        too_late(events)
    assert [violation.invariant for violation in check(events)] == ([] if struck else ["I9"])


@pytest.mark.parametrize("kind", ["blackout", "worker_hold_up"])
def test_a_restarted_worker_says_what_it_lost_when_it_is_there(kind: str) -> None:
    """Regression: seeds 231 and 253 on a machine so busy that workers took ten seconds to start."""
    events = good_history()
    strike, heal = find(events, "strike"), find(events, "heal")
    strike.update(time=-100.0, kind=kind)
    heal["time"] = -99.0
    ready = transition(events, "a", "expire")["time"] - 1.0
    events.append({"time": ready, "what": "ready", "worker": "w1"})
    events.sort(key=lambda event: event["time"])
    assert [violation.invariant for violation in check(events)] == ([] if kind == "blackout" else ["I9"])
