"""Random runs of the model, call by call on the real scripts: the same verdict, and the same task afterwards.

spin simulates docs/model with a seed; store.pml prints each call of the store. What differs here is an error
of the model, or of the scripts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from store_scene import AT_ONCE, SET_WALL_BACK, Scene, failure, open_scene, release, renewal, success
from store_server import OpenStore, StoreServer, new_prefix

from tenure.common.retry import Jitter
from tenure.master.store import Store
from tenure.master.store.records import (
    DEFAULT_CLASS,
    CheckpointRecord,
    ClaimRequest,
    FailureKind,
    Grant,
    Renewal,
    RetryPolicy,
)

MODEL = Path(__file__).resolve().parents[2] / "docs" / "model"
STEPS_MAX = 3000
# A unit of the model's time. Far more than a run takes: what really passes meanwhile must not add up to one.
UNIT_MS = 600_000
NOBODY = 3
AFTER_A_MILLISECOND = RetryPolicy(1, 1, jitter=Jitter.NONE)
# The model says FINISHED of whatever is done already, whatever people are told.
BY_HAND = {"ok": "OK", "cancel_requested": "CANCEL", "already": "FINISHED", "wrong_state": "FINISHED"}

FAULTS = {
    "BREAKS": 3,
    "WORKER_CRASHES": 1,
    "MASTER_CRASHES": 1,
    "DUPLICATES": 2,
    "FAILURES": 2,
    "RENEWALS": 6,
    "DRAINS": 1,
}
BOUNDS = {
    "faults": FAULTS,
    "people": {**FAULTS, "CANCELS": 2, "REQUEUES": 2, "CHECKPOINTS": 3},
    "rollback": {**FAULTS, "ROLLBACKS": 2, "CHECKPOINTS": 1, "FAILURES": 3},
    "long leases": {**FAULTS, "TTL": 2, "PASSED_MAX": 2, "CUTS": 2},
}
KEPT = "a failed task has its checkpoint still"
LATE = "the report came later than the reaper"
# The call, its verdict, the task's state behind it. Each must come up: a replay of next to nothing must not pass.
MUST_COME_UP = {
    "faults": {
        *("claim OK LEASED", "tick OK LEASED", "cut OK LEASED", "expire OK QUEUED", "expire OK FAILED"),
        *("complete OK SUCCEEDED", "complete DUPLICATE FAILED", "release OK QUEUED"),
        *("fail OK QUEUED", "fail OK SCHEDULED", "promote OK QUEUED", "fail STALE QUEUED", "fail STALE LEASED"),
        *("renew OK LEASED", "renew LOST LEASED", "renew OPEN QUEUED", "renew FINISHED FAILED"),
        *("readopt READOPTED LEASED", "readopt LOST QUEUED", f"fail {LATE}", f"release {LATE}"),
    },
    "people": {
        *("cancel OK CANCELLED", "cancel CANCEL LEASED", "expire OK CANCELLED", "requeue OK QUEUED"),
        *("fail OK CANCELLED", "release OK CANCELLED", "renew CANCEL LEASED"),
        *("checkpoint OK LEASED", "checkpoint STALE LEASED", KEPT),
    },
    "rollback": {
        "save OK LEASED",
        "rollback OK LEASED",
        "rollback OK QUEUED",
        "readopt AHEAD LEASED",
        "renew OPEN LEASED",
    },
    "long leases": {"tick OK LEASED", "cut OK LEASED", "expire OK QUEUED", "renew OK LEASED"},
}
# Where all that comes up soon, to be quick; after a change of the model it is looked for further on.
FIRST_SEED = {"faults": 200, "people": 480, "rollback": 255, "long leases": 20}
REPLAYED = 25
SEEDS_MAX = 600


@dataclass(frozen=True)
class Call:
    """One line of a run: the call, the model's verdict, and the task afterwards as the model has it."""

    script: str
    lease: int
    worker: int
    detail: int
    verdict: str
    task: dict[str, str]


