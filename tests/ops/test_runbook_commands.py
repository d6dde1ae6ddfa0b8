"""What the runbooks tell whoever was woken to type works: the commands, the scripts, the store's words, the units."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from cluster import Cluster
from command_line import CommandLine
from ops.pages import quoted
from safekeeping import bundling, drilling, making, restoring
from store_server import StoreServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "ops" / "runbooks").glob("*.md"))}
QUOTED = sorted({each for page in PAGES.values() for each in quoted(page)})
COMMANDS = [each for each in QUOTED if each.startswith("tenure ")]
PARSERS = {
    "backup": making.parser,
    "disaster-drill": drilling.parser,
    "restore": restoring.parser,
    "support-bundle": bundling.parser,
}
SCRIPTS = [each for each in QUOTED if re.match(r"ops/scripts/[\w-]+ ", each)]
# Of a server alone, and of one that is the primary of a cluster or behind sentinels.
STORE_WORDS = re.compile(r"(CONFIG (GET|SET)|INFO|SLOWLOG|LATENCY|BGREWRITEAOF|ACL|CLIENT)\b.*")
OF_MANY_SERVERS = {"SENTINEL masters", "CLUSTER INFO"}
# Read-only ones that every Linux has, with what is left open filled in.
SHELL = re.compile(r"(df|ls|cat|grep|du|ps) .*")
# Commands in which names in capitals are to be filled in.
FILLED_IN = re.compile(
    r"(tenure|time|curl|journalctl|systemctl|ls|du|grep|nvidia-smi|py-spy|kubectl|amtool) |ops/|DATA_DIR|-s |/"
)
# Last, since what comes behind them would find nothing left to do.
LATE = ("tenure searches cancel", "tenure tasks cancel", "tenure workers drain")


def order(command: str) -> tuple[int, str]:
    """By which commands are run: what undoes another comes behind it."""
    ranks = {"searches pause": 1, "searches resume": 2, "workers cordon": 1, "workers uncordon": 2, "dead requeue": 3}
    rank = next((rank for name, rank in ranks.items() if command.startswith(f"tenure {name}")), 0)
    return (9 if command.startswith(LATE) else rank, command)


async def test_every_command_works_on_a_cluster_where_things_went_wrong(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that is under way, a dead letter, a worker."""
    await cluster.add_worker("w1", slots=1)
    (dead,) = await cluster.submit("first", ["dead"], {"fate": "fatal"})
    await cluster.all_ended("first")
    (running,) = await cluster.submit("first", ["running"], {"gate": str(tmp_path / "gate")})
    await cluster.workers["w1"].journaled("gate", running)
    tenure = CommandLine(cluster.master.address, capsys, monkeypatch)
    assert len(COMMANDS) > 20
    for command in sorted(COMMANDS, key=order):
        task = dead if command.startswith(("tenure dead", "tenure tasks show", "tenure tasks requeue")) else running
        filled = re.sub(r"\bSEARCH\b", "first", re.sub(r"\bTASK\b", task, re.sub(r"\bWORKER\b", "w1", command)))
        yes = ["--yes"] if command.startswith("tenure dead requeue") and "--dry-run" not in command else []
        said = await asyncio.to_thread(tenure, *shlex.split(filled)[1:], *yes)
        assert said.code == 0, (command, said)
        assert said.out + said.err, f"{command} says nothing"


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_call_of_a_script_is_understood(command: str) -> None:
    path, *arguments = shlex.split(command)
    assert (ROOT / path).is_file()
    parser = PARSERS[Path(path).name]()
    if arguments == ["--help"]:
        assert parser.format_help()
    else:
        parser.parse_args(arguments)


def test_everything_below_ops_that_is_named_is_there() -> None:
    named = {each for each in QUOTED if re.fullmatch(r"ops/[\w./-]+", each.split()[0])}
    assert [each for each in sorted(named) if not (ROOT / each.split()[0]).exists()] == []


def test_every_unit_is_there() -> None:
    units = {path.name for path in (ROOT / "ops" / "systemd").glob("tenure-*")}
    calls = " ".join(each for each in QUOTED if each.startswith(("systemctl", "journalctl")))
    named = set(re.findall(r"\btenure-[a-z]+(?:@[A-Z*]+)?(?:\.\w+)?", calls))
    assert len(named) > 3
    for unit in named:
        file = re.sub(r"@[A-Z*]+", "@", unit)
        assert file in units or f"{file}.service" in units, unit


def test_the_store_understands_what_it_is_told(tmp_path: Path) -> None:
    server = StoreServer(tmp_path, **{"auto-aof-rewrite-percentage": "0"}).start()
    told = [each for each in QUOTED if STORE_WORDS.fullmatch(each)]
    assert len(told) > 5
    try:
        with server.client() as client:
            for words in told:
                command = shlex.split(words)
                if words == "CONFIG SET maxmemory":
                    command.append("1gb")
                client.execute_command(*command)
            assert client.config_get("auto-aof-rewrite-percentage") == {"auto-aof-rewrite-percentage": "100"}
    finally:
        server.remove()
    spoken = {each for each in QUOTED if re.fullmatch(r"[A-Z]{4,} [A-Za-z]+( .*)?", each)}
    assert spoken - set(told) - OF_MANY_SERVERS == set()


async def test_what_looks_at_the_machine_shows_something(cluster: Cluster, tmp_path: Path) -> None:
    """In the shell, as it stands there. What changes a machine, or not every machine has, isn't run."""
    worker = await cluster.add_worker("w1")
    looking = [each for each in QUOTED if SHELL.fullmatch(each) and shutil.which(each.split()[0])]
    assert len(looking) > 5
    for line in looking:
        filled = line.replace("PID", str(worker.pid)).replace("WORK_DIR", shlex.quote(str(worker.work_dir)))
        done = await asyncio.to_thread(subprocess.run, filled, shell=True, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), (line, done)
        assert done.stdout, f"{line} shows nothing"


def test_what_is_to_be_filled_in_is_explained() -> None:
    rows = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", PAGES["README"], re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    commands = [each for each in QUOTED if FILLED_IN.match(each)]
    used = {name for each in commands for name in re.findall(r"(?<![\w,])[A-Z]{2,}(?:_[A-Z]+)*(?![\w,])", each)}
    assert explained <= used
    # States of tasks.
    assert used - explained == {"FAILED", "LEASED"}
