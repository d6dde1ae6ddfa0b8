"""What an evaluation says of its memory before it takes it, and how the death of an executor tells that there was none.

What raises says so itself (``executor/evaluation.py``). What is killed, or ended by a library, doesn't.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from tenure.common.checks import check_integer
from tenure.common.errors import InvalidInput

ON_OUT_OF_MEMORY = ("accumulate", "elsewhere", "fail")

# What C and C++ libraries print before they end the process because they got no memory.
_LAST_WORDS = re.compile(
    r"std::bad_alloc|libgomp: Out of memory"
    r"|OpenBLAS.*(Memory allocation still failed|tried to allocate too many memory)"
    r"|DefaultCPUAllocator: (can't allocate|not enough) memory|MemoryError"
)
_LAST_CHARS = 4096
# 128 + SIGKILL: what shells and container runtimes make of a process that was killed.
_KILLED_CODE = 137
_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1


@dataclass(frozen=True)
class ExpectedMemory:
    """What an evaluation is going to take, of its GPU's memory or the host's. 0 = unknown.

    Attributes:
        estimated_bytes: At its peak.
        limit_bytes: What it could have now.
        batch_size: Rows in a batch.
        micro_batches: In how many parts a batch goes through the network.
        on_out_of_memory: What follows if memory runs out all the same. ``accumulate``: the task is tried again
            anywhere, and the evaluator, told ``task.out_of_memory``, takes less. ``elsewhere``: it is tried again on a
            slot with more memory than this one's. ``fail``: it fails.
    """

    estimated_bytes: int = 0
    limit_bytes: int = 0
    batch_size: int = 0
    micro_batches: int = 0
    on_out_of_memory: str = "accumulate"

    def __post_init__(self) -> None:
        """Raises InvalidInput for what the wire can't carry."""
        for name, most in (
            ("estimated_bytes", _INT64_MAX),
            ("limit_bytes", _INT64_MAX),
            ("batch_size", _INT32_MAX),
            ("micro_batches", _INT32_MAX),
        ):
            check_integer(getattr(self, name), f"memory.{name}", 0, most)
        if self.on_out_of_memory not in ON_OUT_OF_MEMORY:
            raise InvalidInput(
                "is unknown",
                field="memory.on_out_of_memory",
                given=self.on_out_of_memory,
                expected=f"one of {', '.join(ON_OUT_OF_MEMORY)}",
            )


def died_for_memory(exit_signal: int, exit_code: int, log_tail: str, kernel_kills: int) -> str:
    """How it is known that an executor which ended by itself got no memory; empty if it isn't.

    Args:
        exit_signal: That ended it, 0 for none.
        exit_code: Its exit code.
        log_tail: The last that it printed.
        kernel_kills: How many processes the kernel has killed for want of memory during the run.
    """
    if (exit_signal == signal.SIGKILL or exit_code == _KILLED_CODE) and kernel_kills > 0:
        return "the kernel killed it for want of memory"
    if (exit_signal or exit_code) and (said := _LAST_WORDS.search(log_tail[-_LAST_CHARS:])):
        return f"it printed {said[0]!r}"
    return ""
