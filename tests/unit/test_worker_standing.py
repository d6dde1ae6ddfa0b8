"""The line by which a worker says how it stands."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from tenure.worker.link import Contact
from tenure.worker.slots.states import SlotState
from tenure.worker.standing import readiness, standing


def link(*events: str) -> Any:
    """One whose contact has lived through these."""
    contact = Contact()
    for event in events:
        getattr(contact, event)()
    return SimpleNamespace(contact=contact)


def holdings(*states: SlotState, runs: int = 0, spooled: int = 0, is_open: bool = True) -> Any:
    slots = [SimpleNamespace(state=state) for state in states]
    return SimpleNamespace(slots=slots, runs=[None] * runs, spool=[None] * spooled, open=is_open)


@pytest.mark.parametrize(
    ("way", "held", "leaving", "text"),
    [
        (None, holdings(), False, "starting: importing the evaluator"),
        (link(), holdings(SlotState.FREE), False, "looks for a master, runs 0 in 1 slots"),
        (link("connected"), holdings(SlotState.RUNNING, SlotState.FREE, runs=1), False, "runs 1 in 2 slots"),
        (
            link("connected", "lost"),
            holdings(SlotState.RUNNING, runs=1, spooled=2),
            False,
            "no master for 0 s, what runs goes on, runs 1 in 1 slots, 2 outcomes not acknowledged yet",
        ),
        (
            link("connected"),
            holdings(SlotState.BROKEN, SlotState.CORDONED, SlotState.CORDONED),
            False,
            "runs 0 in 3 slots, 1 broken, 2 cordoned",
        ),
        (
            link("connected"),
            holdings(SlotState.FREE, is_open=False),
            False,
            "runs 0 in 1 slots, takes no tasks: cordoned",
        ),
        (
            link("connected"),
            holdings(SlotState.RUNNING, runs=1, is_open=False),
            True,
            "draining, runs 1 in 1 slots",
        ),
    ],
)
def test_it_says_what_it_does_and_what_keeps_it_from_more(way: Any, held: Any, leaving: bool, text: str) -> None:
    # How long the contact has been lost depends on when pytest made the parameters.
    assert re.sub(r"for \d+ s,", "for 0 s,", standing(way, held, leaving)) == text


@pytest.mark.parametrize(
    ("way", "states", "ready"),
    [
        (None, [SlotState.FREE], False),
        (link(), [SlotState.FREE], False),
        (link("connected"), [SlotState.STARTING, SlotState.BROKEN, SlotState.CORDONED], False),
        (link("connected"), [SlotState.BROKEN, SlotState.RUNNING], True),
        (link("connected", "lost"), [SlotState.FREE], False),
    ],
)
def test_it_is_ready_with_a_master_and_a_slot_that_works(way: Any, states: list[SlotState], ready: bool) -> None:
    assert readiness(way, holdings(*states))[0] is ready
