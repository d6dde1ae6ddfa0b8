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
    Ends the process with status 2 if none is there, or the given one can't be run.
    """
    if importlib.util.find_spec("tenure") is not None:
        os.environ.pop(_MARK, None)
        return
    if _MARK not in os.environ:
        given = os.environ.get("TENURE_PYTHON", "")
        if given and not (os.path.isfile(given) and os.access(given, os.X_OK)):
            _refuse_given(given, "no such program")
        for python in _candidates():
            if os.access(python, os.X_OK):
                os.environ[_MARK] = python
                try:
                    os.execv(python, [python, *sys.argv])
                except OSError as error:
                    if python == given:
                        _refuse_given(given, error.strerror or str(error))
    sys.stderr.write(
        "error: no Python with the package tenure found: activate its environment, or set TENURE_PYTHON to its python\n"
    )
    raise SystemExit(2)


def _refuse_given(python: str, why: str) -> None:
    sys.stderr.write(f"error: TENURE_PYTHON={python}: {why}; set it to the python that has the package tenure\n")
    raise SystemExit(2)


def _candidates() -> list[str]:
    checkout = Path(__file__).resolve().parents[3]
    found = [os.environ.get("TENURE_PYTHON", ""), str(checkout / ".venv" / "bin" / "python")]
    command = shutil.which("tenure")
    if command:
        found.append(str(Path(command).resolve().parent / "python"))
    return [python for python in found if python]
