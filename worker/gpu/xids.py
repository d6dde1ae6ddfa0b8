"""Which XID errors of NVIDIA's driver are the evaluation's fault, which mean a GPU that must not go on.

The driver reports by number what went wrong on a GPU. NVIDIA's catalogue gives each number the first thing to do about
it (https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, as of 2025). Here those count as harmless for
what runs next on the GPU whose remedy there is to restart the application or to ignore it; of these, the ones that
NVIDIA's device plugin for Kubernetes skips, too, are the application's own doing. Everything else, a number that nobody
knows yet included, asks for a reset, a reboot or a technician, and cordons the slot.
"""

from __future__ import annotations

APPLICATION = {
    8: "the GPU stopped processing",
    11: "an invalid or corrupted push buffer",
    13: "an exception in the graphics engine, often an index out of bounds",
    31: "a page fault in the GPU's memory, often an illegal address",
    43: "the GPU stopped processing",
    45: "cleaned up after an earlier error, or after the process was killed",
    68: "an exception in the video processor",
}
"""The fault of what ran, mostly. The GPU is well."""

RECORDED = {
    63: "a row of memory was remapped or a page retired",
    92: "many corrected memory errors",
    93: "the flash of the GPU is worn",
    94: "an uncorrected memory error, contained in one application",
}
"""The hardware's fault, noted or confined: the GPU goes on, and what ran on it may have been hit."""

CRITICAL = {
    48: "an uncorrected (double-bit) memory error",
    62: "the GPU's power controller halted",
    64: "a page of memory could not be retired or remapped",
    74: "an NVLink error",
    79: "the GPU has fallen off the bus",
    95: "an uncorrected memory error that was not contained",
    109: "a context switch timed out",
    119: "the GPU's system processor does not answer",
    120: "an error of the GPU's system processor",
    140: "an uncorrected ECC error",
}
"""The best known of the others, in words."""


def meaning_of(xid: int) -> str:
    """In words, for people."""
    return {**APPLICATION, **RECORDED, **CRITICAL}.get(xid, "see NVIDIA's XID catalogue")


def is_critical(xid: int, ignored: frozenset[int] = frozenset()) -> bool:
    """Whether the GPU must take no more work."""
    return xid not in APPLICATION and xid not in RECORDED and xid not in ignored
