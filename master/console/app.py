"""The console over HTTP: the page's files, what it reads as JSON, and the one path that changes anything."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

import structlog

from tenure.common.errors import InvalidInput, Overloaded, TenureError
from tenure.master.console.actions import act
from tenure.master.console.asking import Asker
from tenure.master.console.files import load_files
from tenure.master.console.fleet import Fleet
from tenure.master.console.glance import Glance
from tenure.master.console.guard import HEADERS, Refusal, refuse_change, refuse_host
from tenure.master.console.plain import plain
from tenure.master.console.searches import Searches
from tenure.master.console.tasks import Tasks

log = structlog.get_logger()

Query = Mapping[str, list[str]]
Answer = tuple[str, list[tuple[str, str]], bytes]

ACTIONS_PATH = "/api/actions"
ACTION_BYTES_MAX = 4096
QUERY_FIELDS_MAX = 64
# Each may wait seconds for a worker to say what it prints; the other threads are for everything else.
OUTPUTS_AT_ONCE = 2
STATUS_OF = {
    "INVALID_ARGUMENT": "400 Bad Request",
    "OUT_OF_RANGE": "400 Bad Request",
    "NOT_FOUND": "404 Not Found",
    "FAILED_PRECONDITION": "409 Conflict",
    "RESOURCE_EXHAUSTED": "503 Service Unavailable",
    "UNAVAILABLE": "503 Service Unavailable",
}


class ConsoleApp:
    """A WSGI application; thread-safe.

    Args:
        asker: The way to the master.
        names: Host names by which it may be called, besides its addresses.
    """

    def __init__(self, asker: Asker, names: Collection[str]) -> None:
        self._asker = asker
        self._names = frozenset(name.lower() for name in names)
        self._files = load_files()
        searches = Searches(asker)
        tasks = Tasks(asker, searches)
        fleet = Fleet(asker, searches, tasks)
        glance = Glance(asker, searches, fleet)
        self._tasks = tasks
        self._outputs = threading.BoundedSemaphore(OUTPUTS_AT_ONCE)
        self._pages: dict[str, Callable[[Query], Any]] = {
            "/api/glance": lambda query: glance.look(),
            "/api/curves": lambda query: searches.small_curves(query.get("name", [])),
            "/api/search": lambda query: searches.show(_one(query, "name")),
            "/api/curve": lambda query: searches.curve(_one(query, "name")),
            "/api/results": lambda query: tasks.results(_one(query, "name")),
            "/api/tasks": lambda query: tasks.page(
                _one(query, "name"), _one(query, "state", ""), _one(query, "cursor", "")
            ),
            "/api/task": lambda query: tasks.show(_one(query, "id")),
            "/api/output": self._output,
            "/api/dead": lambda query: tasks.dead_letters(_one(query, "name", "")),
            "/api/workers": lambda query: fleet.workers(),
            "/api/queues": lambda query: fleet.queues(),
            "/api/leases": lambda query: fleet.leases(),
            "/api/events": lambda query: tasks.events(),
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """One request."""
        status, headers, body = self._answer(environ)
        start_response(status, [*headers, *HEADERS, ("Content-Length", str(len(body)))])
        return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: Mapping[str, Any]) -> Answer:
        refusal = refuse_host(environ, self._names) or self._refuse_method(environ)
        if refusal is not None:
            return _refused(refusal)
        path = environ.get("PATH_INFO", "/")
        if path in self._files:
            return self._file(environ, path)
        try:
            if path == ACTIONS_PATH:
                return self._act(environ)
            if path in self._pages:
                return _json("200 OK", self._pages[path](_query(environ)))
        except TenureError as error:
            return _json(STATUS_OF.get(error.grpc_status, "500 Internal Server Error"), _told(error))
        return _refused(Refusal("404 Not Found", "there is nothing here"))

    def _refuse_method(self, environ: Mapping[str, Any]) -> Refusal | None:
        allowed = ("POST",) if environ.get("PATH_INFO") == ACTIONS_PATH else ("GET", "HEAD")
        if environ["REQUEST_METHOD"] in allowed:
            return None
        return Refusal("405 Method Not Allowed", f"only {' and '.join(allowed)}", (("Allow", ", ".join(allowed)),))

    def _file(self, environ: Mapping[str, Any], path: str) -> Answer:
        file = self._files[path]
        # Asked for anew each time: a master of another version may have other files.
        headers = [("Content-Type", file.content_type), ("ETag", file.tag), ("Cache-Control", "no-cache")]
        if environ.get("HTTP_IF_NONE_MATCH") == file.tag:
            return "304 Not Modified", headers, b""
        return "200 OK", headers, file.body

    def _act(self, environ: Mapping[str, Any]) -> Answer:
        refusal = refuse_change(environ)
        # The server has read the body already and counted it.
        size = int(environ.get("CONTENT_LENGTH") or "0")
        if refusal is None and size > ACTION_BYTES_MAX:
            refusal = Refusal("413 Content Too Large", f"at most {ACTION_BYTES_MAX} bytes")
        if refusal is not None:
            log.warning("console.refused", why=refusal.why, client=environ.get("REMOTE_ADDR", ""))
            return _refused(refusal)
        try:
            given = json.loads(environ["wsgi.input"].read(size))
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise InvalidInput("is not a JSON object", field="body", expected='such as {"action": "…"}')
        said = act(self._asker, given, str(environ.get("REMOTE_ADDR", "")))
        return _json("200 OK", {"said": said})

    def _output(self, query: Query) -> dict[str, Any]:
        if not self._outputs.acquire(blocking=False):
            raise Overloaded("others follow outputs at this console", field="output", expected="it is tried again")
        try:
            places = (_number(query, "epoch"), _number(query, "place"))
            responses = self._tasks.output(_one(query, "id"), *places)
        finally:
            self._outputs.release()
        items: list[dict[str, Any]] = []
        for response in responses:
            item = plain(response)
            if "output" in item:
                # Bytes: a character may stand in two pieces.
                item["output"]["data"] = base64.b64encode(response.output.data).decode()
            items += [item] if item else []
        return {"items": items}


def _query(environ: Mapping[str, Any]) -> Query:
    try:
        return parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError as error:
        expected = f"give at most {QUERY_FIELDS_MAX} fields, as ?name=…&name=…"
        raise InvalidInput(f"can't be read: {error}", field="query", expected=expected) from None


def _one(query: Query, name: str, default: str | None = None) -> str:
    values = query.get(name, [default] if default is not None else [])
    if len(values) != 1:
        raise InvalidInput("is missing or there twice", field=name, expected=f"give ?{name}=… once")
    return values[0]


def _number(query: Query, name: str) -> int:
    text = _one(query, name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput("is no number", field=name, given=text, expected="give a whole number from 0 on")
    return int(text)


def _told(error: TenureError) -> dict[str, str]:
    return {"error": json.loads(error.to_json()) | {"text": str(error)}}


def _refused(refusal: Refusal) -> Answer:
    status, headers, body = _json(refusal.status, {"error": {"code": "REFUSED", "text": refusal.why}})
    return status, [*headers, *refusal.headers], body


def _json(status: str, value: Any) -> Answer:
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    return status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")], body
