"""``restore``: a backup in the place of a store, and what that changes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import pwd
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from scripting.console import add_output_options

from safekeeping import folder
from safekeeping.appendonly import FOLDER
from safekeeping.choosing import choose
from safekeeping.command_line import EXIT_CODES, add_server_option, check_writable
from safekeeping.comparison import Changes, Row, compare, read_rows
from safekeeping.console import (
    Console,
    Damaged,
    Exit,
    Failed,
    Misused,
    Refused,
    carry_out,
    megabytes,
    span,
)
from safekeeping.folder import Backup
from safekeeping.looks import look_at, merged
from safekeeping.occupants import occupant_of, user_of
from safekeeping.placing import and_aside, aside_of, clear_away, give_up, narrowed, place, stage, undo_of
from safekeeping.throwaway import Proof, check_memory, prove, serving
from safekeeping.transfer import check_empty, transfer
from tenure.common.directory_lock import DirectoryLock
from tenure.common.passwords import without_password
from tenure.master.store import StoreOptions, open_store

STORE = "store"
_SPARE_BYTES = 64 << 20
_COST = "what this costs, and who repairs what by itself: docs/operations.md#what-a-rollback-costs"

_DESCRIPTION = """\
Put a backup in the place of a store: of a master's data directory, of the files of a server that is stopped, or into a
server that runs and is empty. The backup is verified first (its hashes; a throw-away server and fsck), then compared
with what stands there. What stands there is moved aside, never deleted. Stop all masters first; workers may train on.
"""
_EXAMPLES = """\
Examples:
    restore /backup/tenure/tenure-20260131T040000Z --data-dir /var/lib/tenure/master --dry-run
    restore /backup/tenure --data-dir /var/lib/tenure/master      # the newest verified one
    restore /backup/tenure --into redis://new-store:6379/0        # a server that is empty
    restore /backup/tenure --into redis+cluster://n1,n2,n3        # the same, whatever the backup is of
    restore /backup/tenure --files-into /var/lib/valkey           # for a server that is stopped

"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="restore",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("backup", metavar="BACKUP", type=Path, help="a backup, or the folder that holds them")
    target = made.add_mutually_exclusive_group(required=True)
    target.add_argument("--data-dir", metavar="DIR", type=Path, help="of the master whose embedded store it becomes")
    target.add_argument(
        "--into", metavar="URL", help="a store that runs and holds nothing: server, Sentinel or cluster"
    )
    target.add_argument("--files-into", metavar="DIR", type=Path, help="`dir` of a server that is stopped")
    made.add_argument("--node", metavar="NAME", help="with --files-into, of a cluster's backup: node-0, node-1, …")
    made.add_argument(
        "--accept-violations", action="store_true", help="restore although fsck finds violations in the backup"
    )
    made.add_argument(
        "--skip-comparison", action="store_true", help="don't compare with what stands there (it reads every task)"
    )
    add_server_option(made)
    add_output_options(made)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    os.umask(0o077)
    return carry_out(_run, parser().parse_args(argv))


def _run(arguments: argparse.Namespace, console: Console) -> Exit:
    choice = choose(arguments.backup, console.say)
    backup = choice.backup
    age = span(time.time() - backup.moment_unix)
    console.say(f"{backup.path}: {megabytes(backup.size_bytes)}, of {backup.facts['store']['place']}, {age} old")
    restoring = _Restoring(arguments, console, backup)
    with choice.naming_another():
        if arguments.into is not None:
            return restoring.into_server(arguments.into)
        if arguments.files_into is not None:
            return restoring.into_files(arguments.files_into)
        return restoring.into_data_dir(arguments.data_dir)


