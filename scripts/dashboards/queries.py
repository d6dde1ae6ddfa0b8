"""PromQL that several dashboards need.

Several masters export the same figures of one store: those are joined by ``max``. What each master counts for itself
is joined by ``sum``.
"""

from __future__ import annotations

from dashboards.panels import Query, Variable

RATE = "[$__rate_interval]"

SEARCHES = Variable("search", "Search", "label_values(tenure_tasks, search)")
ONE_SEARCH = Variable("search", "Search", "label_values(tenure_tasks, search)", several=False)
MASTERS = Variable("master", "Master", 'label_values(up{job="tenure-master"}, instance)')
WORKERS = Variable("worker", "Worker", "label_values(tenure_worker_info, worker)")
INSTANCES = Variable("instance", "Its address", 'label_values(tenure_worker_info{worker=~"$worker"}, instance)')

OF_MASTER = '{instance=~"$master"}'
OF_INSTANCE = '{instance=~"$instance"}'
CHOSEN_WORKERS = 'tenure_worker_info{worker=~"$worker", instance=~"$instance"}'
OPEN_STATES = "SCHEDULED|QUEUED|LEASED"


def tasks(states: str, by: str = "", search: str = '=~"$search"') -> str:
    """Numbers of tasks, as any one master sees them."""
    chosen = f'max by (search, state) (tenure_tasks{{search{search}, state=~"{states}"}})'
    return f"sum{' by (' + by + ')' if by else ''} ({chosen})"


def quantiles(metric: str, where: str = "", *percents: int) -> tuple[Query, ...]:
    """Percentiles of a histogram; the median and the 99th unless told otherwise."""
    buckets = f"sum by (le) (rate({metric}_bucket{where}{RATE}))"
    return tuple((f"histogram_quantile({q / 100}, {buckets})", f"p{q}") for q in percents or (50, 99))


def quantile_by(metric: str, by: str, percent: int, where: str = "") -> Query:
    """One percentile for each value of a label."""
    buckets = f"sum by (le, {by}) (rate({metric}_bucket{where}{RATE}))"
    return f"histogram_quantile({percent / 100}, {buckets})", "{{" + by + "}}"


def happened(metric: str, by: str, where: str = "", window: str = "$__interval") -> str:
    """How often something was counted within each step.

    ``increase`` alone misses the first time: a series with a label nobody had before begins at 1, and has not grown
    since. So one that was not there a step ago counts whole.
    """
    series = metric + where
    return f"sum by ({by}) (({series} unless {series} offset {window}) or increase({series}[{window}]))"


def in_all(metric: str, by: str = "", where: str = "") -> str:
    """The same over the whole time shown, also of processes that ended or began in it.

    A series that begins in it counts what it began with and what it grew by since, across restarts of its process.
    """
    series = metric + where
    grown, begun = (
        f"increase({series}[$__range])",
        f"(min_over_time({series}[$__range]) unless {series} offset $__range)",
    )
    return f"round(sum{f' by ({by})' if by else ''} ({grown} + {begun} or {grown} or {begun}))"


def of_worker(expression: str) -> str:
    """A figure of the chosen workers, under their worker ids."""
    return f"{expression} * on (instance) group_left (worker) {CHOSEN_WORKERS}"


def by_worker(expression: str, *labels: str) -> Query:
    """The same with a legend."""
    return of_worker(expression), " ".join(("{{worker}}", *("{{" + label + "}}" for label in labels)))


def _labels(kind: str) -> str:
    return "search" if kind == "useful" else "search, cause"


def computed(kind: str, by: str = "", search: str = '=~"$search"') -> str:
    """Seconds a second, so slots' worth, of compute that became useful, was saved, or wasted."""
    series = f"max by ({_labels(kind)}) (rate(tenure_compute_{kind}_seconds_total{{search{search}}}{RATE}))"
    return f"sum{f' by ({by})' if by else ''} ({series})"


def computed_in_all(kind: str, by: str = "", search: str = '=~"$search"') -> str:
    """Seconds of it since each search began."""
    series = f"max by ({_labels(kind)}) (tenure_compute_{kind}_seconds_total{{search{search}}})"
    return f"sum{f' by ({by})' if by else ''} ({series})"


def wasted_in_all() -> str:
    """Seconds that were wasted in the time shown. The store keeps them, so that no restart of a master matters."""
    series = 'tenure_compute_wasted_seconds_total{search=~"$search"}'
    now = f"max by (search, cause) (last_over_time({series}[$__range]))"
    before = f"max by (search, cause) (last_over_time({series}[10m] offset $__range))"
    return f"sum(clamp_min({now} - ({before} or 0 * {now}), 0))"


def alerts(severity: str) -> str:
    """How many fire."""
    return f'count(ALERTS{{alertname=~"Tenure.*", alertstate="firing", severity="{severity}"}})'


LIVE_WORKERS = 'max(sum by (instance) (tenure_workers{status="live"}))'
# On average over masters: each looks at another moment, and the most busy and the most free slots are more than all.
BUSY, FREE = 'avg(tenure_slots{use="busy"})', 'avg(tenure_slots{use="free"})'
# The watchdog's severity is none: it fires always, so that its silence is heard.
ALERTS_NOW = 'ALERTS{alertname=~"Tenure.*", alertstate="firing", severity!="none"}'
# Prometheus keeps since when each alert has been active; only of those that fire, it is worth knowing.
ALERT_AGES = f'(time() - ALERTS_FOR_STATE{{alertname=~"Tenure.*"}}) and ignoring (alertstate) {ALERTS_NOW}'
