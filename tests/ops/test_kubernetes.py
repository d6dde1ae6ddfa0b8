"""What `kubectl kustomize` makes of ops/kubernetes: valid by Kubernetes' and the operators' schemas, and sensible."""

from __future__ import annotations

import base64
import functools
import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_objects import (
    KUBERNETES,
    OPS,
    POD_OWNERS,
    Object,
    container,
    kustomize,
    labels,
    matches,
    of_kind,
    pods,
    probes,
    render,
    settings_of,
)

from tenure.master.settings import MasterSettings
from tenure.master.settings import load_settings as load_master_settings
from tenure.worker.settings import WorkerSettings
from tenure.worker.settings import load_settings as load_worker_settings

pytestmark = pytest.mark.tools

# Every component is in one of them.
INSTALLATIONS = {
    "small": ("small", ()),
    "small-gpu": ("small", ("monitoring", "gpu", "spot", "checkpoints-s3")),
    "ha": ("ha", ()),
    "ha-valkey": ("ha", ("valkey", "gpu")),
}
# The oldest that is supported by its makers today or was last year, and the newest.
VERSIONS = ("1.31", "1.37")
# Custom resources, by the module that has their models.
MODELS = {
    "ScaledObject": "cloudcoil.models.keda.v1alpha1",
    "PodMonitor": "cloudcoil.models.prometheus_operator.v1",
    "ServiceMonitor": "cloudcoil.models.prometheus_operator.v1",
    "PrometheusRule": "cloudcoil.models.prometheus_operator.v1",
}


@pytest.fixture(scope="module", params=INSTALLATIONS)
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return render(*INSTALLATIONS[request.param], tmp_path_factory.mktemp("installation"))


@pytest.fixture(scope="module")
def ha(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return render("ha", (), tmp_path_factory.mktemp("ha"))


@functools.cache
def closed(kind: str) -> jsonschema.Draft202012Validator:
    """By the model's JSON schema, but a name that it doesn't know is an error. Kubernetes would only drop it."""
    # Here, since it takes seconds, and every process of a test run reads this module.
    schema: Object = getattr(importlib.import_module(MODELS[kind]), kind).model_json_schema()
    for one in (schema, *schema["$defs"].values()):
        if "properties" in one:
            one.setdefault("additionalProperties", False)
    return jsonschema.Draft202012Validator(schema)


@functools.cache
def check(text: str) -> None:
    """Each object once, however many installations have it."""
    one = json.loads(text)
    if one["kind"] in MODELS:
        closed(one["kind"]).validate(one)
    else:
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)


def test_every_object_is_valid(objects: list[Object]) -> None:
    for one in objects:
        check(json.dumps(one, sort_keys=True))


def test_the_schemas_refuse_what_is_misspelt(ha: list[Object]) -> None:
    (scaled,) = of_kind(ha, "ScaledObject").values()
    with pytest.raises(jsonschema.ValidationError, match="pollingIntervall"):
        closed("ScaledObject").validate({**scaled, "spec": {**scaled["spec"], "pollingIntervall": 30}})
    (budget, _) = of_kind(ha, "PodDisruptionBudget").values()
    with pytest.raises(kubernetes_validate.ValidationError, match="minAvailible"):
        kubernetes_validate.validate(
            {**budget, "spec": {**budget["spec"], "minAvailible": 1}}, VERSIONS[-1], strict=True
        )


def test_every_component_is_tried(ha: list[Object]) -> None:
    tried = {name for _, components in INSTALLATIONS.values() for name in components}
    tried |= {
        Path(name).name
        for name in yaml.safe_load((KUBERNETES / "overlays/ha/kustomization.yaml").read_text())["components"]
    }
    assert tried == {path.name for path in (KUBERNETES / "components").iterdir()}


def test_every_object_stands_in_the_namespace(objects: list[Object]) -> None:
    for one in objects:
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "tenure", one["metadata"]["name"]


