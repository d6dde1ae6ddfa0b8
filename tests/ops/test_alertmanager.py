"""Who is told: the real rules on a real Prometheus, a real Alertmanager with the project's example, a real receiver."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from alertmanager_server import AlertmanagerServer, Receiver
from observed_cluster import ObservedCluster
from ops.pages import quoted
from ops.test_prometheus import ALERTMANAGER, ALERTS, FOLDER
from prometheus_server import DEADLINE_SECONDS
from tools import tool

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]

RUNBOOKS = "https://git.example.org/ml/tenure/blob/main/"
LABELS = {"cluster": "north", "runbooks": RUNBOOKS}
NAMES = re.compile(r"Tenure\w+")


@dataclass
class Scene:
    """A cluster whose alerts are delivered."""

    cluster: ObservedCluster
    alertmanager: AlertmanagerServer
    told: Receiver

    async def until(self, to: str, status: str, name: str, **labels: str) -> dict[str, Any]:
        """Wait until this receiver is told that this alert fires, or that it has cleared; the alert as it is told."""
        message = await asyncio.to_thread(
            self.told.until, to, lambda message: message.alerts(status, name, cluster="north", **labels)
        )
        alert: dict[str, Any] = message.alerts(status, name, **labels)[0]
        return alert


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with Receiver() as told, AlertmanagerServer(tmp_path / "alertmanager", told.url) as alertmanager:
        cluster = await ObservedCluster.start(
            tmp_path, masters=2, external=True, factor=240, external_labels=LABELS, lease_ttl_seconds=60
        )
        try:
            await cluster.prometheus.alert([alertmanager.address])
            yield Scene(cluster, alertmanager, told)
        finally:
            await cluster.destroy()


async def test_alerts_of_a_real_cluster_are_delivered(scene: Scene) -> None:
    await scene.until("heartbeat", "firing", "TenureWatchdog")
    await asyncio.to_thread(the_way_can_be_looked_along, scene)
    assert (scene.told.messages("team"), scene.told.messages("on-call")) == ([], [])
    await asyncio.gather(*(scene.cluster.add_worker(name) for name in ("w1", "w2")))
    await a_warning_comes_and_goes(scene)
    await nobody_is_told_what_is_silenced(scene)
    await what_is_critical_goes_elsewhere_and_hides_what_follows(scene)
    await two_of_a_kind_are_one_message(scene)
    severities = {"heartbeat": "none", "team": "warning", "on-call": "critical"}
    for to, severity in severities.items():
        assert {ALERTS[name]["labels"]["severity"] for name in scene.told.names(to)} == {severity}


def the_way_can_be_looked_along(scene: Scene) -> None:
    """As the watchdog's runbook has it, from its beginning to its end."""
    page = (FOLDER.parent / "runbooks" / "TenureWatchdog.md").read_text()
    addresses = {"PROMETHEUS:9090": scene.cluster.prometheus.address, "ALERTMANAGER:9093": scene.alertmanager.address}
    said = []
    for line in quoted(page):
        if line.startswith(("curl ", "amtool ")):
            filled = line
            for name, address in addresses.items():
                filled = filled.replace(name, address)
            program, *arguments = shlex.split(filled)
            if program == "amtool":
                subprocess.run([tool("amtool"), *arguments], check=True, capture_output=True)
            else:
                with urllib.request.urlopen(*arguments, timeout=DEADLINE_SECONDS) as response:
                    said.append(response.read().decode())
    assert len(said) == 4
    assert f'"activeAlertmanagers":[{{"url":"{scene.alertmanager.url}' in said[1]
    assert "alertmanager_notifications_failed_total" in said[3]


async def a_warning_comes_and_goes(scene: Scene) -> None:
    """With all that whoever reads it needs."""
    master = scene.cluster.masters[1]
    instance = scene.cluster.instance(master)
    master.kill()
    alert = await scene.until("team", "firing", "TenureMasterDown")
    assert alert["labels"] == {
        "alertname": "TenureMasterDown",
        "cluster": "north",
        "instance": instance,
        "job": "tenure-master",
        "severity": "warning",
    }
    assert alert["annotations"] == {
        "summary": f"Master {instance} is down",
        "description": "The others serve on. With only one left, its end stops everything.",
        "runbook_url": f"{RUNBOOKS}ops/runbooks/TenureMasterDown.md",
    }
    await scene.cluster.restart(master)
    resolved = await scene.until("team", "resolved", "TenureMasterDown", instance=instance)
    assert resolved["endsAt"] > resolved["startsAt"]


async def nobody_is_told_what_is_silenced(scene: Scene) -> None:
    """By the very command of the README; when the silence ends, who has been spared is told. Nor does a receiver that
    is out of order lose anything."""
    (command,) = re.findall(r"`(amtool silence add [^`]+)`", (FOLDER / "README.md").read_text())
    silence = await asyncio.to_thread(scene.alertmanager.amtool, *shlex.split(command)[1:])
    master = scene.cluster.masters[0]
    instance = scene.cluster.instance(master)
    master.kill()
    await scene.cluster.prometheus.until_fires("TenureMasterDown", instance=instance)
    held = await asyncio.to_thread(scene.alertmanager.until_suppressed, "TenureMasterDown", instance=instance)
    assert held["silencedBy"] == [silence]
    assert not any(message.firing("TenureMasterDown", instance=instance) for message in scene.told.messages("team"))
    beats = len(scene.told.messages("heartbeat"))
    await asyncio.to_thread(scene.told.until, "heartbeat", lambda _: len(scene.told.messages("heartbeat")) > beats)
    await asyncio.to_thread(scene.alertmanager.amtool, "silence", "expire", silence)
    await scene.until("team", "firing", "TenureMasterDown", instance=instance)
    await scene.cluster.restart(master)
    await scene.until("team", "resolved", "TenureMasterDown", instance=instance)


