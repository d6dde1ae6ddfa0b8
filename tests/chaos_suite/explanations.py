"""Which lost leases are explained by what struck, and which are not."""

from __future__ import annotations

from collections.abc import Iterator

from chaos_suite.story import Lease, Story
from chaos_suite.workload import OUTCOME_OF_FATE, task_of_key

# How long after the end of a fault a lease may still go for it: a lease's time, the brake on mass expiry that holds for
# another, a worker that finds its way back, and room for a busy machine.
AFTERMATH_SECONDS = 12.0

# They end workers and start them again. Those say what was lost when they are there, not when they are started.
RESTARTING = frozenset({"worker_reboot", "blackout"})


def unexplained_losses(story: Story) -> Iterator[str]:
    """One text for each lease that expired, or run that counted as lost, though nothing had struck its worker."""
    fates = {(event["task_id"], event["epoch"]): event["fate"] for event in story.of("run_fate")}
    for lease in story.leases():
        if lease.end not in ("expire", "fail"):
            continue
        if lease.end == "fail" and (_outcome(story, lease) != "loss" or _own_doing(story, lease, fates)):
            continue
        # The run had ended badly by itself; a store that was away kept its report until the lease had run out.
        if (
            lease.end == "expire"
            and fates.get((lease.task_id, lease.epoch), "gil") != "gil"
            and _something_was_struck(story, lease)
        ):
            continue
        if not any(lease.worker in harms for harms in _harms_around(story, lease)):
            verb = "expired" if lease.end == "expire" else "was counted as a loss"
            yield f"task {lease.task_id}: lease {lease.epoch} of {lease.worker} {verb}, and nothing had struck it"


def _outcome(story: Story, lease: Lease) -> str:
    record = story.records.get(lease.task_id)
    runs = record["runs"] if record is not None else []
    return next((str(run["outcome"]) for run in runs if run["epoch"] == lease.epoch), "")


def _own_doing(story: Story, lease: Lease, fates: dict[tuple[str, int], str]) -> bool:
    """Whether the evaluation itself ended its process."""
    fate = fates.get((lease.task_id, lease.epoch))
    record = story.records.get(lease.task_id)
    if fate is None or record is None:
        return False
    return OUTCOME_OF_FATE.get(task_of_key(record["key"]).fate) == "loss"


def _something_was_struck(story: Story, lease: Lease) -> bool:
    """Whether there was any fault while the lease lived."""
    return any(strike["time"] <= lease.ended and healed >= lease.begun for strike, healed in story.strikes())


def _harms_around(story: Story, lease: Lease) -> Iterator[list[str]]:
    for strike, healed in story.strikes():
        over = healed
        if strike["kind"] in RESTARTING:
            back = (ready["time"] for ready in story.of("ready") if ready["worker"] == lease.worker)
            over = next((time for time in back if time > healed), healed)
        if strike["time"] <= lease.ended and over + AFTERMATH_SECONDS >= lease.ended:
            yield strike["harms"]
