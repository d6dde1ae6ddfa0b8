"""Kubernetes' objects as `kubectl kustomize` makes them of ops/kubernetes, and the parts of them that tests ask for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from tools import tool

OPS = Path(__file__).resolve().parents[1] / "ops"
KUBERNETES = OPS / "kubernetes"
Object = dict[str, Any]
POD_OWNERS = ("Deployment", "StatefulSet")


def render(overlay: str, components: Iterable[str], folder: Path) -> list[Object]:
    """What an overlay with these components is, in the order of `kubectl apply`.

    Args:
        overlay: ``small`` or ``ha``.
        components: Names of folders below ops/kubernetes/components.
        folder: An empty one, for a kustomization that puts them together.
    """
    paths = [KUBERNETES / "components" / name for name in components]
    kustomization = {
        "resources": [os.path.relpath(KUBERNETES / "overlays" / overlay, folder)],
        "components": [os.path.relpath(path, folder) for path in paths],
    }
    return kustomize(folder, kustomization)


def kustomize(folder: Path, kustomization: Object) -> list[Object]:
    """What a kustomization in that folder is."""
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    done = subprocess.run([tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    # By libyaml where it is there: dashboards are long.
    return list(yaml.load_all(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def of_kind(objects: Iterable[Object], *kinds: str) -> dict[str, Object]:
    """Those of some kinds, by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in kinds}


def pods(objects: Iterable[Object]) -> dict[str, Object]:
    """The pod templates of everything that makes pods, by its name."""
    return {name: one["spec"]["template"] for name, one in of_kind(objects, *POD_OWNERS).items()}


def container(pod: Object) -> Object:
    """The one container of a pod."""
    (only,) = pod["spec"]["containers"]
    return dict(only)


def labels(pod: Object) -> dict[str, str]:
    """A pod's labels."""
    return dict(pod["metadata"]["labels"])


def matches(selector: Mapping[str, Any], given: Mapping[str, str]) -> bool:
    """Whether a label selector of ``matchLabels`` alone selects these labels; an empty one selects all."""
    assert selector.keys() <= {"matchLabels"}
    return bool(selector.get("matchLabels", {}).items() <= given.items())


def settings_of(pod: Object, objects: Iterable[Object]) -> dict[str, str]:
    """The variables that a pod's container gets from ConfigMaps, generated secrets and literal values."""
    found: dict[str, str] = {}
    maps, secrets = of_kind(objects, "ConfigMap"), of_kind(objects, "Secret")
    only = container(pod)
    for source in only.get("envFrom", []):
        if "configMapRef" in source:
            found |= maps[source["configMapRef"]["name"]]["data"]
        elif source["secretRef"]["name"] in secrets:
            found |= dict.fromkeys(secrets[source["secretRef"]["name"]]["data"], "redis://store:6379/0")
    for variable in only.get("env", []):
        found[variable["name"]] = variable.get("value", "a-value")
    return found


def probes(pod: Object) -> Iterator[tuple[str, Object]]:
    """The probes of a pod's container, by kind."""
    only = container(pod)
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        if kind in only:
            yield kind, only[kind]
