"""What OpenTelemetry says of its variables when it refuses them, in the words of who set them.

Its errors name arguments of its own functions, or nothing at all; people set variables.
"""

from __future__ import annotations

import os
import re

from tenure.common.errors import InvalidSetting

_VARIABLES = {
    "max_export_batch_size": "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "max_queue_size": "OTEL_BSP_MAX_QUEUE_SIZE",
    "schedule_delay_millis": "OTEL_BSP_SCHEDULE_DELAY",
}
_EXPECTED = {
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "a number from 1 to OTEL_BSP_MAX_QUEUE_SIZE (2048 unless that is set)",
    "OTEL_BSP_MAX_QUEUE_SIZE": "a number that is no less than OTEL_BSP_MAX_EXPORT_BATCH_SIZE (512 unless that is set)",
    "OTEL_BSP_SCHEDULE_DELAY": "milliseconds, at least 1",
}
_VARIABLE = re.compile(r"\bOTEL_[A-Z0-9_]+")


def refused(error: Exception) -> InvalidSetting:
    """The error for a variable that OpenTelemetry does not take.

    The value is told only of a variable that the error names: others may hold a collector's password.
    """
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    for argument, variable in _VARIABLES.items():
        said = said.replace(argument, variable)
    named = next((name for name in _VARIABLE.findall(said) if name in os.environ), "")
    if named:
        return InvalidSetting(
            f"OpenTelemetry does not take it ({said})",
            field=named,
            given=os.environ[named],
            expected=f"expected {_EXPECTED.get(named, 'what OpenTelemetry specifies for it')}; or unset it",
        )
    found = sorted(name for name in os.environ if _VARIABLE.fullmatch(name))
    return InvalidSetting(
        f"OpenTelemetry does not start ({said})",
        field="traces",
        expected=f"one of these variables may be wrong: {', '.join(found) or 'none is set'}; or turn traces off",
    )
