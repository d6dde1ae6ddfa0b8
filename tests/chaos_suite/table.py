"""The table at the end: each kind of fault, how often it struck, how long recovery took."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

from chaos_suite.recovery import Recovery


def fault_table(recoveries: Iterable[Recovery]) -> list[str]:
    """Its lines. Recoveries are counted only where something had to recover."""
    by_kind: dict[str, list[float | None]] = defaultdict(list)
    for recovery in recoveries:
        by_kind[recovery.kind].append(recovery.seconds)
    lines = [f"{'fault':<24} {'struck':>6} {'recovered':>9} {'median':>8} {'worst':>8}"]
    for kind, all_seconds in sorted(by_kind.items()):
        seconds = [each for each in all_seconds if each is not None]
        figures = f"{statistics.median(seconds):>6.2f} s {max(seconds):>6.2f} s" if seconds else f"{'–':>8} {'–':>8}"
        lines.append(f"{kind:<24} {len(all_seconds):>6} {len(seconds):>9} {figures}")
    lines.append(f"{'all':<24} {sum(len(each) for each in by_kind.values()):>6}")
    return lines
