"""What goes wrong: losses, errors, refused writes, dead letters, and what all of it costs."""

from __future__ import annotations

from dashboards.panels import ZERO_IS_GOOD, Page, bars, events, graph, stat, table, timeline
from dashboards.queries import (
    ALERTS_NOW,
    INSTANCES,
    MASTERS,
    OF_INSTANCE,
    SEARCHES,
    WORKERS,
    computed,
    computed_in_all,
    happened,
    in_all,
    of_worker,
    tasks,
    wasted_in_all,
)


def outcomes(kinds: str) -> str:
    """A selector of outcomes at the chosen masters."""
    return f'{{instance=~"$master", kind=~"{kinds}"}}'


def verdicts(words: str) -> str:
    """A selector of outcomes by what was made of them."""
    return f'{{instance=~"$master", verdict=~"{words}"}}'


def in_this_time(metric: str, where: str) -> str:
    """A number for a stat: 0 where it never happened."""
    return f"{in_all(metric, where=where)} or vector(0)"


CORDONED = of_worker('(tenure_worker_slot_cordoned{instance=~"$instance"} == 1)')
BAD = ((None, "green"), (1, "orange"))

PAGE = Page(
    uid="tenure-failures",
    title="Tenure: failures",
    about="What goes wrong: losses, errors, refused writes, dead letters, and what all of it costs.",
    variables=[SEARCHES, MASTERS, WORKERS, INSTANCES],
    rows={
        "In the time shown": [
            stat(
                "Failures",
                "short",
                in_this_time("tenure_outcomes_total", outcomes("failure")),
                what="Runs that the evaluator's code ended with an error.",
                normal="0, or the impossible architectures of your search space.",
                otherwise="Errors by class says which.",
                limits=BAD,
            ),
            stat(
                "Losses",
                "short",
                in_this_time("tenure_outcomes_total", outcomes("loss")),
                what="Runs whose process died under them, as their worker told.",
                normal="0.",
                otherwise="Losses by signal says how.",
                limits=BAD,
            ),
            stat(
                "Out of memory",
                "short",
                in_this_time("tenure_outcomes_total", outcomes("out_of_memory")),
                what="Runs that the GPU's or the machine's memory was too small for.",
                normal="0; each is tried again with more or fails, as its search says.",
                otherwise="Ask for GPUs by memory (`requirements`), or fewer slots on a GPU.",
                limits=BAD,
            ),
            stat(
                "Leases expired",
                "short",
                in_this_time("tenure_leases_expired_total", '{instance=~"$master"}'),
                what="Workers that vanished without a word, a lease each.",
                normal="0.",
                otherwise="See the machines: power, kernel, network.",
                limits=BAD,
            ),
            stat(
                "Stale writes",
                "short",
                in_this_time("tenure_outcomes_total", verdicts("stale|unknown")),
                what="Results refused because the lease had gone to another.",
                normal="0; some after outages.",
                otherwise="Many: leases are too short for your network's hiccups (`--lease-ttl-seconds`).",
                limits=BAD,
            ),
            stat(
                "Preempted",
                "short",
                in_this_time("tenure_outcomes_total", '{instance=~"$master", cause="WorkerPreempted"}'),
                what="Runs handed back because their worker's machine was taken away.",
                normal="As your provider takes machines.",
                otherwise="They cost little when grace suffices for a checkpoint; see Wasted by cause, release.",
            ),
            stat(
                "Checkpoint failures",
                "short",
                in_this_time("tenure_worker_checkpoint_failures_total", OF_INSTANCE),
                what="Checkpoints that could not be written.",
                normal="0.",
                otherwise="The storage is full or away; trainings go on, but a death costs more by the minute.",
                limits=ZERO_IS_GOOD,
            ),
            stat(
                "Compute wasted",
                "s",
                f"{wasted_in_all()} or vector(0)",
                what="Run time whose work nobody can use, of runs that ended in the time shown.",
                normal="Near 0.",
                otherwise="Wasted by cause says on what.",
                limits=((None, "green"), (600, "orange"), (36000, "red")),
            ),
        ],
        "Alerts": [
            timeline(
                "Alerts",
                (f"max by (alertname) ({ALERTS_NOW})", "{{alertname}}"),
                what="When each alert fired.",
                normal="Empty.",
                otherwise="Each has a runbook of its name.",
                limits=((None, "green"), (1, "red")),
                width=16,
                none="No alert fired in this time.",
            ),
            bars(
                "Dead letters by search",
                "short",
                (tasks("FAILED", "search"), "{{search}}"),
                what="Tasks that failed for good.",
                normal="0.",
                otherwise="`tenure tasks list --state FAILED`, `tenure tasks requeue` once the cause is mended.",
                limits=BAD,
            ),
        ],
        "Runs that ended badly": [
            events(
                "Losses by signal",
                (happened("tenure_outcomes_total", "cause", outcomes("loss")), "{{cause}}"),
                what="Processes that died under a run, each minute.",
                normal="None.",
                otherwise="SIGKILL: the kernel's out-of-memory killer or somebody. SIGSEGV: a native library. "
                "SIGBUS: /dev/shm is full.",
                none="None in this time.",
            ),
            events(
                "Errors by class",
                (happened("tenure_outcomes_total", "cause", outcomes("failure")), "{{cause}}"),
                what="Errors that evaluators raised, each minute.",
                normal="None, or InvalidArchitecture.",
                otherwise="A task's evidence (`tenure tasks show`) has the traceback.",
                none="None in this time.",
            ),
            events(
                "Out of memory",
                (happened("tenure_outcomes_total", "cause", outcomes("out_of_memory")), "{{cause}}"),
                what="On the GPU or on the machine, each minute.",
                normal="None.",
                otherwise="One search only: its architectures. All at once: somebody else uses the GPUs.",
                none="None in this time.",
            ),
            events(
                "Releases by cause",
                (happened("tenure_outcomes_total", "cause", outcomes("release")), "{{cause}}"),
                what="Work handed back, each minute: drains, preemptions, cordoned slots. It burns no attempt.",
                normal="While something is restarted.",
                otherwise="Without anybody draining: a machine is being preempted again and again.",
                none="None in this time.",
            ),
            events(
                "Leases expired by cause",
                (happened("tenure_leases_expired_total", "cause", '{instance=~"$master"}'), "{{cause}}"),
                what="silent: its time ran out. disconnected: its session broke and nobody came back.",
                normal="None.",
                otherwise="disconnected: the worker's process or machine died. silent: the network swallows packets.",
                none="None in this time.",
            ),
            events(
                "Preemption notices",
                (happened("tenure_worker_preemption_notices_total", "source", OF_INSTANCE), "{{source}}"),
                (happened("tenure_worker_preemption_poll_failures_total", "job", OF_INSTANCE), "looks that failed"),
                what="By where the notice came from; and looks at the URL or file that gave no answer. A worker that "
                "is gone before the next scrape takes its notice with it; Releases by cause has its runs.",
                normal="As your provider takes machines; no failed looks.",
                otherwise="Failed looks: the worker would not hear of its end. Check the URL from that machine.",
                none="None in this time.",
            ),
        ],
        "What was refused": [
            events(
                "Results by verdict",
                (
                    happened("tenure_outcomes_total", "verdict", '{instance=~"$master", verdict!="accepted"}'),
                    "{{verdict}}",
                ),
                what="Outcomes that were not plainly accepted. late: taken although the lease was gone. resent: the "
                "same again. duplicate, stale: refused.",
                normal="None; resent and late after outages.",
                otherwise="stale or duplicate without an outage: leases are too short.",
                none="None in this time.",
            ),
            events(
                "Renewals refused",
                (
                    happened("tenure_lease_renewals_total", "verdict", '{instance=~"$master", verdict!="OK"}'),
                    "{{verdict}}",
                ),
                what="Leases that workers wanted to renew and had lost.",
                normal="None.",
                otherwise="Their runs are stopped, the work is running elsewhere.",
                none="None in this time.",
            ),
            events(
                "Checkpoints registered",
                (happened("tenure_checkpoints_registered_total", "verdict", '{instance=~"$master"}'), "{{verdict}}"),
                what="What masters made of checkpoints, each minute.",
                normal="OK only.",
                otherwise="STALE: written under a lease that was lost.",
                none="None in this time.",
            ),
        ],
        "What it costs": [
            graph(
                "Wasted by cause",
                "short",
                (computed("wasted", "cause"), "{{cause}}"),
                what="Run time whose work nobody can use, in slots: 2 is as much as two slots do.",
                normal="Near 0.",
                otherwise="loss: shorten the checkpoints' interval. failure: mend the evaluator.",
                stacked=True,
                none="Nothing was wasted.",
            ),
            bars(
                "Wasted by search and cause",
                "s",
                (
                    'max by (search, cause) (tenure_compute_wasted_seconds_total{search=~"$search"}) > 0',
                    "{{search}} {{cause}}",
                ),
                what="Since each search began.",
                normal="Seconds.",
                otherwise="One search above all others: its evaluator, or too few checkpoints.",
                none="Nothing was wasted.",
                limits=((None, "orange"),),
            ),
            bars(
                "Saved by cause",
                "s",
                (computed_in_all("saved", "cause"), "{{cause}}"),
                what="Since each search began: what checkpoints, late results, equal submissions and workers that came "
                "back have spared.",
                normal="Grows with every interruption.",
                otherwise="Small beside Wasted: evaluators save too seldom.",
                none="Nothing was interrupted.",
            ),
        ],
        "Workers": [
            table(
                "Cordoned slots",
                "short",
                CORDONED,
                {"worker": "Worker", "instance": "Address", "slot": "Slot", "cause": "Cause"},
                what="Slots that GPU errors have closed.",
                normal="Empty.",
                otherwise="Reset or replace the GPU, then `tenure workers uncordon`.",
                none="No slot is cordoned.",
            ),
            events(
                "Executors replaced",
                (happened("tenure_worker_executor_restarts_total", "reason", OF_INSTANCE), "{{reason}}"),
                what="By reason, each minute.",
                normal="Seldom.",
                otherwise="The same reason again and again: the evaluator leaves something behind.",
                none="None was replaced.",
            ),
            events(
                "Left behind",
                (happened("tenure_worker_run_leftovers_total", "kind", OF_INSTANCE), "{{kind}}"),
                what="Processes (ended) and threads (going on) that runs left.",
                normal="None.",
                otherwise="Data loaders that are not closed; see docs/operations.md, What runs leave behind.",
                none="Nothing was left.",
            ),
            events(
                "Reconnects",
                (happened("tenure_worker_session_reconnects_total", "instance", OF_INSTANCE), "{{instance}}"),
                what="Connections to a master after the first, each minute.",
                normal="One for each worker when its master is restarted.",
                otherwise="Again and again: the network, or a proxy that ends idle streams.",
                none="None in this time.",
            ),
            events(
                "Calls that failed",
                (
                    happened("tenure_worker_rpc_seconds_count", "method, code", '{instance=~"$instance", code!="OK"}'),
                    "{{method}} {{code}}",
                ),
                what="Workers' calls to masters that ended otherwise than OK.",
                normal="None but UNAVAILABLE during restarts.",
                otherwise="DEADLINE_EXCEEDED: masters or the store are slow.",
                none="None in this time.",
            ),
            events(
                "Spool writes refused",
                (happened("tenure_worker_spool_write_failures_total", "instance", OF_INSTANCE), "{{instance}}"),
                what="Results that a worker's disk refused; they are in memory only.",
                normal="None.",
                otherwise="Make room before anything else.",
                none="None was refused.",
            ),
        ],
    },
)
