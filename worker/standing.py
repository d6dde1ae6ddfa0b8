"""How a worker stands: for ``/readyz``, and in a line for people (``systemctl status``)."""

from __future__ import annotations

from typing import Any

from tenure.worker.holdings import Holdings
from tenure.worker.link import Link


def readiness(link: Link | None, holdings: Holdings) -> tuple[bool, dict[str, Any]]:
    """For /readyz: a master has accepted this worker, and it has a slot that works."""
    up = link is not None and link.contact.up
    states = [slot.state.value for slot in holdings.slots]
    works = any(state not in ("broken", "starting", "cordoned") for state in states)
    details = {"session": up, "slots": states, "open": holdings.open, "spooled": len(holdings.spool)}
    return up and works, details


def standing(link: Link | None, holdings: Holdings, leaving: bool) -> str:
    """What it does, what keeps it from more, and what it still has to tell."""
    if link is None:
        return "starting: importing the evaluator"
    parts = ["draining"] if leaving else []
    if not link.contact.ever_up:
        parts.append("looks for a master")
    elif not link.contact.up:
        parts.append(f"no master for {link.contact.age_seconds():.0f} s, what runs goes on")
    parts.append(f"runs {len(holdings.runs)} in {len(holdings.slots)} slots")
    states = [slot.state.value for slot in holdings.slots]
    parts += [f"{states.count(state)} {state}" for state in ("broken", "cordoned", "starting") if state in states]
    if len(holdings.spool):
        parts.append(f"{len(holdings.spool)} outcomes not acknowledged yet")
    if not (leaving or holdings.open):
        parts.append("takes no tasks: cordoned")
    return ", ".join(parts)
