"""A worker on a machine whose GPUs are a recording: ``python worker_with_gpus.py RECORDING GATES``.

See nvml_double.py. Its settings come from the environment, as those of ``python -m tenure.worker``.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Python is run with -P, and this folder is on no path.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from nvml_double import replayed


def main() -> int:
    """Put the double where the worker looks for NVML, and run the worker."""
    sys.modules["pynvml"] = replayed(sys.argv[1], sys.argv[2])  # type: ignore[assignment]
    from tenure.worker.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
