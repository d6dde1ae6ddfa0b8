"""How each alert of masters, their store and leases comes to fire, and how it clears."""

from __future__ import annotations

from ops.alert_case import Case, restarts
from ops.alert_series import START_MINUTES, begins, burst, climb, flat, histogram, master, masters, spell, worker

CASES = [
    # ---- masters --------------------------------------------------------------------------------------------------
    Case(
        "TenureNoMaster",
        {**masters("up", spell(0, 20, good=1))},
        fires=2,
        clears=21,
    ),
    Case("TenureMasterDown", {master("m2", "up"): spell(0, 20, good=1)}, fires=6, clears=21, labels={"instance": "m2"}),
    Case(
        "TenureMasterRestarts",
        {
            master("m1", "process_start_time_seconds"): restarts,
            **masters("tenure_store_rollbacks_total", flat(0)),
        },
        fires=5,
        clears=40,
        labels={"instance": "m1"},
    ),
    Case(
        "TenureMasterBusy",
        {master("m1", "process_cpu_seconds_total"): burst(59, 30, idle=20)},
        fires=22,
        clears=36,
        labels={"instance": "m1"},
    ),
    Case(
        "TenureFilesShort",
        {master("m1", "process_open_fds"): spell(900, 20, good=100)},
        fires=6,
        clears=21,
        labels={"instance": "m1"},
    ),
    Case(
        "TenureRpcErrors",
        {**masters("tenure_rpc_seconds_count", burst(5, 20), 'method="Submit", code="UNKNOWN"')},
        fires=8,
        clears=27,
        labels={"method": "Submit"},
    ),
    Case(
        "TenureRpcSlow",
        {
            **histogram(
                "tenure_rpc_seconds",
                'method="GetTasks", code="OK"',
                {"2.5": burst(5, 30), "5": burst(9, 30), "+Inf": burst(9, 30)},
            )
        },
        fires=14,
        clears=36,
        labels={"method": "GetTasks"},
    ),
    Case(
        "TenureSubmitsRefused",
        {**masters("tenure_rpc_seconds_count", burst(5, 10), 'method="Submit", code="RESOURCE_EXHAUSTED"')},
        fires=2,
        clears=16,
        labels={"method": "Submit"},
    ),
    Case(
        "TenureSubmitsRefused",
        # All of them between two scrapes.
        {
            **masters(
                "tenure_rpc_seconds_count", begins(3, START_MINUTES + 5), 'method="Submit", code="RESOURCE_EXHAUSTED"'
            )
        },
        fires=6,
        clears=11,
        labels={"method": "Submit"},
    ),
    Case(
        "TenureVersionsMixed",
        {worker("tenure_worker_build_info", 'version="0.9"', "w2"): spell(1, 30 * 60, good="_")},
        fires=25 * 60 + 15,
        clears=30 * 60 + 15,
        step="4m",
    ),
    # ---- store ----------------------------------------------------------------------------------------------------
    Case(
        "TenureStoreDown",
        {master("m2", "tenure_store_up"): spell(0, 10, good=1)},
        fires=2,
        clears=11,
        labels={"instance": "m2"},
    ),
    Case(
        "TenureStoreRestarted",
        {master("m1", "tenure_store_restarts"): burst(1, 1, before=2)},
        fires=1.5,
        clears=18,
        labels={"instance": "m1"},
    ),
    Case(
        "TenureStoreRolledBack",
        {**masters("tenure_store_rollbacks_total", burst(1, 1, before=1))},
        fires=1.5,
        clears=18,
    ),
    Case(
        "TenureStoreRolledBack",
        # Started on an old copy: its counter is 1 when it is seen for the first time.
        {
            master("m3", "tenure_store_rollbacks_total"): spell(1, 60, good="_"),
            master("m3", "process_start_time_seconds"): flat(START_MINUTES * 60 - 10),
        },
        fires=1,
        clears=16,
    ),
    Case("TenureAofUnhealthy", {**masters("tenure_store_aof_ok", spell(0, 10, good=1))}, fires=1, clears=11),
    Case(
        "TenureAofRewriteFails",
        {**masters("tenure_store_aof_rewrite_failed", spell(1, 10))},
        fires=6,
        clears=11,
    ),
    Case(
        "TenureAofGrows",
        {**masters("tenure_store_aof_bytes", spell(9e9, 60, good=3e9), 'kind="current"')},
        fires=32,
        clears=61,
    ),
    Case(
        "TenureFsyncSlow",
        {**masters("tenure_store_fsync_delayed_total", burst(4, 10))},
        fires=5,
        clears=26,
    ),
    Case(
        "TenureStoreSlow",
        {
            **histogram(
                "tenure_store_script_seconds",
                'script="complete"',
                {"0.5": burst(5, 30), "1": burst(9, 30), "+Inf": burst(9, 30)},
            )
        },
        fires=14,
        clears=36,
    ),
    Case("TenureForkSlow", {**masters("tenure_store_fork_seconds", spell(2.5, 10, good=0.02))}, fires=1, clears=11),
    Case(
        "TenureStoreMemoryShort",
        {**masters("tenure_store_memory_bytes", spell(85, 20, good=70), 'kind="used"')},
        fires=6,
        clears=21,
    ),
    Case("TenureReplicaLost", {**masters("tenure_store_replicas", spell(0, 20, good=1))}, fires=6, clears=21),
    Case(
        "TenureFsckViolations",
        {
            master("m1", "tenure_store_fsck_violations"): spell(2, 20, good=0),
            master("m1", "tenure_store_fsck_timestamp_seconds"): flat(-30),
        },
        fires=1,
        clears=21,
    ),
    Case(
        "TenureFsckOld",
        {
            **masters("tenure_store_fsck_violations", flat(0)),
            **masters("tenure_store_fsck_timestamp_seconds", flat(0)),
            master("m1", "tenure_store_fsck_timestamp_seconds"): lambda grid: (
                f"0x{grid.steps(4 * 24 * 60)} {4 * 24 * 3600}x{grid.steps(60)}"
            ),
        },
        fires=3 * 24 * 60 + 95,
        clears=4 * 24 * 60 + 15,
        step="4m",
    ),
    Case(
        "TenureBackupOld",
        {
            'tenure_backup_timestamp_seconds{instance="store-1"}': lambda grid: (
                f"0x{grid.steps(48 * 60)} {48 * 3600}x{grid.steps(120)}"
            ),
        },
        fires=37 * 60 + 15,
        clears=48 * 60 + 35,
        step="4m",
    ),
    Case(
        "TenureBackupFails",
        {'tenure_backup_run_succeeded{instance="store-1"}': spell(0, 20, good=1)},
        fires=6,
        clears=21,
        labels={"instance": "store-1"},
    ),
    # ---- leases ---------------------------------------------------------------------------------------------------
    Case("TenureReaperPaused", {**masters("tenure_reaper_paused", spell(1, 2))}, fires=1, clears=3),
    Case(
        "TenureLeasesExpire",
        {**masters("tenure_leases_expired_total", burst(2, 4, before=7), 'cause="silent"')},
        fires=4,
        clears=20,
        labels={"cause": "silent"},
    ),
    Case(
        "TenureRenewalsLate",
        {
            **histogram(
                "tenure_lease_renewal_lag_seconds",
                "",
                {"0.1": climb(1), "10": climb(1), "20": burst(30, 30, idle=1), "+Inf": burst(30, 30, idle=1)},
            )
        },
        fires=14,
        clears=36,
    ),
    Case(
        "TenureLeaseClockStands",
        {**masters("tenure_lease_clock_seconds", burst(0, 10, idle=60), 'shard="0"')},
        fires=5,
        clears=13,
        labels={"shard": "0"},
    ),
    Case(
        "TenureLeaseClockSlow",
        {**masters("tenure_lease_clock_seconds", burst(40, 40, idle=60), 'shard="0"')},
        fires=30,
        clears=50,
        labels={"shard": "0"},
    ),
]
