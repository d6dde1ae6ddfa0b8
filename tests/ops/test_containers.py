"""The compose file and the Dockerfiles: what can be said of them without a container engine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure.master.settings import MasterSettings
from tenure.worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
COMPOSE: dict[str, Any] = yaml.safe_load((OPS / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# The keys of the Compose specification that are used here; a misspelt one would be refused, or worse, ignored.
SERVICE_KEYS = {
    *("build", "cap_add", "cap_drop", "command", "depends_on", "environment", "healthcheck", "hostname", "image"),
    *("ports", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes"),
}
DOCKERFILES = sorted((OPS / "docker").glob("Dockerfile.*[!e]"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def last_stage(path: Path) -> list[tuple[str, str]]:
    found = instructions(path)
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def environment(path: Path) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(value for name, value in last_stage(path) if name == "ENV")))


def test_there_are_a_store_two_masters_two_workers_and_eyes() -> None:
    assert set(SERVICES) == {"valkey", "master-1", "master-2", "worker-1", "worker-2", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_well_formed(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= SERVICE_KEYS
    assert "image" in service
    assert "build" in service or re.search(r":v?\d+\.\d+", service["image"]), "an image of others is pinned"
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "there is no authentication: published to this machine only"
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        assert source in COMPOSE["volumes"] or (OPS / source).exists(), source
    for other in service.get("depends_on", []):
        assert other in SERVICES


def test_every_volume_is_used_and_checkpoints_are_shared() -> None:
    mounts = {name: [mount.split(":")[0] for mount in service.get("volumes", [])] for name, service in SERVICES.items()}
    assert {source for sources in mounts.values() for source in sources if not source.startswith(".")} == set(
        COMPOSE["volumes"]
    )
    assert [name for name, sources in mounts.items() if "checkpoints" in sources] == ["worker-1", "worker-2"]


def test_the_store_is_strict_and_evicts_nothing() -> None:
    command = SERVICES["valkey"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert "ports" not in SERVICES["valkey"]


def test_masters_share_the_store_and_workers_know_both() -> None:
    for name in ("master-1", "master-2"):
        assert SERVICES[name]["environment"]["TENURE_MASTER_STORE"] == "redis://valkey:6379/0"
        assert SERVICES[name]["depends_on"]["valkey"]["condition"] == "service_healthy"
    for name in ("worker-1", "worker-2"):
        known = SERVICES[name]["environment"]["TENURE_MASTER"].split(",")
        assert sorted(known) == ["master-1:50051", "master-2:50051"]


def test_a_drain_may_finish_before_the_kill() -> None:
    grace = WorkerSettings.model_fields["drain_grace_seconds"].default
    for name in ("worker-1", "worker-2"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= grace + 20


@pytest.mark.parametrize("settings", [MasterSettings, WorkerSettings])
def test_variables_are_settings(settings: Any) -> None:
    prefix = settings.model_config["env_prefix"]
    given = [name for service in SERVICES.values() for name in service.get("environment", {})]
    given += [name for path in DOCKERFILES for name in environment(path)]
    unknown = [
        name
        for name in given
        if name.startswith(prefix) and name.removeprefix(prefix).lower() not in settings.model_fields
    ]
    assert unknown == []


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix[1:])
def test_an_image_is_small_unprivileged_and_healthy_only_when_ready(path: Path) -> None:
    kind = path.suffix[1:]
    stage = last_stage(path)
    names = [name for name, _ in stage]
    assert ("USER", "tenure") in stage
    assert "RUN" not in names[names.index("USER") :], "what is installed is root's"
    (check,) = [value for name, value in stage if name == "HEALTHCHECK"]
    port = {"master": 9151, "worker": 9152}[kind]
    assert f"http://127.0.0.1:{port}/readyz" in check
    assert environment(path)[f"TENURE_{kind.upper()}_HTTP"] == f"0.0.0.0:{port}"
    assert ("ENTRYPOINT", '["tenure"]') in stage
    assert ("CMD", f'["{kind}"]') in stage
    assert ("STOPSIGNAL", "SIGTERM") in stage


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix[1:])
def test_an_image_is_built_from_all_of_the_package_and_nothing_else(path: Path) -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = {
        source
        for name, value in instructions(path)
        if name == "COPY" and "--from" not in value
        for source in value.split()[:-1]
    }
    assert copied == {*wheel["only-include"], "pyproject.toml", "README.md", "LICENSE"}
    ignored = path.with_name(path.name + ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored
