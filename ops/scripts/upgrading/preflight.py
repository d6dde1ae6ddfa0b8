"""What is looked at before an upgrade begins, and what is kept in case it goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from restarting.console import Console, command_line, known_violations
from restarting.master_target import LocalMaster
from restarting.processes import CannotRestart, Recipe

from tenure.client import Client
from tenure.master.store.keys import SCHEMA_VERSION
from upgrading.versions import Facts, facts_of

_BACKUP = Path(__file__).resolve().parents[1] / "backup"
# Part of every environment, or of none.
_NO_MATTER = {"pip", "setuptools", "wheel", "tenure"}


def look(
    client: Client,
    masters: Sequence[LocalMaster],
    facts: Facts | None,
    console: Console,
    *,
    accept_violations: bool = False,
) -> frozenset[str]:
    """Say which versions run, and see that nothing speaks against the new one.

    Args:
        client: Any master.
        masters: Those of this machine: what they run is compared with the new version.
        facts: Of the new version; None: nothing is known of it, or not yet.
        console: Told what was found.
        accept_violations: Go on with a store that fsck finds violations in.

    Returns:
        The violations: what must not be put down to the new version.

    Raises:
        CannotRestart: Something does.
        TenureError: No master answers.
    """
    versions = Counter(worker.version for worker in client.workers() if worker.status == "live")
    workers = ", ".join(f"{number} of {version or '?'}" for version, number in sorted(versions.items()))
    console.say(f"now: a master of version {client.stats().version}; workers: {workers or 'none'}")
    violations = known_violations(client, console, skip=False)
    if violations and not accept_violations:
        raise CannotRestart(
            f"the store has {len(violations)} violations already, see above; --accept-violations upgrades "
            "nevertheless, and then only new ones speak against the new version"
        )
    if not violations:
        console.say("fsck: no violations")
    if facts is None:
        return violations
    running = [old for master in masters if (old := _runs_from(master.recipe)) is not None]
    schema = running[0].schema if running else SCHEMA_VERSION
    if facts.schema != schema:
        raise CannotRestart(
            f"version {facts.version} reads stores of schema {facts.schema}, and this store has schema {schema}: "
            "it would refuse to start; CHANGELOG.md says how to get from one to the other"
        )
    console.say(f"version {facts.version} reads stores of schema {schema}, as the one that runs does")
    for old in running[:1]:
        missing = sorted(old.packages.keys() - facts.packages.keys() - _NO_MATTER)
        if missing:
            console.say(
                f"note: the new environment lacks {', '.join(missing)}; if your evaluators need them, stop here and "
                "give --also PACKAGE"
            )
    return violations


def _runs_from(recipe: Recipe) -> Facts | None:
    """What the environment of a running master says of itself; None if that can't be asked any more."""
    try:
        return facts_of(Path(recipe.argv[0]))
    except CannotRestart:
        return None


def backup_command(to: Path, masters: Sequence[LocalMaster], store: str | None) -> tuple[list[str], dict[str, str]]:
    """The command that copies the store of these masters, and variables for it; without masters of this machine, as
    our own environment says. The store's URL is none of its words: it may hold a password, and `ps` shows those."""
    command = [sys.executable, str(_BACKUP), "--to", str(to)]
    variables = {"TENURE_MASTER_STORE": store} if store else {}
    for master in masters[:1]:
        for name in ("store", "data-dir", "key-prefix"):
            variable = f"TENURE_MASTER_{name.upper().replace('-', '_')}"
            if not (value := master.recipe.option(name, variable)):
                continue
            if name == "store":
                variables.setdefault(variable, value)
            else:
                command += [f"--{name}", value]
    return command, variables


def back_up(command: Sequence[str], variables: Mapping[str, str], console: Console) -> None:
    """Copy the store; raises CannotRestart if there is no good copy in the end."""
    console.say(f"backing up: {command_line(command)}")
    try:
        # Its words are for people, whatever ours are for.
        status = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr, env={**os.environ, **variables}
        ).returncode
    except OSError as error:
        raise CannotRestart(f"can't run {command[0]}: {error.strerror}; --no-backup goes without") from None
    if status != 0:
        raise CannotRestart(f"the backup ended with status {status}; mend that, or give --no-backup")
