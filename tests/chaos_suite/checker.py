"""The judge: a pure function from a history to what is wrong with it.

Each check is one invariant of docs/chaos.md and is proven able to fail by tests/chaos/test_checker.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from chaos_suite.explanations import unexplained_losses
from chaos_suite.history import Event
from chaos_suite.story import LEASE_ENDS, Story, last_of
from chaos_suite.workload import OUTCOME_OF_FATE, task_of_key
from tenure.common.states import TERMINAL, TRANSITIONS_BY_NAME, TaskState


@dataclass(frozen=True)
class Violation:
    """One thing that must not be.

    Attributes:
        invariant: ``I1`` to ``I11``; ``other`` for a process or call that failed in a way it must not.
        count: In which of the totals it counts: ``lost``, ``accepted twice``, ``stale writes accepted``,
            ``fsck violations`` or ``other``.
    """

    invariant: str
    text: str
    count: str = "other"

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


COUNTS = ("lost", "accepted twice", "stale writes accepted", "fsck violations", "other")


def check(events: Sequence[Event]) -> list[Violation]:
    """Every violation in a history, by invariant."""
    story = Story(events)
    return [violation for invariant in CHECKS for violation in invariant(story)]


def nothing_unexpected(story: Story) -> Iterator[Violation]:
    """No process ended by itself, no call failed that must not."""
    for event in story.of("unexpected"):
        yield Violation("other", event["text"])
    for what in ("counts", "replayed", "keys", "drained"):
        if not story.of(what):
            yield Violation("other", f"the seed ended before its {what!r} was known")


def nothing_lost(story: Story) -> Iterator[Violation]:
    """I1: an acknowledged submit is one task, in exactly one state, and counts conserve."""
    ids: dict[str, set[str]] = defaultdict(set)
    for event in story.of("submitted"):
        ids[event["key"]].add(event["task_id"])
    for key, found in ids.items():
        if len(found) > 1:
            yield Violation("I1", f"key {key} was acknowledged as {sorted(found)}", "accepted twice")
    for task_id, key in story.submitted.items():
        if task_id not in story.records:
            yield Violation("I1", f"task {task_id} ({key}) was acknowledged and is gone", "lost")
    offered = {key for event in story.of("submitting") for key in event["keys"]}
    for record in story.records.values():
        if record["key"] not in offered:
            yield Violation("I1", f"task {record['task_id']} ({record['key']}) was never submitted")
    states = Counter(record["state"] for record in story.records.values())
    counted = {state: number for state, number in last_of(story.of("counts"), "tasks", {}).items() if number}
    if story.of("counts") and counted != dict(states):
        yield Violation("I1", f"the search counts {counted}, its tasks are {dict(states)}")
    for task_id, transitions in story.transitions.items():
        submits = sum(event["transition"] == "submit" for event in transitions)
        if submits != 1:
            yield Violation("I1", f"task {task_id} was made {submits} times", "accepted twice")


def fsck_is_clean(story: Story) -> Iterator[Violation]:
    """I1: indexes and tasks agree."""
    for event in story.of("fsck"):
        for text in event["violations"]:
            yield Violation("I1", f"fsck {event['when']}: {text}", "fsck violations")


def one_result(story: Story) -> Iterator[Violation]:
    """I2: at most one result is accepted, and it is the one that everybody sees."""
    for task_id, transitions in story.transitions.items():
        completed = sum(event["transition"] == "complete" for event in transitions)
        if completed > 1:
            yield Violation("I2", f"task {task_id} was completed {completed} times", "accepted twice")
    for record in story.records.values():
        successes = sum(run["outcome"] == "success" for run in record["runs"])
        if successes != (record["state"] == "SUCCEEDED"):
            yield Violation(
                "I2", f"task {record['task_id']} is {record['state']} with {successes} successes", "accepted twice"
            )
    for event in story.of("seen"):
        record = story.records.get(event["task_id"])
        if record is None or event["state"] != "SUCCEEDED":
            continue
        if (record["state"], record["fitness"]) != (event["state"], event["fitness"]):
            yield Violation("I2", f"the result of {event['task_id']} was seen as {event['fitness']}, and changed")


def one_lease(story: Story) -> Iterator[Violation]:
    """I3: a lease ends before the next begins, and epochs rise."""
    for task_id, transitions in story.transitions.items():
        held, epoch = False, 0
        for event in transitions:
            match event["transition"]:
                case "claim":
                    if held:
                        yield Violation("I3", f"task {task_id} was leased twice at epoch {event['epoch']}")
                    if event["epoch"] <= epoch:
                        yield Violation("I3", f"task {task_id} was leased at epoch {event['epoch']} after {epoch}")
                    held, epoch = True, max(epoch, event["epoch"])
                case "readopt":
                    if held:
                        yield Violation("I3", f"task {task_id} was re-adopted while leased")
                    held, epoch = True, max(epoch, event["epoch"])
                case name if name in LEASE_ENDS:
                    held = False
    for record in story.records.values():
        # A success that came late was sent under the epoch of a lease that has a record already.
        epochs = [run["epoch"] for run in record["runs"] if run["outcome"] != "success"]
        if epochs != sorted(set(epochs)):
            yield Violation("I3", f"task {record['task_id']} has runs of epochs {epochs}")


def ends_stay(story: Story) -> Iterator[Violation]:
    """I4: only the transitions of the table happen; what has ended stays, unless somebody requeues it."""
    for task_id, transitions in story.transitions.items():
        state: TaskState | None = None
        for event in transitions:
            after = TaskState(event["state"])
            row = TRANSITIONS_BY_NAME.get(event["transition"])
            if row is None or (state, after) not in row.edges:
                yield Violation("I4", f"task {task_id}: {event['transition']} from {state} to {after}")
            state = after
        record = story.records.get(task_id)
        if record is not None and state is not None and record["state"] != state.value:
            yield Violation("I4", f"task {task_id} is {record['state']}, its last transition led to {state.value}")


def ended_as_it_must(story: Story) -> Iterator[Violation]:
    """I8, I4: everything has ended, as its evaluator and its people wanted it."""
    cancelled = story.tasks_of("cancel") | {each for event in story.of("cancelling") for each in event["task_ids"]}
    for record in story.records.values():
        state, task_id = TaskState(record["state"]), record["task_id"]
        if state not in TERMINAL:
            yield Violation("I8", f"task {task_id} is still {state}", "lost")
            continue
        task = task_of_key(record["key"])
        wanted = {TaskState.SUCCEEDED if task.ends_well else TaskState.FAILED}
        if task_id in cancelled:
            wanted.add(TaskState.CANCELLED)
        if state not in wanted:
            runs = [(run["outcome"], run["error"]) for run in record["runs"]]
            yield Violation("I8", f"task {task_id} ({task.fate}) ended {state}: {runs}")
    requests = [event for event in story.events if event["what"] in ("cancel", "requeueing")]
    for position, event in enumerate(requests):
        if event["what"] != "cancel" or event["verdict"] != "ok" or event["task_id"] not in story.records:
            continue
        later = {each for other in requests[position:] for each in other.get("task_ids", ())}
        if story.records[event["task_id"]]["state"] != "CANCELLED" and event["task_id"] not in later:
            yield Violation("I4", f"the cancel of task {event['task_id']} was acknowledged and undone")


def budgets_hold(story: Story) -> Iterator[Violation]:
    """I5: budgets are kept, what is charged is what the records show, and nobody pays for what others did."""
    requeued = {each for event in story.of("requeueing") for each in event["task_ids"]}
    for record in story.records.values():
        outcomes = Counter(run["outcome"] for run in record["runs"])
        shown = {
            "attempts": outcomes["failure"],
            "losses": outcomes["loss"] + outcomes["expired"],
            "out_of_memory": outcomes["out_of_memory"],
        }
        for name, number in shown.items():
            right = record[name] <= number if record["task_id"] in requeued else record[name] == number
            if not right:
                yield Violation(
                    "I5", f"task {record['task_id']} was charged {record[name]} {name}, records show {number}"
                )
        if record["attempts"] > record["max_attempts"] or record["losses"] > record["max_losses"]:
            yield Violation("I5", f"task {record['task_id']} is over its budget: {shown}")
        task = task_of_key(record["key"])
        for kind in ("failure", "out_of_memory"):
            if outcomes[kind] and OUTCOME_OF_FATE.get(task.fate) != kind:
                runs = [(run["epoch"], run["outcome"], run["error"]) for run in record["runs"]]
                yield Violation("I5", f"task {record['task_id']} ({task.fate}) was charged a {kind}: {runs}")


def capacity_holds(story: Story) -> Iterator[Violation]:
    """I6: no lease is given beyond the search's cap, and never are more runs at a time in a worker than it has slots.

    A holder that comes back to a lease that ran out has it again, whatever was given to others meanwhile: its work is
    not thrown away for the cap.
    """
    cap = last_of(story.of("plan"), "max_leased", 0)
    leased: set[str] = set()
    for event in story.of("transition"):
        if event["state"] == "LEASED":
            leased.add(event["task_id"])
        else:
            leased.discard(event["task_id"])
        if cap and len(leased) > cap and event["transition"] == "claim":
            yield Violation("I6", f"{len(leased)} leases at once, the search's cap is {cap}")
            break
    slots = {event["worker"]: event["slots"] for event in story.of("worker")}
    started = {(event["task_id"], event["epoch"]): event["time"] for event in story.of("run_start")}
    over = {(event["task_id"], event["epoch"]): event["time"] for event in story.events if event["what"] in _RUN_ENDS}
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for lease in story.leases():
        run = (lease.task_id, lease.epoch)
        begun, ended = started.get(run, lease.ended), over.get(run, lease.ended)
        # A run that died has no end in the journal, and its lease ends when that is known.
        if lease.end in ("complete", "release") and lease.worker in slots and begun < ended:
            changes[lease.worker] += [(begun, 1), (ended, -1)]
        if lease.end != "expire" and begun - lease.begun > IDLE_LEASE_SECONDS_MAX:
            idle = f"{begun - lease.begun:.1f} s without a run"
            yield Violation("I6", f"{lease.worker} held lease {lease.epoch} of task {lease.task_id} for {idle}")
    for worker, its_changes in changes.items():
        number = most = 0
        for _, change in sorted(its_changes):
            number += change
            most = max(most, number)
        if most > slots[worker]:
            yield Violation("I6", f"{worker} had {most} runs at once and has {slots[worker]} slots")


_RUN_ENDS = frozenset({"run_end", "run_stopped"})
# A grant and the next wish may cross on the wire: what is too much for a worker's slots waits there for a second, and
# goes back. A lease that idles for much longer is work that nobody does; the longest pauses here are of seven seconds.
IDLE_LEASE_SECONDS_MAX = 20.0


def replays_change_nothing(story: Story) -> Iterator[Violation]:
    """I7: a request that was answered before, or comes from a lease that is over, changes nothing."""
    for event in story.of("replay"):
        if event["request"] == "submit" and event["answer"] != "same":
            yield Violation("I7", f"task {event['task_id']} was made anew by its own key", "accepted twice")
        if event["request"] == "checkpoint" and event["answer"] == "OK":
            yield Violation(
                "I7", f"a checkpoint under an old lease of {event['task_id']} was taken", "stale writes accepted"
            )
    for event in story.of("replayed"):
        for key in event["changed"]:
            yield Violation("I7", f"requests sent again changed {key}", "stale writes accepted")


def stale_writes_are_refused(story: Story) -> Iterator[Violation]:
    """I3, I7: what comes under a lease that somebody else has since is refused as stale."""
    for event in story.of("zombie"):
        if event["answer"] != "STALE":
            text = f"a {event['request']} under lease {event['epoch']} of task {event['task_id']} came late"
            yield Violation("I3", f"{text}, and was answered {event['answer']}", "stale writes accepted")


def losses_are_explained(story: Story) -> Iterator[Violation]:
    """I9: a lease is lost only to a fault of its worker, its way or its evaluator; never to masters or stores."""
    for text in unexplained_losses(story):
        yield Violation("I9", text)


def nothing_stays(story: Story) -> Iterator[Violation]:
    """I10: after retention the store holds what it held before the first submit."""
    for event in story.of("keys"):
        for key in event["left"]:
            yield Violation("I10", f"left behind: {key}")


def results_are_exact(story: Story) -> Iterator[Violation]:
    """I11: a training that was interrupted comes to the digits of one that wasn't, and resumes from what was saved."""
    for record in story.records.values():
        task = task_of_key(record["key"])
        if record["state"] == "SUCCEEDED" and record["fitness"] != task.fitness():
            yield Violation(
                "I11", f"task {record['task_id']} has {record['fitness']!r}, undisturbed {task.fitness()!r}"
            )
    reached: dict[str, int] = defaultdict(int)
    for event in story.events:
        if event["what"] == "run_start" and event["resumed_from"] > reached[event["task_id"]]:
            yield Violation("I11", f"task {event['task_id']} went on from step {event['resumed_from']}, never reached")
        if event["what"] == "run_step":
            reached[event["task_id"]] = max(reached[event["task_id"]], event["step"])


def watch_misses_nothing(story: Story) -> Iterator[Violation]:
    """I1: a watching client is told every change, once, in order, across every fault."""
    told = [_change(event) for event in story.of("watched")]
    happened = [_change(event) for event in story.of("transition")]
    if told != happened and story.of("drained"):
        twice = [change for change, number in Counter(told).items() if number > 1 and Counter(happened)[change] == 1]
        missed = [change for change in happened if change not in set(told)]
        text = f"{len(told)} of {len(happened)} changes; missed {missed[:3]}, twice {twice[:3]}"
        yield Violation("I1", f"the watch told {text}")


def _change(event: Event) -> tuple[str, str, str, int]:
    return (event["task_id"], event["transition"], event["worker"], event["epoch"])


CHECKS: tuple[Callable[[Story], Iterator[Violation]], ...] = (
    nothing_unexpected,
    nothing_lost,
    fsck_is_clean,
    one_result,
    one_lease,
    ends_stay,
    ended_as_it_must,
    budgets_hold,
    capacity_holds,
    replays_change_nothing,
    stale_writes_are_refused,
    losses_are_explained,
    nothing_stays,
    results_are_exact,
    watch_misses_nothing,
)
