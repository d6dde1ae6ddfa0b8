"""``disaster-drill``: brings a store up from a backup, apart from everything, and measures what that takes."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis
from scripting.console import add_output_options

from safekeeping import folder, making
from safekeeping.choosing import Choice, choose
from safekeeping.command_line import EXIT_CODES, add_store_options, seconds
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
from safekeeping.placing import stage
from safekeeping.scrubbing import scrub
from safekeeping.throwaway import ThrowawayServer, check_memory, serving
from safekeeping.transfer import transfer
from tenure.client import Client
from tenure.client.demo.processes import Process
from tenure.common.errors import TenureError
from tenure.common.states import TERMINAL, TaskState

_SCRIPTS = Path(__file__).resolve().parent.parent
_PREFIX = "tenure-drill-"
_START_SECONDS = 600.0
_TASK_SECONDS = 120.0
_STOP_SECONDS = 20.0
_SPARE_BYTES = 64 << 20
_ARCHITECTURE = {"nodes": [{"id": "out", "operation": "flatten"}], "edges": []}

_DESCRIPTION = """\
Prove that a disaster would be survived: take the newest verified backup (or make one), bring a throw-away master up
from it on loopback ports in a scratch directory, check it (fsck, tasks, a throw-away worker that evaluates one task),
say how long that took and how old the data are, and clean up. Production is neither asked nor touched: workers and
checkpoints that the copy names are taken out of it first, and its searches are paused.
"""
_EXAMPLES = """\
Examples:
    disaster-drill --from /backup/tenure
    disaster-drill --from /backup/tenure/tenure-20260131T040000Z
    disaster-drill --from /backup/tenure --rto-max 300 --rpo-max 90000    # exit code 1 if it takes or loses more
    disaster-drill --make --data-dir /var/lib/tenure/master               # of a backup made now
    disaster-drill --from /backup/tenure --dry-run

"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="disaster-drill",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    chosen = made.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--from", dest="backup", metavar="DIR", type=Path, help="a backup, or the folder of all")
    chosen.add_argument("--make", action="store_true", help="make one first, of the store that the options below name")
    add_store_options(made)
    made.add_argument("--scratch", metavar="DIR", type=Path, help="where the copy is brought up (default: $TMPDIR)")
    made.add_argument("--rto-max", metavar="S", type=seconds, help="seconds that recovery may take")
    made.add_argument("--rpo-max", metavar="S", type=seconds, help="seconds that the backup may be old")
    add_output_options(made)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    os.umask(0o077)
    arguments = parser().parse_args(argv)
    # The processes of a drill must know nothing of production's settings, nor of its collector of traces.
    for name in [name for name in os.environ if name.startswith(("TENURE_", "OTEL_"))]:
        del os.environ[name]
    return carry_out(_run, arguments)


def _run(arguments: argparse.Namespace, console: Console) -> Exit:
    parent = (arguments.scratch or Path(tempfile.gettempdir())).absolute()
    if not parent.is_dir():
        raise Misused(f"--scratch {parent} is no directory")
    if parent.is_relative_to(arguments.data_dir.absolute()):
        raise Refused(f"--scratch {parent} is in a master's data directory; give another place")
    if arguments.dry_run:
        return _tell_plan(arguments, parent, console)
    _clear_away(parent, console)
    with _scratch(parent) as scratch:
        choice = (
            Choice(_make(arguments, scratch)) if arguments.make else choose(arguments.backup, console.say, whole=True)
        )
        backup = choice.backup
        needed = 3 * backup.size_bytes + _SPARE_BYTES
        if shutil.disk_usage(scratch).free < needed:
            raise Refused(f"{parent} has not the {megabytes(needed)} free that the drill needs; give --scratch")
        check_memory(sum(int(node["memory_bytes"]) for node in backup.facts["nodes"]))
        drill = _Drill(arguments, console, backup, scratch, problems=list(choice.damaged))
        try:
            with choice.naming_another():
                drill.run()
        finally:
            drill.end()
        return drill.report(arguments)


def _tell_plan(arguments: argparse.Namespace, parent: Path, console: Console) -> Exit:
    if arguments.make:
        console.say(f"would make a backup of {arguments.store} {arguments.data_dir} in {parent}")
    else:
        backup = choose(arguments.backup, console.say, whole=True).backup
        age = span(time.time() - backup.moment_unix)
        console.say(f"would take {backup.path}: {megabytes(backup.size_bytes)}, {age} old")
    console.say(
        f"would bring a master and a worker up from it on loopback, in {parent}/{_PREFIX}…, and delete them again"
    )
    console.document({"dry_run": True})
    return Exit.DONE


