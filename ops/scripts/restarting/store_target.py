"""The store, as something to be restarted: an embedded server, one server, or several that stand in for each other."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil
from redis.exceptions import RedisError

from restarting.console import Console, command_line
from restarting.processes import CALL_POLL_SECONDS, CannotRestart, RestartFailed, Running, run_command, wait_until
from restarting.store_failover import current_primary, fail_over, replicas_of
from restarting.store_servers import Server, StoreUrl, is_in_step

_FAILOVER_SECONDS = 60.0


class StoreTarget(Protocol):
    """One restart within the store; several of them make the whole."""

    @property
    def name(self) -> str: ...

    def describe(self, console: Console) -> None:
        """Say what is about to be done."""

    def identity(self) -> str:
        """Of the process that runs now; '' if none answers."""

    def carry_out(self, ready_seconds: float, console: Console) -> None:
        """Restart it and wait until it serves.

        Raises:
            RestartFailed: It did not come back.
        """


@dataclass(frozen=True)
class EmbeddedStore:
    """A master's own server: it is told to end, and its master starts it again."""

    name: str
    master: Running

    def describe(self, console: Console) -> None:
        """See StoreTarget."""
        console.say(
            f"the embedded store of master pid {self.master.pid}, to be ended by SIGTERM; its master starts it again"
        )

    def identity(self) -> str:
        """See StoreTarget."""
        return ",".join(f"{child.pid}@{child.create_time():.2f}" for child in self._servers())

    def carry_out(self, ready_seconds: float, console: Console) -> None:
        """See StoreTarget."""
        before = self._servers()
        if not before:
            raise RestartFailed(f"master pid {self.master.pid} runs no store now; its log says why")
        pids = {server.pid for server in before}
        for server in before:
            with contextlib.suppress(psutil.NoSuchProcess):
                server.send_signal(signal.SIGTERM)

        def is_new() -> bool:
            now = self._servers()
            return bool(now) and not pids & {server.pid for server in now}

        if not wait_until(is_new, ready_seconds, waiting=console.progress("the embedded store has not started yet")):
            raise RestartFailed(
                f"the embedded store did not start again within {ready_seconds:g} s; see its server.log"
            )

    def _servers(self) -> list[psutil.Process]:
        """The master's children that are servers: named so, or still on their way to become one."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.master.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.status() != psutil.STATUS_ZOMBIE and "server" in child.name():
                        found.append(child)
        return found


@dataclass(frozen=True)
class StoreServer:
    """A server that somebody else restarts for us.

    Attributes:
        role: What it is for people: ``server``, ``replica``, ``old primary``, ….
        command: Restarts it.
        prepare: Makes it dispensable: hands its place over. Raises RestartFailed.
        whole: Whether the store is whole again, once the server answers.
    """

    name: str
    server: Server
    role: str
    command: Sequence[str]
    prepare: Callable[[Console], None]
    whole: Callable[[], bool]

    def describe(self, console: Console) -> None:
        """See StoreTarget."""
        console.say(f"{self.name} ({self.role}), to be restarted by")
        console.say(f"  {command_line(self.command)}")

    def identity(self) -> str:
        """See StoreTarget."""
        return self.server.run_id

    def carry_out(self, ready_seconds: float, console: Console) -> None:
        """See StoreTarget."""
        old = self.server.run_id
        self.prepare(console)
        began = time.monotonic()
        run_command(self.command)

        def is_back() -> bool:
            facts = self.server.info()
            return facts.get("run_id", old) != old and not int(facts.get("loading", 0)) and self.whole()

        said = time.monotonic()

        def waiting() -> None:
            nonlocal said
            if time.monotonic() - said >= 10:
                said = time.monotonic()
                console.say(f"{self.name} {self.server.progress()}, after {said - began:.0f} s")

        if not wait_until(is_back, ready_seconds, CALL_POLL_SECONDS, waiting):
            if self.server.run_id == old:
                raise RestartFailed(f"{self.name} was not restarted: the same process answers; correct --store-via")
            raise RestartFailed(f"{self.name} is not back after {ready_seconds:g} s: it {self.server.progress()}")
        console.say(f"{self.name} is back after {time.monotonic() - began:.1f} s")


def store_targets(url: StoreUrl, command_for: Callable[[Server], list[str]]) -> list[StoreTarget]:
    """The restarts that an external store takes, in their order: replicas, then each primary once a replica stands in
    for it.

    Raises:
        CannotRestart: A server doesn't answer, or a restart would make it forget everything.
    """
    if url.kind == "sentinel":
        return _behind_sentinels(url, command_for)
    if url.kind == "cluster":
        return _of_cluster(url, command_for)
    server = url.server()
    server.check_that_it_remembers()
    if server.facts().get("role") != "master":
        raise CannotRestart(f"{server.address} is a replica, and no master should use it")
    serves = lambda: server.info().get("role") == "master"  # noqa: E731
    return [StoreServer(f"store {server.address}", server, "server", command_for(server), _nothing, serves)]


def _nothing(console: Console) -> None:
    """A server that nobody stands in for is restarted as it is: leases stand still, and clients wait."""


def _behind_sentinels(url: StoreUrl, command_for: Callable[[Server], list[str]]) -> list[StoreTarget]:
    primary = current_primary(url)
    primary.check_that_it_remembers()
    replicas = replicas_of(url)
    if not replicas:
        raise CannotRestart(f"{url.shown}: the sentinels know no replica that could stand in for {primary.address}")

    def follows(server: Server) -> Callable[[], bool]:
        return lambda: is_in_step(server.info(), current_primary(url).info())

    targets: list[StoreTarget] = [
        StoreServer(f"store {each.address}", each, "replica", command_for(each), _nothing, follows(each))
        for each in replicas
    ]
    hand_over = lambda console: fail_over(url, primary, console)  # noqa: E731
    role = "primary, once a replica has taken over"
    command = command_for(primary)
    targets.append(StoreServer(f"store {primary.address}", primary, role, command, hand_over, follows(primary)))
    return targets


@dataclass(frozen=True)
class _Node:
    """A line of CLUSTER NODES."""

    node_id: str
    address: tuple[str, int]
    primary_id: str
    has_slots: bool


def _of_cluster(url: StoreUrl, command_for: Callable[[Server], list[str]]) -> list[StoreTarget]:
    nodes = _nodes(url)
    primaries = [node for node in nodes if not node.primary_id and node.has_slots]
    if not primaries:
        raise CannotRestart(f"{url.shown}: no node of the cluster holds any slots")
    targets: list[StoreTarget] = []
    for node in primaries:
        server = url.server(node.address)
        server.check_that_it_remembers()
        replicas = [url.server(each.address) for each in nodes if each.primary_id == node.node_id]
        for replica in replicas:
            targets.append(
                StoreServer(
                    f"store {replica.address}", replica, "replica", command_for(replica), _nothing, _joined(replica)
                )
            )
        role = "primary, once a replica has taken over" if replicas else "primary without replicas"
        hand_over = _hand_over(server, replicas)
        targets.append(
            StoreServer(f"store {server.address}", server, role, command_for(server), hand_over, _joined(server))
        )
    return targets


def _hand_over(server: Server, replicas: Sequence[Server]) -> Callable[[Console], None]:
    """A replica of a cluster takes over with all that was written: CLUSTER FAILOVER is agreed with the primary."""

    def hand_over(console: Console) -> None:
        if not replicas or server.info().get("role") == "slave":
            return
        began = time.monotonic()
        heir = next((each for each in replicas if is_in_step(each.info(), server.info())), replicas[0])
        try:
            with heir.client() as client:
                client.execute_command("CLUSTER", "FAILOVER")
        except (RedisError, OSError) as error:
            raise RestartFailed(f"{heir.address} can't take over from {server.address}: {error}") from None

        def has_taken_over() -> bool:
            return heir.info().get("role") == "master" and server.info().get("role") == "slave"

        waiting = console.progress(f"{heir.address} has not taken over from {server.address} yet")
        if not wait_until(has_taken_over, _FAILOVER_SECONDS, CALL_POLL_SECONDS, waiting):
            raise RestartFailed(
                f"{heir.address} has not taken over from {server.address} within {_FAILOVER_SECONDS:g} s; "
                f"{server.address} was not restarted"
            )
        console.say(f"{heir.address} has taken over from {server.address} after {time.monotonic() - began:.1f} s")

    return hand_over


def _joined(server: Server) -> Callable[[], bool]:
    """Whether a node is part of a whole cluster again, and, a replica, follows."""

    def joined() -> bool:
        try:
            with server.client() as client:
                state = client.execute_command("CLUSTER", "INFO")
        except (RedisError, OSError):
            return False
        text = state if isinstance(state, str) else "\n".join(f"{name}:{value}" for name, value in state.items())
        facts = server.info()
        follows = facts.get("role") == "master" or facts.get("master_link_status") == "up"
        return "cluster_state:ok" in text and follows

    return joined


def _nodes(url: StoreUrl) -> list[_Node]:
    for address in url.hosts:
        with contextlib.suppress(RedisError, OSError), url.server(address).client() as client:
            client.set_response_callback("CLUSTER NODES", lambda response, **_: response)
            text = str(client.execute_command("CLUSTER NODES"))
            return [node for line in text.splitlines() if (node := _node(line)) is not None]
    raise CannotRestart(f"{url.shown}: no node of the cluster answers")


def _node(line: str) -> _Node | None:
    """``ID HOST:PORT@BUS[,NAME] FLAGS PRIMARY … LINK SLOTS…``; None of one that is no member now."""
    (
        node_id,
        address,
        flags,
        primary_id,
        *_,
    ) = line.split()
    if {"noaddr", "handshake", "fail"} & set(flags.split(",")):
        return None
    host, _, port = address.partition("@")[0].rpartition(":")
    slots = line.split()[8:]
    return _Node(node_id, (host, int(port)), "" if primary_id == "-" else primary_id, bool(slots))
