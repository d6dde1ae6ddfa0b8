"""``backup --list`` and ``backup --check``: what is there, and whether it is still good."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from safekeeping import folder
from safekeeping.console import Console, Exit, Failed, megabytes, span
from safekeeping.looks import merged
from safekeeping.textfile import write_textfile
from safekeeping.throwaway import Proof, check_memory, prove


def prove_node(
    at: Path, scratch: Path, arguments: argparse.Namespace, shards: int, console: Console, *, strict: bool = False
) -> Proof:
    """See prove; says how far it is."""
    return prove(
        at,
        scratch,
        arguments.key_prefix,
        shards,
        arguments.server_binary,
        lambda share: console.progress("loading", 100 * share, 100, "%"),
        strict=strict,
    )


def show_all(to: Path, console: Console) -> Exit:
    """``--list``."""
    backups, wrong = folder.backups_in(to)
    for backup in backups:
        age = span(time.time() - backup.moment_unix)
        tasks = sum(backup.facts["states"].values())
        verified = "verified" if backup.verified else "NOT VERIFIED"
        console.say(
            f"{backup.path.name}  {age:>9} old  {megabytes(backup.size_bytes):>12}  {tasks:>9} tasks  {verified}"
        )
    for line in wrong:
        console.say(f"note: {line}")
    if not backups:
        console.say(f"{to} holds no backups")
    console.document({"backups": [{"path": str(backup.path), **backup.facts} for backup in backups], "damaged": wrong})
    return Exit.NO if wrong or not any(backup.verified for backup in backups) else Exit.DONE


def check(arguments: argparse.Namespace, console: Console) -> Exit:
    """``--check``: also of a backup that nobody has verified yet."""
    backup = folder.choose(arguments.check)
    store = backup.facts["store"]
    arguments.key_prefix = store["prefix"]
    wrong = folder.damages(backup)
    if wrong:
        raise Failed("; ".join(wrong[:5]))
    for node in backup.facts["nodes"]:
        check_memory(node["memory_bytes"])
    looks, checked = [], 0
    with folder.scratch_for(backup) as scratch:
        for at in backup.folders:
            proof = prove_node(at, scratch, arguments, store["shards"], console, strict=backup.verified)
            looks.append(proof.look)
            checked += proof.tasks_checked
            wrong += proof.violations
    look, torn = merged(looks)
    wrong += torn
    if backup.verified and look.states() != backup.facts["states"]:
        wrong.append(f"it holds {look.states()} and should hold {backup.facts['states']}")
    facts = {**backup.facts, "verified": not wrong, "tasks_checked": checked, "violations": wrong}
    facts |= {"states": look.states(), "searches": look.searches()}
    if not arguments.dry_run:
        folder.write_facts(backup.path, facts)
        if arguments.textfile_dir is not None:
            backups = folder.backups_in(backup.path.parent)[0]
            write_textfile(arguments.textfile_dir, backups, ran_at_unix=time.time(), done=not wrong)
    console.say(
        f"{backup.path}: {checked} tasks checked, {'verified' if not wrong else 'NOT good: ' + '; '.join(wrong[:5])}"
    )
    console.document({"path": str(backup.path), **facts})
    return Exit.NO if wrong else Exit.DONE
