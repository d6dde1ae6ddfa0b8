"""``support-bundle``: everything that a bug report needs, in one file, without secrets."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import socket
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from scripting.console import add_output_options

import tenure
from safekeeping import collectors_host as host
from safekeeping.collectors_broker import Broker, StoreServers, page
from safekeeping.command_line import EXIT_CODES, add_store_options, journal_span
from safekeeping.console import Console, Exit, Misused, Refused, carry_out, megabytes
from safekeeping.redaction import Redaction

_DESCRIPTION = """\
Collect what a bug report needs into one .tar.gz: versions, settings, metrics, health, tasks by state, workers, fsck,
the evidence of dead letters, the ends of logs, what the store's servers say, memory, disks, the kernel's words. It
works with the master or the store dead, and says what it could not get. Passwords, tokens and keys are taken out;
architectures and configs of tasks are not put in. Look through it before you send it: evaluators may print anything.
"""
_EXAMPLES = """\
Examples:
    support-bundle
    support-bundle --data-dir /var/lib/tenure/master --unit tenure-master --unit tenure-worker@gpu-7
    support-bundle --master a:50051,b:50051 --http a:9151 --http b:9151 --http gpu-7:9152
    support-bundle --store redis://store-1:6379/0 --log /var/log/tenure/master.log --since 2d
    support-bundle --dry-run                       # lists what would be collected

