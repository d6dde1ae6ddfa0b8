"""``tenure demo``: a real search on real data, with a worker and the master killed on the way.

``run.py`` tells the story, ``processes.py`` owns the processes, ``chaos.py`` kills, ``accounting.py`` holds the
broker's own records against what Tenure promises, ``screen.py`` shows it.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from tenure.common.errors import InvalidSetting

_NEEDED = ("torch", "sklearn", "optuna")


@dataclass(frozen=True)
class DemoOptions:
    """What ``tenure demo`` was told.

    Attributes:
        trials: Architectures to try.
        workers: Worker processes.
        chaos: Whether a worker and the master are killed.
        data_dir: Where everything goes; None: a temporary directory, removed if all went well.
        seed: Of the search.
    """

    trials: int = 18
    workers: int = 2
    chaos: bool = True
    data_dir: Path | None = None
    seed: int = 0


def run_demo(options: DemoOptions) -> int:
    """Run the demo; 0 if every promise held, 1 if one broke.

    Raises:
        InvalidSetting: A package of the demo extra is missing.
        StartupError: A process did not start; its log is named.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidSetting(
            f"needs packages that are not installed: {', '.join(missing)}",
            field="demo",
            expected=f"{sys.executable} -m pip install 'tenure[demo]'",
        )
    from tenure.client.demo.run import Demo

    return Demo(options).run()
