"""rolling-restart of stores whose servers stand in for each other: Sentinel's and a Redis Cluster's."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
from ops_scripts import KEPT, Scripts
from processes import eventually, wait_for
from redis.backoff import NoBackoff
from redis.retry import Retry
from restarting import store_failover, store_servers
from restarting.console import Console
from restarting.processes import RestartFailed
from restarting.store_failover import current_primary, fail_over
from restarting.store_servers import Server, StoreUrl
from rolling_scene import Fleet, SearchProgram, Supervisor, shutdown_command
from sentinel import DOWN_AFTER_MS, SERVICE, SentinelStore, _Server
from store_cluster import ClusterStore


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """To be started by the test."""
    made = Fleet(tmp_path)
    yield made
    await made.destroy()


class ConfiguredSentinelStore(SentinelStore):
    """Servers with configuration files, as everywhere but in tests: who follows whom is written there, so that a
    primary that was demoted comes back as a replica. And sentinels with patience: on a busy machine they would find a
    primary dead that isn't, and put another in its place without asking it, which loses what was written last."""

    def _server(self, port: int, primary: int) -> _Server:
        plain = super()._server(port, primary)
        names, values = plain._arguments[::2], plain._arguments[1::2]
        plain.folder.mkdir(parents=True)
        configuration = plain.folder / "server.conf"
        pairs = zip(names, values, strict=True)
        configuration.write_text(
            "".join(f"{name.removeprefix('--')} {value or chr(34) * 2}\n" for name, value in pairs)
        )
        return _Server(plain.folder, port, str(configuration))

    def _sentinel(self, port: int, primary: int) -> _Server:
        sentinel = super()._sentinel(port, primary)
        configuration = sentinel.folder / "sentinel.conf"
        hasty = f"down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
        text = configuration.read_text()
        assert hasty in text
        configuration.write_text(text.replace(hasty, f"down-after-milliseconds {SERVICE} 60000\n"))
        return sentinel


@contextlib.contextmanager
def supervised(servers: list[_Server]):  # type: ignore[no-untyped-def]
    """Servers that are started again whenever they end."""
    supervisors = [Supervisor(server.start, lambda server=server: server.process) for server in servers]
    yield
    for supervisor in supervisors:
        supervisor.stop()


async def restarted_under_a_search(
    fleet: Fleet, scripts: Scripts, servers: list[_Server], url: str, state: Path
) -> list[str]:
    """Restart the store with a search going on; returns the steps."""
    await fleet.start(masters=1, workers=1, store=url)
    program = SearchProgram(fleet.addresses, parallelism=2).start()
    await eventually(lambda: program.results or program.errors, what="the first result")
    pids = [server.process.pid for server in servers if server.process]
    via = shutdown_command("127.0.0.1:{port}")
    with supervised(servers):
        said = await scripts(
            *("rolling-restart", "store", "--ready-file", *fleet.masters_ready, "--store-via", via),
            *("--state-dir", state, "--probe", "writes", "--output", "json"),
        )
    assert said.code == KEPT, (said.report["breaches"], said.err)
    assert said.report["kept"]
    assert said.report["figures"]["errors seen by clients"] == 0
    assert said.report["figures"]["leases expired"] == said.report["figures"]["losses burned"] == 0
    assert not set(pids) & {server.process.pid for server in servers if server.process}
    records = await program.finish()
    assert program.errors == []
    assert {record.state for record in records.values()} == {"SUCCEEDED"}
    assert {(record.attempts, record.losses, record.epoch) for record in records.values()} == {(0, 0, 1)}
    return [str(step) for step in said.report["steps"]]


@pytest.mark.slow
async def test_of_sentinels_servers_the_primary_goes_last_and_hands_over_first(
    fleet: Fleet, scripts: Scripts, tmp_path: Path
) -> None:
    store = ConfiguredSentinelStore(tmp_path / "store").start()
    try:
        old = store.primary()
        steps = await restarted_under_a_search(fleet, scripts, store.servers, store.url, tmp_path / "state")
        assert len(steps) == 3
        assert steps[-1] == f"store 127.0.0.1:{old.port}"
        assert store.primary() is not old
    finally:
        store.remove()


@pytest.mark.slow
async def test_a_cluster_hands_over_each_primary_to_its_replica(fleet: Fleet, scripts: Scripts, tmp_path: Path) -> None:
    store = ClusterStore(tmp_path / "store", replicas=1).start()
    try:
        steps = await restarted_under_a_search(fleet, scripts, store.nodes, store.url, tmp_path / "state")
        assert len(steps) == 6
        primaries = {f"store 127.0.0.1:{node.port}" for node in store.primaries}
        assert [step in primaries for step in steps] == [False, True] * 3
        store.until_whole()
    finally:
        store.remove()


