"""What happens every day, and must raise no alert."""

from __future__ import annotations

from ops.alert_series import Grid, Values, begins, flat, master, masters, worker


def _restarted(per_minute: float, down_minute: float, down: float = 0.5) -> Values:
    """A counter whose process is away for so long and starts again from 0."""

    def text(grid: Grid) -> str:
        before, away = grid.steps(down_minute), grid.steps(down)
        step = per_minute * grid.step_minutes
        return f"0+{step:g}x{before - 1} _x{away} 0+{step:g}x{grid.steps(grid.end_minutes)}"

    return text


def _away(down_minute: float, down: float = 0.5, good: float = 1, bad: float | str = 0) -> Values:
    """A gauge that is ``bad`` for so long."""

    def text(grid: Grid) -> str:
        before, away = grid.steps(down_minute), grid.steps(down)
        return f"{good:g}x{before - 1} {bad}x{away - 1} {good:g}x{grid.steps(grid.end_minutes)}"

    return text


def _master_restarts(instance: str, minute: float, down: float = 0.5) -> dict[str, Values]:
    """A master is stopped and started: away from two scrapes, and its counters begin anew."""
    start = -18000.0
    return {
        master(instance, "up"): _away(minute, down),
        master(instance, "process_start_time_seconds"): lambda grid: (
            f"{start:g}x{grid.steps(minute) - 1} _x{grid.steps(down)} "
            f"{(minute + down) * 60:g}x{grid.steps(grid.end_minutes)}"
        ),
        master(instance, "tenure_store_up"): _away(minute, down, bad="_"),
        master(instance, "tenure_store_rollbacks_total"): _restarted(0, minute, down),
        master(instance, "tenure_leases_expired_total", 'cause="silent"'): _restarted(0, minute, down),
        master(instance, "tenure_fsck_timestamp_seconds"): _away(minute, down, good=0),
        master(instance, "tenure_outcomes_total", 'kind="success", cause="", verdict="accepted"'): _restarted(
            1, minute, down
        ),
        master(instance, "tenure_lease_clock_seconds", 'shard="0"'): lambda grid: (
            f"0+{60 * grid.step_minutes:g}x{grid.steps(minute) - 1} _x{grid.steps(down)} "
            f"{60 * (minute + down):g}+{60 * grid.step_minutes:g}x{grid.steps(grid.end_minutes)}"
        ),
    }


def _pause(before: float, after: float, minute: float = 50, minutes: float = 15) -> Values:
    """No samples for so long."""
    return lambda grid: (
        f"{before:g}x{grid.steps(minute)} _x{grid.steps(minutes)} {after:g}x{grid.steps(grid.end_minutes)}"
    )


def _counts_anew(before: float, down_minute: float, again_minute: float) -> Values:
    """A counter with labels that its process, started again, meets only later."""
    return lambda grid: (
        f"{before:g}x{grid.steps(down_minute) - 1} _x{grid.steps(again_minute - down_minute)} "
        f"1x{grid.steps(grid.end_minutes)}"
    )


_OLD = 'search="old", state="FAILED"'
_LOST = 'kind="loss", cause="SIGABRT", verdict="accepted"'
_FAILED = 'kind="failure", cause="AttributeError", verdict="accepted"'
# An old store, and masters that have counted much.
_HISTORY = {
    **masters("tenure_tasks", flat(500), _OLD),
    **masters("tenure_outcomes_total", flat(500), _FAILED),
    **masters("tenure_outcomes_total", flat(100), _LOST),
}
_COUNTED = (("tenure_tasks", _OLD), ("tenure_outcomes_total", _FAILED), ("tenure_outcomes_total", _LOST))

