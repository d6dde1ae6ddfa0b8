"""What happens every day, and must raise no alert."""

from __future__ import annotations

from ops.alert_series import Grid, Values, flat, master, masters, worker


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


def _master_restarts(instance: str, minute: float) -> dict[str, Values]:
    """A master is stopped and started: away from two scrapes, and its counters begin anew."""
    start = -18000.0
    return {
        master(instance, "up"): _away(minute),
        master(instance, "process_start_time_seconds"): lambda grid: (
            f"{start:g}x{grid.steps(minute) - 1} _x{grid.steps(0.5)} "
            f"{minute * 60 + 30:g}x{grid.steps(grid.end_minutes)}"
        ),
        master(instance, "tenure_store_up"): _away(minute, bad="_"),
        master(instance, "tenure_store_rollbacks_total"): _restarted(0, minute),
        master(instance, "tenure_leases_expired_total", 'cause="silent"'): _restarted(0, minute),
        master(instance, "tenure_fsck_timestamp_seconds"): _away(minute, good=0),
        master(instance, "tenure_outcomes_total", 'kind="success", cause="", verdict="accepted"'): _restarted(
            1, minute
        ),
        master(instance, "tenure_lease_clock_seconds", 'shard="0"'): lambda grid: (
            f"0+{60 * grid.step_minutes:g}x{grid.steps(minute) - 1} _x{grid.steps(0.5)} "
            f"{60 * (minute + 0.5):g}+{60 * grid.step_minutes:g}x{grid.steps(grid.end_minutes)}"
        ),
    }


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