def test_sentinels_that_can_not_hand_over_lose_nothing_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before Valkey 9 a failover asks nobody: writes are held back instead."""
    store = ConfiguredSentinelStore(tmp_path / "store", replicas=1).start()
    try:
        url = StoreUrl.parse(store.url)
        old = current_primary(url)
        with old.client() as client:
            for number in range(1000):
                client.set(f"key-{number}", "x" * 1000)
        fail_over(url, old, Console(as_json=False), coordinated=False)
        new = current_primary(url)
        assert new.address != old.address
        assert f"{new.address} has taken over from {old.address}" in capsys.readouterr().out
        with new.client() as client:
            assert client.dbsize() == 1000
            assert client.set("written", "1"), "writes are held back no longer"
        # Again: it has happened already.
        fail_over(url, old, Console(as_json=False), coordinated=False)
        assert current_primary(url).address == new.address
    finally:
        store.remove()


class Writer:
    """Somebody who writes all the time, and knows what was acknowledged."""

    def __init__(self, server: Server) -> None:
        self.acknowledged: list[str] = []
        self._server, self._stopped = server, threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        wait_for(lambda: len(self.acknowledged) > 10, what="the first writes")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _write(self) -> None:
        # Long patience: a write that is held back is acknowledged when it is let go, if that server may take it.
        host, port = self._server.host, self._server.port
        with redis.Redis(host, port, socket_timeout=60, retry=Retry(NoBackoff(), 0)) as client:
            for number in itertools.count():
                if self._stopped.is_set():
                    return
                try:
                    client.set(f"written-{number}", "1")
                    self.acknowledged.append(f"written-{number}")
                except redis.RedisError:
                    return  # it is a replica now


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ConfiguredSentinelStore]:
    """A primary with a replica."""
    store = ConfiguredSentinelStore(tmp_path / "store", replicas=1).start()
    yield store
    store.remove()


def pauses(server: Server) -> int:
    """How often writes were held back there."""
    with server.client() as client:
        return int(client.info("commandstats").get("cmdstat_client|pause", {}).get("calls", 0))


def test_writes_are_held_back_however_long_a_promotion_takes(
    pair: ConfiguredSentinelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = StoreUrl.parse(pair.url)
    old = current_primary(url)
    ask = store_failover._ask_sentinels
    asked: list[bool] = []

    def ask_late(url: StoreUrl) -> bool:
        """The sentinels take their time: until the pause was made longer some times more."""
        enough = pauses(old) + 6

        def late() -> None:
            wait_for(lambda: pauses(old) >= enough, what="a longer pause")
            asked.append(ask(url))

        threading.Thread(target=late, daemon=True).start()
        return True

    monkeypatch.setattr(store_failover, "_ask_sentinels", ask_late)
    with Writer(old) as writer:
        fail_over(url, old, Console(as_json=False), coordinated=False)
    assert asked == [True]
    with current_primary(url).client() as client:
        assert client.exists(*writer.acknowledged) == len(writer.acknowledged), "what was acknowledged is there"


@pytest.mark.parametrize("when", ["catching up", "promoting"])
def test_where_writes_were_let_go_too_early_nobody_is_made_to_forget_them(
    when: str, pair: ConfiguredSentinelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause lapses: the next renewal comes too late."""
    url = StoreUrl.parse(pair.url)
    old = current_primary(url)

    def hasten(url: StoreUrl) -> bool:
        monkeypatch.setattr(store_failover._WritesHeldBack, "renew", late)
        return True

    renew = store_failover._WritesHeldBack.renew

    def late(writes: store_failover._WritesHeldBack) -> None:
        writes._until = 0.0
        renew(writes)

    if when == "catching up":
        monkeypatch.setattr(store_failover, "_PAUSE_WRITES_MS", 1)
    else:
        monkeypatch.setattr(store_failover, "_ask_sentinels", hasten)
    with Writer(old) as writer:
        with pytest.raises(RestartFailed, match="could not be held back until a replica has everything"):
            fail_over(url, old, Console(as_json=False), coordinated=False)
        seen = len(writer.acknowledged)
        wait_for(lambda: len(writer.acknowledged) > seen + 10, what="writes that are taken again")
    assert old.info()["role"] == "master"
    assert current_primary(url).address == old.address
    with old.client() as client:
        assert client.exists(*writer.acknowledged) == len(writer.acknowledged)


def test_the_sentinels_choose_so_every_replica_has_to_have_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_failover, "_CATCH_UP_SECONDS", 0.5)
    monkeypatch.setattr(store_servers, "_TIMEOUT_SECONDS", 0.5)
    store = ConfiguredSentinelStore(tmp_path / "store", replicas=2).start()
    try:
        url = StoreUrl.parse(store.url)
        old = current_primary(url)
        lagging = next(each for each in store.servers if each.port != old.port)
        assert lagging.process is not None
        lagging.process.send_signal(signal.SIGSTOP)
        with pytest.raises(RestartFailed, match=f"127.0.0.1:{lagging.port} is not in step with {old.address}"):
            fail_over(url, old, Console(as_json=False), coordinated=False)
        with old.client() as client:
            assert client.set("written", "1"), "writes are held back no longer"
        assert current_primary(url).address == old.address
    finally:
        store.remove()
