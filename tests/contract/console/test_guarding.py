"""Who is served: no foreign name, no foreign page, no frame, no dawdler; and nothing but what HTTP allows."""

from __future__ import annotations

import json
import socket

import pytest
from console_page import OWN, ConsolePage
from processes import MasterProcess, make_master, start_master, wait_for
from raw_peers import Broker

from tenure.master.console.server import CONNECTIONS_MAX
from tenure.proto import tenure_pb2

ACTION = b'{"action": "pause_search", "search": "unheard of"}'


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9150", "[::1]:80", "10.0.0.7", "tenure.example.org:9150"],
)
def test_it_answers_to_its_addresses_and_to_names_it_was_given(console: ConsolePage, host: str) -> None:
    assert console.request("GET", "/api/events", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9150", "localhost.evil.example", "", "[", "127.0.0.1.nip.io"]
)
def test_another_name_is_refused_whatever_is_asked(console: ConsolePage, host: str) -> None:
    """A page of evil.example whose name resolves to this machine would be of the console's origin."""
    for method, path in (("GET", "/"), ("GET", "/api/glance"), ("POST", "/api/actions")):
        answer = console.request(method, path, ACTION if method == "POST" else None, {**OWN, "Host": host})
        assert answer.status == 421, (path, answer)
        assert "--console-names" in answer.json["error"]["text"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain", "X-Tenure-Console": "1"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded", "X-Tenure-Console": "1"}, 415),
        ({"X-Tenure-Console": "1"}, 415),
        ({"Content-Type": "application/json"}, 403),
        ({**OWN, "Origin": "https://evil.example"}, 403),
        ({**OWN, "Origin": "null"}, 403),
        ({**OWN, "Origin": "http://["}, 403),
        ({**OWN, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**OWN, "Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_a_change_must_come_from_the_consoles_own_page(
    console: ConsolePage, broker: Broker, search: str, headers: dict[str, str], status: int
) -> None:
    body = json.dumps({"action": "pause_search", "search": search}).encode()
    assert console.request("POST", "/api/actions", body, headers).status == status
    assert (await broker.api.GetSearch(tenure_pb2.SearchName(name=search))).status == "active"


def test_its_own_page_may(console: ConsolePage) -> None:
    own = {**OWN, "Origin": f"http://127.0.0.1:{console.port}", "Sec-Fetch-Site": "same-origin"}
    assert console.request("POST", "/api/actions", ACTION, own).status == 404
    preflight = console.request("OPTIONS", "/api/actions", headers={"Origin": "https://evil.example"})
    assert preflight.status == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/api/glance", "/api/actions", "/nowhere"])
def test_every_answer_forbids_frames_foreign_scripts_and_sniffing(console: ConsolePage, path: str) -> None:
    headers = console.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"]) == ("'none'", "'self'")
    assert (policy["frame-ancestors"], policy["trusted-types"]) == ("'none'", "'none'")
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
    assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/", 405, "GET, HEAD"),
        ("PUT", "/api/glance", 405, "GET, HEAD"),
        ("DELETE", "/api/task", 405, "GET, HEAD"),
        ("GET", "/api/actions", 405, "POST"),
        ("HEAD", "/api/actions", 405, "POST"),
        ("GET", "/nowhere", 404, ""),
        ("GET", "/../settings.py", 404, ""),
        ("GET", "/%2e%2e/server.py", 404, ""),
        ("GET", "/views/", 404, ""),
    ],
)
def test_methods_and_paths(console: ConsolePage, method: str, path: str, status: int, allow: str) -> None:
    answer = console.request(method, path)
    assert (answer.status, answer.headers.get("allow", "")) == (status, allow)


@pytest.mark.parametrize("path", ["/", "/app.js", "/api/glance"])
def test_head_is_get_without_the_body(console: ConsolePage, path: str) -> None:
    head, full = console.request("HEAD", path), console.get(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == full.headers["content-type"]
    assert int(head.headers["content-length"]) > 0


def test_files_are_asked_for_anew_and_sent_only_when_they_changed(console: ConsolePage) -> None:
    first = console.get("/app.js")
    assert (first.headers["cache-control"], first.headers["content-type"]) == (
        "no-cache",
        "text/javascript; charset=utf-8",
    )
    again = console.request("GET", "/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert console.get("/api/glance").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[1]", 400), (b"{", 400), (b"\xff\xfe", 400), (b"[" * 4000, 400), (b" " * 5000, 413)],
)
def test_a_body_that_is_no_small_object_is_refused(console: ConsolePage, body: bytes, status: int) -> None:
    assert console.request("POST", "/api/actions", body, OWN).status == status


def test_long_headers_and_bodies_are_cut_off(console: ConsolePage) -> None:
    assert console.request("GET", "/", headers={"X-Long": "x" * 40_000}).status in (400, 431)
    assert console.request("POST", "/api/actions", b"x" * 100_000, OWN).status == 413


def test_whoever_dawdles_is_cut_off_and_keeps_nobody_out(console: ConsolePage) -> None:
    """Requests that never end: as many as there are connections. They are closed, and others are served again."""
    dawdlers = []
    for _ in range(CONNECTIONS_MAX + 5):
        dawdler = socket.create_connection((console.host, console.port))
        dawdler.sendall(b"GET /api/glance HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        dawdlers.append(dawdler)
    try:
        assert console.get("/api/events").status == 200
        dawdlers[0].settimeout(30)
        assert dawdlers[0].recv(100) == b""
    finally:
        for dawdler in dawdlers:
            dawdler.close()


async def test_an_open_console_warns(tmp_path_factory: pytest.TempPathFactory) -> None:
    master = start_master(tmp_path_factory.mktemp("open"), console="0.0.0.0:0")
    try:
        assert master.logged("console.open")
        assert ConsolePage(master.facts["console"]).host == "127.0.0.1"
        # Nobody has given it a name.
        page = ConsolePage(master.facts["console"])
        assert page.request("GET", "/", headers={"Host": "tenure.example.org"}).status == 421
    finally:
        master.remove()


def test_a_loopback_console_does_not_warn(console_master: MasterProcess) -> None:
    assert console_master.logged("console.open") == []


def test_an_address_that_was_given_is_used_or_refused(
    console: ConsolePage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    taken = make_master(tmp_path_factory.mktemp("taken"), console=f"127.0.0.1:{console.port}")
    with pytest.raises(RuntimeError, match=r"console: can't listen: .*--console off"):
        taken.start()


def test_the_default_moves_to_a_free_port_and_off_is_off(
    console: ConsolePage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    masters = [start_master(tmp_path_factory.mktemp("default"), console=None) for _ in range(2)]
    try:
        pages = [ConsolePage(master.facts["console"]) for master in masters]
        assert pages[0].port != pages[1].port
        # Where nobody looks for metrics.
        assert {page.port % 10 for page in pages} == {0}
        assert all(page.get("/").status == 200 for page in pages)
    finally:
        for master in masters:
            master.remove()
    off = start_master(tmp_path_factory.mktemp("off"), console="off")
    try:
        assert off.facts["console"] == ""
    finally:
        off.remove()


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("console", "9150", "give host:port"),
        ("console_names", "a b", "host names"),
        ("console_names", "x:80", "without ports"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, setting: str, value: str, expected: str
) -> None:
    wrong = make_master(tmp_path_factory.mktemp("wrong"), **{setting: value})
    wrong.spawn()
    wait_for(lambda: wrong.returncode is not None)
    assert wrong.returncode == 2
    assert setting in wrong.log_text()
    assert expected in wrong.log_text()
