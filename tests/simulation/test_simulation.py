"""Small simulations, with every kind of fault, and what is exchanged in the scripts for them."""

from __future__ import annotations

import re
from unittest import mock

import pytest

from simulation.clock import SIMULATED_WALL_MS, WALL_MS, scripts_on_virtual_time
from simulation.fairness import jain
from simulation.options import FAULTS, Options, parse
from simulation.program import simulate
from simulation.report import report
from simulation.workers import SimulatedWorker
from tenure.master.store.scripts import load_scripts

SMALL = Options(workers=60, tasks=1_000, days=0.5, seed=3)


def test_of_the_scripts_only_the_function_that_asks_the_servers_clock_is_exchanged() -> None:
    real, simulated = load_scripts(), scripts_on_virtual_time()
    assert real.keys() == simulated.keys()
    for name, script in real.items():
        exchanged = simulated[name]
        found = WALL_MS.findall(script.body)
        assert len(found) == 1
        assert b"redis.call('TIME')" in found[0]
        assert exchanged.body.replace(SIMULATED_WALL_MS, found[0]) == script.body
        assert b"'TIME'" not in exchanged.body
        assert exchanged.sha != script.sha
        assert (exchanged.name, exchanged.writes) == (script.name, script.writes)


async def test_nothing_is_lost_under_any_fault() -> None:
    simulation, costs = await simulate(SMALL, lambda line: None)
    ledger = simulation.ledger
    assert ledger.violations == []
    assert ledger.counts["leases taken from healthy workers"] == 0
    assert ledger.ended == costs.checked == SMALL.tasks
    for kind in set(FAULTS) - {"crashes"}:
        assert ledger.counts[f"struck: {kind}"] > 0, kind
    # It can tell: faults took leases, and what they cost was counted.
    assert ledger.counts["leases taken back"] > 0
    assert ledger.wasted_ms["spot wave"] > 0
    text = report(simulation, costs)
    assert "violations of anything: 0" in text
    assert re.search(r"spot wave +[0-9,]+ +[0-9.]+ +[0-9.]+", text)


@pytest.mark.long
async def test_every_heartbeat_and_checkpoint_can_be_sent_for_real() -> None:
    options = Options(
        workers=20, tasks=100, days=0.01, seed=5, masters=1, routine="all", faults=("waves", "store", "pauses")
    )
    simulation, _ = await simulate(options, lambda line: None)
    assert simulation.ledger.violations == []
    assert simulation.ledger.ended == options.tasks


async def test_a_seed_gives_the_same_world_and_faults_again() -> None:
    options = Options(workers=20, tasks=150, days=0.2, seed=9)
    told = [(await simulate(options, lambda line: None))[0].ledger.counts for _ in range(2)]
    struck = [{name: count for name, count in each.items() if name.startswith("struck")} for each in told]
    assert struck[0] == struck[1] != {}


async def test_the_books_notice_when_a_healthy_worker_loses_its_lease() -> None:
    """A simulation that never complains would prove nothing."""
    careless = mock.patch.object(SimulatedWorker, "remaining_ms", return_value=0)
    with careless:
        simulation, _ = await simulate(Options(workers=20, tasks=150, days=0.2, seed=9, faults=("store",)), print)
    assert simulation.ledger.counts["leases taken from healthy workers"] > 0
    assert simulation.ledger.violation_count > 0


def test_jains_index_is_1_for_equal_shares_and_falls_to_1_in_n() -> None:
    assert jain([1, 1, 1, 1]) == 1
    assert jain([4, 0, 0, 0]) == 0.25


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--faults", "wave"], ["--days", "-1"], ["--masters", "4"]])
def test_what_cant_be_simulated_is_refused_by_name(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err