@dataclass
class _Restoring:
    """One run."""

    arguments: argparse.Namespace
    console: Console
    backup: Backup
    handled_bytes: int = 0

    # ---- targets ------------------------------------------------------------------------------------------------

    def into_data_dir(self, data_dir: Path) -> Exit:
        """The embedded store of a master."""
        node = self._only_node("give --into the URL of a server; a master with --shards as many serves it there")
        if self.store["shards"] != 1:
            self.console.say(f"note: the master needs --shards {self.store['shards']} on this store")
        _check_target(data_dir, "--data-dir")
        if occupant := occupant_of(data_dir):
            raise Refused(f"{data_dir}: {occupant} runs on it; stop it first, and whatever would start it again")
        began = time.monotonic()
        if self.arguments.dry_run:
            proof = self._proof_of_backup()
            changes = self._compare(data_dir / STORE, proof.read)
            self.console.say(f"would put it at {data_dir / STORE}{and_aside(data_dir / STORE)}")
            return self._report(changes, {}, [])
        _make(data_dir, "--data-dir")
        with _held(data_dir):
            for line in clear_away(data_dir, STORE):
                self.console.say(f"note: {line}")
            changes, aside = self._replace(node, data_dir, STORE)
        undo = [undo_of(data_dir / STORE, aside)]
        with contextlib.ExitStack() as unproved:  # it is there, whatever becomes of the check
            unproved.callback(self._say_undo, undo)
            checked, violations = asyncio.run(_start_check(data_dir, self.store))
            self._judge(violations, data_dir / STORE)
            unproved.pop_all()
        self.console.say(f"a master's store starts on it: {checked} tasks checked by fsck")
        return self._report(changes, {"aside": str(aside or ""), "seconds": round(time.monotonic() - began, 3)}, undo)

    def into_files(self, target: Path) -> Exit:
        """The ``dir`` of a server that is stopped."""
        node = self._node()
        _check_target(target, "--files-into")
        if user := user_of(target):
            raise Refused(f"{target}: {user} works there; stop the server first, and whatever would start it again")
        if self.arguments.dry_run:
            self._proof_of_backup()
            self.console.say(f"would put {node['name']} at {target / FOLDER}{and_aside(target / FOLDER)}")
            return self._report(None, {}, [])
        _make(target, "--files-into")
        for line in clear_away(target, FOLDER):
            self.console.say(f"note: {line}")
        changes, aside = self._replace(node, target, FOLDER)
        self.console.say(
            f"start its server with --dir {shlex.quote(str(target.absolute()))} --appendonly yes --appendfsync always "
            "--maxmemory-policy noeviction, and with the default appenddirname and appendfilename"
        )
        return self._report(changes, {"aside": str(aside or "")}, [undo_of(target / FOLDER, aside)])

    def into_server(self, url: str) -> Exit:
        """A store that runs and is empty."""
        prefix, shown = self.store["prefix"], without_password(url)
        if told := check_empty(url, prefix, clear=not self.arguments.dry_run):
            self.console.say(f"note: {told}")
        self._check_hashes()
        with contextlib.ExitStack() as stack:
            servers: list[redis.Redis] = []
            proofs = []
            for at in self.backup.folders:
                scratch = stack.enter_context(folder.scratch_for(self.backup))
                proofs.append(self._prove(at, scratch))
                if not self.arguments.dry_run:
                    serve = serving(at, scratch, self.arguments.server_binary, strict=True)
                    servers.append(stack.enter_context(stack.enter_context(serve)[0].client()))
            self._judge([each for proof in proofs for each in proof.violations])
            if self.arguments.dry_run:
                self.console.say(f"would copy it into {shown}, which is empty")
                return self._report(None, {}, [])
            began = time.monotonic()
            copied = transfer(servers, url, prefix, lambda count: self.console.progress("copied", count, 0, "keys"))
        look, expected = look_at(url, prefix, self.store["shards"]), merged([proof.look for proof in proofs])[0]
        if look.states() != expected.states():
            raise Failed(f"{shown} holds {look.states()} and should hold {expected.states()}; empty it and try again")
        checked, violations = asyncio.run(_fsck(StoreOptions(url=url, prefix=prefix, shards=self.store["shards"])))
        self._judge(violations, shown)
        self.console.say(f"{copied} keys copied into {shown}, {checked} tasks checked there by fsck")
        self.console.say(f"start masters with --store {shown} --shards {self.store['shards']} --key-prefix {prefix}")
        return self._report(None, {"keys": copied, "seconds": round(time.monotonic() - began, 3)}, [])

    # ---- steps --------------------------------------------------------------------------------------------------

    @property
    def store(self) -> dict[str, Any]:
        """What the backup is of."""
        facts: dict[str, Any] = self.backup.facts["store"]
        return facts

    def _only_node(self, remedy: str) -> dict[str, Any]:
        nodes = self.backup.facts["nodes"]
        if len(nodes) > 1:
            raise Misused(f"{self.backup.path} is of a cluster with {len(nodes)} nodes: {remedy}")
        node: dict[str, Any] = nodes[0]
        return node

    def _node(self) -> dict[str, Any]:
        if self.arguments.node is None:
            return self._only_node("say which with --node, or give --into the URL of a cluster")
        for node in self.backup.facts["nodes"]:
            if node["name"] == self.arguments.node:
                found: dict[str, Any] = node
                return found
        raise Misused(f"{self.backup.path} has no {self.arguments.node}")

    def _replace(self, node: dict[str, Any], parent: Path, name: str) -> tuple[Changes | None, Path | None]:
        """(what changes, where the old is now). ``name``: the store's folder, or the append-only folder itself."""
        _check_space(parent, 2 * self.backup.size_bytes)
        telling = ("does not belong", "missing", "can't be read")
        wrong = [each for each in folder.damages(self.backup) if any(word in each for word in telling)]
        if wrong:
            raise Damaged(f"the backup is damaged: {'; '.join(wrong[:5])}; take another one")
        staging = stage(self.backup, node, parent, name, self._on_bytes)
        try:
            proof = self._prove(staging / FOLDER, staging)
            self._judge(proof.violations)
            target = parent / name
            changes = self._compare(target if name == STORE else parent, proof.read)
            if name == FOLDER:
                staging = narrowed(staging)
            aside = place(staging, target, aside_of(parent, name))
        finally:
            give_up(staging)
        return changes, aside

    def _proof_of_backup(self) -> Proof:
        self._check_hashes()
        with folder.scratch_for(self.backup) as scratch:
            proof = self._prove(self.backup.folders[0], scratch)
        self._judge(proof.violations)
        return proof

    def _check_hashes(self) -> None:
        if wrong := folder.damages(self.backup, self._on_bytes):
            raise Damaged(f"the backup is damaged: {'; '.join(wrong[:5])}; take another one")

    def _prove(self, at: Path, scratch: Path) -> Proof:
        check_memory(max(int(node["memory_bytes"]) for node in self.backup.facts["nodes"]))
        prefix, shards = self.store["prefix"], self.store["shards"]
        wanted = not self.arguments.skip_comparison and self._stands_there()
        proof = prove(
            at,
            scratch,
            prefix,
            shards,
            self.arguments.server_binary,
            lambda share: self.console.progress("loading", 100 * share, 100, "%"),
            strict=self.backup.verified,
            read=lambda url: read_rows(url, prefix, shards, self._on_rows) if wanted else {},
        )
        if (
            len(self.backup.folders) == 1
            and self.backup.verified
            and proof.look.states() != self.backup.facts["states"]
        ):
            raise Damaged(f"it holds {proof.look.states()} and should hold {self.backup.facts['states']}")
        return proof

    def _stands_there(self) -> bool:
        """Whether there is something to compare with."""
        if self.arguments.data_dir is not None:
            return bool((self.arguments.data_dir / STORE / FOLDER).is_dir())
        return self.arguments.files_into is not None and bool((self.arguments.files_into / FOLDER).is_dir())

    def _judge(self, violations: list[str], placed_at: Path | str = "") -> None:
        """Raises Refused if fsck found any and that isn't accepted; Failed, once it is in its place."""
        for violation in violations[:20]:
            self.console.say(f"violation: {violation}")
        if violations and not self.arguments.accept_violations:
            if placed_at:
                raise Failed(
                    f"fsck finds {len(violations)} violations in what is now at {placed_at}; undo it "
                    "(a server: empty it), or give --accept-violations if you want it none the less"
                )
            raise Refused(
                f"fsck finds {len(violations)} violations; give --accept-violations if you want it none the less"
            )

    def _compare(self, present: Path, rows: dict[str, Row]) -> Changes | None:
        if self.arguments.skip_comparison:
            return None
        if not (present / FOLDER).is_dir():
            self.console.say("nothing stands there, so there is nothing to compare with")
            return None
        prefix, shards = self.store["prefix"], self.store["shards"]
        try:
            with (
                tempfile.TemporaryDirectory(prefix=".view-", dir=present.parent) as scratch,
                serving(present / FOLDER, Path(scratch), self.arguments.server_binary) as (server, _),
            ):
                return compare(read_rows(server.url, prefix, shards, self._on_rows), rows)
        except Failed as error:
            self.console.say(f"what stands there can't be read, so there is nothing to compare with: {error}")
            return None

    def _report(self, changes: Changes | None, facts: dict[str, Any], undo: list[str]) -> Exit:
        if changes is not None:
            for line in changes.lines():
                self.console.say(line)
            if changes.foreign:
                self.console.say("CAREFUL: the two have no task in common; is this a backup of another store?")
        self.console.say(_COST)
        self._say_undo(undo)
        document = {"backup": str(self.backup.path), **facts, "undo": undo}
        self.console.document(document | ({"changes": changes.facts()} if changes is not None else {}))
        return Exit.DONE

    def _say_undo(self, undo: list[str]) -> None:
        for command in undo:
            self.console.say(f"to undo it, with no master running: {command}")

    def _on_bytes(self, count: int) -> None:
        self.handled_bytes += count
        self.console.progress("read", self.handled_bytes / 1e6, self.backup.size_bytes / 1e6)

    def _on_rows(self, count: int) -> None:
        self.console.progress("read", count, sum(self.backup.facts["states"].values()), "tasks")


