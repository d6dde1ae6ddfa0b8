"""The dashboard of the workers: what each does, and what its machine has left."""

from __future__ import annotations

from dashboards.grafana import RATE, Panel, Query, Variable, graph, quantiles, stat

VARIABLE = Variable("worker", "Worker", "label_values(tenure_worker_info, worker)")


def of_worker(expression: str) -> str:
    """A figure of the chosen workers, under their worker ids."""
    return f'{expression} * on (instance) group_left (worker) tenure_worker_info{{worker=~"$worker"}}'


def by_worker(expression: str, *labels: str) -> Query:
    """The same with a legend."""
    return of_worker(expression), " ".join(("{{worker}}", *("{{" + label + "}}" for label in labels)))


RUNNING = 'tenure_worker_slots{state="running"}'
BROKEN = 'tenure_worker_slots{state="broken"}'

ROWS: dict[str, list[Panel]] = {
    "Now": [
        stat("Workers", "short", 'count(tenure_worker_info{worker=~"$worker"})', good="some", text="That are scraped."),
        stat("Running", "short", f"sum({of_worker(RUNNING)})", text="Evaluations under way."),
        stat(
            "Without a master",
            "short",
            f"sum({of_worker('(tenure_worker_session_up == bool 0)')})",
            good="zero",
            text="They train on, and spool their results.",
        ),
        stat(
            "Spooled outcomes",
            "short",
            f"sum({of_worker('tenure_worker_spool_outcomes')})",
            good="zero",
            text="Ended, on the worker's disk, not yet acknowledged by a master.",
        ),
        stat("Draining", "short", f"sum({of_worker('tenure_worker_draining')})", text="They take no tasks."),
        stat(
            "Oldest checkpoint",
            "s",
            f"max({of_worker('tenure_worker_checkpoint_age_seconds')})",
            text="What the death of a worker would cost at most.",
        ),
        stat(
            "Samples a second",
            "short",
            f"sum({of_worker('tenure_worker_training_samples_per_second')})",
            text="Of all evaluations that report it.",
        ),
        stat(
            "Broken slots",
            "short",
            f"sum({of_worker(BROKEN)})",
            good="zero",
            text="Their executor does not start; they try again.",
        ),
        stat(
            "Cordoned slots",
            "short",
            f"sum({of_worker('tenure_worker_slot_cordoned')})",
            good="zero",
            text="A GPU's errors have ended their work until an operator says otherwise.",
        ),
    ],
    "Evaluations": [
        graph(
            "Runs ended, by outcome",
            "ops",
            (f"sum by (outcome) ({of_worker(f'rate(tenure_worker_tasks_total{RATE})')})", "{{outcome}}"),
            text="Release: handed back by a drain. Dropped: the lease was lost.",
        ),
        graph(
            "Duration of runs",
            "s",
            *quantiles("tenure_worker_run_seconds"),
            text="Of all workers.",
        ),
        graph(
            "Idle between runs",
            "s",
            *quantiles("tenure_worker_idle_gap_seconds"),
            text="From the end of a run to the start of the next in the same slot, waiting for tasks included.",
        ),
        graph(
            "Throughput",
            "short",
            by_worker("tenure_worker_training_samples_per_second", "slot"),
            text="Samples a second, as evaluations report it.",
        ),
        graph("Step", "short", by_worker("tenure_worker_training_step", "slot"), text="Of the run in each slot."),
        graph(
            "Since the last report",
            "s",
            by_worker("tenure_worker_progress_age_seconds", "slot"),
            text="An evaluation that is silent for its progress deadline is stopped.",
        ),
        graph(
            "Slots by state",
            "short",
            (f"sum by (state) ({of_worker('tenure_worker_slots')})", "{{state}}"),
            text="Broken: the executor does not start. Cordoned: a GPU's errors.",
            stacked=True,
        ),
        graph(
            "Executors replaced",
            "ops",
            (f"sum by (reason) ({of_worker(f'rate(tenure_worker_executor_restarts_total{RATE})')})", "{{reason}}"),
            text="After a crash, a leak, or a number of tasks.",
        ),
        graph("Leases", "short", by_worker("tenure_worker_leases"), text="Held by runs."),
    ],
    "Checkpoints": [
        graph(
            "Checkpoint age",
            "s",
            by_worker("tenure_worker_checkpoint_age_seconds", "slot"),
            text="Since the run last wrote one, or since it started: what the worker's death would cost.",
        ),
        graph(
            "Checkpoints",
            "ops",
            (f"sum({of_worker(f'rate(tenure_worker_checkpoints_saved_total{RATE})')})", "written"),
            (f"sum({of_worker(f'rate(tenure_worker_checkpoint_failures_total{RATE})')})", "failed"),
            (f"sum({of_worker(f'rate(tenure_worker_checkpoints_skipped_total{RATE})')})", "damaged or missing"),
            (f"sum({of_worker(f'rate(tenure_worker_checkpoints_superseded_total{RATE})')})", "superseded"),
            ("sum(tenure_worker_checkpoints_unregistered)", "not yet registered"),
            text="Failures cost nothing by themselves: training goes on, the previous one stays.",
        ),
        graph(
            "Time spent on checkpoints",
            "percentunit",
            (of_worker(f"rate(tenure_worker_checkpoint_stall_seconds_total{RATE})"), "{{worker}} holding trainings up"),
            (of_worker(f"rate(tenure_worker_checkpoint_write_seconds_total{RATE})"), "{{worker}} writing beside them"),
            (of_worker(f"rate(tenure_worker_checkpoint_read_seconds_total{RATE})"), "{{worker}} reading"),
            text="Of wall time.",
        ),
        graph(
            "Bytes written",
            "Bps",
            by_worker(f"rate(tenure_worker_checkpoint_written_bytes_total{RATE})"),
            text="To the checkpoint storage.",
        ),
        graph("Size", "bytes", by_worker("tenure_worker_checkpoint_size_bytes"), text="Of the last one."),
    ],
    "Machine": [
        graph("CPU", "percentunit", by_worker("tenure_worker_cpu_usage_ratio"), text="Of all cores of the machine."),
        graph("Memory", "percentunit", by_worker("tenure_worker_memory_usage_ratio"), text="Of the machine."),
        graph("Memory used", "bytes", by_worker("tenure_worker_memory_used_bytes"), text="Of the machine, by anybody."),
        graph(
            "Executors' memory",
            "bytes",
            by_worker("tenure_worker_executor_resident_bytes", "slot"),
            text="Of the slot's executor and its children.",
        ),
        graph(
            "GPU", "percentunit", by_worker("tenure_worker_gpu_utilization_ratio", "gpu"), text="Time it did anything."
        ),
        graph(
            "GPU memory",
            "percentunit",
            (
                of_worker("tenure_worker_gpu_memory_used_bytes / tenure_worker_gpu_memory_total_bytes"),
                "{{worker}} {{gpu}}",
            ),
            text="In use by anybody.",
        ),
        graph(
            "GPU temperature",
            "celsius",
            by_worker("tenure_worker_gpu_temperature_celsius", "gpu"),
            text="As NVML says.",
        ),
        graph("GPU power", "watt", by_worker("tenure_worker_gpu_power_watts", "gpu"), text="As NVML says."),
        graph(
            "GPU memory errors",
            "short",
            by_worker(f"increase(tenure_worker_gpu_ecc_errors_total{RATE})", "gpu", "kind"),
            text="Found by ECC. Uncorrected ones have cost a run.",
        ),
        graph(
            "XID errors",
            "short",
            by_worker(f"increase(tenure_worker_gpu_xid_errors_total{RATE})", "gpu", "xid"),
            text="The driver's, by number.",
        ),
        graph(
            "GPU slowed down",
            "short",
            by_worker("tenure_worker_gpu_throttled", "gpu", "reason"),
            text="1: its clocks are held down for this reason.",
        ),
    ],
    "Link to the masters": [
        graph(
            "Session",
            "short",
            by_worker("tenure_worker_session_up"),
            text="1: a master has accepted this worker.",
        ),
        graph(
            "Since a master was heard",
            "s",
            by_worker("tenure_worker_session_contact_age_seconds"),
            text="Every heartbeat is answered.",
        ),
        graph(
            "Reconnects",
            "ops",
            by_worker(f"rate(tenure_worker_session_reconnects_total{RATE})"),
            text="To any master.",
        ),
        graph("Spool", "short", by_worker("tenure_worker_spool_outcomes"), text="Outcomes no master has acknowledged."),
        graph(
            "Spool writes refused",
            "ops",
            by_worker(f"rate(tenure_worker_spool_write_failures_total{RATE})"),
            text="By the disk: these outcomes are in memory only.",
        ),
    ],
}
