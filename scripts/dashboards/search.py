"""One search: how far it is, how good, what its tasks wait for, and what became of the compute."""

from __future__ import annotations

from dashboards.panels import Page, bars, events, graph, stat
from dashboards.queries import ONE_SEARCH, OPEN_STATES, computed, computed_in_all, happened, quantiles, tasks

THIS = '="$search"'
QUEUE = 'max by (requirements) (tenure_queue_depth{search="$search"})'
AGES = 'max by (requirements) (tenure_queue_oldest_seconds{search="$search"})'


def these(states: str, by: str = "") -> str:
    """Numbers of the search's tasks."""
    return tasks(states, by, THIS)


def ever(kind: str, by: str = "") -> str:
    """Its compute since it began."""
    return computed_in_all(kind, by, THIS)


PAGE = Page(
    uid="tenure-search",
    title="Tenure: search",
    about="One search: how far it is, how good, what its tasks wait for, and what became of the compute.",
    variables=[ONE_SEARCH],
    rows={
        "Now": [
            stat(
                "Done",
                "percentunit",
                f"{these('SUCCEEDED|FAILED|CANCELLED')} / {these('.*')}",
                what="Share of the submitted tasks that have ended.",
                normal="Growing; a controller that submits as it goes holds it below 100 %.",
                otherwise="Standing still: see Waiting.",
                none="no tasks",
                maximum=1,
            ),
            stat(
                "Open",
                "short",
                f"{these(OPEN_STATES)} or vector(0)",
                what="Tasks that have not ended: scheduled, queued or running.",
                normal="Falling.",
                otherwise="Growing: it is submitted faster than evaluated; add workers.",
                trend=True,
            ),
            stat(
                "Running",
                "short",
                f"{these('LEASED')} or vector(0)",
                what="Tasks under a lease.",
                normal="The search's share of the slots.",
                otherwise="0 with tasks queued: it is paused, capped, or no worker has what it asks for.",
                trend=True,
            ),
            stat(
                "Succeeded",
                "short",
                f"{these('SUCCEEDED')} or vector(0)",
                what="Tasks that have their one accepted result.",
                normal="Growing.",
                otherwise="Flat: see Outcomes.",
                trend=True,
            ),
            stat(
                "Dead letters",
                "short",
                f"{these('FAILED')} or vector(0)",
                what="Tasks that failed for good.",
                normal="0, or the impossible architectures of your search space.",
                otherwise="`tenure tasks list --state FAILED`, then `tenure tasks requeue` once the cause is mended.",
                limits=((None, "green"), (1, "orange")),
                trend=True,
            ),
            stat(
                "Best fitness",
                "short",
                'max(tenure_best_fitness{search="$search"})',
                what="The best fitness among the accepted results.",
                normal="It only grows.",
                otherwise="None after the first results: the evaluator returns no `fitness`.",
                none="no result",
                decimals=4,
            ),
            stat(
                "Pace",
                "short",
                f"clamp_min(deriv(({these('SUCCEEDED|FAILED|CANCELLED')})[$__range:]) * 3600, 0)",
                what="Tasks that ended an hour, by the time shown.",
                normal="Slots times 3600 divided by the run time in seconds.",
                otherwise="Less: slots are idle, or work is wasted; see below.",
                none="unknown",
                decimals=0,
            ),
            stat(
                "Compute useful",
                "percentunit",
                f"{ever('useful')} / ({ever('useful')} + ({ever('wasted')} or vector(0)) > 0)",
                what="Run time that became accepted results, of all that was useful or wasted.",
                normal="Above 95 %.",
                otherwise="Wasted by cause says on what it goes.",
                limits=((None, "red"), (0.8, "orange"), (0.95, "green")),
                none="no run yet",
                maximum=1,
            ),
        ],
        "Progress": [
            graph(
                "Tasks by state",
                "short",
                (these(".*", "state"), "{{state}}"),
                what="The search's tasks.",
                normal="Green grows from below into yellow.",
                otherwise="Red grows: see Outcomes. Yellow stays: see Waiting.",
                stacked=True,
                width=12,
            ),
            graph(
                "Best fitness",
                "short",
                ('max(tenure_best_fitness{search="$search"})', "best"),
                what="The best fitness among the accepted results, over time.",
                normal="Steps up, ever smaller.",
                minimum=None,
                otherwise="Flat for long: the search has found what its space has, or its controller is stuck.",
                width=12,
                none="No result yet.",
            ),
        ],
        "Waiting": [
            graph(
                "Queue by requirements",
                "short",
                (QUEUE, "{{requirements}}"),
                what="Tasks that could run now, by what they ask of a worker. `any`: they ask nothing.",
                normal="Falling together.",
                otherwise="One class stays: no live worker has that (Cluster, Slots by label).",
                stacked=True,
                none="Nothing is queued.",
            ),
            graph(
                "Oldest by requirements",
                "s",
                (AGES, "{{requirements}}"),
                what="Age of the oldest task of each class that could run.",
                normal="A saw.",
                otherwise="A straight line up: that class is not served.",
                none="Nothing is queued.",
            ),
            graph(
                "Schedule to start",
                "s",
                *quantiles("tenure_schedule_to_start_seconds", '{search="$search"}', 50, 95, 99),
                what="From when a task could first be taken until its lease was granted.",
                normal="Milliseconds with free slots; the queue's length times the run time without.",
                otherwise="Weight or cap of another search may take the slots.",
                none="Nothing was started in this time.",
            ),
        ],
        "Compute": [
            graph(
                "Useful, saved, wasted",
                "short",
                (computed("useful", search=THIS), "useful"),
                (computed("saved", search=THIS), "saved"),
                (computed("wasted", search=THIS), "wasted"),
                what="Time of slots by what became of it, in slots: 4 is as much as four slots do. It is counted when "
                "a run ends.",
                normal="Useful near the number of running tasks, wasted near 0.",
                otherwise="See the causes beside.",
                none="No run has ended yet.",
            ),
            bars(
                "Saved by cause",
                "s",
                (ever("saved", "cause"), "{{cause}}"),
                what="Since the search began. checkpoint: kept of runs that ended unfinished. late: results taken "
                "after their lease. shared: equal submissions answered by one task. readopted: runs that went on.",
                normal="Grows with every interruption.",
                otherwise="0 beside losses: the evaluator saves no checkpoints.",
                none="Nothing was interrupted.",
            ),
            bars(
                "Wasted by cause",
                "s",
                (ever("wasted", "cause"), "{{cause}}"),
                what="Since the search began: run time whose work nobody can use, from the last checkpoint on.",
                normal="Near 0.",
                otherwise="loss: shorten the checkpoints' interval. failure: mend the evaluator. release: drains had "
                "too little grace.",
                none="Nothing was wasted.",
                limits=((None, "orange"),),
            ),
        ],
        "Runs, of all searches": [
            events(
                "Outcomes",
                (happened("tenure_outcomes_total", "kind, cause"), "{{kind}} {{cause}}"),
                what="What workers delivered each minute, by kind and cause. Of all searches: masters don't count "
                "them by search.",
                normal="Mostly success.",
                otherwise="failure names the error's class, loss the signal; `tenure tasks list` has this search's.",
            ),
            graph(
                "Run time, median",
                "s",
                (
                    "histogram_quantile(0.5, sum by (le, kind) (rate(tenure_run_seconds_bucket[$__rate_interval])))",
                    "{{kind}}",
                ),
                what="From the lease's grant until the outcome, by kind.",
                normal="Successes take what your training takes.",
                otherwise="Failures of a second or less: the code doesn't load. See a task's evidence.",
                none="No run has ended in this time.",
            ),
            graph(
                "Run time, p99",
                "s",
                (
                    "histogram_quantile(0.99, sum by (le, kind) (rate(tenure_run_seconds_bucket[$__rate_interval])))",
                    "{{kind}}",
                ),
                what="The slowest runs, by kind.",
                normal="Some times the median, as your search space is.",
                otherwise="Far above it: give runs a deadline (`evaluation_seconds`), or see the slow worker.",
                none="No run has ended in this time.",
            ),
        ],
    },
)
