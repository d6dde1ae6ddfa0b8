"""A real Prometheus process for tests, with the project's own configuration at a test's speed.

::

    prometheus = PrometheusServer(tmp_path / "prometheus", factor=60).start()
    try:
        prometheus.scrape("tenure-master", ["127.0.0.1:40001"])
        await prometheus.until_fires("TenureStoreDown", instance="127.0.0.1:40001")
    finally:
        prometheus.remove()

What it runs is ops/prometheus/prometheus.yml and every file of ops/prometheus/rules. Only time is changed: intervals,
windows (``[15m]``) and ``for`` are divided by ``factor``. What an alert compares with in seconds stays as it is: a test
that wants it lower says so by ``replacing``.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from processes import wait_for
from tools import start_tool, tool

OPS_FOLDER = Path(__file__).resolve().parents[1] / "ops" / "prometheus"
# Far above what anything takes: a test that waits this long has failed.
DEADLINE_SECONDS = 90.0
# Whom it tells of alerts, among what it scrapes.
_ALERTMANAGERS = "alertmanagers"
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = r"(\d+)(ms|[smhd])"
# A rate needs two samples in its window, and one scrape may be late.
_SCRAPES_A_WINDOW_MIN = 5


@dataclass(frozen=True)
class Sample:
    """One series' newest value."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Alert:
    """An alert that is pending or firing."""

    name: str
    state: str
    labels: dict[str, str]
    annotations: dict[str, str] = field(repr=False)


