"""Series for promtool in few words: values over time, and two masters and a worker with whom nothing is wrong.

Durations are minutes; what goes wrong does so at :data:`START_MINUTES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

START_MINUTES = 5


@dataclass(frozen=True)
class Grid:
    """A sample every ``step_minutes``, from 0 to ``end_minutes``."""

    step_minutes: float
    end_minutes: float

    def steps(self, minutes: float) -> int:
        """So many samples are that long."""
        return round(minutes / self.step_minutes)


Values = Callable[[Grid], str]
"""Values over time, in promtool's notation."""


def flat(value: float | str) -> Values:
    """Always the same."""
    return lambda grid: f"{value}x{grid.steps(grid.end_minutes)}"


def climb(per_minute: float, start: float = 0) -> Values:
    """A counter, or the time."""
    return lambda grid: f"{start}+{per_minute * grid.step_minutes:g}x{grid.steps(grid.end_minutes)}"


def spell(bad: float | str, minutes: float, good: float | str = 0) -> Values:
    """``bad`` for so long, before and after it ``good``; ``_`` is no sample, as of a series that doesn't exist."""

    def text(grid: Grid) -> str:
        parts = ((good, START_MINUTES), (bad, minutes), (good, grid.end_minutes))
        return " ".join(f"{value}x{grid.steps(length) - 1}" for value, length in parts)

    return text


def burst(per_minute: float, minutes: float, before: float = 0, idle: float = 0) -> Values:
    """A counter that climbs so fast for so long, and at ``idle`` a minute before and after it."""

    def text(grid: Grid) -> str:
        value, parts = before, []
        for rate, length in ((idle, START_MINUTES), (per_minute, minutes), (idle, grid.end_minutes)):
            count, step = grid.steps(length), rate * grid.step_minutes
            parts.append(f"{value:g}+{step:g}x{count - 1}")
            value += step * count
        return " ".join(parts)

    return text


def begins(value: float, minute: float) -> Values:
    """A series that nobody had before that minute, and that begins with this value and keeps it."""
    return lambda grid: f"_x{grid.steps(minute)} {value:g}x{grid.steps(grid.end_minutes)}"


def masters(name: str, values: Values, labels: str = "") -> dict[str, Values]:
    """The same series of both masters."""
    return {master(each, name, labels): values for each in ("m1", "m2")}


def master(instance: str, name: str, labels: str = "") -> str:
    """One series of one master."""
    return f'{name}{{job="tenure-master", instance="{instance}"{", " if labels else ""}{labels}}}'


def worker(name: str, labels: str = "", instance: str = "w1") -> str:
    """One series of the worker."""
    return f'{name}{{job="tenure-worker", instance="{instance}"{", " if labels else ""}{labels}}}'


def histogram(name: str, labels: str, buckets: dict[str, Values]) -> dict[str, Values]:
    """A histogram of both masters, by upper bound; the last is ``+Inf``."""
    comma = ", " if labels else ""
    found = {}
    for bound, values in buckets.items():
        found |= masters(f"{name}_bucket", values, f'{labels}{comma}le="{bound}"')
    return found | masters(f"{name}_count", buckets["+Inf"], labels)


