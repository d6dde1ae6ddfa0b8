"""The compose files and the Dockerfiles: what can be said of them without a container engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml
from processes import start_master, wait_for

from tenure.common import paths
from tenure.master.settings import CONSOLE_PORT, MasterSettings
from tenure.worker.identity import claim_identity
from tenure.worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
COMPOSE_FILES = [OPS / "compose.yaml", OPS / "compose.gpu.yaml", OPS / "compose.alerts.yaml"]


def interpolated(path: Path) -> str:
    """As docker compose reads it where no variable is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", path.read_text())
    assert not re.search(r"(?<!\$)\$(?!\$)", text), "every variable has a default"
    return text.replace("$$", "$")


COMPOSE: dict[str, Any] = yaml.safe_load(interpolated(OPS / "compose.yaml"))
GPU: dict[str, Any] = yaml.safe_load(interpolated(OPS / "compose.gpu.yaml"))
ALERTED: dict[str, Any] = yaml.safe_load(interpolated(OPS / "compose.alerts.yaml"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WHOLE_SERVICES = {**SERVICES, "alertmanager": ALERTED["services"]["alertmanager"]}
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


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_it_keeps_to_the_compose_specification(path: Path) -> None:
    """A misspelt key would be refused, or worse, ignored."""
    content = yaml.safe_load(interpolated(path))
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(content)).validate()
    next(iter(content["services"].values()))["memory_limit"] = "4g"
    with pytest.raises(ValueError, match="memory_limit"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(content))


def test_there_are_a_store_two_masters_workers_and_eyes() -> None:
    assert set(SERVICES) == {"valkey", "master-1", "master-2", "worker", "prometheus", "grafana"}
    assert SERVICES["worker"]["scale"] == 2


@pytest.mark.parametrize("name", WHOLE_SERVICES)
def test_a_service_is_well_formed(name: str) -> None:
    service = WHOLE_SERVICES[name]
    assert "build" in service or re.search(r":v?\d+\.\d+", service["image"]), "an image of others is pinned"
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["init"] is True
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}, "logs don't fill the disk"
    assert "mem_limit" in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "there is no authentication: published to this machine only"
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        assert source in COMPOSE["volumes"] | ALERTED["volumes"] or (OPS / source).exists(), source
    for other in service.get("depends_on", []):
        assert other in SERVICES
    assert set(service["networks"]) <= set(COMPOSE["networks"])


def test_every_volume_is_used() -> None:
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert {source for source in used if not source.startswith(".")} == set(COMPOSE["volumes"])


