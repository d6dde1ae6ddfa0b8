"""``backup``: a verified copy of a store whose masters run on."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripting.console import add_output_options

import tenure
from safekeeping import folder
from safekeeping.appendonly import FOLDER, Moment, opened, write_copy
from safekeeping.checking import check, prove_node, show_all
from safekeeping.command_line import EXIT_CODES, add_store_options, check_writable, count, store_of
from safekeeping.console import (
    Console,
    Exit,
    Failed,
    Misused,
    Refused,
    carry_out,
    is_no_room,
    megabytes,
)
from safekeeping.folder import Backup
from safekeeping.looks import Look, between, look_at, merged, shards_of
from safekeeping.probe import Probe
from safekeeping.replication import write_snapshot
from safekeeping.servers import EMBEDDED, METHODS, Server, Source, source
from safekeeping.textfile import write_textfile
from safekeeping.throwaway import Proof, check_memory

KEEP_DEFAULT = 14
_SPARE_BYTES = 64 << 20
# A disk that was full in the middle of a write may make one copy useless, not three in a row.
_TRIES = 3

_DESCRIPTION = """\
Copy a store while masters serve and searches run. The copy is of one moment of each server. It is verified: a
throw-away server is started on it, fsck proves it, and its counts are compared with looks at the store just before
and after. No setting of the store is changed, so this may be killed at any moment.
"""
_EXAMPLES = """\
Examples:
    backup --to /backup/tenure                          # the embedded store of this user's master
    backup --data-dir /var/lib/tenure/master --to /backup/tenure --keep 14
    backup --store redis://store-1:6379/0 --to /backup/tenure
    backup --store redis+sentinel://s1,s2,s3/tenure --to /backup/tenure    # from a replica, if one has everything
    backup --to /backup/tenure --textfile-dir /var/lib/node_exporter/textfile
    backup --to /backup/tenure --dry-run
    backup --list --to /backup/tenure
    backup --check /backup/tenure/tenure-20260131T040000Z

"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="backup",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_store_options(made)
    made.add_argument("--to", metavar="DIR", type=Path, help="folder that holds the backups; made if need be")
    made.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="files: copy the append-only folder; replication: have the server send a snapshot (default: files where "
        "they can be read, else replication)",
    )
    made.add_argument(
        "--keep",
        metavar="N",
        type=count,
        default=KEEP_DEFAULT,
        help=f"delete what is older than the newest N verified backups; 0 keeps all (default: {KEEP_DEFAULT})",
    )
    made.add_argument("--textfile-dir", metavar="DIR", type=Path, help="write metrics for node_exporter there")
    made.add_argument("--skip-verify", action="store_true", help="only copy; --check verifies it later, or elsewhere")
    made.add_argument("--check", metavar="BACKUP", type=Path, help="verify this backup and note that down in it")
    made.add_argument("--list", action="store_true", help="show the backups in --to")
    add_output_options(made)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    os.umask(0o077)
    return carry_out(_run, parser().parse_args(argv))


def _run(arguments: argparse.Namespace, console: Console) -> Exit:
    if arguments.textfile_dir is not None and not os.access(arguments.textfile_dir, os.W_OK):
        what = "can't be written" if arguments.textfile_dir.exists() else "does not exist"
        raise Misused(f"--textfile-dir {arguments.textfile_dir} {what}; give the folder that node_exporter reads")
    if arguments.check is not None:
        return check(arguments, console)
    if arguments.to is None:
        raise Misused("say where to: --to DIR")
    if arguments.list:
        return show_all(arguments.to, console)
    _check_target(arguments)
    done = False
    try:
        with source(*store_of(arguments), arguments.method) as store:
            shards = shards_of(store.url, arguments.key_prefix)
            if not shards:
                raise Refused(f"{store.place} holds no Tenure under the prefix {arguments.key_prefix!r}")
            for server in store.servers:
                if server.folder is not None:
                    _check_apart(arguments.to, server.folder.parent)
            if arguments.dry_run:
                _check_space(store, _existing(arguments.to))
                return _tell_plan(arguments, store, console)
            with folder.held(arguments.to):
                # What killed runs had left is gone now.
                _check_space(store, arguments.to)
                backup = _Making(arguments, console, store, shards).make()
                done = backup.verified or arguments.skip_verify
                for old in folder.surplus(arguments.to, arguments.keep):
                    folder.delete(old)
                    console.say(f"deleted {old.path.name}: --keep {arguments.keep}")
                for line in folder.backups_in(arguments.to)[1]:
                    console.say(f"note: {line}")
        console.document({"path": str(backup.path), **backup.facts})
        return Exit.DONE if done else Exit.NO
    finally:
        if arguments.textfile_dir is not None and not arguments.dry_run:
            write_textfile(arguments.textfile_dir, arguments.to, ran_at_unix=time.time(), done=done)