"""
_UNITS = ("tenure-master", "tenure-worker@*", "tenure-fsck", "tenure-backup")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="support-bundle",
        description=_DESCRIPTION,
        epilog=_EXAMPLES + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", metavar="FILE", type=Path, help="default: tenure-support-HOST-TIME.tar.gz, here")
    made.add_argument(
        "--master",
        metavar="H:P[,H:P…]",
        default=os.environ.get("TENURE_MASTER", "127.0.0.1:50051"),
        help="masters to ask (TENURE_MASTER; default: 127.0.0.1:50051)",
    )
    made.add_argument(
        "--http",
        metavar="H:P",
        action="append",
        default=[],
        help="HTTP endpoint of a master or worker; may be repeated (default: 127.0.0.1:9151 and :9152)",
    )
    add_store_options(made)
    made.add_argument("--log", metavar="FILE", type=Path, action="append", default=[], help="a log file; repeatable")
    made.add_argument("--unit", metavar="UNIT", action="append", default=[], help="a systemd unit; repeatable")
    made.add_argument(
        "--env-file", metavar="FILE", type=Path, action="append", default=[], help="default: /etc/tenure/*.env"
    )
    made.add_argument(
        "--since",
        metavar="SPAN",
        type=journal_span,
        default="24h",
        help="of journals, as in 2d or 90min (default: 24h)",
    )
    made.add_argument("--tasks", metavar="N", type=int, default=20, help="dead letters of each search (default: 20)")
    made.add_argument("--timeout", metavar="S", type=float, default=10.0, help="for each answer (default: 10)")
    made.add_argument("--max-mb", metavar="N", type=int, default=64, help="size before compression (default: 64)")
    add_output_options(made)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    os.umask(0o077)
    return carry_out(_run, parser().parse_args(argv))


@dataclass(frozen=True)
class Item:
    """One file of a bundle."""

    name: str
    collect: Callable[[], str]


def items_of(arguments: argparse.Namespace, redaction: Redaction, each_bytes_max: int) -> list[Item]:
    """What is collected, in order: first what teaches the redaction its values, then what is likely to matter most."""
    broker = Broker(arguments.master, arguments.timeout)
    store = StoreServers(arguments.store, arguments.data_dir)
    files = arguments.env_file or sorted(Path("/etc/tenure").glob("*.env"))
    units = arguments.unit or list(_UNITS)
    server_log = arguments.data_dir / "store" / "server.log"
    found = [
        Item("settings/environment.json", partial(host.environment, redaction)),
        Item("settings/processes.json", partial(host.processes, redaction)),
        *(Item(f"settings/{path.name}", partial(host.settings_file, path, redaction)) for path in files),
        Item("versions.json", host.versions),
        *(Item(f"broker/{what}.json", partial(broker.ask, what)) for what in ("stats", "searches", "workers", "fsck")),
        Item("broker/leased.json", partial(broker.ask, "leased", 1000)),
        Item("broker/dead-letters.json", partial(broker.ask, "dead_letters", arguments.tasks)),
    ]
    for address in arguments.http or ["127.0.0.1:9151", "127.0.0.1:9152"]:
        name = address.replace(":", "-")
        found += [
            Item(f"http/{name}/{path}.txt", partial(page, address, f"/{path}", arguments.timeout)) for path in _PAGES
        ]
    found += [Item(f"store/{what}.json", partial(store.ask, what)) for what in _STORE_QUESTIONS]
    found += [
        Item("store/files.txt", partial(host.listing, arguments.data_dir)),
        Item("store/server.log", partial(host.tail, server_log, each_bytes_max)),
        Item("system/system.json", partial(host.system, [arguments.data_dir, Path("/"), Path("/tmp")])),
        Item("system/kernel.txt", partial(host.kernel, arguments.since)),
        Item("system/nvidia-smi.txt", host.gpus),
    ]
    found += [
        Item(f"logs/{number}-{path.name}", partial(host.tail, path, each_bytes_max))
        for number, path in enumerate(arguments.log)
    ]
    return found + [
        Item(f"logs/{unit.replace('*', 'all')}.log", partial(host.journal, unit, arguments.since)) for unit in units
    ]


_PAGES = ("healthz", "readyz", "metrics")
_STORE_QUESTIONS = ("info", "config", "slowlog", "memory", "latency", "replication")


@dataclass
class _Bundle:
    """What has been collected, and what could not be."""

    left_bytes: int
    files: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def put(self, archive: tarfile.TarFile, name: str, text: str, each_bytes_max: int) -> None:
        """Add a file, or note that there is no room for it."""
        content = text.encode("utf-8", "replace")
        whole = len(content)
        if whole > each_bytes_max:
            # Of what is too long the end is worth more: it is what happened last.
            content = f"… {whole - each_bytes_max} bytes left out\n".encode() + content[-each_bytes_max:]
        if len(content) > self.left_bytes:
            self.missing[name] = "left out: --max-mb is reached"
            return
        self.left_bytes -= len(content)
        entry = tarfile.TarInfo(f"tenure-support/{name}")
        entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
        archive.addfile(entry, io.BytesIO(content))
        facts = {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.files.append(facts | ({"cut_from_bytes": whole} if whole > each_bytes_max else {}))


def _run(arguments: argparse.Namespace, console: Console) -> Exit:
    if arguments.max_mb < 1 or arguments.tasks < 0 or arguments.timeout <= 0:
        raise Misused("--max-mb must be at least 1, --tasks at least 0, --timeout above 0")
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    out = arguments.out or Path(f"tenure-support-{socket.gethostname()}-{stamp}.tar.gz")
    _check_out(out)
    redaction = Redaction()
    redaction.learn({"store": arguments.store})
    bytes_max = arguments.max_mb << 20
    each_bytes_max = bytes_max // 8
    items = items_of(arguments, redaction, each_bytes_max)
    if arguments.dry_run:
        console.say(f"would write {out}, at most {arguments.max_mb} MB before compression, with")
        for item in items:
            console.say(f"  {item.name}")
        console.document({"out": str(out), "items": [item.name for item in items]})
        return Exit.DONE
    bundle = _Bundle(bytes_max)
    texts: dict[str, str] = {}
    for number, item in enumerate(items):
        console.progress("collected", number, len(items), "parts")
        try:
            texts[item.name] = item.collect()
        except Exception as error:  # noqa: BLE001 - whatever is broken is why somebody wants this
            bundle.missing[item.name] = redaction(f"{type(error).__name__}: {error}")
    new = out.with_name(f"{out.name}.partial")
    try:
        with tarfile.open(new, "w:gz") as archive:
            # Only now: the last part may have taught what must not stand in the first.
            for name, text in texts.items():
                bundle.put(archive, name, redaction(text), each_bytes_max)
            facts = _facts(bundle)
            bundle.left_bytes = bytes_max
            bundle.put(archive, "manifest.json", json.dumps(facts, indent=1), bytes_max)
        os.replace(new, out)
    finally:
        new.unlink(missing_ok=True)
    _report(out, bundle, console)
    console.document({"out": str(out), **facts})
    return Exit.DONE


def _check_out(out: Path) -> None:
    """Before minutes are spent on what couldn't be written."""
    if not out.absolute().parent.is_dir():
        raise Misused(f"--out {out}: {out.absolute().parent} is no directory")
    if out.is_dir():
        raise Misused(f"--out {out} is a directory; give the name of a file in it, as in {out / 'bundle.tar.gz'}")
    if out.exists():
        raise Refused(f"--out {out} is there already, and nothing is written over: give another name, or remove it")
    if not os.access(out.absolute().parent, os.W_OK | os.X_OK):
        raise Refused(f"--out {out}: {out.absolute().parent} can't be written by this user; give another --out")


def _facts(bundle: _Bundle) -> dict[str, Any]:
    return {
        "tenure": tenure.__version__,
        "made_unix": time.time(),
        "host": socket.gethostname(),
        "files": list(bundle.files),
        "missing": bundle.missing,
    }


def _report(out: Path, bundle: _Bundle, console: Console) -> None:
    console.say(f"{out}: {len(bundle.files)} files, {megabytes(out.stat().st_size)}")
    for name, why in bundle.missing.items():
        console.say(f"  not in it: {name}: {why.splitlines()[0][:160]}")
    console.say("secrets are taken out as far as they could be recognised; look through it before you send it")
