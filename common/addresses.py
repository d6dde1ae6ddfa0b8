"""Addresses ``host:port`` as they are given on command lines and in settings."""

from __future__ import annotations

import re
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