def _check_target(arguments: argparse.Namespace) -> None:
    to: Path = arguments.to
    check_writable(to, "--to")
    if (to / "master.lock").exists() or (to / "store" / FOLDER).is_dir():
        raise Refused(f"--to {to} is a master's data directory: give a folder that holds backups, or a new one")
    if arguments.store == EMBEDDED:
        _check_apart(to, arguments.data_dir)


def _check_apart(to: Path, data: Path) -> None:
    """Who deletes or overwrites the store's folder would take the backups along."""
    if to.resolve().is_relative_to(data.resolve()):
        raise Refused(f"--to {to} is inside {data}, which it is to be a backup of: give a folder apart from it")


def _existing(path: Path) -> Path:
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())


def _check_space(store: Source, target: Path) -> None:
    # The copy, and a second one of its last increment while it is verified.
    needed, free = 2 * store.size_bytes + _SPARE_BYTES, shutil.disk_usage(target).free
    if free < needed:
        raise Refused(
            f"{target} has {megabytes(free)} free and a backup of {store.place} needs up to {megabytes(needed)} for a "
            "moment: make room, keep fewer, or give another --to"
        )


def _tell_plan(arguments: argparse.Namespace, store: Source, console: Console) -> Exit:
    console.say(f"would copy {store.kind} store {store.place}, about {megabytes(store.size_bytes)}, to {arguments.to}")
    for server in store.servers:
        console.say(f"  {server.name}: {server.place}, by {server.method}")
    memory = sum(server.memory_bytes for server in store.servers)
    console.say("would not verify it" if arguments.skip_verify else f"would verify it in {megabytes(memory)} of memory")
    backups, wrong = folder.backups_in(arguments.to)
    console.say(f"{arguments.to} holds {len(backups)} backups, --keep is {arguments.keep}")
    for line in wrong:
        console.say(f"note: {line}")
    console.document({"store": store.place, "bytes": store.size_bytes, "backups": len(backups)})
    return Exit.DONE


@dataclass
class _Taken:
    """What was copied of one server."""

    server: Server
    moment_unix: float
    digests: dict[str, str]
    at: Path


