"""Who may reach whom under the network policies of ops/kubernetes, by the rules of networking.k8s.io/v1."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes_objects import Object, container, labels, matches, of_kind, pods, render

pytestmark = pytest.mark.tools


@dataclass(frozen=True)
class Place:
    """A pod, or an address outside of the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = "tenure"
    ports: dict[str, int] = field(default_factory=dict)
    address: str = ""


PROMETHEUS = Place({"app.kubernetes.io/name": "prometheus"}, "monitoring")
DNS = Place({"k8s-app": "kube-dns"}, "kube-system")
SEARCH = Place({"tenure.client": "true"})
STORE = Place({"tenure.store": "true"}, "stores")
STRANGER = Place({"app": "something"}, "elsewhere")
METADATA = Place(address="169.254.169.254/32")
ANYWHERE = Place(address="0.0.0.0/0")
# Namespaces that are labelled, by their labels.
NAMESPACE_LABELS = {name: {"kubernetes.io/metadata.name": name} for name in ("tenure", "monitoring", "kube-system")}


def place(pod: Object) -> Place:
    return Place(labels(pod), "tenure", {port["name"]: port["containerPort"] for port in container(pod)["ports"]})


def is_peer(peer: Object, other: Place) -> bool:
    if "ipBlock" in peer:
        return other.address == peer["ipBlock"]["cidr"]
    if other.address:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], NAMESPACE_LABELS.get(other.namespace, {})):
            return False
    elif other.namespace != "tenure":
        return False
    return matches(peer.get("podSelector", {}), other.labels)


def allows(policies: list[Object], direction: str, who: Place, other: Place, port: int) -> bool:
    """Whether the policies that select ``who`` let it talk to (Egress) or be talked to by (Ingress) the other."""
    if who.namespace != "tenure" or who.address:
        return True
    target = who if direction == "Ingress" else other
    selected = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"] and matches(policy["spec"]["podSelector"], who.labels)
    ]
    rules = [rule for spec in selected for rule in spec.get(direction.lower(), [])]
    return not selected or any(
        any(is_peer(peer, other) for peer in rule["from" if direction == "Ingress" else "to"])
        and any(target.ports.get(one["port"], one["port"]) == port for one in rule["ports"])
        for rule in rules
    )


def reaches(policies: list[Object], source: Place, target: Place, port: int) -> bool:
    return allows(policies, "Egress", source, target, port) and allows(policies, "Ingress", target, source, port)


Network = tuple[list[Object], dict[str, Place]]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Policies and pods of masters on a store of somebody else's."""
    objects = render("ha", (), tmp_path_factory.mktemp("ha"))
    return list(of_kind(objects, "NetworkPolicy").values()), {name: place(pod) for name, pod in pods(objects).items()}


def test_whoever_needs_something_reaches_it(network: Network) -> None:
    policies, there = network
    master, worker = there["tenure-master"], there["tenure-worker"]
    for source, target, port in (
        (worker, master, 50051),
        (SEARCH, master, 50051),
        (PROMETHEUS, master, 9151),
        (PROMETHEUS, worker, 9152),
        (master, STORE, 6379),
        (master, STORE, 26379),
        (master, DNS, 53),
        (worker, DNS, 53),
        (SEARCH, DNS, 53),
    ):
        assert reaches(policies, source, target, port), (source, target, port)


def test_nobody_reaches_anything_else(network: Network) -> None:
    policies, there = network
    everybody = [*there.values(), PROMETHEUS, SEARCH, STORE, STRANGER]
    allowed = {
        ("tenure-worker", "tenure-master", "grpc"),
        ("tenure.client", "tenure-master", "grpc"),
        ("prometheus", "tenure-master", "http"),
        ("prometheus", "tenure-worker", "http"),
    }

    def name(one: Place) -> str:
        if one in there.values():
            return next(name for name, other in there.items() if other is one)
        return one.labels.get("app.kubernetes.io/name", next(iter(one.labels)))

    found = {
        (name(source), name(target), port)
        for source in everybody
        for target in there.values()
        for port, number in target.ports.items()
        if source is not target and reaches(policies, source, target, number)
    }
    assert found == allowed
    worker = there["tenure-worker"]
    assert not reaches(policies, worker, worker, 9152), "nor each other"
    for source in there.values():
        assert not reaches(policies, source, ANYWHERE, 443), "nor the world"
        assert not reaches(policies, source, METADATA, 80)
    assert not reaches(policies, worker, STORE, 6379), "the store is the masters'"
    assert not reaches(policies, SEARCH, STORE, 6379)


def test_every_port_that_a_pod_serves_is_somebodys(network: Network) -> None:
    policies, there = network
    for one in there.values():
        for number in one.ports.values():
            assert any(reaches(policies, source, one, number) for source in (PROMETHEUS, SEARCH, *there.values()))


@pytest.mark.parametrize(
    ("component", "target", "port"), [("spot", METADATA, 80), ("checkpoints-s3", ANYWHERE, 443)], ids=["spot", "s3"]
)
def test_a_component_opens_what_it_needs_to_workers_alone(
    component: str, target: Place, port: int, tmp_path: Path
) -> None:
    objects = render("small", (component,), tmp_path)
    policies: list[Any] = list(of_kind(objects, "NetworkPolicy").values())
    there = {name: place(pod) for name, pod in pods(objects).items()}
    assert reaches(policies, there["tenure-worker"], target, port)
    assert not reaches(policies, there["tenure-master"], target, port)


def test_the_store_of_our_own_is_reached_by_masters_alone(tmp_path: Path) -> None:
    objects = render("ha", ("valkey",), tmp_path)
    policies: list[Any] = list(of_kind(objects, "NetworkPolicy").values())
    there = {name: place(pod) for name, pod in pods(objects).items()}
    found = [name for name, one in there.items() if reaches(policies, one, there["tenure-valkey"], 6379)]
    assert found == ["tenure-master"]
    assert not reaches(policies, STRANGER, there["tenure-valkey"], 6379)
