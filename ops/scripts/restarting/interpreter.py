"""Finds the Python that has Tenure installed, and goes on under it.

The scripts are started by whatever ``python3`` is; Tenure usually lives in an environment of its own.
This file therefore also parses on Pythons that are too old for Tenure.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

_MARK = "TENURE_SCRIPT_PYTHON_CHOSEN"


def use_python_with_tenure() -> None:
    """Return if ``tenure`` can be imported; else replace this process by a Python that can.

    Tried in order: ``$TENURE_PYTHON``, the checkout's ``.venv``, the Python of the ``tenure`` command on PATH.
    Ends the process with status 2 if none is there.
    """
    if importlib.util.find_spec("tenure") is not None:
        os.environ.pop(_MARK, None)
        return
    if _MARK not in os.environ:
        for python in _candidates():
            if os.access(python, os.X_OK):
                os.environ[_MARK] = python
                os.execv(python, [python, *sys.argv])
    sys.stderr.write(
        "error: no Python with the package tenure found: activate its environment, or set TENURE_PYTHON to its python\n"
    )
    raise SystemExit(2)


def _candidates() -> list[str]:
    checkout = Path(__file__).resolve().parents[3]
    found = [os.environ.get("TENURE_PYTHON", ""), str(checkout / ".venv" / "bin" / "python")]
    command = shutil.which("tenure")
    if command:
        found.append(str(Path(command).resolve().parent / "python"))
    return [python for python in found if python]
