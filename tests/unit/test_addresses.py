"""What the name of a master stands for."""

from __future__ import annotations

import socket

import pytest

from tenure.client.connection import Connection
from tenure.common import addresses
from tenure.common.addresses import ADDRESSES_MAX, Address, expand, look_up, parse_addresses


def test_a_name_with_several_addresses_is_several_masters_and_others_stay_as_they_are() -> None:
    known = {"masters.svc": ["10.0.0.1", "fd00::1", "10.0.0.2"], "one": ["10.0.0.9"]}

    def resolve(host: str, port: int) -> list[str]:
        if host not in known:
            raise socket.gaierror("unknown")
        return list(known[host])

    given = parse_addresses("one:1,masters.svc:2,127.0.0.1:3,[::1]:4,nowhere:5,10.0.0.1:2", "master")
    orders = set()
    for _ in range(100):
        expanded = expand(given, resolve)
        assert [str(each) for each in (expanded[0], *expanded[4:])] == ["one:1", "127.0.0.1:3", "[::1]:4", "nowhere:5"]
        assert {str(each) for each in expanded[1:4]} == {"10.0.0.1:2", "[fd00::1]:2", "10.0.0.2:2"}
        orders.add(tuple(expanded[1:4]))
    assert len(orders) > 1, "load is spread"


def test_a_name_with_very_many_addresses_is_bounded() -> None:
    many = [f"10.0.{n // 250}.{n % 250}" for n in range(1000)]
    assert len(expand([Address("many", 1)], lambda host, port: list(many))) == ADDRESSES_MAX


def test_the_systems_resolver_is_asked() -> None:
    assert set(look_up("localhost", 1)) & {"127.0.0.1", "::1"}
    with pytest.raises(socket.gaierror):
        look_up("no-such-host.invalid", 1)


def test_a_client_follows_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers at any address; what counts is whom it asks."""
    asked: list[str] = []
    now = [["127.0.0.2", "127.0.0.3"], ["127.0.0.3", "127.0.0.4"]]
    expand_really = addresses.expand

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return list(now[0] if len(asked) < 2 else now[1])

    monkeypatch.setattr("tenure.client.connection.expand", lambda given: expand_really(given, resolve))
    connection = Connection("masters.svc:1", timeout_seconds=0.5)
    try:
        assert {each.address for each in connection._masters} == {"127.0.0.2:1", "127.0.0.3:1"}
        kept = next(each for each in connection._masters if each.address == "127.0.0.3:1")
        connection._look_up()
        assert {each.address for each in connection._masters} == {"127.0.0.3:1", "127.0.0.4:1"}
        assert kept in connection._masters, "its channel stays"
        assert connection.addresses == ("masters.svc:1",)
    finally:
        connection.close()
