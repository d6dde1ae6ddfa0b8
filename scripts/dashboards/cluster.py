"""The dashboard of the whole: searches, leases, workers as masters see them, calls, the store.

Several masters may export the same figures of one store, so those are joined by ``max``, and what each master counts
for itself by ``sum``.
"""

from __future__ import annotations

from dashboards.grafana import RATE, Panel, Variable, graph, quantiles, stat

VARIABLE = Variable("search", "Search", "label_values(tenure_tasks, search)")


def tasks(states: str, by: str = "") -> str:
    """Numbers of tasks of the chosen searches, as any one master sees them."""
    chosen = f'max by (search, state) (tenure_tasks{{search=~"$search", state=~"{states}"}})'
    return f"sum{' by (' + by + ')' if by else ''} ({chosen})"


LIVE_WORKERS = 'max(sum by (instance) (tenure_workers{status="live"}))'
BUSY, FREE = 'max(tenure_worker_slots{use="busy"})', 'max(tenure_worker_slots{use="free"})'

ROWS: dict[str, list[Panel]] = {
    "Now": [
        stat("Masters serving", "short", "sum(tenure_store_up)", good="some", text="Masters whose store answers."),
        stat("Live workers", "short", f"{LIVE_WORKERS} or vector(0)", good="some", text="Heard within a lease's time."),
        stat("Slots busy", "percentunit", f"{BUSY} / ({BUSY} + {FREE})", text="Of the slots of live workers."),
        stat("Queued", "short", tasks("QUEUED"), text="Ready, and nobody has them yet."),
        stat(
            "Oldest queued",
            "s",
            'max(tenure_oldest_queued_seconds{search=~"$search"})',
            text="How long the oldest ready task waits.",
        ),
        stat("Dead letters", "short", tasks("FAILED"), text="FAILED tasks. `tenure tasks list --state FAILED`."),
        stat(
            "Leases expired",
            "short",
            "sum(increase(tenure_leases_expired_total[$__range]))",
            good="zero",
            text="In the time shown. Each is a worker that vanished without a word.",
        ),
        stat(
            "Reaper paused",
            "bool_yes_no",
            "max(tenure_reaper_paused)",
            good="zero",
            text="Most leases ran out at once.",
        ),
    ],
    "Tasks": [
        graph(
            "Tasks by state", "short", (tasks(".*", "state"), "{{state}}"), stacked=True, text="Of the searches chosen."
        ),
        graph(
            "Open tasks by search",
            "short",
            (tasks("SCHEDULED|QUEUED|LEASED", "search"), "{{search}}"),
            text="Not ended yet.",
        ),
        graph(
            "Oldest queued by search",
            "s",
            ('max by (search) (tenure_oldest_queued_seconds{search=~"$search"})', "{{search}}"),
            text="A search that is paused, capped, or asks for what no worker has grows here.",
        ),
        graph("Succeeded by search", "short", (tasks("SUCCEEDED", "search"), "{{search}}"), text="Results so far."),
        graph(
            "Transitions",
            "ops",
            (
                f"max by (transition) (sum by (instance, transition) (rate(tenure_transitions_total{RATE})))",
                "{{transition}}",
            ),
            text="What happened to tasks. Every master sees every event.",
        ),
        graph(
            "Outcomes",
            "ops",
            (f"sum by (kind, verdict) (rate(tenure_outcomes_total{RATE}))", "{{kind}} {{verdict}}"),
            text="What workers delivered, and what was made of it.",
        ),
    ],
    "Leases": [
        graph(
            "Leases",
            "short",
            ("max(tenure_leases_live)", "live"),
            ("max(tenure_leases_due)", "due"),
            text="Due: they ran out and wait for the reaper.",
        ),
        graph(
            "Leases expired",
            "ops",
            (f"sum(rate(tenure_leases_expired_total{RATE}))", "expired"),
            text="Taken back from workers that had not renewed them.",
        ),
        graph(
            "Renewal lag",
            "s",
            *quantiles("tenure_lease_renewal_lag_seconds"),
            text="Between two renewals of a lease, above the heartbeat interval. Near the lease's duration is bad.",
        ),
        graph(
            "Renewals",
            "ops",
            (f"sum by (verdict) (rate(tenure_lease_renewals_total{RATE}))", "{{verdict}}"),
            text="STALE: a worker renewed what it had lost.",
        ),
        graph(
            "Lease clock",
            "short",
            ("max by (shard) (deriv(tenure_lease_clock_seconds[1m]))", "shard {{shard}}"),
            text="Seconds a second: 1 while it runs, 0 while it stands still because no lease could be renewed.",
        ),
        graph(
            "Of the store, since it was made",
            "short",
            ("max by (name) (tenure_store_counter)", "{{name}}"),
            text="Late successes taken, stale writes refused, duplicates, releases, losses.",
        ),
    ],
    "Workers": [
        graph(
            "Workers",
            "short",
            ("max by (status, mode) (tenure_workers)", "{{status}} {{mode}}"),
            text="Silent: nothing heard for a lease's time.",
            stacked=True,
        ),
        graph("Slots", "short", (BUSY, "busy"), (FREE, "free"), stacked=True, text="Of live workers."),
        graph(
            "Sessions and waiting slots",
            "short",
            ("sum(tenure_sessions)", "sessions"),
            ("sum(tenure_waiting_slots)", "slots waiting for a task"),
            ("sum(tenure_watchers)", "watches"),
            text="Streams that masters hold.",
        ),
        graph(
            "Heartbeats",
            "ops",
            (f"sum by (way, verdict) (rate(tenure_heartbeats_total{RATE}))", "{{way}} {{verdict}}"),
            text="By the way they came: session, or unary calls.",
        ),
        graph(
            "Pushes",
            "ops",
            (f"sum by (end) (rate(tenure_pushes_total{RATE}))", "{{end}}"),
            text="Evaluate calls to workers that don't pull, by how they ended.",
        ),
        graph(
            "Checkpoints registered",
            "ops",
            (f"sum by (verdict) (rate(tenure_checkpoints_registered_total{RATE}))", "{{verdict}}"),
            text="STALE: written under a lease that was lost.",
        ),
    ],
    "Calls and scripts": [
        graph(
            "Calls",
            "reqps",
            (f"sum by (method) (rate(tenure_rpc_seconds_count{RATE}))", "{{method}}"),
            text="Unary calls.",
        ),
        graph(
            "Call duration, p99", "s", *quantiles("tenure_rpc_seconds", "method"), text="Long polls wait on purpose."
        ),
        graph(
            "Calls refused or failed",
            "reqps",
            (f'sum by (method, code) (rate(tenure_rpc_seconds_count{{code!="OK"}}{RATE}))', "{{method}} {{code}}"),
            text="By status.",
        ),
        graph("Claim", "s", *quantiles("tenure_claim_seconds"), text="From wanting to claim until granted or not."),
        graph(
            "Script duration, p99",
            "s",
            *quantiles("tenure_store_script_seconds", "script"),
            text="The round trip that carried a script.",
        ),
        graph(
            "Items by script",
            "ops",
            (f"sum by (script) (rate(tenure_store_script_items_total{RATE}))", "{{script}}"),
            text="What scripts carried.",
        ),
    ],
    "Store and masters": [
        graph(
            "Store memory",
            "bytes",
            ('max(tenure_store_memory_bytes{kind="used"})', "used"),
            ('max(tenure_store_memory_bytes{kind="max"}) > 0', "limit"),
            text="Submits are refused above 90 % of the limit.",
        ),
        graph(
            "Store health",
            "short",
            ("min(tenure_store_up)", "answers"),
            ("min(tenure_store_aof_ok)", "append-only file writable"),
            ("max(tenure_store_fsck_violations)", "fsck violations"),
            ("max(tenure_store_restarts)", "restarts of the embedded server"),
            text="1 is good for the first two, 0 for the others.",
        ),
        graph(
            "Time that did not count",
            "s",
            (f"sum(increase(tenure_lease_clock_skipped_seconds_total{RATE}))", "skipped"),
            text="Outages and jumps of the clock: the lease clock stood still, so no lease ran out.",
        ),
        graph(
            "Tasks forgotten",
            "ops",
            (f"sum(rate(tenure_tasks_forgotten_total{RATE}))", "forgotten"),
            text="Ended tasks that retention deleted.",
        ),
        graph(
            "Masters' CPU",
            "percentunit",
            (f'rate(process_cpu_seconds_total{{job="tenure-master"}}{RATE})', "{{instance}}"),
            text="Of one core.",
        ),
        graph(
            "Masters' memory",
            "bytes",
            ('process_resident_memory_bytes{job="tenure-master"}', "{{instance}}"),
            text="Resident.",
        ),
    ],
}
