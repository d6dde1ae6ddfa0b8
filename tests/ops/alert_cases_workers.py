"""How each alert of work, workers and their runs comes to fire, and how it clears."""

from __future__ import annotations

from ops.alert_case import W1, Case, outcomes, restarts
from ops.alert_series import RULE_FAILURES, START_MINUTES, begins, burst, flat, master, masters, spell, worker

CASES = [
    # ---- work -----------------------------------------------------------------------------------------------------
    Case(
        "TenureNoWorkers",
        {**masters("tenure_workers", spell(0, 20, good=1), 'status="live", mode="active"')},
        fires=12,
        clears=21,
    ),
    Case(
        "TenureQueuedTooLong",
        {**masters("tenure_slots", spell(1, 30), 'use="free"')},
        fires=17,
        clears=31,
        labels={"search": "first", "requirements": "any"},
    ),
    Case(
        "TenureDeadLetters",
        {**masters("tenure_tasks", burst(2, 20), 'search="first", state="FAILED"')},
        fires=15,
        clears=85,
        labels={"search": "first"},
    ),
    Case(
        "TenureMostRunsFail",
        {
            **outcomes("success", "", burst(0.1, 40, idle=1)),
            **outcomes("failure", "ValueError", burst(2, 40, idle=0.01)),
        },
        fires=35,
        clears=90,
    ),
    Case(
        "TenureRunsLost",
        outcomes("loss", "SIGKILL", burst(0.5, 20, idle=0.001)),
        fires=15,
        clears=85,
        labels={"cause": "SIGKILL"},
    ),
    Case(
        "TenureOutOfMemory",
        outcomes("out_of_memory", "MemoryError", burst(0.5, 20, idle=0.001)),
        fires=15,
        clears=85,
    ),
    # Everything failed between two scrapes: each series begins with all that it will ever be.
    Case(
        "TenureDeadLetters",
        {**masters("tenure_tasks", begins(28, START_MINUTES), 'search="new", state="FAILED"')},
        fires=1,
        clears=61,
        labels={"search": "new"},
    ),
    Case(
        "TenureMostRunsFail",
        {
            **outcomes("success", "", flat(900)),
            **outcomes("failure", "AttributeError", begins(28, START_MINUTES + 65)),
        },
        fires=65 + 18,
        clears=65 + 62,
    ),
    Case(
        "TenureRunsLost",
        outcomes("loss", "SIGABRT", begins(28, START_MINUTES + 65)),
        fires=65 + 2,
        clears=65 + 62,
        labels={"cause": "SIGABRT"},
    ),
    Case(
        "TenureRunsLost",
        # Before the first scrape of a master that was started just then.
        {
            master("m3", "tenure_outcomes_total", 'kind="loss", cause="SIGABRT", verdict="accepted"'): begins(
                6, START_MINUTES
            ),
            master("m3", "process_start_time_seconds"): flat(START_MINUTES * 60 - 10),
        },
        fires=2,
        clears=62,
        labels={"cause": "SIGABRT"},
    ),
    Case(
        "TenureOutOfMemory",
        outcomes("out_of_memory", "OutOfMemoryError", begins(28, START_MINUTES + 65)),
        fires=65 + 2,
        clears=65 + 62,
    ),
    Case(
        "TenureComputeWasted",
        {**masters("tenure_compute_wasted_seconds_total", burst(300, 60, idle=30), 'search="first", cause="loss"')},
        fires=60,
        clears=170,
    ),
    # ---- workers --------------------------------------------------------------------------------------------------
    Case(
        "TenureWorkerDown",
        {
            worker("up"): spell(0, 10, good=1),
            worker("tenure_worker_draining"): spell("_", 10),
            **masters("tenure_workers", spell(0, 10, good=1), 'status="live", mode="active"'),
        },
        fires=6,
        clears=12,
        labels=W1,
    ),
    Case(
        "TenureWorkersUnseen",
        {**masters("tenure_workers", spell(2, 30, good=1), 'status="live", mode="active"')},
        fires=17,
        clears=31,
    ),
    Case(
        "TenureWorkerRestarts",
        {
            worker("process_start_time_seconds"): restarts,
            worker("tenure_worker_checkpoints_skipped_total"): flat(0),
        },
        fires=5,
        clears=40,
        labels=W1,
    ),
    Case(
        "TenureWorkerCutOff", {worker("tenure_worker_session_up"): spell(0, 10, good=1)}, fires=6, clears=11, labels=W1
    ),
    Case("TenureSpoolGrows", {worker("tenure_worker_spool_outcomes"): spell(2, 20)}, fires=11, clears=21, labels=W1),
    Case(
        "TenureSpoolUnwritable",
        {worker("tenure_worker_spool_write_failures_total"): burst(1, 1, before=1)},
        fires=1.5,
        clears=18,
        labels=W1,
    ),
    Case(
        "TenureDiskShort",
        {worker("tenure_worker_disk_free_bytes", 'kind="work_dir"'): spell(5e8, 20, good=5e10)},
        fires=6,
        clears=21,
        labels={**W1, "kind": "work_dir"},
    ),
    Case(
        "TenureWorkerMemoryShort",
        {worker("tenure_worker_memory_usage_ratio"): spell(0.97, 20, good=0.8)},
        fires=11,
        clears=21,
        labels=W1,
    ),
    Case(
        "TenurePreemptionUnseen",
        {worker("tenure_worker_preemption_poll_failures_total"): burst(10, 30, idle=0.05)},
        fires=17,
        clears=50,
        labels=W1,
    ),
    # ---- runs -----------------------------------------------------------------------------------------------------
    Case(
        "TenureSlotBroken",
        {worker("tenure_worker_slots", 'state="broken"'): spell(1, 20)},
        fires=11,
        clears=21,
        labels=W1,
    ),
    Case(
        "TenureSlotCordoned",
        {
            worker("tenure_worker_slot_cordoned", 'slot="0", cause=""'): spell("_", 10),
            worker("tenure_worker_slot_cordoned", 'slot="0", cause="xid"'): spell(1, 10, good="_"),
        },
        fires=1,
        # A series that ends without a word is looked back at for five minutes here; a scrape marks its end at once.
        clears=16,
        labels={**W1, "slot": "0", "cause": "xid"},
    ),
    Case(
        "TenureGpuMemoryErrors",
        {worker("tenure_worker_gpu_ecc_errors_total", 'slot="0", gpu="0", kind="uncorrected"'): burst(1, 2, before=3)},
        fires=2,
        clears=64,
        labels={**W1, "gpu": "0"},
    ),
    Case(
        "TenureGpuThrottled",
        {worker("tenure_worker_gpu_throttled", 'slot="0", gpu="0", reason="temperature"'): spell(1, 30, good=0)},
        fires=17,
        clears=31,
        labels={**W1, "gpu": "0", "reason": "temperature"},
    ),
    Case(
        "TenureExecutorsLeak",
        {worker("tenure_worker_executor_restarts_total", 'reason="host_memory_leak"'): burst(1, 10, before=9)},
        fires=8,
        clears=75,
        labels={**W1, "reason": "host_memory_leak"},
    ),
    Case(
        "TenureExecutorsCrash",
        {worker("tenure_worker_executor_restarts_total", 'reason="crash"'): burst(1, 10, idle=0.05)},
        fires=8,
        clears=75,
        labels=W1,
    ),
    Case(
        "TenureRunSilent",
        {worker("tenure_worker_progress_age_seconds", 'slot="0"'): spell(8000, 20, good=600)},
        fires=11,
        clears=21,
        labels={**W1, "slot": "0"},
    ),
    Case(
        "TenureCheckpointsFail",
        {worker("tenure_worker_checkpoint_failures_total"): burst(1, 1, before=4)},
        fires=1.5,
        clears=18,
        labels=W1,
    ),
    Case(
        "TenureCheckpointsSkipped",
        {worker("tenure_worker_checkpoints_skipped_total"): burst(1, 1, before=1)},
        fires=1.5,
        clears=18,
        labels=W1,
    ),
    Case(
        "TenureCheckpointsSkipped",
        # Its first run resumed before the first scrape.
        {
            worker("tenure_worker_checkpoints_skipped_total", instance="w2"): spell(1, 60, good="_"),
            worker("process_start_time_seconds", instance="w2"): flat(START_MINUTES * 60 - 10),
        },
        fires=1,
        clears=16,
        labels={"instance": "w2"},
    ),
    Case(
        "TenureCheckpointOld",
        {worker("tenure_worker_checkpoint_age_seconds", 'slot="0"'): spell(8000, 20, good=600)},
        fires=11,
        clears=21,
        labels={**W1, "slot": "0"},
    ),
    Case(
        "TenureCheckpointsStall",
        {worker("tenure_worker_checkpoint_stall_seconds_total"): burst(30, 60, idle=1)},
        fires=50,
        clears=80,
        labels=W1,
    ),
    # ---- monitoring -----------------------------------------------------------------------------------------------
    Case(
        "TenureRulesFail",
        {RULE_FAILURES: burst(4, 20, before=2)},
        fires=7,
        clears=27,
        labels={"rule_group": "tenure-work"},
    ),
    Case(
        "TenureScrapesSlow",
        {worker("scrape_duration_seconds"): spell(7, 20, good=0.01)},
        fires=11,
        clears=21,
        labels=W1,
    ),
]
