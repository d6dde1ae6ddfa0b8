"""The HTTP endpoint of masters and workers: nobody who connects and says nothing keeps others from their answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from processes import wait_for
from prometheus_client import CollectorRegistry

from tenure.common import endpoint
from tenure.common.addresses import Address
from tenure.common.endpoint import HttpEndpoint

HALF_A_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpEndpoint]:
    """An endpoint for four at a time, soon impatient."""
    monkeypatch.setattr(endpoint, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(endpoint._QuietHandler, "timeout", 0.3)
    made = HttpEndpoint(Address("127.0.0.1", 0), CollectorRegistry(), lambda: (True, {}), lambda: (False, {"why": "x"}))
    yield made
    made.close()


def connection(served: HttpEndpoint, stack: contextlib.ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection((served.address.bare_host, served.address.port), timeout=30))


def test_who_falls_silent_is_cut_off(served: HttpEndpoint, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.ExitStack() as stack:
        for said in (b"", HALF_A_REQUEST):
            silent = connection(served, stack)
            # On a busy machine it may be cut off before it has said anything: what comes then is answered by a reset.
            with contextlib.suppress(ConnectionError):
                silent.sendall(said)
                assert silent.recv(1) == b""
    assert capfd.readouterr().err == ""


def test_one_more_than_may_be_served_is_cut_off_at_once_and_the_next_is_served(
    served: HttpEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint._QuietHandler, "timeout", 30)
    # Those of other tests may end meanwhile.
    others = set(threading.enumerate())

    def serving() -> int:
        return len(set(threading.enumerate()) - others)

    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection(served, stack).sendall(HALF_A_REQUEST)
        wait_for(lambda: serving() == 4, what="a thread for each")
        assert connection(served, stack).recv(1) == b""
        assert serving() == 4
    wait_for(lambda: serving() == 0, what="the threads end with their connections")
    with urllib.request.urlopen(f"http://{served.address}/healthz", timeout=30) as answer:
        assert answer.status == 200
