"""Addresses ``host:port`` as they are given on command lines and in settings, and what their names stand for.

A name that resolves to several addresses (a DNS name with several A or AAAA records, a headless service of Kubernetes)
is as many masters.
"""

from __future__ import annotations

import ipaddress
import random
import re
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tenure.common.errors import InvalidSetting

_ADDRESS = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})$")


class Address(NamedTuple):
    """A host and a TCP port; IPv6 hosts keep their brackets in text."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def bare_host(self) -> str:
        """The host without brackets, as sockets want it."""
        return self.host.strip("[]")


Resolve = Callable[[str, int], list[str]]
"""The addresses (IPv4, IPv6) of a host name; raises OSError if it has none now."""

ADDRESSES_MAX = 64


def look_up(host: str, port: int) -> list[str]:
    """The addresses of a host name, by the system's resolver; blocks. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def expand(addresses: Iterable[Address], resolve: Resolve = look_up) -> list[Address]:
    """Each address, or in its place what its name stands for now, in an order of chance; blocks while it looks up.

    A name with one address stays a name, and so does one that can't be looked up: dialling it says why. Each address is
    named once, and of a name at most ``ADDRESSES_MAX``.
    """
    expanded: list[Address] = []
    for address in addresses:
        hosts: list[str] = []
        if not _is_literal(address.bare_host):
            try:
                hosts = resolve(address.bare_host, address.port)[:ADDRESSES_MAX]
            except (OSError, UnicodeError):
                hosts = []
        if len(hosts) > 1:
            # Whoever asks comes to another one first.
            random.shuffle(hosts)
            expanded += [Address(f"[{host}]" if ":" in host else host, address.port) for host in hosts]
        else:
            expanded.append(address)
    return list(dict.fromkeys(expanded))


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_address(text: str, field: str) -> Address:
    """``H:P``; raises InvalidSetting that names ``field``."""
    match = _ADDRESS.match(text)
    if match is None or int(match["port"]) > 65535:
        raise InvalidSetting(
            "is not an address", field=field, given=repr(text), expected="give host:port, for example 127.0.0.1:50051"
        )
    return Address(match["host"], int(match["port"]))


def parse_addresses(text: str, field: str) -> list[Address]:
    """``H:P[,H:P…]``, at least one; raises InvalidSetting that names ``field``."""
    return [parse_address(part.strip(), field) for part in text.split(",")]