def test_the_store_is_strict_evicts_nothing_and_is_the_masters_alone() -> None:
    store = SERVICES["valkey"]
    options = dict(zip(store["command"][1::2], store["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert (options["--maxmemory"], store["mem_limit"]) == ("2gb", "4g"), "room for the copy of a rewrite"
    assert "ports" not in store
    (network,) = store["networks"]
    assert COMPOSE["networks"][network] == {"internal": True}
    assert [name for name, other in SERVICES.items() if network in other["networks"]] == [
        "valkey",
        "master-1",
        "master-2",
    ]


def test_masters_share_the_store_and_workers_know_both() -> None:
    for name in ("master-1", "master-2"):
        assert SERVICES[name]["environment"]["TENURE_MASTER_STORE"] == "redis://valkey:6379/0"
        assert SERVICES[name]["depends_on"]["valkey"]["condition"] == "service_healthy"
        assert SERVICES[name]["environment"]["TENURE_MASTER_CONSOLE"] == f"0.0.0.0:{CONSOLE_PORT}"
        assert any(port.endswith(f":{CONSOLE_PORT}") for port in SERVICES[name]["ports"])
    assert SERVICES["worker"]["environment"]["TENURE_MASTER"] == "master-1:50051,master-2:50051"


def test_a_drain_may_finish_before_the_kill() -> None:
    grace = int(SERVICES["worker"]["environment"]["TENURE_WORKER_DRAIN_GRACE_SECONDS"])
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= grace + 20


def test_scaled_workers_share_a_name_and_a_volume_and_differ_in_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the compose file relies on: each takes a directory that no other holds, and finds it again."""
    worker = SERVICES["worker"]
    assert worker["hostname"] == "worker"
    assert "TENURE_WORKER_WORKER_ID" not in worker["environment"]
    assert "workers:/var/lib/tenure/workers" in worker["volumes"]
    assert "checkpoints:/var/lib/tenure/checkpoints" in worker["volumes"]
    monkeypatch.setenv("TENURE_HOME", str(tmp_path))
    monkeypatch.setattr("socket.gethostname", lambda: worker["hostname"])
    settings = WorkerSettings()
    with claim_identity(settings) as first, claim_identity(settings) as second:
        ids = {first.worker_id, second.worker_id}
    assert len(ids) == 2
    assert all(one.startswith("worker-") for one in ids)
    assert paths.worker_dir("x").parent == tmp_path / "workers"
    # Containers that are made anew.
    with claim_identity(settings) as first, claim_identity(settings) as second:
        assert {first.worker_id, second.worker_id} == ids


def test_prometheus_finds_all_of_them() -> None:
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["prometheus"]["volumes"])
    (source,) = (source for source, target in mounts.items() if target == "/etc/prometheus/prometheus.yml")
    config = yaml.safe_load((OPS / source).read_text())
    usual = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    assert config["rule_files"] == usual["rule_files"]
    assert "./prometheus/rules" in mounts
    assert config["global"]["scrape_interval"] == usual["global"]["scrape_interval"]
    assert [one["job_name"] for one in config["scrape_configs"]] == [one["job_name"] for one in usual["scrape_configs"]]
    found = {
        (name, discovery["port"])
        for scrape in config["scrape_configs"]
        for discovery in scrape.get("dns_sd_configs", [])
        for name in discovery["names"]
    }
    assert found == {("master-1", 9151), ("master-2", 9151), ("worker", 9152)}


def test_prometheus_tells_the_alertmanager_that_comes_with_it() -> None:
    """Without that file Prometheus tells nobody, and complains of nothing."""
    config = yaml.safe_load((OPS / "prometheus" / "prometheus-compose.yml").read_text())
    usual = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text())
    assert config["alerting"]["alertmanagers"] == usual["alerting"]["alertmanagers"]
    (told,) = config["alerting"]["alertmanagers"][0]["file_sd_configs"][0]["files"]
    (mount,) = ALERTED["services"]["prometheus"]["volumes"]
    source, target, _ = mount.split(":")
    assert target == f"/etc/prometheus/{told}"
    assert yaml.safe_load((OPS / source).read_text()) == [{"targets": ["alertmanager:9093"]}]
    alertmanager = ALERTED["services"]["alertmanager"]
    (own, kept) = (mount.split(":") for mount in alertmanager["volumes"])
    assert own == ["./prometheus/alertmanager.yml", "/etc/alertmanager/alertmanager.yml", "ro"]
    assert kept == ["alertmanager", "/alertmanager"]
    assert alertmanager["command"][:2] == [f"--config.file={own[1]}", f"--storage.path={kept[1]}"]


def test_one_worker_has_all_gpus_of_the_machine() -> None:
    (worker,) = GPU["services"].values()
    assert worker["scale"] == 1
    (devices,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert devices == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "ARG TORCH_INDEX" in (OPS / "docker" / "Dockerfile.worker").read_text()
    assert set(worker["build"]["args"]) == {"TORCH_INDEX"}


def merged(under: Any, over: Any) -> Any:
    """As docker compose puts files over each other: mappings by name, everything else replaced."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {name: merged(under.get(name), value) for name, value in over.items()}


def test_both_files_together_are_the_usual_worker_with_gpus() -> None:
    together = merged(COMPOSE, GPU)
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(together)).validate()
    usual, worker = SERVICES["worker"], together["services"]["worker"]
    assert worker["build"] == {**usual["build"], "args": GPU["services"]["worker"]["build"]["args"]}
    assert worker["image"] != usual["image"], "an image of each kind"
    assert usual["environment"].items() < worker["environment"].items()
    for kept in ("volumes", "hostname", "networks", "stop_grace_period", "read_only", "cap_drop"):
        assert worker[kept] == usual[kept]


def test_the_example_of_variables_names_them_all_with_their_defaults() -> None:
    used = dict(
        match for path in COMPOSE_FILES[::-1] for match in re.findall(r"\$\{(\w+):-([^}]*)\}", path.read_text())
    )
    named = dict(re.findall(r"^#?(\w+)=(.*)$", (OPS / "env.example").read_text(), re.MULTILINE))
    assert named.keys() == used.keys()
    own_words = {"TENURE_EVALUATORS"}
    assert {name: value for name, value in named.items() if name not in own_words} == {
        name: value for name, value in used.items() if name not in own_words
    }


@pytest.mark.parametrize("settings", [MasterSettings, WorkerSettings])
def test_variables_are_settings(settings: Any) -> None:
    prefix = settings.model_config["env_prefix"]
    services = [*SERVICES.values(), *GPU["services"].values()]
    given = [name for service in services for name in service.get("environment", {})]
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
    assert ("USER", "10001:10001") in stage, "a number: Kubernetes can see that it isn't root"
    assert "RUN" not in names[names.index("USER") :], "what is installed is root's"
    (check,) = [value for name, value in stage if name == "HEALTHCHECK"]
    port = {"master": 9151, "worker": 9152}[kind]
    assert f"HTTPConnection('127.0.0.1', {port}" in check
    assert "/readyz" in check
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


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix[1:])
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter is not None
    done = subprocess.run([linter, "--no-color", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(("path", "code"), [("/readyz", 0), ("/nothing", 1)], ids=["ready", "not-ready"])
def test_the_health_check_tells_ready_from_not(path: str, code: int, tmp_path: Path) -> None:
    """The very command of the image, against a real master; at a port of the test's, since its own may be taken."""
    (check,) = [value for name, value in last_stage(DOCKERFILES[0]) if name == "HEALTHCHECK"]
    command = yaml.safe_load(check[check.index("[") :])
    master = start_master(tmp_path)
    try:
        wait_for(lambda: master.get("/readyz")[0] == 200)
        port = master.facts["http"].rpartition(":")[2]
        program = command[2].replace("9151", port).replace("/readyz", path)
        done = subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
        assert done.returncode == code
    finally:
        master.remove()
