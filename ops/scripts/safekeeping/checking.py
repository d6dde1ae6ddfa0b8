"""``backup --list`` and ``backup --check``: what is there, and whether it is still good."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from safekeeping import folder
from safekeeping.choosing import choose
from safekeeping.console import Console, Damaged, Exit, megabytes, span
from safekeeping.folder import Backup, holds_backup
from safekeeping.looks import Look, merged
from safekeeping.textfile import write_textfile
from safekeeping.throwaway import Proof, check_memory, prove

_SHOWN_MAX = 5


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
        console.say(
            f"{backup.path.name}  {age:>9} old  {megabytes(backup.size_bytes):>12}  {tasks:>9} tasks  {backup.verdict}"
        )
    for line in wrong:
        console.say(f"note: {line}")
    if not backups:
        console.say(f"{to} holds no backups")
    found = [{"path": str(backup.path), **backup.facts} for backup in backups]
    console.document({"backups": found, "damaged": [str(each) for each in wrong]})
    return Exit.NO if wrong or not any(backup.verified for backup in backups) else Exit.DONE


def check(arguments: argparse.Namespace, console: Console) -> Exit:
    """``--check``: also of a backup that nobody has verified yet. What comes of it is noted in the backup."""
    at: Path = arguments.check
    choice, done = None, False
    try:
        choice = choose(at, console.say)
        done = _check(choice.backup, arguments, console) and not choice.damaged
    except Damaged as error:
        console.say(f"{at}: NOT good: {error}")
        console.document({"path": str(at), "verified": False, "violations": [str(error)]})
    finally:
        if (choice or holds_backup(at)) and arguments.textfile_dir is not None and not arguments.dry_run:
            kept_in = choice.backup.path.parent if choice else at.absolute().parent
            write_textfile(arguments.textfile_dir, kept_in, ran_at_unix=time.time(), done=done)
    return Exit.DONE if done else Exit.NO


def _check(backup: Backup, arguments: argparse.Namespace, console: Console) -> bool:
    """Whether it is good."""
    try:
        wrong = folder.damages(backup)
    except Damaged as error:
        wrong = [str(error)]
    noted: dict[str, Any] = {"verified": False, "violations": wrong}
    facts = backup.facts | (noted if wrong else _prove(backup, arguments, console))
    good = bool(facts["verified"])
    verdict = "verified" if good else f"NOT good: {'; '.join(facts['violations'][:_SHOWN_MAX])}"
    console.say(f"{backup.path}: {0 if wrong else facts['tasks_checked']} tasks checked, {verdict}")
    console.document({"path": str(backup.path), **facts})
    if not arguments.dry_run:
        folder.write_facts(backup.path, facts)
    return good


def _prove(backup: Backup, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """What a server that was started on it says, for the manifest."""
    store = backup.facts["store"]
    arguments.key_prefix = store["prefix"]
    for node in backup.facts["nodes"]:
        check_memory(node["memory_bytes"])
    looks: list[Look] = []
    wrong: list[str] = []
    checked = 0
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
    facts = {"verified": not wrong, "tasks_checked": checked, "violations": wrong}
    return facts | {"states": look.states(), "searches": look.searches()}
