"""The console over HTTP, as a browser or an attacker would speak to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from processes import DEADLINE_SECONDS, wait_for

OWN = {"Content-Type": "application/json", "X-Tenure-Console": "1"}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class ConsolePage:
    """One console, by its URL. Blocks; the master is another process."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 0)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request; ``headers`` may name another Host."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE_SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            lower = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, lower, response.read())
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Answer:
        """A GET; a list in ``query`` becomes several fields of one name."""
        return self.request("GET", f"{path}?{urlencode(query, doseq=True)}" if query else path)

    def read(self, path: str, **query: Any) -> Any:
        """The JSON of a GET that must succeed; like the page, it asks again while the store doesn't answer."""
        answer = wait_for(lambda: (got := self.get(path, **query)).status != 503 and got, what=path)
        assert isinstance(answer, Answer)
        assert answer.status == 200, answer
        return answer.json

    def act(self, **action: Any) -> Answer:
        """A press of a button."""
        return self.request("POST", "/api/actions", json.dumps(action).encode(), OWN)
