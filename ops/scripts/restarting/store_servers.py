"""The servers of an external store, as somebody sees them who restarts them: roles, loading, replicas in step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from scripting.store_kinds import kind_of

from restarting.processes import CannotRestart
from tenure.common.passwords import without_password
from tenure.master.store.cluster import CLUSTER_PORT
from tenure.master.store.sentinel import SENTINEL_PORT, parse_host
from tenure.master.store.server import make_topology

_TIMEOUT_SECONDS = 5.0
_PORTS = {"server": 6379, "sentinel": SENTINEL_PORT, "cluster": CLUSTER_PORT}


@dataclass(frozen=True)
class StoreUrl:
    """A store's URL, taken apart.

    Attributes:
        kind: ``server``, ``sentinel`` or ``cluster``.
        hosts: The server, the sentinels, or some nodes.
        service: The sentinels' name of it.
        login: Username, password and TLS of the servers.
        sentinel_login: The same of the sentinels.
    """

    text: str
    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    login: dict[str, Any]
    sentinel_login: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Take a URL apart; raises InvalidSetting as a master does."""
        make_topology(text)
        parts = urlsplit(text)
        kind = kind_of(text)
        port = _PORTS[kind]
        user_and_password, _, hosts = parts.netloc.rpartition("@")
        username, _, password = user_and_password.partition(":")
        options = dict(parse_qsl(parts.query))
        tls = {"ssl": True} if parts.scheme.startswith("rediss") else {}
        login = {"username": unquote(username) or None, "password": unquote(password) or None, **tls}
        sentinel_login = {
            "username": options.get("sentinel_username"),
            "password": options.get("sentinel_password"),
            **tls,
        }
        addresses = () if parts.scheme == "unix" else tuple(parse_host(host, port) for host in hosts.split(","))
        service = unquote(parts.path).strip("/").partition("/")[0] if kind == "sentinel" else ""
        return cls(text, kind, addresses, service, login, sentinel_login)

    @property
    def shown(self) -> str:
        """For people; without password."""
        return without_password(self.text)

    def server(self, address: tuple[str, int] | None = None) -> Server:
        """One of its servers; None: the only one."""
        if address is not None:
            host, port = address
            return Server(host, port, lambda: redis.Redis(host=host, port=port, **self.login, **_options()))
        if not self.hosts:
            return Server("localhost", 0, lambda: redis.Redis.from_url(self.text, **_options()))
        host, port = self.hosts[0]
        return Server(host, port, lambda: redis.Redis.from_url(self.text, **_options()))

    def sentinels(self) -> list[redis.Redis]:
        """A connection to each; close them."""
        return [redis.Redis(host=host, port=port, **self.sentinel_login, **_options()) for host, port in self.hosts]


class Server:
    """One server; every call dials anew, since it is about to be restarted.

    Attributes:
        host: Where it is; the same of ``port``, 0 on a unix socket.
    """

    def __init__(self, host: str, port: int, dial: Any) -> None:
        self.host, self.port = host, port
        self._dial = dial

    @property
    def address(self) -> str:
        """For people."""
        return f"{self.host}:{self.port}" if self.port else "unix socket"

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A connection."""
        with self._dial() as client:
            yield client

    def info(self) -> dict[str, Any]:
        """What it says of itself, also while it loads its file; empty if it doesn't answer."""
        try:
            with self.client() as client:
                found: dict[str, Any] = {}
                for section in ("server", "persistence", "replication"):
                    found |= client.info(section)
                return found
        except (RedisError, OSError):
            return {}

    def facts(self) -> dict[str, Any]:
        """The same of one that must answer; raises CannotRestart."""
        found = self.info()
        if not found:
            raise CannotRestart(f"the store's server {self.address} does not answer, or not with this login")
        return found

    @property
    def run_id(self) -> str:
        """New with each start; '' if it doesn't answer."""
        return str(self.info().get("run_id", ""))

    def check_that_it_remembers(self) -> None:
        """Raises CannotRestart of a server that a restart would make forget what it has."""
        facts = self.facts()
        if int(facts.get("loading", 0)):
            raise CannotRestart(f"{self.address} still loads its data: wait for it")
        if int(facts.get("aof_enabled", 0)):
            if facts.get("aof_last_write_status") != "ok":
                raise CannotRestart(f"{self.address} can't write its append-only file: mend that first (a full disk?)")
            return
        saves = ""
        with contextlib.suppress(RedisError, OSError), self.client() as client:
            saves = str(client.config_get("save").get("save", ""))
        if not saves:
            raise CannotRestart(
                f"{self.address} has neither an append-only file nor snapshots: a restart would lose everything; "
                "turn appendonly on first (CONFIG SET appendonly yes, and in its configuration file)"
            )

    def progress(self) -> str:
        """Why it isn't back yet, for people."""
        facts = self.info()
        if int(facts.get("loading", 0)):
            done, left = facts.get("loading_loaded_perc", "?"), facts.get("loading_eta_seconds", "?")
            return f"loads its file: {done} % done, about {left} s left"
        if not facts:
            return "does not answer yet"
        return f"is {facts.get('role')}, link {facts.get('master_link_status', 'none')}"


def is_in_step(replica: dict[str, Any], primary: dict[str, Any]) -> bool:
    """Whether a replica follows and has all that its primary had."""
    if replica.get("role") != "slave" or replica.get("master_link_status") != "up":
        return False
    offset = int(replica.get("slave_repl_offset", -1))
    return not int(replica.get("loading", 0)) and offset >= int(primary.get("master_repl_offset", 0)) >= 0


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": _TIMEOUT_SECONDS,
        "socket_connect_timeout": _TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }
