"""Who a worker is, and that no two share a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenure.common.errors import InvalidSetting, WorkDirectoryInUse
from tenure.worker.identity import claim_identity, host_name
from tenure.worker.settings import load_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENURE_HOME", str(tmp_path))
    return tmp_path


def test_two_nameless_workers_differ_and_a_third_takes_up_what_one_left(home: Path) -> None:
    with claim_identity(load_settings()) as first:
        assert first.worker_id.startswith(host_name() + "-")
        with claim_identity(load_settings()) as second:
            assert second.worker_id != first.worker_id
            assert second.work_dir != first.work_dir
        with claim_identity(load_settings()) as third:
            assert third.worker_id == second.worker_id
            assert third.instance_id != second.instance_id


def test_a_directory_serves_one_worker_at_a_time(home: Path) -> None:
    settings = load_settings(worker_id="gpu-1")
    with claim_identity(settings) as identity:
        assert identity.work_dir == home / "workers" / "gpu-1"
        with pytest.raises(WorkDirectoryInUse, match="another worker runs in this directory") as caught:
            claim_identity(settings, patience_seconds=0)
        assert caught.value.field == "work_dir"
    claim_identity(settings, patience_seconds=0).release()


def test_a_directory_without_an_id_remembers_the_one_it_was_given(tmp_path: Path) -> None:
    with claim_identity(load_settings(work_dir=tmp_path / "w")) as first:
        pass
    with claim_identity(load_settings(work_dir=tmp_path / "w")) as second:
        assert second.worker_id == first.worker_id
    (tmp_path / "w" / "worker-id").write_text("")
    with claim_identity(load_settings(work_dir=tmp_path / "w")) as third:
        assert third.worker_id.startswith(host_name())


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSetting, match="work_dir"):
        claim_identity(load_settings(worker_id="w", work_dir=tmp_path / "file" / "w"))