class PrometheusServer:
    """``prometheus`` on a port of the system's choice, with its files below one folder.

    Args:
        folder: Where its configuration, its data and its log are.
        factor: By how much every duration of the rules and every interval is shorter.
        replacing: By alert: texts in its expression, and what stands there instead.
        scrape_interval_ms: How often it scrapes and evaluates; by default as in prometheus.yml over ``factor``, but no
            oftener than twice a second.
        external_labels: That its alerts have when they leave it.
    """

    def __init__(
        self,
        folder: Path,
        factor: float = 60,
        replacing: Mapping[str, Mapping[str, str]] | None = None,
        scrape_interval_ms: int | None = None,
        external_labels: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._factor = factor
        self._replacing = dict(replacing or {})
        self._config: dict[str, Any] = yaml.safe_load((OPS_FOLDER / "prometheus.yml").read_text())
        self._config["global"]["external_labels"] = dict(external_labels or {})
        regular_ms = duration_ms(self._config["global"]["scrape_interval"])
        self.interval_ms = scrape_interval_ms or max(500, round(regular_ms / factor))
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "prometheus.log"
        self.url = ""

    # ---- life -------------------------------------------------------------------------------------------------

    def start(self) -> PrometheusServer:
        """Write its configuration, start it and wait until it serves."""
        self._write_configuration()
        command = [
            tool("prometheus"),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--web.listen-address=127.0.0.1:0",
            "--log.format=json",
        ]
        self._process = start_tool(command, self._folder, self._log)
        address = wait_for(self._address, what="the port that Prometheus listens on")
        assert address is not None
        self.url = f"http://{address}"
        self.scrape("prometheus", [address])
        wait_for(self._is_ready, what="a Prometheus that is ready")
        return self

    def remove(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def scrape(self, job: str, addresses: Sequence[str], labels: Mapping[str, str] | None = None) -> None:
        """From now on these are the job's targets."""
        file = self._targets_file(job)
        beside = file.with_suffix(".new")
        beside.write_text(yaml.safe_dump([{"targets": list(addresses), "labels": dict(labels or {})}]))
        beside.rename(file)

    async def alert(self, addresses: Sequence[str]) -> None:
        """From now on these Alertmanagers are told; waits until it knows them."""
        self.scrape(_ALERTMANAGERS, addresses)
        await self.until(
            lambda: len(self.get("alertmanagers")["activeAlertmanagers"]) == len(addresses), "its Alertmanagers"
        )

    def add_rules(self, name: str, groups: Sequence[Mapping[str, Any]]) -> None:
        """Have it evaluate these, too, as they are; none takes them away again."""
        (self._folder / "rules" / f"{name}.yml").write_text(yaml.safe_dump({"groups": list(groups)}))
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    @property
    def address(self) -> str:
        """Its own, HOST:PORT."""
        return self.url.removeprefix("http://")

    # ---- questions --------------------------------------------------------------------------------------------

    def get(self, path: str, **parameters: str) -> Any:
        """``data`` of an answer of its HTTP API.

        Raises:
            AssertionError: It refused; with what it said.
        """
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}{query}", timeout=DEADLINE_SECONDS) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[Sample]:
        """What an instant query says now."""
        data = self.get("query", query=expression)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def value(self, expression: str) -> float | None:
        """The one value of a query; None when it has no sample."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return samples[0].value if samples else None

    def query_range(self, expression: str, seconds: float, step_seconds: float) -> list[dict[str, Any]]:
        """Series over the last ``seconds``, as the API has them: ``metric`` and ``values``."""
        now = time.time()
        data = self.get(
            "query_range",
            query=expression,
            start=f"{now - seconds:.3f}",
            end=f"{now:.3f}",
            step=f"{step_seconds:g}",
        )
        result: list[dict[str, Any]] = data["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """All rules as it sees them: ``name``, ``query``, ``health``, ``lastError``, …"""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def alerts(self, name: str | None = None, *, pending: bool = False, **labels: str) -> list[Alert]:
        """The alerts that fire now (and those that are about to), all or those of one name with these labels."""
        found = []
        for each in self.get("alerts")["alerts"]:
            alert = Alert(each["labels"]["alertname"], each["state"], each["labels"], each["annotations"])
            if (pending or alert.state == "firing") and name in (None, alert.name):
                found.append(alert)
        return [alert for alert in found if labels.items() <= alert.labels.items()]

    # ---- waiting ----------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
        """Wait until ``condition()``, which asks this server, is true; returns its value.

        Raises:
            AssertionError: Not within ``seconds``; with the alerts that fire.
        """
        end = time.monotonic() + seconds
        while not (value := await asyncio.to_thread(condition)):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds:g} s: {what}; now {self.alerts(pending=True)}")
            await asyncio.sleep(self.interval_ms / 2000)
        return value

    async def until_scraped(self, job: str, count: int, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until so many targets of the job have answered a scrape."""
        await self.until(
            lambda: self.value(f'sum(up{{job="{job}"}})') == count, f"{count} targets of {job}", seconds=seconds
        )

    async def until_fires(self, name: str, seconds: float = DEADLINE_SECONDS, **labels: str) -> Alert:
        """Wait until the alert fires with these labels; returns it."""
        alerts: list[Alert] = await self.until(
            lambda: self.alerts(name, **labels), f"{name}{labels or ''} fires", seconds=seconds
        )
        return alerts[0]

    async def until_clears(self, name: str, seconds: float = DEADLINE_SECONDS, **labels: str) -> None:
        """Wait until the alert is neither firing nor pending with these labels."""
        await self.until(
            lambda: not self.alerts(name, pending=True, **labels), f"{name}{labels or ''} clears", seconds=seconds
        )

    # ---- configuration ----------------------------------------------------------------------------------------

    def _write_configuration(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._config
        config["global"]["scrape_interval"] = config["global"]["evaluation_interval"] = f"{self.interval_ms}ms"
        for scrape in config["scrape_configs"]:
            # A target that is stopped answers nothing; on a busy machine a healthy one may take a while.
            scrape["scrape_interval"], scrape["scrape_timeout"] = f"{self.interval_ms}ms", f"{self.interval_ms}ms"
            file = self._targets_file(scrape["job_name"])
            file.write_text("[]")
            scrape.pop("static_configs", None)
            scrape["file_sd_configs"] = [{"files": [file.name], "refresh_interval": "1s"}]
        for alertmanager in config["alerting"]["alertmanagers"]:
            file = self._targets_file(_ALERTMANAGERS)
            file.write_text("[]")
            alertmanager["file_sd_configs"] = [{"files": [file.name], "refresh_interval": "1s"}]
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.rmtree(self._folder / "rules", ignore_errors=True)
        (self._folder / "rules").mkdir()
        for path in sorted((OPS_FOLDER / "rules").glob("*.yml")):
            (self._folder / "rules" / path.name).write_text(
                yaml.safe_dump(self._faster(yaml.safe_load(path.read_text())))
            )
        assert not self._replacing, f"no such alerts: {sorted(self._replacing)}"

    def _faster(self, document: dict[str, Any]) -> dict[str, Any]:
        for rule in [rule for group in document["groups"] for rule in group["rules"]]:
            for old, new in self._replacing.pop(rule.get("alert", ""), {}).items():
                assert old in rule["expr"], f"{rule['alert']} has no {old!r}: {rule['expr']}"
                rule["expr"] = rule["expr"].replace(old, new)
            rule["expr"] = self._scale_windows(rule["expr"])
            for name in ("for", "keep_firing_for"):
                if name in rule:
                    rule[name] = f"{round(duration_ms(rule[name]) / self._factor)}ms"
        for group in document["groups"]:
            group.pop("interval", None)
        return document

    def _scale_windows(self, expression: str) -> str:
        least_ms = _SCRAPES_A_WINDOW_MIN * self.interval_ms

        def shorter(match: re.Match[str]) -> str:
            scaled = max(round(duration_ms(match[2]) / self._factor), least_ms)
            return f"{match[1]}{scaled}ms"

        return re.sub(rf"(\[|\boffset\s+)({_DURATION})", shorter, expression)

    def _targets_file(self, job: str) -> Path:
        return self._folder / f"targets-{job}.yml"

    def _address(self) -> str | None:
        assert self._process is not None
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]
        if self._process.poll() is not None:
            raise AssertionError(f"Prometheus ended: {self._log.read_text()[-3000:]}")
        return next((line["address"] for line in lines if line.get("msg") == "Listening on"), None)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=DEADLINE_SECONDS) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False


def duration_ms(text: str) -> int:
    """Prometheus's way to write durations: ``15s``, ``1h30m``."""
    parts = re.findall(_DURATION, text)
    assert parts, text
    return sum(int(number) * _UNIT_MS[unit] for number, unit in parts)