@dataclass
class _Making:
    """One run."""

    arguments: argparse.Namespace
    console: Console
    store: Source
    shards: int
    copied_bytes: int = 0
    began: float = field(default_factory=time.monotonic)

    def make(self) -> Backup:
        """The backup, complete and on the disk.

        Raises:
            Failed: No server can load what was copied.
            Refused: There is no room for it.
        """
        for attempt in range(1, _TRIES + 1):
            partial = folder.begin(self.arguments.to)
            try:
                return self._make(partial)
            except Failed as error:
                if attempt == _TRIES:
                    raise
                self.console.say(f"note: copying once more: {error}")
            except OSError as error:
                if not is_no_room(error):
                    raise
                raise Refused(
                    f"--to {self.arguments.to} is full ({error.strerror}, after {megabytes(self.copied_bytes)} of "
                    f"about {megabytes(self.store.size_bytes)}): make room, keep fewer, or give another --to"
                ) from None
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        raise AssertionError("unreachable")

    def _make(self, partial: Path) -> Backup:
        before = self._look()
        self.copied_bytes = 0
        with Probe([server.client for server in self.store.servers]) as probe:
            taken, after = self._copy(partial)
        copy_seconds = time.monotonic() - self.began
        if self.arguments.skip_verify:
            look, checked, wrong = after, 0, ["it was not verified (--skip-verify)"]
        else:
            look, checked, wrong = self._verify(partial, taken, before, after)
        facts = {
            "tenure": tenure.__version__,
            "host": socket.gethostname(),
            "store": {
                "kind": self.store.kind,
                "place": self.store.place,
                "prefix": self.arguments.key_prefix,
                "shards": self.shards,
            },
            "nodes": [_node_facts(each) for each in taken],
            "states": look.states(),
            "searches": look.searches(),
            "seconds": {"copy": round(copy_seconds, 3), "all": round(time.monotonic() - self.began, 3)},
            "held_up_seconds": round(probe.longest_seconds, 4),
            "verified": not wrong,
            "tasks_checked": checked,
            "violations": wrong,
        }
        moment = min(each.moment_unix for each in taken)
        backup = folder.read(folder.finish(partial, facts, moment))
        self._report(backup)
        return backup

    def _look(self) -> Look:
        return look_at(self.store.url, self.arguments.key_prefix, self.shards)

    def _copy(self, partial: Path) -> tuple[list[_Taken], Look]:
        """Each server's copy, and a look at the store behind the last of them."""
        taken: list[_Taken] = []
        after: Look | None = None
        for server in self.store.servers:
            at = partial / server.name / FOLDER
            at.parent.mkdir()
            server.wait_until_written()
            if server.folder is None:
                digests, moment = write_snapshot(server.client, at, self._on_bytes)
                taken.append(_Taken(server, moment, digests, at))
                continue
            with opened(server.folder, server.manifest) as files:
                if len(self.store.servers) == 1:
                    # What belongs to the copy is settled; so the look need not wait until it is copied.
                    after = self._look()
                taken.append(self._write(server, files, at))
        return taken, after or self._look()

    def _write(self, server: Server, files: Moment, at: Path) -> _Taken:
        return _Taken(server, files.at_unix, write_copy(files, at, self._on_bytes), at)

    def _on_bytes(self, count: int) -> None:
        self.copied_bytes += count
        self.console.progress("copied", self.copied_bytes / 1e6, self.store.size_bytes / 1e6)

    def _verify(self, partial: Path, taken: list[_Taken], before: Look, after: Look) -> tuple[Look, int, list[str]]:
        """(what it holds, tasks checked, what is wrong)."""
        looks, checked, wrong = [], 0, []
        for each in taken:
            check_memory(each.server.memory_bytes)
            proof = prove_node(each.at, partial, self.arguments, self.shards, self.console)
            _cut(each, proof)
            looks.append(proof.look)
            checked += proof.tasks_checked
            wrong += proof.violations
        look, torn = merged(looks)
        return look, checked, wrong + torn + between(before, look, after)

    def _report(self, backup: Backup) -> None:
        facts = backup.facts
        states = ", ".join(f"{number} {state}" for state, number in facts["states"].items() if number) or "no tasks"
        rate = backup.size_bytes / 1e6 / max(facts["seconds"]["copy"], 1e-3)
        verified = f"yes: loaded, {facts['tasks_checked']} tasks checked by fsck, counts as they were then"
        self.console.pairs(
            [
                ("backup", str(backup.path)),
                ("of", f"{self.store.kind} store {self.store.place}"),
                ("bytes", f"{backup.size_bytes} ({megabytes(backup.size_bytes)})"),
                ("tasks", states),
                (
                    "seconds",
                    f"{facts['seconds']['copy']:.2f} to copy ({rate:,.0f} MB/s), {facts['seconds']['all']:.2f} in all",
                ),
                ("store held up", f"{facts['held_up_seconds'] * 1000:.0f} ms at most"),
                ("verified", verified if backup.verified else f"NO: {'; '.join(facts['violations'][:5])}"),
            ]
        )


def _cut(taken: _Taken, proof: Proof) -> None:
    """Leave out of the copy what was only half written when it was made, and so was never acknowledged."""
    increments = [name for name in taken.digests if name.endswith(".incr.aof")]
    if proof.size_bytes < 0 or not increments:
        return
    last = taken.at / increments[-1]
    if proof.size_bytes < last.stat().st_size:
        with open(last, "r+b") as file:
            file.truncate(proof.size_bytes)
            os.fsync(file.fileno())
        taken.digests[increments[-1]] = folder.digest_of(last)


def _node_facts(taken: _Taken) -> dict[str, Any]:
    files = [
        {"path": f"{FOLDER}/{name}", "bytes": (taken.at / name).stat().st_size, "sha256": digest}
        for name, digest in taken.digests.items()
    ]
    server: Any = taken.server.client.info("server")
    return {
        "name": taken.server.name,
        "place": taken.server.place,
        "method": taken.server.method,
        "moment_unix": taken.moment_unix,
        "memory_bytes": taken.server.memory_bytes,
        "server": f"{server.get('server_name', 'redis')} {server.get('valkey_version', server.get('redis_version'))}",
        "files": files,
    }