@contextlib.contextmanager
def _held(data_dir: Path) -> Iterator[None]:
    """No master can start on it meanwhile."""
    lock = DirectoryLock(data_dir, "master.lock")
    try:
        if not lock.acquire():
            raise Refused(f"{data_dir}: a master has just been started on it")
        yield
    finally:
        lock.release()


def _check_target(target: Path, option: str) -> None:
    """It can be written; and files of another user would be of no use to the process that is to read them."""
    check_writable(target, option)
    if target.exists() and target.stat().st_uid != os.geteuid():
        owner = pwd.getpwuid(target.stat().st_uid).pw_name
        raise Refused(f"{target} belongs to {owner}: run this as that user, as in `sudo -u {owner} restore …`")


def _make(target: Path, option: str) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Refused(f"{option} {target}: it can't be made: {error.strerror}; give another folder") from None


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if free < needed + _SPARE_BYTES:
        raise Refused(f"{target} has {megabytes(free)} free and {megabytes(needed + _SPARE_BYTES)} are needed")


async def _start_check(data_dir: Path, store: dict[str, Any]) -> tuple[int, list[str]]:
    """Start the store as a master would, and check it."""
    return await _fsck(StoreOptions(data_dir=data_dir, prefix=store["prefix"], shards=store["shards"]))


async def _fsck(options: StoreOptions) -> tuple[int, list[str]]:
    store = await open_store(options)
    try:
        return await store.fsck.run()
    finally:
        await store.close()
