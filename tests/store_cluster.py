"""A real Redis Cluster of three primaries on TCP ports of this machine, with a replica each if wanted."""

from __future__ import annotations

import shutil
from pathlib import Path

from processes import wait_for
from sentinel import _free_ports, _Server

SLOTS = 16384
PRIMARIES = 3


class ClusterStore:
    """Three primaries with a third of the slots each, and ``replicas`` replicas of each primary."""

    def __init__(self, root: Path, replicas: int = 0) -> None:
        self._root = root
        self._replicas = replicas
        # A node's bus is at its port + 10000, which must be one, too.
        ports = [port for port in _free_ports(60) if port < 55_000][: PRIMARIES * (1 + replicas)]
        assert len(ports) == PRIMARIES * (1 + replicas)
        self.nodes = [self._node(port) for port in ports]

    @property
    def primaries(self) -> list[_Server]:
        """The first three, which are primaries until a failover."""
        return self.nodes[:PRIMARIES]

    @property
    def url(self) -> str:
        """For :func:`open_store` and ``tenure master --store``."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.nodes)

    def start(self) -> ClusterStore:
        """Start the nodes, join them, and wait until every node says that the cluster is whole."""
        for node in self.nodes:
            node.start()
        first = self.nodes[0]
        for index, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", index + 1)
                client.execute_command("CLUSTER MEET", "127.0.0.1", first.port)
        for index, node in enumerate(self.primaries):
            start, end = (SLOTS * part // PRIMARIES for part in (index, index + 1))
            with node.client() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", start, end - 1)
        wait_for(lambda: all(len(self._known(node)) == len(self.nodes) for node in self.nodes), what="nodes that met")
        for index, node in enumerate(self.nodes[PRIMARIES:]):
            primary = self.primaries[index % PRIMARIES]
            with node.client() as client:
                client.execute_command("CLUSTER REPLICATE", self.id_of(primary))
        self.until_whole()
        return self

    def until_whole(self) -> None:
        """Wait until all slots are served and all replicas follow."""
        wait_for(lambda: all(self._is_whole(node) for node in self.nodes), what="a whole cluster")

    def id_of(self, node: _Server) -> str:
        """The node's name in the cluster."""
        with node.client() as client:
            return str(client.execute_command("CLUSTER MYID"))

    def keys_by_node(self, prefix: str) -> dict[int, set[str]]:
        """Keys under a prefix that each primary holds, by port."""
        found = {}
        for node in self.nodes:
            with node.client() as client:
                if client.info("replication")["role"] == "master":
                    found[node.port] = set(client.scan_iter(match=f"{prefix}:*", count=1000))
        return found

    def remove(self) -> None:
        """End all processes."""
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def _is_whole(self, node: _Server) -> bool:
        with node.client() as client:
            state = client.execute_command("CLUSTER INFO")
            replication = client.info("replication")
        if replication["role"] == "slave" and replication["master_link_status"] != "up":
            return False
        text = state if isinstance(state, str) else "\n".join(f"{name}:{value}" for name, value in state.items())
        return "cluster_state:ok" in text

    def _known(self, node: _Server) -> list[str]:
        with node.client() as client:
            nodes = client.execute_command("CLUSTER NODES")
        lines = list(nodes) if isinstance(nodes, dict) else nodes.strip().splitlines()
        return [line for line in lines if "handshake" not in str(line)]

    def _node(self, port: int) -> _Server:
        folder = self._root / f"node-{port}"
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(folder.absolute()),
            "cluster-enabled": "yes",
            "cluster-node-timeout": "1500",
            "cluster-require-full-coverage": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "repl-diskless-sync-delay": "0",
        }
        return _Server(folder, port, *(part for name, value in options.items() for part in (f"--{name}", value)))