def simulate(model: Path, seed: int, bounds: dict[str, int]) -> list[Call]:
    """The calls of one random run. ``model``: a copy of it, for spin writes into the folder that it runs in."""
    definitions = [f"-D{name}={value}" for name, value in {"LEASES_MAX": 4, **bounds}.items()]
    command = ["spin", "-T", f"-n{seed}", f"-u{STEPS_MAX}", *definitions, "tenure.pml"]
    done = subprocess.run(command, cwd=model, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr
    assert "assertion violated" not in done.stdout, done.stdout[-1000:]
    return [parse(line) for line in done.stdout.splitlines() if line.startswith("call ")]


def parse(line: str) -> Call:
    """One line of SAY."""
    script = line.split()[1]
    task = dict(re.findall(r"(\w+)=(\w+)", line))
    lease, worker, detail = (int(task.pop(name)) for name in ("lease", "worker", "detail"))
    return Call(script, lease, worker, detail, task.pop("verdict"), task)


def marks(calls: list[Call]) -> set[str]:
    """What a run shows: see MUST_COME_UP."""
    shown = set()
    for before, call in zip([None, *calls], calls, strict=False):
        shown.add(f"{call.script} {call.verdict} {call.task['state']}")
        if call.task["state"] == "FAILED" and call.task["checkpoint"] != "0":
            shown.add(KEPT)
        if before and before.task["reaped"] == str(call.lease) and call.verdict == "OK":
            shown.add(f"{call.script} {LATE}")
    return shown


def token(lease: int) -> str:
    """Of the lease of this number."""
    return f"{lease:032x}"


class Replay:
    """One task on a real store, driven as the model drove its own."""

    def __init__(self, scene: Scene, task_id: str, grace: int) -> None:
        self.scene = scene
        self.tasks = scene.tasks
        self.task_id = task_id
        self.grace_ms = grace * UNIT_MS
        self.grants: dict[int, Grant] = {}
        self.saved: dict[str, bytes] = {}
        self.checkpoints = 0

    async def carry_out(self, call: Call) -> str:
        """The real verdict."""
        worker = f"w{call.worker}"
        match call.script:
            case "claim":
                return await self.claim(call)
            case "complete":
                return str((await self.tasks.complete(success(self.grants[call.lease], worker)))[0])
            case "fail":
                return await self.fail(call)
            case "release":
                return str((await self.tasks.release(release(self.grants[call.lease], worker)))[0])
            case "renew" | "readopt":
                held = renewal(self.grants[call.lease], worker, instance_id=call.task["instance"])
                return await self.alone(call.script, held)
            case "checkpoint":
                return await self.checkpoint(call)
            case "cancel":
                return BY_HAND[(await self.tasks.cancel([self.task_id]))[self.task_id][0]]
            case "requeue":
                return BY_HAND[(await self.tasks.requeue([self.task_id]))[self.task_id][0]]
            case _:
                await self.go_on(call)
                return "OK"

    async def go_on(self, call: Call) -> None:
        """What has no verdict: time, and what masters do by themselves."""
        match call.script:
            case "cut":
                await self.tasks.cut([(self.task_id, token(call.lease))], self.grace_ms)
            case "tick":
                self.scene.client.eval(SET_WALL_BACK, 1, self.scene.store.keys.clocks[0], call.detail * UNIT_MS)
                await self.tasks.tick(0, UNIT_MS)
            case "expire":
                assert [each.token for each in await self.tasks.expire(0, 100)] == [token(call.lease)]
            case "promote":
                await self.scene.advance(1)
                assert await self.tasks.promote(0, 100) == 1
            case "save":
                self.saved = self.scene.snapshot()
            case "rollback":
                self.scene.roll_back(self.saved)
            case script:
                raise AssertionError(f"the model called {script}, which no replay knows")

    async def claim(self, call: Call) -> str:
        """The task is there to be claimed, and nothing else."""
        instance = call.task["instance"]
        request = ClaimRequest(f"w{call.worker}", [token(call.lease)], [DEFAULT_CLASS], instance_id=instance)
        (self.grants[call.lease],) = await self.tasks.claim(request)
        return "OK"

    async def fail(self, call: Call) -> str:
        """``detail``: 1 a loss; 2 added: the backoff is above zero."""
        kind = FailureKind.LOSS if call.detail & 1 else FailureKind.FAILURE
        retry = AFTER_A_MILLISECOND if call.detail & 2 else AT_ONCE
        ended = failure(self.grants[call.lease], f"w{call.worker}", kind=kind, retry=retry)
        return str((await self.tasks.fail(ended))[0])

    async def alone(self, script: str, held: Renewal) -> str:
        """One script: the model has renew and readopt apart, as anything may come between; ``renew`` calls both."""
        replies = await self.tasks._each(script, [held], self.tasks._encode_renewals)
        return bytes(replies[0]).decode()

    async def checkpoint(self, call: Call) -> str:
        """A new one, which tells under which lease it was written."""
        self.checkpoints += 1
        grant = self.grants[call.lease]
        url = f"file:///c/{call.lease}/{self.checkpoints}"
        written = CheckpointRecord(url=url, step=self.checkpoints, digest="d" * 64, size_bytes=1, epoch=grant.epoch)
        verdict, _ = await self.tasks.register_checkpoint(self.task_id, grant.token, f"w{call.worker}", written)
        return str(verdict)

    def task(self) -> dict[str, str]:
        """The task as the store has it, in the model's words."""
        client, key = self.scene.client, self.scene.key
        fields = {name.decode(): value.decode() for name, value in client.hgetall(key(f"task:{self.task_id}")).items()}
        leased = fields["state"] == "LEASED"
        expiry = client.zscore(key("leases"), self.task_id)
        assert (expiry is not None) == leased, f"{fields['state']}, and its lease runs out at {expiry}"
        left = max(0, int(expiry) - int(client.hget(key("clock"), "now") or 0)) if expiry is not None else 0
        newest = client.lindex(key(f"checkpoints:{self.task_id}"), 0)
        return {
            "state": fields["state"],
            "epoch": fields["epoch"],
            "token": number(fields.get("token", "")),
            # Without a lease the store still tells who had the last one; the model forgets.
            "holder": fields["worker"].removeprefix("w") if leased else str(NOBODY),
            "instance": fields.get("instance", "0") if leased else "-",
            "cancel": fields.get("cancel", "0"),
            "attempts": fields["attempts"],
            "losses": fields["losses"],
            "ended": number(fields.get("ended_token", "")),
            "reaped": number(fields.get("reaped_token", "")),
            "checkpoint": re.findall(rb"file:///c/(\d+)/", newest)[0].decode() if newest else "0",
            "left": f"{left / UNIT_MS:g}",
        }


def number(lease_token: str) -> str:
    """The lease of this token."""
    return str(int(lease_token or "0", 16))


def expected(call: Call) -> dict[str, str]:
    """The model's task, without what means nothing while there is no lease."""
    leased = call.task["state"] == "LEASED"
    return {**call.task, "instance": call.task["instance"] if leased else "-"}


async def replay(store: Store, server: StoreServer, calls: list[Call], grace: int) -> None:
    """Every call, compared; the whole run up to a difference is in the message."""
    scene = open_scene(store, server)
    try:
        (task_id,) = await scene.submit(max_attempts=2, max_losses=2)
        real = Replay(scene, task_id, grace)
        for index, call in enumerate(calls):
            verdict = await real.carry_out(call)
            run = "\n".join(f"{each.script} {each}" for each in calls[: index + 1])
            assert (verdict, real.task()) == (call.verdict, expected(call)), f"the store differs after\n{run}"
        assert await scene.violations() == []
    finally:
        scene.client.close()


@pytest.mark.skipif(not shutil.which("spin"), reason="needs spin: apt-get install spin")
@pytest.mark.parametrize("name", BOUNDS)
async def test_the_scripts_do_what_the_model_does(
    name: str, open_test_store: OpenStore, store_server: StoreServer, tmp_path: Path
) -> None:
    """The first seeds, and then those that bring what hasn't come up yet."""
    model = Path(shutil.copytree(MODEL, tmp_path / "model"))
    ttl = BOUNDS[name].get("TTL", 1)
    missing = set(MUST_COME_UP[name])
    for count, seed in enumerate(range(FIRST_SEED[name], FIRST_SEED[name] + SEEDS_MAX), start=1):
        calls = simulate(model, seed, BOUNDS[name])
        came_up = marks(calls)
        if count > REPLAYED and not missing & came_up:
            continue
        store = await open_test_store(prefix=new_prefix(), lease_ttl_ms=ttl * UNIT_MS)
        await replay(store, store_server, calls, grace=1 if ttl > 1 else 0)
        missing -= came_up
        if count >= REPLAYED and not missing:
            break
    assert not missing, f"came up in no run of {SEEDS_MAX}"
