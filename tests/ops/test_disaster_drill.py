"""ops/scripts/disaster-drill: from a backup to an evaluated task, without anything outside noticing."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from kept_store import KeptStore, run_here
from ops_scripts import Scripts
from processes import eventually
from safekeeping import making
from safekeeping.scrubbing import scrub
from store_scene import failure

from tenure.master.store.records import CheckpointRecord

DONE, NO, USAGE, UNAVAILABLE, REFUSED, FAILED = 0, 1, 2, 3, 5, 6


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[KeptStore]:
    """A store whose tasks have checkpoints that are real files, backed up in ``backups``."""
    made = await KeptStore.start(tmp_path / "server")
    for index, grant in enumerate(await made.scene.claim("w1", 6)):
        checkpoint = tmp_path / "production" / grant.task_id
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text("{}")
        record = CheckpointRecord(step=1, epoch=1, url=checkpoint.as_uri(), digest="d" * 64, size_bytes=2, score=None)
        await made.store.tasks.register_checkpoint(grant.task_id, grant.token, "w1", record)
        if index < 3:
            await made.scene.complete(grant)
        elif index == 3:
            await made.store.tasks.cancel([grant.task_id])
            await made.store.tasks.fail(failure(grant))
    assert made.scene.client.llen(made.scene.key("discarded")), "checkpoints that some worker shall delete"
    said = await run_here(making.main, "--store", made.server.url, "--to", tmp_path / "backups")
    assert said.code == DONE, said
    yield made
    await made.close()


def processes_below(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(folder) in line and process.status() != psutil.STATUS_ZOMBIE and "disaster-drill" not in line:
                found.append(line)
    return found


def pids_below(folder: Path, ready_file: str) -> list[int]:
    """Of whoever will say by this file that it serves."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if any(word.startswith(str(folder)) and word.endswith(f"/{ready_file}") for word in words):
                found.append(process.pid)
    return found


async def test_a_task_is_evaluated_from_the_backup_and_production_is_as_it_was(
    kept: KeptStore, scripts: Scripts, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = kept.scene.dump(without=())
    checkpoints = sorted((tmp_path / "production").rglob("manifest.json"))
    # An operator's shell that points at production.
    environment = {"TENURE_MASTER_STORE": kept.server.url, "TENURE_MASTER": "127.0.0.1:1"}
    words = ("disaster-drill", "--from", tmp_path / "backups", "--scratch", scratch)

    said = await scripts(*words, "--dry-run", **environment)
    assert said.code == DONE, said
    assert list(scratch.iterdir()) == []

    said = await scripts(*words, "--rto-max", "600", "--rpo-max", "86400", "--output", "json", **environment)
    assert said.code == DONE, said
    report = said.report
    assert report["problems"] == []
    assert report["tasks_checked"] == 40
    assert 0 < report["rto_seconds"] < 600
    assert report["rpo_seconds"] > 0
    assert "passed: a disaster would be survived" in said.err
    assert kept.scene.dump(without=()) == before
    assert sorted((tmp_path / "production").rglob("manifest.json")) == checkpoints
    assert list(scratch.iterdir()) == []
    assert processes_below(scratch) == []


async def test_productions_console_and_its_collector_of_traces_see_nothing_of_it(
    kept: KeptStore, scripts: Scripts, tmp_path: Path
) -> None:
    """In the environment of a production machine; a drill must not take its ports, nor be seen in its traces."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as collector:
        collector.setblocking(False)
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}"
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        words = ("disaster-drill", "--from", tmp_path / "backups", "--scratch", scratch)
        process = await scripts.start(*words, **environment, OTEL_SERVICE_NAME="production")
        (ready,) = await eventually(lambda: list(scratch.glob("*/worker.ready")), what="the drill's worker")
        facts = [json.loads(path.read_text()) for path in (ready.with_name("master.ready"), ready)]
        settings = [psutil.Process(each["pid"]).environ() for each in facts]
        await process.communicate()
        assert process.returncode == DONE
        assert facts[0]["console"] == ""
        assert [name for each in settings for name in each if name.startswith(("OTEL_", "TENURE_"))] == []
        with pytest.raises(BlockingIOError):
            collector.accept()


async def test_nothing_that_points_outside_is_left_in_the_copy(kept: KeptStore) -> None:
    """Workers that a master would call, checkpoints that a worker would delete."""
    client = kept.scene.client
    client.zadd("tenure:{workers}:all", {"gpu-7": 1})
    client.hset("tenure:{workers}:worker:gpu-7", mapping={"dispatch": "push", "host": "gpu-7", "port": "50052"})
    client.rpush("tenure:{a}:discarded", "s3://production/checkpoint")
    states = await kept.states()
    assert scrub(client, "tenure") >= 4
    keys = " ".join(kept.scene.all_keys())
    for name in ("{workers}", "checkpoints:", "discarded", "retired:", "orphans"):
        assert name not in keys, name
    assert await kept.states() == states
    assert await kept.scene.violations() == []
    assert scrub(client, "other") == 0


async def test_killed_it_leaves_no_process_and_the_next_drill_clears_away(
    kept: KeptStore, scripts: Scripts, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = await scripts.start("disaster-drill", "--make", "--store", kept.server.url, "--scratch", scratch)
    await eventually(lambda: list(scratch.glob("*/worker.ready")), what="the drill's worker")
    process.kill()
    await process.communicate()
    await eventually(lambda: not processes_below(scratch), what="the end of the drill's processes")
    assert len(list(scratch.iterdir())) == 1
    words = ("disaster-drill", "--from", tmp_path / "backups", "--scratch", scratch)
    said = await scripts(*words, "--rto-max", "0.1", "--rpo-max", "0.1")
    assert said.code == NO, said
    assert said.out.count("PROBLEM: ") == 2, "slower and older than the operator wants"
    assert "which a drill that was killed had left" in said.out
    assert list(scratch.iterdir()) == []


async def test_what_its_own_master_meets_is_the_drills_failure(
    kept: KeptStore, scripts: Scripts, tmp_path: Path
) -> None:
    """5 and 3 would say that nothing was begun, or that production doesn't answer."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = await scripts.start("disaster-drill", "--from", tmp_path / "backups", "--scratch", scratch)
    (master,) = await eventually(lambda: pids_below(scratch, "master.ready"), what="the drill's master")
    psutil.Process(master).kill()
    _, err = await process.communicate()
    assert process.returncode == FAILED, err
    assert b"error: the drill broke off at 'master up': master: ended with exit code -9" in err
    assert list(scratch.iterdir()) == []
    assert processes_below(scratch) == []


async def test_a_backup_that_is_no_good_fails_the_drill(kept: KeptStore, scripts: Scripts, tmp_path: Path) -> None:
    (backup,) = (tmp_path / "backups").glob("tenure-*")
    base = next(backup.glob("node-0/*/*.incr.aof"))
    content = bytearray(base.read_bytes())
    content[len(content) // 2] ^= 1
    base.write_bytes(content)
    said = await scripts("disaster-drill", "--from", backup, "--scratch", tmp_path)
    assert said.code == FAILED, said
    assert "its content has changed" in said.err
    said = await scripts("disaster-drill", "--from", tmp_path / "nothing")
    assert said.code == USAGE, said
    assert json.loads((backup / "manifest.json").read_text())["verified"]