RULE_FAILURES = 'prometheus_rule_evaluation_failures_total{job="prometheus", instance="p", rule_group="tenure-work"}'
_HOUR = 60
QUIET: dict[str, Values] = {
    **masters("up", flat(1)),
    **masters("process_start_time_seconds", flat(-5 * _HOUR * 60)),
    **masters("process_cpu_seconds_total", climb(20)),
    **masters("process_open_fds", flat(100)),
    **masters("process_max_fds", flat(1024)),
    **masters("tenure_build_info", flat(1), 'version="1.0"'),
    **masters("tenure_store_up", flat(1)),
    **masters("tenure_store_restarts", flat(2)),
    **masters("tenure_store_rollbacks_total", flat(1)),
    **masters("tenure_store_aof_ok", flat(1)),
    **masters("tenure_store_aof_rewrite_failed", flat(0)),
    **masters("tenure_store_aof_bytes", flat(3e9), 'kind="current"'),
    **masters("tenure_store_aof_bytes", flat(2e9), 'kind="base"'),
    **masters("tenure_store_fsync_delayed_total", climb(0.1)),
    **masters("tenure_store_fork_seconds", flat(0.02)),
    **masters("tenure_store_memory_bytes", flat(70), 'kind="used"'),
    **masters("tenure_store_memory_bytes", flat(100), 'kind="max"'),
    **masters("tenure_store_replicas", flat(1)),
    # One master was asked for a check and found nothing; the other was asked long ago, and found what is mended since.
    **masters("tenure_store_fsck_violations", flat(0)),
    **masters("tenure_store_fsck_timestamp_seconds", flat(-30)),
    master("m2", "tenure_store_fsck_violations"): flat(3),
    master("m2", "tenure_store_fsck_timestamp_seconds"): flat(-90),
    **histogram("tenure_store_script_seconds", 'script="claim"', {"0.005": climb(99), "+Inf": climb(100)}),
    **histogram("tenure_rpc_seconds", 'method="Submit", code="OK"', {"0.1": climb(100), "+Inf": climb(100)}),
    # A long poll: slow on purpose.
    **histogram(
        "tenure_rpc_seconds", 'method="RequestTask", code="OK"', {"5": climb(0), "10": climb(9), "+Inf": climb(9)}
    ),
    **masters("tenure_reaper_paused", flat(0)),
    **masters("tenure_leases_expired_total", flat(7), 'cause="silent"'),
    **masters("tenure_leases_expired_total", climb(0.05), 'cause="disconnected"'),
    **masters("tenure_lease_clock_seconds", climb(60), 'shard="0"'),
    **histogram(
        "tenure_lease_renewal_lag_seconds", "", {"0.1": climb(5), "10": climb(6), "20": climb(6), "+Inf": climb(6)}
    ),
    **masters("tenure_tasks", flat(5), 'search="first", state="QUEUED"'),
    **masters("tenure_tasks", climb(0.05), 'search="first", state="FAILED"'),
    **masters("tenure_queue_depth", flat(5), 'search="first", requirements="any"'),
    **masters("tenure_queue_oldest_seconds", flat(7200), 'search="first", requirements="any"'),
    **masters("tenure_workers", flat(1), 'status="live", mode="active"'),
    **masters("tenure_workers", flat(0), 'status="silent", mode="active"'),
    **masters("tenure_slots", flat(0), 'use="free"'),
    **masters("tenure_slots", flat(2), 'use="busy"'),
    **masters("tenure_outcomes_total", climb(1), 'kind="success", cause="", verdict="accepted"'),
    **masters("tenure_outcomes_total", climb(0.01), 'kind="failure", cause="ValueError", verdict="accepted"'),
    **masters("tenure_outcomes_total", climb(0.01), 'kind="loss", cause="SIGKILL", verdict="accepted"'),
    **masters("tenure_outcomes_total", climb(0.01), 'kind="out_of_memory", cause="MemoryError", verdict="accepted"'),
    **masters("tenure_outcomes_total", climb(1), 'kind="release", cause="drain", verdict="accepted"'),
    **masters("tenure_compute_useful_seconds_total", climb(120), 'search="first"'),
    **masters("tenure_compute_wasted_seconds_total", climb(30), 'search="first", cause="loss"'),
    **masters("tenure_compute_saved_seconds_total", climb(20), 'search="first", cause="late"'),
    worker("up"): flat(1),
    worker("process_start_time_seconds"): flat(-5 * _HOUR * 60),
    worker("process_open_fds"): flat(50),
    worker("process_max_fds"): flat(1024),
    worker("scrape_duration_seconds"): flat(0.01),
    worker("tenure_worker_build_info", 'version="1.0"'): flat(1),
    worker("tenure_worker_info", 'worker="gpu-7"'): flat(1),
    worker("tenure_worker_session_up"): flat(1),
    worker("tenure_worker_draining"): flat(0),
    worker("tenure_worker_spool_outcomes"): lambda grid: f"0 1 0 0 1 0 1 1 0x{grid.steps(grid.end_minutes)}",
    worker("tenure_worker_spool_write_failures_total"): flat(1),
    worker("tenure_worker_disk_free_bytes", 'kind="work_dir"'): flat(50e9),
    worker("tenure_worker_memory_usage_ratio"): flat(0.8),
    worker("tenure_worker_cpu_usage_ratio"): flat(0.9),
    worker("tenure_worker_preemption_poll_failures_total"): climb(0.05),
    worker("tenure_worker_slots", 'state="running"'): flat(2),
    worker("tenure_worker_slots", 'state="broken"'): flat(0),
    worker("tenure_worker_slot_cordoned", 'slot="0", cause=""'): flat(0),
    worker("tenure_worker_gpu_utilization_ratio", 'slot="0", gpu="0"'): flat(0.5),
    worker("tenure_worker_gpu_ecc_errors_total", 'slot="0", gpu="0", kind="corrected"'): climb(4),
    worker("tenure_worker_gpu_ecc_errors_total", 'slot="0", gpu="0", kind="uncorrected"'): flat(3),
    worker("tenure_worker_gpu_throttled", 'slot="0", gpu="0", reason="power cap"'): flat(1),
    worker("tenure_worker_executor_restarts_total", 'reason="tasks_limit"'): climb(1),
    worker("tenure_worker_executor_restarts_total", 'reason="host_memory_leak"'): flat(9),
    worker("tenure_worker_executor_restarts_total", 'reason="crash"'): climb(0.05),
    worker("tenure_worker_progress_age_seconds", 'slot="0"'): flat(600),
    worker("tenure_worker_checkpoint_age_seconds", 'slot="0"'): flat(600),
    worker("tenure_worker_checkpoint_failures_total"): flat(4),
    worker("tenure_worker_checkpoints_skipped_total"): flat(1),
    worker("tenure_worker_checkpoint_stall_seconds_total"): climb(1),
    RULE_FAILURES: flat(2),
}