def test_everything_selects_somebody(objects: list[Object]) -> None:
    present = [labels(pod) for pod in pods(objects).values()]
    for name, owner in of_kind(objects, *POD_OWNERS).items():
        assert matches(owner["spec"]["selector"], labels(owner["spec"]["template"])), name
        for spread in owner["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert matches(spread["labelSelector"], labels(owner["spec"]["template"])), name
    for name, budget in of_kind(objects, "PodDisruptionBudget").items():
        assert sum(matches(budget["spec"]["selector"], one) for one in present) == 1, name
    for name, service in of_kind(objects, "Service").items():
        assert sum(service["spec"]["selector"].items() <= one.items() for one in present) == 1, name
    for name, monitor in of_kind(objects, "PodMonitor").items():
        assert sum(matches(monitor["spec"]["selector"], one) for one in present) == 1, name
    for name, monitor in of_kind(objects, "ServiceMonitor").items():
        services = of_kind(objects, "Service").values()
        assert sum(matches(monitor["spec"]["selector"], one["metadata"]["labels"]) for one in services) == 1, name


def test_stateful_sets_have_their_services_and_claims_their_mounts(objects: list[Object]) -> None:
    for name, owner in of_kind(objects, *POD_OWNERS).items():
        pod = owner["spec"]["template"]
        if owner["kind"] == "StatefulSet":
            assert owner["spec"]["serviceName"] in of_kind(objects, "Service"), name
        claims = {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        assert {mount["name"] for mount in container(pod)["volumeMounts"]} == claims | volumes, name
        for volume in pod["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in of_kind(objects, "PersistentVolumeClaim")


def test_every_port_that_is_named_is_there(objects: list[Object]) -> None:
    for name, service in of_kind(objects, "Service").items():
        (pod,) = (pod for pod in pods(objects).values() if service["spec"]["selector"].items() <= labels(pod).items())
        numbers = {port["name"]: port["containerPort"] for port in container(pod)["ports"]}
        for port in service["spec"]["ports"]:
            assert numbers[port["targetPort"]] == port["port"], f"{name}: a headless service translates no ports"
    for pod in pods(objects).values():
        named = {port["name"] for port in container(pod)["ports"]}
        for kind, probe in probes(pod):
            assert probe.get("httpGet", probe.get("tcpSocket", {"port": next(iter(named))}))["port"] in named, kind


def test_pods_keep_to_the_restricted_standard(objects: list[Object]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a root file system for reading."""
    (namespace,) = of_kind(objects, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(objects).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        assert spec["automountServiceAccountToken"] is False, name
        own = container(pod)["securityContext"]
        assert own["allowPrivilegeEscalation"] is False, name
        assert own["readOnlyRootFilesystem"] is True, name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "persistentVolumeClaim", "configMap", "secret"}, name
        assert {"cpu", "memory"} <= container(pod)["resources"]["requests"].keys(), name
        assert "memory" in container(pod)["resources"]["limits"], name


@pytest.mark.parametrize(
    ("component", "settings"), [("master", MasterSettings), ("worker", WorkerSettings)], ids=["master", "worker"]
)
def test_variables_are_settings_and_their_values_are_taken(
    component: str, settings: Any, objects: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings_of(pods(objects)[f"tenure-{component}"], objects)
    prefix = settings.model_config["env_prefix"]
    names = {name for name in given if name.startswith("TENURE_")}
    assert names <= {f"{prefix}{field.upper()}" for field in settings.model_fields} | {"TENURE_MASTER"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    load = load_master_settings if component == "master" else load_worker_settings
    load()
    if component == "worker":
        assert len(load_worker_settings().worker_id) > 0
        host, _, port = given["TENURE_MASTER"].partition(":")
        service = of_kind(objects, "Service")[host]
        assert {"name": "grpc", "port": int(port), "targetPort": "grpc"} in service["spec"]["ports"]


def test_a_drain_may_finish_before_the_kill(objects: list[Object]) -> None:
    pod = pods(objects)["tenure-worker"]
    hook = " ".join(container(pod)["lifecycle"]["preStop"]["exec"]["command"])
    drained = re.search(r"timeout (\d+) tenure workers drain \"\$TENURE_WORKER_WORKER_ID\" --wait", hook)
    assert drained is not None
    grace = float(settings_of(pod, objects)["TENURE_WORKER_DRAIN_GRACE_SECONDS"])
    assert int(drained[1]) >= grace, "the hook waits as long as a drain may take"
    assert pod["spec"]["terminationGracePeriodSeconds"] >= int(drained[1]) + grace + 20


def test_restarts_are_for_what_a_restart_mends(objects: list[Object]) -> None:
    for name in ("tenure-master", "tenure-worker"):
        found = dict(probes(pods(objects)[name]))
        assert found["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert found["startupProbe"]["httpGet"]["path"] == "/healthz"
        assert found["readinessProbe"]["httpGet"]["path"] == "/readyz"
        # /healthz itself waits for the event loop for up to 5 s.
        assert found["livenessProbe"]["timeoutSeconds"] >= 5
        assert found["startupProbe"]["periodSeconds"] * found["startupProbe"]["failureThreshold"] >= 300
    ttl = MasterSettings.model_fields["lease_ttl_seconds"].default
    liveness = dict(probes(pods(objects)["tenure-worker"]))["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 2 * ttl, "its leases are lost by then"


def test_masters_can_be_moved_one_at_a_time(ha: list[Object]) -> None:
    masters = of_kind(ha, "Deployment")["tenure-master"]
    assert masters["spec"]["replicas"] == 2
    assert masters["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budgets = of_kind(ha, "PodDisruptionBudget")
    assert budgets["tenure-master"]["spec"]["minAvailable"] == masters["spec"]["replicas"] - 1


def test_the_embedded_store_has_one_master_and_no_budget_that_forbids_moving_it(tmp_path: Path) -> None:
    small = render("small", (), tmp_path)
    master = of_kind(small, "StatefulSet")["tenure-master"]
    assert master["spec"]["replicas"] == 1
    assert set(of_kind(small, "PodDisruptionBudget")) == {"tenure-worker"}
    memory = int(settings_of(master["spec"]["template"], small)["TENURE_MASTER_STORE_MEMORY_MAX_BYTES"])
    assert container(master["spec"]["template"])["resources"]["limits"]["memory"] == f"{2 * (memory >> 30) + 1}Gi"


def test_masters_of_both_overlays_are_alike(ha: list[Object], tmp_path: Path) -> None:
    one, two = pods(render("small", (), tmp_path))["tenure-master"], pods(ha)["tenure-master"]
    for part in ("args", "ports", "securityContext"):
        assert container(one)[part] == container(two)[part]
    assert dict(probes(one)) == dict(probes(two))
    assert one["spec"]["securityContext"] == two["spec"]["securityContext"]


def test_the_rules_are_those_of_prometheus(ha: list[Object]) -> None:
    (rule,) = of_kind(ha, "PrometheusRule").values()
    files = sorted((OPS / "prometheus" / "rules").glob("*.yml"))
    assert rule["spec"]["groups"] == [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]


def test_every_dashboard_is_there_for_grafanas_sidecar(ha: list[Object]) -> None:
    maps = [
        one for one in of_kind(ha, "ConfigMap").values() if "grafana_dashboard" in one["metadata"].get("labels", {})
    ]
    content = {name: text for one in maps for name, text in one["data"].items()}
    assert content == {path.name: path.read_text() for path in (OPS / "grafana" / "dashboards").glob("*.json")}
    for one in maps:
        assert sum(map(len, one["data"].values())) < 1_000_000, "what a ConfigMap holds"


def test_targets_have_the_labels_that_rules_ask_for(ha: list[Object]) -> None:
    jobs = set(
        re.findall(r'job="([^"]+)"', "".join(path.read_text() for path in (OPS / "prometheus/rules").glob("*.yml")))
    )
    endpoints = [
        endpoint
        for monitor in of_kind(ha, "ServiceMonitor", "PodMonitor").values()
        for endpoint in monitor["spec"].get("endpoints", monitor["spec"].get("podMetricsEndpoints"))
    ]
    made = {
        step["replacement"]
        for endpoint in endpoints
        for step in endpoint["relabelings"]
        if step["targetLabel"] == "job"
    }
    assert made == jobs


def test_workers_are_as_many_as_there_is_work_for(ha: list[Object]) -> None:
    (scaled,) = of_kind(ha, "ScaledObject").values()
    target = of_kind(ha, "StatefulSet")[scaled["spec"]["scaleTargetRef"]["name"]]
    assert "replicas" not in target["spec"], "or each `kubectl apply` would set it back"
    down = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 600
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_the_overlay_that_the_documentation_shows_does_what_it_says(tmp_path: Path) -> None:
    page = (OPS.parent / "docs" / "deployment.md").read_text()
    (text,) = re.findall(r"```yaml\n# kustomization.yaml\n(.*?)```", page, re.DOTALL)
    here = os.path.relpath(OPS.parent, tmp_path)
    text = re.sub(r"github.com/OWNER/tenure(\S+)\?ref=\S+", rf"{here}\1", text)
    objects = kustomize(tmp_path, yaml.safe_load(text))
    worker = pods(objects)["tenure-worker"]
    assert container(worker)["image"] == "registry.internal/tenure-worker-gpu:0.1.0"
    assert container(worker)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert settings_of(worker, objects)["TENURE_WORKER_EVALUATOR"] == "my_module:evaluate"
    assert of_kind(objects, "PersistentVolumeClaim")["tenure-checkpoints"]["spec"]["storageClassName"] == "nfs"


def test_the_stores_url_is_the_masters_secret_alone(tmp_path: Path) -> None:
    with_store = render("ha", ("valkey",), tmp_path)
    (secret,) = of_kind(with_store, "Secret").values()
    url = base64.b64decode(secret["data"]["TENURE_MASTER_STORE"]).decode()
    assert url == "redis://tenure-valkey:6379/0"
    readers = [name for name, pod in pods(with_store).items() if secret["metadata"]["name"] in str(pod)]
    assert readers == ["tenure-master"]
    command = container(pods(with_store)["tenure-valkey"])["args"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
