"""The figures for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulation.simulation import Simulation
from simulation.world import DAY_MS, HOUR_MS, SEARCHES


@dataclass(frozen=True)
class Costs:
    """What the server did for it.

    Attributes:
        cpu_seconds, memory_bytes: Of the server process; memory without what it had before.
        script_calls, script_items: Sent by the masters.
        wall_seconds: How long the simulation took.
    """

    cpu_seconds: float
    memory_bytes: int
    script_calls: int
    script_items: int
    wall_seconds: float
    checked: int


def report(simulation: Simulation, costs: Costs) -> str:
    """The whole report."""
    sections = (_head, _recovery, _waste, _safety, _fairness)
    lines = [line for section in sections for line in (*section(simulation), "")]
    return "\n".join([*lines, *_costs(simulation, costs), "", *_verdict(simulation, costs)])


def _head(simulation: Simulation) -> Iterator[str]:
    options, ledger, world = simulation.options, simulation.ledger, simulation.world
    yield (
        f"{options.workers:,} workers with {world.slots:,} slots, {options.tasks:,} tasks in {len(SEARCHES)} searches, "
        f"{options.masters} masters, seed {options.seed}, routine {options.routine}"
    )
    hours = np.mean(world.duration_ms) / HOUR_MS
    yield f"a task computes for {hours:.2f} h on average; all had ended after {simulation.now_ms / DAY_MS:.2f} days"
    struck = sorted((name, n) for name, n in ledger.counts.items() if name.startswith("struck"))
    yield "struck: " + ", ".join(f"{name.removeprefix('struck: ')} {count:,}" for name, count in struck)


def _recovery(simulation: Simulation) -> Iterator[str]:
    ledger = simulation.ledger
    yield "from a fault to the task's being queued again, and to its running again, in seconds (time without any"
    yield "master or store left out; running again waits for a free slot, too)"
    names = f"  {'cause':<49} {'tasks':>8} {'median':>8} {'p99':>8} {'worst':>8}"
    yield f"{names}   {'run: median':>11} {'p99':>8} {'worst':>9}"
    for cause in sorted(ledger.noticed_ms):
        queued, again = _spread(ledger.noticed_ms[cause]), _spread(ledger.resumed_ms.get(cause, [0]))
        yield (
            f"  {cause:<49} {len(ledger.noticed_ms[cause]):>8,} {queued[0]:>8.1f} {queued[1]:>8.1f} {queued[2]:>8.1f}"
            f"   {again[0]:>11.1f} {again[1]:>8.1f} {again[2]:>9.1f}"
        )


def _spread(values_ms: Sequence[int]) -> tuple[float, float, float]:
    values = np.array(values_ms) / 1000
    return float(np.median(values)), float(np.percentile(values, 99)), float(values.max())


def _waste(simulation: Simulation) -> Iterator[str]:
    ledger = simulation.ledger
    wasted = sum(ledger.wasted_ms.values())
    yield (
        f"computed {ledger.computed_ms / HOUR_MS:,.0f} h, of which {wasted / HOUR_MS:,.0f} h "
        f"({100 * wasted / max(1, ledger.computed_ms):.3f} %) were thrown away:"
    )
    for cause, lost_ms in ledger.wasted_ms.most_common():
        yield f"  {cause:<49} {lost_ms / HOUR_MS:>10,.1f} h {100 * lost_ms / max(1, ledger.computed_ms):>8.4f} %"


def _safety(simulation: Simulation) -> Iterator[str]:
    counts = simulation.ledger.counts
    for name in (
        "outages of all masters or the store",
        "leases taken from healthy workers",
        "leases taken back",
        "readopted",
        "late successes taken",
        "stale writes refused",
        "tasks sent to silent workers",
    ):
        yield f"  {name:<49} {counts[name]:>10,}"
    others = {n: c for n, c in counts.items() if n.startswith(("outcomes", "runs revoked", "checkpoints", "ended"))}
    for name, count in sorted(others.items()):
        yield f"  {name:<49} {count:>10,}"


def _fairness(simulation: Simulation) -> Iterator[str]:
    fairness = simulation.fairness
    if not fairness.windows:
        yield "fairness: there was no window in which every measured search had tasks waiting"
        return
    hours = fairness.window_ms / HOUR_MS
    yield f"fairness over {fairness.windows} windows of {hours:.0f} h in which every measured search had tasks waiting"
    weights = sum(SEARCHES[number].weight for number in fairness.measured)
    claims, slot_ms = sum(fairness.claims.values()), sum(fairness.slot_ms.values())
    yield f"  {'search':<20} {'should have':>11} {'of tasks given':>15} {'of slot time':>13}"
    for number in fairness.measured:
        given = 100 * fairness.claims[number] / max(1, claims)
        time = 100 * fairness.slot_ms[number] / max(1, slot_ms)
        yield (
            f"  {SEARCHES[number].name:<20} {100 * SEARCHES[number].weight / weights:>9.2f} % "
            f"{given:>13.2f} % {time:>11.2f} %"
        )
    for name, values in (("tasks given", fairness.claims_index), ("slot time", fairness.slot_index)):
        yield f"  Jain's index of {name}: median {np.median(values):.4f}, worst window {min(values):.4f}"


def _costs(simulation: Simulation, costs: Costs) -> Iterator[str]:
    tasks = simulation.options.tasks
    leased_ms = sum(simulation.ledger.lease_time(n, simulation.now_ms) for n in range(len(SEARCHES)))
    until_ms = simulation.options.days * DAY_MS
    slot_ms = simulation.world.slots * min(until_ms, simulation.now_ms)
    yield (
        f"slots were leased {100 * leased_ms / slot_ms:.1f} % of {simulation.options.days:g} days "
        f"(work to do: {100 * simulation.options.load:.0f} %)"
    )
    yield (
        f"server: {1e6 * costs.cpu_seconds / tasks:,.0f} µs CPU and {costs.memory_bytes / tasks:,.0f} bytes a task; "
        f"{costs.script_calls / tasks:.2f} script calls with {costs.script_items / tasks:.2f} items a task"
    )
    yield f"simulated in {costs.wall_seconds:,.0f} s: {simulation.steps:,} steps, {simulation.cluster.ticks:,} ticks"


def _verdict(simulation: Simulation, costs: Costs) -> Iterator[Any]:
    ledger = simulation.ledger
    yield f"fsck checked {costs.checked:,} tasks; violations of anything: {ledger.violation_count}"
    yield from (f"  {text}" for text in ledger.violations)
