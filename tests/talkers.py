"""An evaluator for tests of what evaluations print. Everything is said by the task's ``config.extra``:

``lines``: how many lines each of its parts prints, ``<epoch>.<part>.<number>``; ``gates``: paths of files, separated by
commas, each of which ends a part when it exists (``{epoch}`` is replaced); ``flood_mib``: so much is printed behind the
first part, as fast as it goes; ``bytes_base64``: what is printed first; ``fail``: ``1`` raises at the end.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Mapping

from tenure.worker.evaluator import Context, EvaluationTask, Stopped

FLOOD_LINE = b"x" * 1023 + b"\n"


def talk(task: EvaluationTask, context: Context) -> Mapping[str, float]:
    """Print what was asked for."""
    extra = task.config.extra
    sys.stdout.buffer.write(base64.b64decode(extra.get("bytes_base64", "")))
    gates = [gate.replace("{epoch}", str(task.epoch)) for gate in extra.get("gates", "").split(",") if gate]
    for part, gate in enumerate([*gates, ""]):
        for number in range(int(extra.get("lines", "0"))):
            sys.stdout.write(f"{task.epoch}.{part}.{number}\n")
        sys.stdout.flush()
        while gate and not os.path.exists(gate):
            if context.should_stop:
                raise Stopped
            time.sleep(0.01)
        if part == 0:
            for _ in range(1024 * int(extra.get("flood_mib", "0"))):
                sys.stdout.buffer.write(FLOOD_LINE)
    sys.stderr.write("the last line\n")
    if extra.get("fail") == "1":
        raise RuntimeError("as asked")
    return {"fitness": 1.0}