async def what_is_critical_goes_elsewhere_and_hides_what_follows(scene: Scene) -> None:
    """Every master dies: one message to who is on call, and none of masters and workers to the team."""
    seen = len(scene.told.messages("team"))
    for master in scene.cluster.masters:
        master.kill()
    alert = await scene.until("on-call", "firing", "TenureNoMaster")
    assert alert["labels"] == {"alertname": "TenureNoMaster", "cluster": "north", "severity": "critical"}
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}ops/runbooks/TenureNoMaster.md"
    for name in ("TenureMasterDown", "TenureWorkerCutOff"):
        await scene.cluster.prometheus.until_fires(name)
        held = await asyncio.to_thread(scene.alertmanager.until_suppressed, name)
        assert held["inhibitedBy"] == [alert["fingerprint"]]
    told = [name for message in scene.told.messages("team")[seen:] for name in NAMES.findall(str(message.body))]
    assert not {"TenureMasterDown", "TenureWorkerCutOff"} & set(told)
    scene.told.status = 500
    await asyncio.gather(*(scene.cluster.restart(master) for master in scene.cluster.masters))
    await scene.cluster.prometheus.until_clears("TenureNoMaster")
    scene.told.status = 200
    await scene.until("on-call", "resolved", "TenureNoMaster")


async def two_of_a_kind_are_one_message(scene: Scene) -> None:
    """A rack goes dark."""
    workers = [scene.cluster.workers[name] for name in ("w1", "w2")]
    for worker in workers:
        worker.signal(signal.SIGKILL)
    message = await asyncio.to_thread(
        scene.told.until, "team", lambda message: len(message.firing("TenureWorkerDown")) == 2
    )
    assert message.body["groupLabels"] == {"alertname": "TenureWorkerDown", "cluster": "north"}
    instances = {scene.cluster.instance(worker) for worker in workers}
    assert {alert["labels"]["instance"] for alert in message.body["alerts"]} == instances


# ---- the rules of the example, each by itself ---------------------------------------------------------------------

INHIBITIONS = [
    (source, target, rule["equal"])
    for rule in ALERTMANAGER["inhibit_rules"]
    for source in NAMES.findall(str(rule["source_matchers"]))
    for target in NAMES.findall(str(rule["target_matchers"]))
]


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[AlertmanagerServer]:
    with AlertmanagerServer(tmp_path / "alertmanager", "http://127.0.0.1:9") as server:
        yield server


def test_every_inhibition_hides_what_it_says_and_nothing_of_another_cluster(alertmanager: AlertmanagerServer) -> None:
    """Each in a cluster of its own, beside the same alert of another one, and one of another instance."""
    posted = []
    for number, (source, target, _) in enumerate(INHIBITIONS):
        for name, cluster, instance in (
            (source, f"c{number}", "i1"),
            (target, f"c{number}", "i1"),
            (target, f"c{number}", "i2"),
            (target, f"other-{number}", "i1"),
        ):
            posted.append({"alertname": name, "cluster": cluster, "instance": instance})
    alertmanager.post(posted)
    for number, (source, target, equal) in enumerate(INHIBITIONS):
        (cause,) = alertmanager.alerts(source, cluster=f"c{number}")
        found = {
            (alert["labels"]["cluster"], alert["labels"]["instance"]): alert["status"]["inhibitedBy"]
            for alert in alertmanager.alerts(target)
        }
        assert found[f"c{number}", "i1"] == [cause["fingerprint"]], (source, target)
        assert found[f"c{number}", "i2"] == ([] if "instance" in equal else [cause["fingerprint"]]), (source, target)
        assert found[f"other-{number}", "i1"] == [], (source, target)


def test_without_the_label_of_a_cluster_it_hides_all_the_same(alertmanager: AlertmanagerServer) -> None:
    alertmanager.post([{"alertname": "TenureNoMaster"}, {"alertname": "TenureMasterDown", "instance": "m1"}])
    (alert,) = alertmanager.alerts("TenureMasterDown")
    assert alert["status"]["state"] == "suppressed"


def test_nothing_critical_is_hidden_by_a_warning_and_nothing_hides_itself() -> None:
    for source, target, equal in INHIBITIONS:
        severities = [ALERTS[name]["labels"]["severity"] for name in (source, target)]
        assert severities != ["warning", "critical"], (source, target)
        assert source != target
        assert "cluster" in equal
    assert not {source for source, _, _ in INHIBITIONS} & {"TenureWatchdog"}
    assert not {target for _, target, _ in INHIBITIONS} & {"TenureWatchdog"}
    pairs = {(source, target) for source, target, _ in INHIBITIONS}
    assert not {(target, source) for source, target in pairs} & pairs, "two that hide each other hide both"
