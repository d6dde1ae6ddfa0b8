"""``make mutants``: breaks the Lua scripts in known ways, one at a time, and sees whether the tests notice.

Each mutant meets the stateful machine first, for a number of examples; one that survives that meets the contract tests
of the store. Exit code 1 when any survives both, or no longer fits the scripts.

Examples:
  make mutants                                   # all of them: half an hour on two idle cores
  make mutants ARGS="--examples 100 --only cap"  # those with `cap` in their name
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import hypothesis
import structlog
from hypothesis.stateful import run_state_machine_as_test
from stateful.machine import StoreMachine
from stateful.mutations import MUTATIONS, Mutation
from store_server import StoreServer

from tenure.master.store import scripts

LUA = Path(scripts.__file__).parent / "lua"
ROOT = Path(__file__).parent.parent.parent
FOLDER_VARIABLE = "TENURE_MUTATED_LUA"
# What lasts as long as a session of pytest; forgotten, it would end at once.
_session = contextlib.ExitStack()


@contextmanager
def scripts_from(folder: Path) -> Iterator[None]:
    """Stores that are opened inside run the scripts of this folder."""
    names = sorted(path.name for path in folder.glob("*.lua"))
    loaded = {name[:-4]: scripts._assemble(folder, name) for name in names}
    with mock.patch("tenure.master.store.pipeline.load_scripts", return_value=loaded):
        yield


def pytest_configure() -> None:
    """As a plugin of pytest: all tests of the session run the mutated scripts."""
    _session.enter_context(scripts_from(Path(os.environ[FOLDER_VARIABLE])))


def machine_notices(server: StoreServer, examples: int) -> str:
    """What the stateful machine says of the scripts that are loaded; empty when it finds nothing."""

    class Machine(StoreMachine):
        pass

    Machine.server = server
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        phases=[hypothesis.Phase.generate],
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run_state_machine_as_test(Machine, settings=settings)
    except Exception as error:  # noqa: BLE001 - whatever a broken script leads to, it was noticed
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def contract_tests_notice(folder: Path) -> str:
    """The first contract test that fails with the scripts of this folder; empty when none does."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "--no-header", "-p", "stateful.mutants"]
    environment = {**os.environ, FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(ROOT / "tests")}
    told = subprocess.run(
        [*command, "tests/contract/store"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    failed = [line for line in told.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0] if told.returncode else ""


def examine(mutation: Mutation, server: StoreServer, examples: int, contract: bool) -> str:
    """How a mutant was noticed; empty when it survived.

    Raises:
        ValueError: It no longer fits the scripts.
    """
    with tempfile.TemporaryDirectory(prefix="tenure-mutant-") as scratch:
        folder = Path(scratch) / "lua"
        shutil.copytree(LUA, folder)
        mutation.apply(folder)
        with scripts_from(folder):
            noticed = machine_notices(server, examples)
        return noticed or (contract_tests_notice(folder) if contract else "")


def main() -> None:
    """Parse, try all, count."""
    parser = argparse.ArgumentParser(
        prog="make mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=150, help="of the stateful machine for each (%(default)s)")
    parser.add_argument("--only", default="", help="those with this text in their name")
    parser.add_argument("--no-contract", action="store_true", help="spare survivors the contract tests")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if not options.no_contract and (failed := contract_tests_notice(LUA)):
        parser.error(f"the contract tests fail with the scripts as they are: {failed}")
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="tenure-mutants-") as scratch:
        server = StoreServer(Path(scratch), appendonly="no").start()
        try:
            for mutation in chosen:
                started = time.monotonic()
                try:
                    noticed = examine(mutation, server, options.examples, not options.no_contract)
                except ValueError as error:
                    noticed, word = str(error), "DOESN'T FIT"
                else:
                    word = "killed" if noticed else "SURVIVED"
                bad += word != "killed"
                seconds = time.monotonic() - started
                sys.stdout.write(f"{word:<12} {seconds:6.1f} s  {mutation.name:<42} {noticed[:90]}\n")
                sys.stdout.flush()
        finally:
            server.remove()
    sys.stdout.write(f"{len(chosen)} mutants, {len(chosen) - bad} killed\n")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
