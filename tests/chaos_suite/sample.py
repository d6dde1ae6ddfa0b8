"""A short hand-made history with nothing wrong in it, for the tests of the judge."""

from __future__ import annotations

from typing import Any

from chaos_suite.history import Event
from chaos_suite.workload import ChaosTask, make_task

SEED = 1
TASKS = [make_task(SEED, number) for number in range(400)]
GOOD: ChaosTask = next(task for task in TASKS if task.fate == "ok")
POISON: ChaosTask = next(task for task in TASKS if task.fate == "segfault" and task.lasting)


def good_history() -> list[Event]:
    """Task ``a`` loses its first worker to a strike and succeeds on the second; ``p`` is poison and ends FAILED."""
    numbers = iter(range(1, 1000))

    def event(what: str, **fields: Any) -> Event:
        return {"time": float(next(numbers)), "what": what, **fields}

    def moved(task_id: str, transition: str, state: str, worker: str = "", epoch: int = 0) -> Event:
        return event("transition", task_id=task_id, transition=transition, state=state, worker=worker, epoch=epoch)

    def run(what: str, task_id: str, epoch: int, **fields: Any) -> Event:
        return event(f"run_{what}", task_id=task_id, epoch=epoch, **fields)

    fitness = GOOD.fitness()
    story = [
        event("plan", seed=SEED, max_leased=2),
        event("worker", worker="w1", slots=1),
        event("worker", worker="w2", slots=1),
        event("submitting", keys=[GOOD.key, POISON.key]),
        moved("a", "submit", "QUEUED"),
        moved("p", "submit", "QUEUED"),
        event("submitted", task_id="a", key=GOOD.key, created=True),
        event("submitted", task_id="p", key=POISON.key, created=True),
        moved("a", "claim", "LEASED", "w1", 1),
        run("start", "a", 1, pid=11, resumed_from=-1, step=0),
        run("step", "a", 1, pid=11, resumed_from=-1, step=1),
        run("step", "a", 1, pid=11, resumed_from=-1, step=2),
        event("strike", strike=1, kind="worker_kill", harms=["w1"], pids=[11]),
        event("heal", strike=1, kind="worker_kill"),
        moved("a", "expire", "QUEUED", "w1", 1),
        moved("a", "claim", "LEASED", "w2", 2),
        run("start", "a", 2, pid=22, resumed_from=2, step=2),
        run("end", "a", 2, pid=22, resumed_from=2, step=GOOD.steps),
        event("zombie", request="failure", task_id="a", epoch=1, answer="STALE"),
        moved("a", "complete", "SUCCEEDED", "w2", 2),
        event("seen", task_id="a", state="SUCCEEDED", fitness=fitness),
        moved("p", "claim", "LEASED", "w2", 1),
        run("fate", "p", 1, pid=22, resumed_from=-1, step=3, fate="segfault"),
        moved("p", "fail", "QUEUED", "w2", 1),
        moved("p", "claim", "LEASED", "w2", 2),
        run("fate", "p", 2, pid=23, resumed_from=-1, step=3, fate="segfault"),
        moved("p", "fail", "FAILED", "w2", 2),
        event("seen", task_id="p", state="FAILED", fitness=None),
        event("drained", seconds=1.0),
        event("record", **_record("a", GOOD, "SUCCEEDED", fitness, [("w1", "expired"), ("w2", "success")])),
        event("record", **_record("p", POISON, "FAILED", None, [("w2", "loss"), ("w2", "loss")])),
        event("counts", tasks={"SUCCEEDED": 1, "FAILED": 1, "QUEUED": 0}),
        event("fsck", when="after healing", violations=[]),
        event("replay", request="submit", task_id="a", answer="same"),
        event("replay", request="checkpoint", task_id="a", epoch=1, answer="STALE"),
        event("replayed", changed=[]),
        event("keys", left=[]),
    ]
    told = ("task_id", "transition", "worker", "epoch")
    story += [event("watched", **{name: each[name] for name in told}) for each in story if each["what"] == "transition"]
    return story


def _record(
    task_id: str, task: ChaosTask, state: str, fitness: float | None, runs: list[tuple[str, str]]
) -> dict[str, Any]:
    outcomes = [outcome for _, outcome in runs]
    return {
        "task_id": task_id,
        "key": task.key,
        "state": state,
        "fitness": fitness,
        "attempts": outcomes.count("failure"),
        "max_attempts": 3,
        "losses": outcomes.count("loss") + outcomes.count("expired"),
        "max_losses": 5,
        "out_of_memory": 0,
        "epoch": len(runs),
        "worker": runs[-1][0],
        "runs": [
            {"epoch": epoch, "worker": worker, "outcome": outcome, "error": ""}
            for epoch, (worker, outcome) in enumerate(runs, start=1)
        ],
    }
