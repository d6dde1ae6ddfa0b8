"""The rows of the cluster's page about leases and the masters that keep them."""

from __future__ import annotations

from dashboards.panels import Panel, events, graph, table
from dashboards.queries import OF_MASTER, RATE, happened, quantile_by, quantiles

LEASE_ROWS: dict[str, list[Panel]] = {
    "Leases": [
        graph(
            "Leases",
            "short",
            ("max(tenure_leases_live)", "live"),
            ("max(tenure_leases_due)", "due"),
            what="Tasks under a lease; due ones ran out and wait for the reaper.",
            normal="Live as many as busy slots, due 0.",
            otherwise="Due above 0 for long: the reaper is paused (Store), or no master serves.",
        ),
        graph(
            "Renewal lag",
            "s",
            *quantiles("tenure_lease_renewal_lag_seconds", OF_MASTER),
            what="Between two renewals of a lease, above the heartbeat interval.",
            normal="Below a second.",
            otherwise="Near the lease's duration, leases are lost: workers' hosts or the network are overloaded.",
            none="No lease was renewed in this time.",
        ),
        graph(
            "Lease clock lag",
            "s",
            ("max by (instance) (tenure_lease_clock_lag_seconds)", "{{instance}}"),
            what="Time since each master last moved the lease clock.",
            normal="About a second.",
            otherwise="While it grows on all of them, no lease runs out and none is retried: see Store.",
        ),
    ],
}

MASTER_ROWS: dict[str, list[Panel]] = {
    "Masters": [
        graph(
            "Sessions",
            "short",
            ("sum by (instance) (tenure_sessions)", "{{instance}}"),
            what="Workers' sessions at each master.",
            normal="Every worker has one; after a restart they have moved to the other masters.",
            otherwise="0 at a master that serves: its address is in nobody's TENURE_MASTER.",
            stacked=True,
        ),
        graph(
            "Calls, p99",
            "s",
            quantile_by("tenure_rpc_seconds", "method", 99, OF_MASTER),
            what="Duration of unary calls by method. Long polls wait on purpose.",
            normal="Some milliseconds.",
            otherwise="All grow together: the store is slow (Store). One grows: that call is too big.",
        ),
        events(
            "Calls that failed",
            (
                happened("tenure_rpc_seconds_count", "method, code", '{instance=~"$master", code!="OK"}'),
                "{{method}} {{code}}",
            ),
            what="Calls that ended otherwise than OK, by status.",
            normal="None; NOT_FOUND and FAILED_PRECONDITION are answers, too.",
            otherwise="UNAVAILABLE: the store was away. RESOURCE_EXHAUSTED: the store's memory is short.",
        ),
        table(
            "Builds",
            "short",
            "tenure_build_info or on (instance) tenure_worker_build_info",
            {
                "job": "Process",
                "instance": "Address",
                "version": "Tenure",
                "python": "Python",
                "grpc": "gRPC",
                "protobuf": "protobuf",
                "torch": "torch",
            },
            what="What runs where.",
            normal="One version of Tenure but during an upgrade.",
            otherwise="`ops/scripts` restart the ones that are behind.",
            width=12,
            height=7,
        ),
        graph(
            "CPU",
            "percentunit",
            (f'rate(process_cpu_seconds_total{{job="tenure-master", instance=~"$master"}}{RATE})', "{{instance}}"),
            what="Of one core, by master.",
            normal="Below 0.7.",
            otherwise="A master uses one core; above that, add masters.",
            width=6,
            height=7,
        ),
        graph(
            "Memory",
            "bytes",
            ('process_resident_memory_bytes{job="tenure-master", instance=~"$master"}', "{{instance}}"),
            what="Resident memory by master.",
            normal="Flat.",
            otherwise="Steady growth is a bug; `tenure` support bundles help to find it.",
            width=6,
            height=7,
        ),
    ],
}
