"""A real Alertmanager process for tests, with the project's own configuration at a test's speed, and who it tells.

::

    with Receiver() as told, AlertmanagerServer(tmp_path / "alertmanager", told.url, factor=240) as alertmanager:
        prometheus.alert([alertmanager.address])
        message = told.until("on-call", lambda message: message.firing("TenureStoreDown"))

What it runs is ops/prometheus/alertmanager.yml. Only the receivers' address and the waits are changed: ``group_wait``,
``group_interval`` and ``repeat_interval`` are divided by ``factor``. Everything here blocks.
"""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import yaml
from processes import wait_for
from prometheus_server import DEADLINE_SECONDS, OPS_FOLDER, duration_ms
from tools import start_tool, tool

# Where the example sends everything.
_EXAMPLE_ADDRESS = "http://127.0.0.1:9095"
_WAITS = ("group_wait", "group_interval", "repeat_interval")


@dataclass(frozen=True)
class Message:
    """What was posted to a receiver: the JSON of Alertmanager's webhooks."""

    to: str
    body: dict[str, Any]

    def alerts(self, status: str, name: str, **labels: str) -> list[dict[str, Any]]:
        """Its alerts of this status (``firing``, ``resolved``) and name, with these labels."""
        wanted = {"alertname": name, **labels}.items()
        return [each for each in self.body["alerts"] if each["status"] == status and wanted <= each["labels"].items()]

    def firing(self, name: str, **labels: str) -> list[dict[str, Any]]:
        """:meth:`alerts` that fire."""
        return self.alerts("firing", name, **labels)

    def resolved(self, name: str, **labels: str) -> list[dict[str, Any]]:
        """:meth:`alerts` that have cleared."""
        return self.alerts("resolved", name, **labels)


class Receiver:
    """An HTTP server that keeps what is posted to it; a message's receiver is the path. Serves while entered.

    Attributes:
        status: What it answers with; what it answers with 500 it doesn't keep.
    """

    def __init__(self) -> None:
        self.status = 200
        self._messages: list[Message] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """Instead of the example's address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def messages(self, to: str) -> list[Message]:
        """What this receiver was told so far."""
        return [message for message in list(self._messages) if message.to == to]

    def names(self, to: str) -> set[str]:
        """The alerts that this receiver was told of so far."""
        return {alert["labels"]["alertname"] for message in self.messages(to) for alert in message.body["alerts"]}

    def until(self, to: str, condition: Callable[[Message], Any]) -> Message:
        """Wait until this receiver has a message of which that is true; the first of them."""
        found: list[Message] = wait_for(
            lambda: [message for message in self.messages(to) if condition(message)],
            DEADLINE_SECONDS,
            what=f"a message to {to}",
        )
        return found[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = receiver.status
                if status == 200:
                    receiver._messages.append(Message(self.path.strip("/"), body))
                self.send_response(status)
                self.end_headers()

            def log_request(self, code: object = "", size: object = "") -> None:
                pass

        return Handler


class AlertmanagerServer:
    """``prometheus-alertmanager`` on a port of the system's choice, its files below one folder; runs while entered.

    Args:
        folder: Where its configuration, its data and its log are.
        receivers: The address that stands instead of the example's.
        factor: By how much every wait is shorter.
    """

    def __init__(self, folder: Path, receivers: str, factor: float = 240) -> None:
        self._folder = folder
        self._receivers = receivers
        self._factor = factor
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "alertmanager.log"
        self.address = ""

    @property
    def url(self) -> str:
        """Its own."""
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        text = (OPS_FOLDER / "alertmanager.yml").read_text()
        assert text.count(_EXAMPLE_ADDRESS) == 3, "the example's receivers are elsewhere"
        config = yaml.safe_load(text.replace(_EXAMPLE_ADDRESS, self._receivers))
        for route in (config["route"], *config["route"]["routes"]):
            for name in _WAITS:
                if name in route:
                    route[name] = f"{round(duration_ms(route[name]) / self._factor)}ms"
        (self._folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
        command = [
            tool("prometheus-alertmanager"),
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            "--web.listen-address=127.0.0.1:0",
            # It is alone: without this it would look for others.
            "--cluster.listen-address=",
            "--log.format=json",
            # Says when a group is looked at: what it doesn't send then, it keeps to itself.
            "--log.level=debug",
        ]
        self._process = start_tool(command, self._folder, self._log)
        self.address = wait_for(self._listening, what="the port that Alertmanager listens on")
        wait_for(self._is_ready, what="an Alertmanager that is ready")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def alerts(self, name: str, **labels: str) -> list[dict[str, Any]]:
        """What it knows of the alerts of this name with these labels, as its API has them."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=DEADLINE_SECONDS) as response:
            found: list[dict[str, Any]] = json.load(response)
        return [each for each in found if {"alertname": name, **labels}.items() <= each["labels"].items()]

    def until_suppressed(self, name: str, **labels: str) -> dict[str, list[str]]:
        """Wait until such alerts are there and all are held back, and their groups were looked at since.

        Returns:
            By what the first of them is held back: ``inhibitedBy`` and ``silencedBy``.
        """

        def held() -> list[dict[str, Any]]:
            found = self.alerts(name, **labels)
            return found if all(each["status"]["state"] == "suppressed" for each in found) else []

        (first, *_) = wait_for(held, DEADLINE_SECONDS, what=f"{name} is held back")
        looked = self._flushes(name)
        wait_for(lambda: self._flushes(name) > looked, DEADLINE_SECONDS, what=f"a look at {name}")
        status: dict[str, list[str]] = first["status"]
        return status

    def post(self, alerts: Sequence[Mapping[str, str]]) -> None:
        """Tell it of these alerts, each by its labels, as Prometheus would."""
        body = json.dumps([{"labels": dict(labels)} for labels in alerts]).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v2/alerts", data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
            assert response.status == 200

    def amtool(self, *arguments: str) -> str:
        """What ``amtool`` says of this server."""
        command = [tool("amtool"), f"--alertmanager.url={self.url}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def _flushes(self, name: str) -> int:
        """How often a group of this alert was looked at."""
        return sum(
            line.get("msg") == "flushing" and f'alertname=\\"{name}\\"' in json.dumps(line["aggrGroup"])
            for line in self._lines()
        )

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]

    def _listening(self) -> str | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Alertmanager ended: {self._log.read_text()[-3000:]}")
        return next((line["address"] for line in self._lines() if line.get("msg") == "Listening on"), None)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=DEADLINE_SECONDS) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False