# What happens every day; nothing fires, at no time.
EVERYDAY: dict[str, dict[str, Values]] = {
    "nothing happens": {},
    "masters are restarted one after the other": _master_restarts("m1", 10) | _master_restarts("m2", 12),
    "the only master is restarted": {
        **{master("m2", name): flat("_") for name in ("up", "tenure_store_up", "process_start_time_seconds")},
        **_master_restarts("m1", 10),
    },
    "a worker is drained and its machine given back": {
        worker("up"): lambda grid: f"1x{grid.steps(12)} 0x{grid.steps(grid.end_minutes)}",
        worker("tenure_worker_draining"): lambda grid: f"0x{grid.steps(10)} 1x{grid.steps(2)}",
        worker("tenure_worker_session_up"): lambda grid: f"1x{grid.steps(12)}",
        **masters(
            "tenure_workers",
            lambda grid: f"1x{grid.steps(11)} 0x{grid.steps(grid.end_minutes)}",
            'status="live", mode="active"',
        ),
        **masters(
            "tenure_tasks",
            lambda grid: f"5x{grid.steps(10)} 0x{grid.steps(grid.end_minutes)}",
            'search="first", state="QUEUED"',
        ),
    },
    "a worker is restarted": {
        worker("up"): _away(10, 1),
        worker("process_start_time_seconds"): _away(10, 1, good=660, bad="_"),
        worker("tenure_worker_checkpoints_skipped_total"): flat(0),
        worker("tenure_worker_session_up"): _away(11, 0.5),
        **masters("tenure_workers", _away(10, 1), 'status="live", mode="active"'),
    },
    "a worker is killed with two leases, and started again": {
        worker("up"): _away(10, 2),
        **masters(
            "tenure_leases_expired_total", lambda grid: f"0x{grid.steps(10)} 2x{grid.steps(99)}", 'cause="silent"'
        ),
        master("m2", "tenure_leases_expired_total", 'cause="silent"'): flat(0),
    },
    "the store is restarted": {
        **masters("tenure_store_up", _away(10)),
        **masters("tenure_store_replicas", _away(10, 2)),
        **masters(
            "tenure_lease_clock_seconds",
            lambda grid: (
                f"0+{60 * grid.step_minutes:g}x{grid.steps(10)} 600x{grid.steps(0.5)} "
                f"600+{60 * grid.step_minutes:g}x{grid.steps(grid.end_minutes)}"
            ),
            'shard="0"',
        ),
    },
    "an upgrade runs for an hour": {
        master("m2", "tenure_build_info", 'version="1.1"'): flat(1),
        master("m2", "tenure_build_info", 'version="1.0"'): flat("_"),
    },
    "machines are started for the first tasks": {
        **masters(
            "tenure_workers",
            lambda grid: f"0x{grid.steps(8)} 1x{grid.steps(grid.end_minutes)}",
            'status="live", mode="active"',
        ),
        worker("up"): lambda grid: f"_x{grid.steps(8)} 1x{grid.steps(grid.end_minutes)}",
    },
    "a search of four tries fails": {
        **masters(
            "tenure_tasks",
            lambda grid: f"0x{grid.steps(10)} 4x{grid.steps(grid.end_minutes)}",
            'search="first", state="FAILED"',
        ),
    },
}

# Prometheus is new, and the store and its masters are old: what failed long ago is no news. Hours of it.
OLD_STORE: dict[str, dict[str, Values]] = {
    "Prometheus is away for a while": {
        **_HISTORY,
        **masters("tenure_tasks", _pause(500, 500), _OLD),
        **masters("tenure_outcomes_total", _pause(500, 500), _FAILED),
        **masters("tenure_outcomes_total", _pause(100, 100), _LOST),
        **masters("tenure_store_up", _pause(1, 1)),
        # promtool reads no negative number behind a gap; that they were started at 0 is long ago by then.
        **masters("process_start_time_seconds", _pause(-18000, 0)),
    },
    "the only master is restarted, and then another one is added": {
        **_HISTORY,
        **{master("m2", name): flat("_") for name in ("up", "tenure_store_up", "process_start_time_seconds")},
        **{master("m2", name, labels): flat("_") for name, labels in _COUNTED},
        **_master_restarts("m1", 70, 1),
        # It has read its store a scrape after the first, and counts anew when something happens.
        master("m1", "tenure_tasks", _OLD): _away(70, 2, good=500, bad="_"),
        master("m1", "tenure_outcomes_total", _FAILED): _counts_anew(500, 70, 75),
        master("m1", "tenure_outcomes_total", _LOST): _counts_anew(100, 70, 75),
        master("m3", "up"): begins(1, 80),
        master("m3", "tenure_store_up"): begins(1, 80),
        master("m3", "process_start_time_seconds"): begins(80 * 60 - 5, 80),
        master("m3", "tenure_tasks", _OLD): begins(500, 81),
    },
}
