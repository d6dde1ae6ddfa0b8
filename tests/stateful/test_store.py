"""The real store against the model, for any sequence of requests.

Longer than in CI: ``TENURE_STATEFUL_EXAMPLES=2000 pytest tests/stateful --timeout 0``. Hypothesis replays a failure.
"""

from __future__ import annotations

import os

import hypothesis
from hypothesis.stateful import run_state_machine_as_test
from stateful.machine import StoreMachine
from store_server import StoreServer

EXAMPLES = int(os.environ.get("TENURE_STATEFUL_EXAMPLES", "50"))
STEPS = int(os.environ.get("TENURE_STATEFUL_STEPS", "50"))


def test_the_store_does_what_the_model_says(store_server: StoreServer) -> None:
    class Machine(StoreMachine):
        server = store_server

    run_state_machine_as_test(
        Machine,
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
