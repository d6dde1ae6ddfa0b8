"""``tenure stats``."""

from __future__ import annotations

from tenure.client.cli.compute import compute_pairs
from tenure.client.cli.options import TIMEOUT_SECONDS, MasterOption, OutputOption, TimeoutOption, connect
from tenure.client.cli.output import OutputFormat, print_json, print_pairs, span


def stats(
    master: MasterOption = None,
    output: OutputOption = OutputFormat.TABLE,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
) -> None:
    """Show the broker as a whole: tasks by state, workers, slots, leases, the store.

    \b
    Examples:
      tenure stats
      tenure stats --output json | jq .tasks.QUEUED
    """
    with connect(master, timeout) as client:
        now = client.stats()
    if output is OutputFormat.JSON:
        print_json(now)
        return
    print_pairs(
        [
            ("master", f"{now.master_id}, version {now.version}"),
            ("store", f"{now.store}, {now.durability}"),
            ("tasks", ", ".join(f"{number} {state.value}" for state, number in now.tasks.items() if number) or "none"),
            ("oldest queued", span(now.oldest_queued_ms) if now.oldest_queued_ms else ""),
            ("workers", f"{now.workers_live} live, {now.slots_busy} of {now.slots} slots busy"),
            ("leases", f"{now.leases_live} live"),
            ("lease clock", span(now.lease_clock_ms)),
            *compute_pairs(now.compute),
            *((name.replace("_", " "), str(number)) for name, number in sorted(now.counters.items())),
        ]
    )
