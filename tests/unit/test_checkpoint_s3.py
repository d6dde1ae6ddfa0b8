"""Checkpoints on S3: a real server, the real library, and what is left when the writer dies between two requests."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from s3_server import S3Server, s3, s3_server

from tenure.common.errors import CheckpointError, CorruptCheckpoint, InvalidSetting
from tenure.worker.checkpoint import (
    ExecutorCheckpoints,
    RegisteredCheckpoint,
    WrittenCheckpoint,
    delete_checkpoint,
    read_checkpoint,
    sweep_debris,
    write_checkpoint,
)
from tenure.worker.settings import load_settings

pytest.importorskip("s3fs")

__all__ = ["s3", "s3_server"]
STATE = {"epoch": 3, "weights": list(range(200))}


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


class Run:
    """One run of task ``0-task``."""

    def __init__(self, base_url: str, epoch: int = 1, registered: list[WrittenCheckpoint] | None = None) -> None:
        self.announced: list[WrittenCheckpoint] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.handle = ExecutorCheckpoints(
            base_url=base_url,
            search="search",
            task_id="0-task",
            epoch=epoch,
            registered=[RegisteredCheckpoint(one.url, one.digest, one.step) for one in registered or []],
            announce=self.announced.append,
            log=lambda event, **fields: self.events.append((event, fields)),
        )

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


def key_of(url: str, bucket: str) -> str:
    return url.removeprefix(f"{bucket}/")


def test_saved_in_the_background_resumed_and_removed(s3: str, s3_server: S3Server) -> None:
    run = Run(f"{s3}/checkpoints")
    for step in (1, 2):
        run.handle.save({"n": step}, step=step)
        run.handle.wait()
    run.handle.close()
    newest, older = run.announced[1], run.announced[0]
    assert newest.url.startswith(f"{s3}/checkpoints/search/0-task/step-00000002-epoch-1-")
    resumed = Run(f"{s3}/checkpoints", epoch=2, registered=[newest, older])
    assert resumed.handle.load() == {"n": 2}

    delete_checkpoint(newest.url)
    assert Run(f"{s3}/checkpoints", epoch=2, registered=[newest, older]).handle.load() == {"n": 1}
    delete_checkpoint(older.url)
    delete_checkpoint(older.url)
    assert s3_server.keys(s3.removeprefix("s3://")) == []


def test_a_damaged_newest_is_skipped_for_the_one_before(s3: str) -> None:
    import fsspec

    first = Run(s3)
    for step in (1, 2, 3):
        first.handle.save({"n": step}, step=step, wait=True)
    first.handle.close()
    files = fsspec.filesystem("s3")
    files.pipe(f"{first.announced[2].url}/state.json", b'{"n": 4}')
    files.rm_file(f"{first.announced[1].url}/manifest.json")
    second = Run(s3, epoch=2, registered=first.announced[::-1])
    assert second.handle.load() == {"n": 1}
    skipped = [fields["error"] for fields in second.logged("checkpoint.skipped")]
    assert "SHA-256 differs" in skipped[0]
    assert "manifest.json: is missing" in skipped[1]


KILLED_WRITER = """
import os, signal, sys
from aiobotocore.client import AioBaseClient
from tenure.worker.checkpoint import write_checkpoint, delete_checkpoint

base, last, action = sys.argv[1], int(sys.argv[2]), sys.argv[3]
count, real = 0, AioBaseClient._make_api_call

async def deadly(self, operation, parameters):
    global count
    # Between two reads there is nothing new to be left behind.
    count += not operation.startswith(("List", "Head", "Get"))
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return await real(self, operation, parameters)

state = {"epoch": 3, "weights": list(range(200))}
if action == "delete":
    url = write_checkpoint(base, "search", "0-task", 1, 5, state).url
AioBaseClient._make_api_call = deadly
if action == "delete":
    delete_checkpoint(url)
else:
    write_checkpoint(base, "search", "0-task", 1, 5, state)
