"""What the console makes of an error: one of the asker's is told to him, one of its own is not said to be his."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tenure.master.console.app import QUERY_FIELDS_MAX, ConsoleApp


class Broken:
    """Stands in for the way to the master: whatever is asked, something is wrong with the console itself."""

    def shared(self, *_: object) -> Any:
        raise ValueError("not enough values to unpack")


@pytest.fixture
def app() -> ConsoleApp:
    return ConsoleApp(Broken(), ())  # type: ignore[arg-type]


def get(app: ConsoleApp, path: str, query: str) -> tuple[str, Any]:
    """(status, JSON) of a GET."""
    begun: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "HTTP_HOST": "localhost", "PATH_INFO": path, "QUERY_STRING": query}
    body = b"".join(app(environ, lambda status, headers: begun.append(status)))
    return begun[0], json.loads(body)


def test_an_error_of_the_consoles_own_is_no_error_of_the_query(app: ConsoleApp) -> None:
    """It is raised to the web server, which logs it and answers 500."""
    with pytest.raises(ValueError, match="unpack"):
        get(app, "/api/search", "name=s")


def test_a_query_that_cannot_be_read_says_why(app: ConsoleApp) -> None:
    status, told = get(app, "/api/search", urlencode([("name", "s")] * (QUERY_FIELDS_MAX + 1)))
    assert (status, told["error"]["code"], told["error"]["field"]) == ("400 Bad Request", "INVALID_INPUT", "query")
    assert str(QUERY_FIELDS_MAX) in told["error"]["text"]
