"""What somebody else supervises is restarted, upgraded and taken back by their commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from ops_scripts import KEPT, USAGE, Scripts, pid_of
from processes import MasterProcess
from rolling_scene import Fleet, SearchProgram, Supervisor
from worker_process import WorkerProcess

from tenure import __version__

ROLLED_BACK = 9
# As `systemctl restart`: returns when another process has written the ready file.
RESTART = """\
old=$(cat "$1"); kill "$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/' "$1")"
for _ in $(seq 600); do
    if [ -e "$1" ] && [ "$(cat "$1")" != "$old" ]; then exit 0; fi
    sleep 0.1
done
exit 1
"""


@pytest.fixture
async def supervised(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A master and two workers on which somebody keeps an eye, and ``restart``, by which they are restarted."""
    (tmp_path / "restart").write_text(RESTART)
    fleet = await Fleet(tmp_path).start(masters=1, workers=2)
    with contextlib.ExitStack() as held:
        held.enter_context(_keeping_up(fleet.masters[0]))
        watches = [asyncio.create_task(_keep_up(worker, fleet.addresses)) for worker in fleet.workers]
        yield fleet
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    await fleet.destroy()


@contextlib.contextmanager
def _keeping_up(master: MasterProcess) -> Iterator[None]:
    supervisor = Supervisor(master.restart, lambda: master._process)
    yield
    supervisor.stop()


async def _keep_up(worker: WorkerProcess, masters: str) -> None:
    while True:
        await worker.wait(600)
        await worker.start(masters)


def options(fleet: Fleet) -> tuple[str | Path, ...]:
    """Targets and commands; a master is known by its address, a worker by its id."""
    (fleet.root / f"{fleet.addresses}.ready").unlink(missing_ok=True)
    (fleet.root / f"{fleet.addresses}.ready").symlink_to(fleet.masters_ready[0])
    return (
        *("--master", fleet.addresses, "--masters-via", f"sh {fleet.root}/restart {fleet.root}/{{address}}.ready"),
        *("--workers-via", f"sh {fleet.root}/restart {fleet.root}/{{worker}}.ready"),
        *("--state-dir", fleet.root / "state", "--output", "json"),
    )


@pytest.mark.slow
async def test_a_service_is_restarted_by_its_command(supervised: Fleet, scripts: Scripts) -> None:
    program = SearchProgram(supervised.addresses, parallelism=3).start()
    before = [pid_of(path) for path in supervised.ready_files]
    said = await scripts("rolling-restart", *options(supervised), "--max-unavailable", "2")
    assert said.code == KEPT, (said.out, said.err)
    assert said.report["steps"] == [f"master {supervised.addresses}", "workers w1, w2"]
    assert not set(before) & {pid_of(path) for path in supervised.ready_files}
    records = await program.finish()
    assert program.errors == []
    assert {(record.state, record.attempts, record.losses) for record in records.values()} == {("SUCCEEDED", 0, 0)}


@pytest.mark.slow
async def test_images_are_upgraded_and_taken_back_by_commands(supervised: Fleet, scripts: Scripts) -> None:
    tag = supervised.root / "tag"
    commands = ("--to-command", f"sh -c 'echo new > {tag}'", "--back-command", f"sh -c 'echo old > {tag}'")
    given = (*options(supervised), "--no-backup", *commands)
    before = [pid_of(path) for path in supervised.ready_files]

    said = await scripts("upgrade", *given, "--dry-run")
    assert said.code == KEPT, (said.out, said.err)
    assert not tag.exists()

    # What comes up isn't what was meant: the first is taken back, the others stay.
    said = await scripts("upgrade", *given, "--expect-version", "9.9")
    assert said.code == ROLLED_BACK, (said.out, said.err)
    assert f"came up with version {__version__}, not 9.9" in said.report["why"]
    assert tag.read_text() == "old\n"
    assert pid_of(supervised.ready_files[0]) != before[0]
    assert [pid_of(path) for path in supervised.workers_ready] == before[1:]

    said = await scripts("upgrade", *given)
    assert said.code == KEPT, (said.out, said.err)
    assert tag.read_text() == "new\n"
    assert not set(before) & {pid_of(path) for path in supervised.ready_files}
    assert json.loads(supervised.masters_ready[0].read_text())["grpc"] == supervised.addresses

    said = await scripts("upgrade", "--to-command", "true", *options(supervised), "--no-backup")
    assert said.code == USAGE
    assert "--to-command needs --back-command" in said.err
