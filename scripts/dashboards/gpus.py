"""The rows of the workers' page about GPUs, as NVML tells of them."""

from __future__ import annotations

from dashboards.panels import Panel, events, graph, timeline
from dashboards.queries import OF_INSTANCE, by_worker, happened, of_worker

GPU_ROWS: dict[str, list[Panel]] = {
    "GPUs": [
        graph(
            "GPU use",
            "percentunit",
            by_worker("tenure_worker_gpu_utilization_ratio", "gpu"),
            what="Share of time in which the GPU did anything.",
            normal="Above 80 % while it trains.",
            otherwise="Low: the training waits for its data, or is too small for the GPU; more slots may share it.",
            maximum=1,
            none="No worker has a GPU.",
        ),
        graph(
            "GPU memory",
            "percentunit",
            (
                of_worker("tenure_worker_gpu_memory_used_bytes / tenure_worker_gpu_memory_total_bytes"),
                "{{worker}} {{gpu}}",
            ),
            what="In use by anybody, of the GPU's own.",
            normal="It falls between runs.",
            otherwise="Not falling between runs: a leak, or somebody else's process. Near 1: out-of-memory failures.",
            maximum=1,
            limits=((None, "green"), (0.95, "red")),
            none="No worker has a GPU.",
        ),
        graph(
            "GPU power",
            "watt",
            by_worker("tenure_worker_gpu_power_watts", "gpu"),
            what="What it draws.",
            normal="Near its limit while it trains.",
            otherwise="Low beside high use: it is throttled.",
            none="No worker has a GPU.",
        ),
        graph(
            "GPU temperature",
            "celsius",
            by_worker("tenure_worker_gpu_temperature_celsius", "gpu"),
            what="Of the chip.",
            normal="Below 85 °C.",
            otherwise="Above, it slows down: cooling.",
            limits=((None, "green"), (85, "red")),
            none="No worker has a GPU.",
        ),
        timeline(
            "GPU slowed down",
            by_worker("tenure_worker_gpu_throttled", "gpu", "reason"),
            what="When the GPU's clocks are held down, by reason.",
            normal="Nothing but `power cap`.",
            otherwise="Thermal: its cooling. Hardware slowdown, power brake: its power supply.",
            limits=((None, "green"), (1, "orange")),
            none="No GPU is slowed down.",
        ),
        events(
            "GPU troubles",
            (happened("tenure_worker_gpu_xid_errors_total", "instance, gpu, xid", OF_INSTANCE), "{{gpu}} XID {{xid}}"),
            (
                # Counted since the driver was loaded: what was there at first did not happen now.
                f"sum by (gpu, kind) (increase(tenure_worker_gpu_ecc_errors_total{OF_INSTANCE}[$__interval]))",
                "{{gpu}} {{kind}} memory errors",
            ),
            (f"sum by (gpu) ({of_worker('tenure_worker_gpu_unusable')})", "{{gpu}} unusable"),
            what="The driver's XID errors by number, memory errors found by ECC, and GPUs that NVML calls lost.",
            normal="None; corrected memory errors are harmless when seldom.",
            otherwise="The slot is cordoned, its run went elsewhere. Read the XID's meaning, reset or replace the GPU.",
            none="None in this time.",
        ),
    ],
}
