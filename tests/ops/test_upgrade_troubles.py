"""upgrade and restarts of a store that has violations already, and an upgrade that can't even be taken back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from cluster import Cluster
from ops_scripts import FAILED, KEPT, USAGE, Scripts, pid_of
from restarting.accounting import Accounting
from restarting.console import check_store

BY_COMMAND = ("--to-command", "true", "--back-command", "true", "--no-backup", "--probe", "none")


async def damage(cluster: Cluster) -> str:
    """Have a task succeed and write over its payload; what fsck says of it begins so."""
    await cluster.add_worker("w1")
    await cluster.submit("first", ["done"], {})
    await cluster.all_ended("first")
    with redis.Redis(unix_socket_path=str(cluster.root / "master" / "data" / "store.sock")) as store:
        (payload,) = [key for key in store.keys("*payload:*") if store.type(key) == b"string"]
        store.set(payload, b"broken")
    return f"payload {payload.decode().rpartition(':')[2]}"


@pytest.mark.slow
async def test_violations_that_were_there_before_break_no_promise(cluster: Cluster, scripts: Scripts) -> None:
    subject = await damage(cluster)
    ready = cluster.root / "master" / "ready.json"
    said = await scripts("restart-master", "--ready-file", ready)
    assert said.code == KEPT, said
    assert f"note: fsck finds 1 violations before anything is changed: {subject}" in said.out
    assert f"note: fsck found this before, too: {subject}" in said.out
    assert "ops/runbooks/TenureFsckViolations.md says what to do" in said.out
    assert said.out.rstrip().endswith("kept: nothing was lost")

    pid = pid_of(ready)
    said = await scripts("upgrade", *BY_COMMAND, "--ready-file", ready)
    assert said.code == USAGE, said
    assert "the store has 1 violations already" in said.err
    assert "--accept-violations upgrades nevertheless" in said.err
    assert pid_of(ready) == pid
    back = ("--rollback", *BY_COMMAND[2:4])
    said = await scripts("upgrade", *back, "--ready-file", ready, "--dry-run")
    assert said.code == KEPT, "nothing keeps anybody from going back"

    said = await scripts("upgrade", *BY_COMMAND, "--ready-file", ready, "--accept-violations")
    assert said.code == KEPT, said
    assert pid_of(ready) != pid
    assert f"note: fsck found this before, too: {subject}" in said.out


@dataclass(frozen=True)
class Found:
    """A client whose masters find these violations."""

    violations: tuple[str, ...]
    tasks_checked: int = 1

    def fsck(self) -> Found:
        return self


def test_a_new_violation_breaks_the_promise_beside_old_ones() -> None:
    client: Any = Found(("payload a: is damaged; submit again t2", "payload b: is damaged; submit again t3"))
    accounting = Accounting()
    # A task of it was deleted meanwhile.
    check_store(client, accounting, ["payload a: is damaged; submit again t1, t2"], skip=False)
    assert accounting.breaches == ["fsck: payload b: is damaged; submit again t3"]
    assert accounting.notes[0] == "fsck found this before, too: payload a: is damaged; submit again t2"


@pytest.mark.slow
async def test_an_upgrade_that_can_not_be_taken_back_says_how_the_master_is_started(
    cluster: Cluster, scripts: Scripts, tmp_path: Path
) -> None:
    folder = cluster.root / "master"
    breaks = tmp_path / "breaks"
    breaks.write_text(f"#!/bin/sh\nmv {folder}/data {folder}/data-away && touch {folder}/data\n")
    breaks.chmod(0o755)
    said = await scripts(
        *("upgrade", "--to-command", breaks, *BY_COMMAND[2:], "--ready-file", folder / "ready.json"),
        *("--ready-timeout", "20", "--settle-timeout", "1"),
    )
    assert said.code == FAILED, said
    assert "could not be rolled back either" in said.err
    assert f"NOT BACK: master {cluster.master.address} is down; once it can, start it by hand" in said.out
    assert f"TENURE_MASTER_DATA_DIR={folder}/data" in said.out
    assert "run the same again to go on, or --rollback to go back" in said.out
