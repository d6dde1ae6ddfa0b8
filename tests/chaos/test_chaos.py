"""Seeded chaos, as ``make chaos SEEDS=…`` runs it: a few short seeds here, any number there."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_suite.evidence import SHARD
from chaos_suite.history import read_lines, tell
from chaos_suite.run import kinds_here, plan_of, run_seed
from chaos_suite.scene import KINDS, Kind, Scene
from chaos_suite.workload import SEARCH
from processes import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

# A worker and its store, masters for longer than a lease, a network that loses replies; then whatever the seed deals.
SHORT = [
    (1, ["store_and_worker_kill", "worker_stop", "store_drop_replies"]),
    (2, ["masters_outage", "worker_pause", "cancel"]),
]
LONG_SEEDS = range(1, 9)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for sockets below it, and kept where a seed failed."""
    root = Path(tempfile.mkdtemp(prefix="tenure-chaos-"))
    yield root / "seed"
    if not (root / "seed").exists():
        shutil.rmtree(root)


async def assert_good(seed: int, kinds: list[str], strikes: int, folder: Path) -> None:
    report = await run_seed(plan_of(seed, kinds, strikes), folder)
    story = [*map(str, report.violations), *tell(report.events), f"logs: {folder}"]
    assert report.violations == [], "\n".join([*story, f"replay: make chaos SEEDS={seed}-{seed}"])


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("seed", "kinds"), SHORT)
async def test_nothing_is_lost_and_nothing_is_taken_twice(seed: int, kinds: list[str], folder: Path) -> None:
    await assert_good(seed, kinds, len(kinds), folder)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", LONG_SEEDS)
async def test_seed(seed: int, folder: Path) -> None:
    await assert_good(seed, kinds_here(), 9, folder)


def test_a_plan_follows_from_its_seed() -> None:
    kinds = sorted(KINDS)
    assert plan_of(7, kinds) == plan_of(7, kinds)
    assert plan_of(7, kinds) != plan_of(8, kinds)


def test_seeds_in_a_row_strike_with_every_kind() -> None:
    kinds = sorted(KINDS)
    struck = {kind for seed in range(1, 1 + 2 * len(kinds) // 9) for kind in plan_of(seed, kinds).kinds}
    external = {name for name, kind in KINDS.items() if kind.external}
    assert struck >= set(kinds) - external
    assert len(external - struck) <= len(external) // 4


async def sabotage(scene: Scene) -> None:
    """An ended task is deleted, and a result that the search program has seen is altered, behind everybody's back."""

    def seen() -> list[str]:
        events = read_lines(scene.program_journal)
        return [each["task_id"] for each in events if each["what"] == "seen" and each["state"] == "SUCCEEDED"]

    def meddle() -> None:
        altered = seen()[0]
        with scene.fleet.redis() as client:
            ended = [each.decode() for each in client.zrange(f"{SHARD}:ended:{SEARCH}:SUCCEEDED", 0, 9)]
            gone = next(each for each in ended if each != altered)
            client.delete(f"{SHARD}:task:{gone}")
            outcome = json.loads(client.get(f"{SHARD}:outcome:{altered}"))
            outcome["metrics"]["fitness"] += 1
            client.set(f"{SHARD}:outcome:{altered}", json.dumps(outcome))

    async def two_ended() -> bool:
        return len(await asyncio.to_thread(list, scene.client.tasks(SEARCH, ["SUCCEEDED"]))) >= 2

    async with scene.striking("sabotage"):
        await eventually(two_ended)
        await eventually(seen)
        await asyncio.to_thread(meddle)


@pytest.mark.timeout(400)
async def test_a_broken_promise_is_found_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "sabotage", Kind("sabotage", sabotage, "progress", "all", external=False, mounts=False))
    report = await run_seed(plan_of(3, ["sabotage"], 1), folder)
    found = {violation.invariant for violation in report.violations}
    assert {"I1", "I2", "I11"} <= found, report.violations
    assert any(violation.count == "lost" for violation in report.violations)
    assert any(violation.count == "fsck violations" for violation in report.violations)
    shutil.rmtree(folder)