"""


@pytest.mark.parametrize("action", ["write", "delete"])
def test_killed_before_any_change_there_is_a_whole_checkpoint_or_none(
    action: str, s3: str, s3_server: S3Server
) -> None:
    """What has no manifest is no checkpoint; the next lease's holder sweeps it."""
    outcomes = []
    for n in range(1, 20):
        base, bucket = f"{s3}/{n}", s3.removeprefix("s3://")
        died = subprocess.run([sys.executable, "-c", KILLED_WRITER, base, str(n), action], timeout=60).returncode
        left = [key for key in s3_server.keys(bucket) if key.startswith(f"{n}/")]
        outcomes.append(sorted(key.rpartition("/")[2] for key in left))
        for manifest in (key for key in left if key.endswith("manifest.json")):
            assert_whole(f"s3://{bucket}/{manifest.removesuffix('/manifest.json')}")
        sweep_debris(base, "search", "0-task", before_epoch=2, registered=[])
        assert [key for key in s3_server.keys(bucket) if key.startswith(f"{n}/")] == []
        if died == 0:
            break
        assert died == -9
    else:
        raise AssertionError("more changes than there can be")
    whole = ["manifest.json", "state.json"]
    assert {tuple(one) for one in outcomes} == {(), ("state.json",), tuple(whole)}
    assert outcomes[-1] == (whole if action == "write" else [])


def assert_whole(url: str) -> None:
    import fsspec

    from tenure.worker.checkpoint.manifest import digest_of

    fsspec.filesystem("s3").invalidate_cache()
    manifest = fsspec.filesystem("s3").cat_file(f"{url}/manifest.json")
    assert json.loads(manifest)["state"]["name"] == "state.json"
    assert read_checkpoint(url, digest_of(manifest)) == STATE


def test_a_bucket_that_is_not_there_is_not_made(s3_server: S3Server, s3: str) -> None:
    missing = "s3://misspelt-bucket"
    with pytest.raises(CheckpointError, match="could not be written"):
        write_checkpoint(missing, "search", "0-task", 1, 1, STATE)
    with pytest.raises(CorruptCheckpoint, match="is missing"):
        read_checkpoint(f"{missing}/search/0-task/step-00000001-epoch-1-{'0' * 16}", "0" * 64)
    from urllib.error import HTTPError

    with pytest.raises(HTTPError, match="404"):
        s3_server.keys("misspelt-bucket")


def test_credentials_that_are_refused_fail_the_save_and_say_what_to_do(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("guarded")
        written = write_checkpoint("s3://guarded/a", "search", "0-task", 1, 1, STATE)
        server.require_known_keys(True)
        run = Run("s3://guarded/a", epoch=2, registered=[written])
        run.handle.save(STATE, step=2, wait=True)
        run.handle.close()
        assert run.announced == []
        assert (
            "give this worker's user, or its credentials, the right to" in run.logged("checkpoint.failed")[0]["error"]
        )
        # Refused is not missing: the attempt fails, and nothing starts afresh.
        with pytest.raises(CheckpointError, match="credentials, the right to read"):
            run.handle.load()
        server.require_known_keys(False)
        assert run.handle.load() == STATE
    finally:
        server.stop()


def test_no_credentials_at_all_say_what_to_do(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CheckpointError, match="credentials, the right to read"):
        write_checkpoint(f"{s3}/none", "search", "0-task", 1, 1, STATE)


def test_a_worker_without_the_library_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InvalidSetting, match=r"checkpoints: .*needs a library.*tenure\[s3\]") as caught:
        load_settings(checkpoints="s3://bucket/path")
    assert caught.value.field == "checkpoints"
    with pytest.raises(CheckpointError, match=r"tenure\[s3\]"):
        write_checkpoint("s3://bucket/path", "search", "0-task", 1, 1, STATE)
    with pytest.raises(InvalidSetting, match="no storage is known by this name"):
        load_settings(checkpoints="s4://bucket/path")