def _make(arguments: argparse.Namespace, scratch: Path) -> Backup:
    words = ["--to", str(scratch / "backups"), "--store", arguments.store, "--data-dir", str(arguments.data_dir)]
    words += ["--key-prefix", arguments.key_prefix]
    if arguments.server_binary:
        words += ["--server-binary", arguments.server_binary]
    code = making.main(words + (["--output", "json"] if arguments.output == "json" else []))
    if code != Exit.DONE:
        raise Failed("no verified backup could be made, so there is nothing to drill with")
    return choose(scratch / "backups").backup


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    (scratch / "pid").write_text(str(os.getpid()))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _clear_away(parent: Path, console: Console) -> None:
    """What drills have left that were killed; their processes died with them."""
    for path in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            if path.stat().st_uid == os.geteuid() and not psutil.pid_exists(int((path / "pid").read_text())):
                shutil.rmtree(path)
                console.say(f"note: deleted {path}, which a drill that was killed had left")


@dataclass
class _Drill:
    """One drill.

    Attributes:
        seconds: What each step took.
        problems: What did not come out as it should.
    """

    arguments: argparse.Namespace
    console: Console
    backup: Backup
    scratch: Path
    seconds: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    tasks_checked: int = 0
    processes: list[Process] = field(default_factory=list)

    def run(self) -> None:
        """All steps."""
        data = self.scratch / "data"
        data.mkdir()
        self._step("copy, hashes checked", lambda: self._copy(data))
        self._step("(taking production's names out)", lambda: self._scrub(data / "store"))
        self._step("master up", lambda: self._start_master(data))
        with Client(self.processes[0].facts["grpc"], timeout_seconds=_TASK_SECONDS) as client:
            self._step("fsck and counts", lambda: self._check(client))
            for search in client.searches():
                client.search(search.name).pause()
            self._step("worker up, a task evaluated", lambda: self._evaluate(client))

    def end(self) -> None:
        """End the processes, the worker first."""
        deadline = time.monotonic() + _STOP_SECONDS
        for process in reversed(self.processes):
            process.stop(deadline)

    def _step(self, name: str, work: Any) -> None:
        self.console.say(f"{name} …")
        began = time.monotonic()
        try:
            work()
        except TenureError as error:
            # Of the drill's own master and worker; as exit codes, these would be read as said of production.
            raise Failed(f"the drill broke off at {name!r}: {error}") from error
        self.seconds[name] = round(time.monotonic() - began, 3)

    def _copy(self, data: Path) -> None:
        wrong = folder.damages(self.backup)
        if wrong:
            raise Damaged(f"the backup is damaged: {'; '.join(wrong[:5])}")
        nodes = self.backup.facts["nodes"]
        if len(nodes) == 1:
            stage(self.backup, nodes[0], data, "store", lambda _: None).rename(data / "store")
            return
        (data / "store").mkdir()
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(ThrowawayServer(data / "store", self.arguments.server_binary))
            servers: list[redis.Redis] = []
            for at in self.backup.folders:
                serve = serving(at, self.scratch, self.arguments.server_binary)
                servers.append(stack.enter_context(stack.enter_context(serve)[0].client()))
            transfer(servers, target.url, self.backup.facts["store"]["prefix"], lambda _: None)

    def _scrub(self, store: Path) -> None:
        with ThrowawayServer(store, self.arguments.server_binary) as server, server.client() as client:
            scrub(client, self.backup.facts["store"]["prefix"])

    def _start_master(self, data: Path) -> None:
        facts = self.backup.facts["store"]
        options = {
            "--listen": "127.0.0.1:0",
            "--http": "127.0.0.1:0",
            # Its port is production's, which may be restarting just now.
            "--console": "off",
            "--data-dir": str(data),
            "--store": "embedded",
            "--key-prefix": facts["prefix"],
            "--shards": str(facts["shards"]),
            # Nothing that is in the backup is to be deleted while it is counted.
            "--retention-days": "3650",
            "--retention-tasks": "1000000000",
        }
        self._start("master", ["master", *(part for option in options.items() for part in option)])

    def _start(self, name: str, words: list[str]) -> None:
        process = Process(name, [*words, "--traces", "off"], self.scratch, {})
        self.processes.append(process)
        process.wait_ready(_START_SECONDS)

    def _check(self, client: Client) -> None:
        report = client.fsck()
        self.tasks_checked = report.tasks_checked
        self.problems += [f"fsck: {violation}" for violation in report.violations]
        found, expected = client.stats().tasks, self.backup.facts["states"]
        if sum(found.values()) != sum(expected.values()):
            self.problems.append(f"{sum(found.values())} tasks are there, and the backup has {sum(expected.values())}")
        # What was LEASED, QUEUED or SCHEDULED moves between these as soon as a master runs.
        for state in TERMINAL:
            if found.get(state, 0) != expected.get(state.value, 0):
                self.problems.append(
                    f"{found.get(state, 0)} tasks are {state.value}, and {expected.get(state.value, 0)} in the backup"
                )
        names = {search.name for search in client.searches()}
        if names != set(self.backup.facts["searches"]):
            self.problems.append(f"searches differ: {sorted(names ^ set(self.backup.facts['searches']))[:10]}")

    def _evaluate(self, client: Client) -> None:
        name = f"{_PREFIX}{secrets.token_hex(4)}"
        search = client.search(name)
        handle = search.submit(_ARCHITECTURE, key="drill")
        options = {
            "--master": self.processes[0].facts["grpc"],
            "--worker-id": name,
            "--slots": "1",
            "--listen": "127.0.0.1:0",
            "--http": "127.0.0.1:0",
            "--work-dir": str(self.scratch / "worker"),
            "--checkpoints": (self.scratch / "checkpoints").as_uri(),
            "--evaluator": "safekeeping.drill_evaluator:evaluate",
            "--python-path": str(_SCRIPTS),
        }
        self._start("worker", ["worker", *(part for option in options.items() for part in option)])
        try:
            search.wait(_TASK_SECONDS)
        except TimeoutError:
            lines = self.processes[-1].log.read_text(errors="replace").splitlines()[-5:]
            raise Failed("the drill's task did not end; the worker's log ends with\n" + "\n".join(lines)) from None
        record = search.record(handle)
        if record.state is not TaskState.SUCCEEDED:
            self.problems.append(f"the drill's task ended {record.state.value}: {record.failure}")

    def report(self, arguments: argparse.Namespace) -> Exit:
        """Say how it went."""
        rto = sum(seconds for name, seconds in self.seconds.items() if not name.startswith("("))
        rpo = time.time() - self.backup.moment_unix
        if arguments.rto_max is not None and rto > arguments.rto_max:
            self.problems.append(f"recovery took {rto:.1f} s, more than --rto-max {arguments.rto_max:g}")
        if arguments.rpo_max is not None and rpo > arguments.rpo_max:
            self.problems.append(f"the backup is {rpo:.0f} s old, more than --rpo-max {arguments.rpo_max:g}")
        gap = _longest_gap(self.backup.path.parent)
        rows = [
            ("backup", f"{self.backup.path}, {megabytes(self.backup.size_bytes)}"),
            *((name, f"{seconds:.2f} s") for name, seconds in self.seconds.items()),
            ("recovery time (RTO)", f"{span(rto)}, from the backup's folder to a task evaluated, on this machine"),
            (
                "age of the data (RPO)",
                f"{span(rpo)}" + (f"; longest gap between two backups {span(gap)}" if gap else ""),
            ),
            ("tasks", f"{self.tasks_checked} checked by fsck"),
        ]
        self.console.pairs(rows)
        for problem in self.problems[:20]:
            self.console.say(f"PROBLEM: {problem}")
        self.console.say("the drill failed; see above" if self.problems else "passed: a disaster would be survived")
        facts = {"backup": str(self.backup.path), "rto_seconds": round(rto, 3), "rpo_seconds": round(rpo, 3)}
        facts |= {"steps": self.seconds, "tasks_checked": self.tasks_checked, "problems": self.problems}
        self.console.document(facts)
        return Exit.NO if self.problems else Exit.DONE


def _longest_gap(parent: Path) -> float:
    """Between two verified backups that follow one another; 0 with fewer than two."""
    moments = sorted(backup.moment_unix for backup in folder.backups_in(parent)[0] if backup.verified)
    return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)
