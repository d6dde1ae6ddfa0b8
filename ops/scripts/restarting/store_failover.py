"""Behind sentinels: who is the primary, and how a replica takes its place with everything that was written."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from redis.exceptions import RedisError

from restarting.console import Console
from restarting.processes import CALL_POLL_SECONDS, CannotRestart, RestartFailed, wait_until
from restarting.store_servers import Server, StoreUrl, is_in_step

_FAILOVER_SECONDS = 60.0
_CATCH_UP_SECONDS = 15.0
_PAUSE_WRITES_MS = 20_000


def current_primary(url: StoreUrl) -> Server:
    """Where the sentinels send a client now; raises CannotRestart if none of them says."""
    for sentinel in url.sentinels():
        with contextlib.suppress(RedisError, OSError), sentinel:
            found = _command(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
            if found:
                return url.server((str(found[0]), int(found[1])))
    raise CannotRestart(f"{url.shown}: no sentinel says where {url.service} is")


def replicas_of(url: StoreUrl) -> list[Server]:
    """Those that the sentinels know and reach; raises CannotRestart if none of them answers."""
    for sentinel in url.sentinels():
        with contextlib.suppress(RedisError, OSError), sentinel:
            rows = sentinel.sentinel_slaves(url.service)
            usable = [row for row in rows if not row["is_sdown"] and not row["is_odown"]]
            return [url.server((str(row["ip"]), int(row["port"]))) for row in usable]
    raise CannotRestart(f"{url.shown}: no sentinel answers")


def fail_over(url: StoreUrl, old: Server, console: Console, *, coordinated: bool = True) -> None:
    """Have a replica take over from ``old``, with all that was written; does nothing if one has already.

    Valkey 9 can do that itself (COORDINATED). Older sentinels promote a replica without asking the primary, which
    would lose what it has not got yet: so writes are held back until one has everything, and until the old primary
    follows it. That is told to it here: the sentinels' own words to it queue behind what is held back.

    Raises:
        RestartFailed: No replica has taken over.
    """
    if _has_handed_over(url, old):
        return
    began = time.monotonic()
    with contextlib.ExitStack() as held:
        under_way = current_primary(url).address != old.address
        if not under_way and not (coordinated and _ask_sentinels(url, "COORDINATED")):
            with old.client() as client:
                client.execute_command("CLIENT", "PAUSE", _PAUSE_WRITES_MS, "WRITE")
            held.callback(_unpause, old)
            if not wait_until(
                lambda: any(is_in_step(r.info(), old.facts()) for r in replicas_of(url)), _CATCH_UP_SECONDS
            ):
                raise RestartFailed(f"no replica has everything that {old.address} has; nothing was restarted")
            if not _ask_sentinels(url):
                raise RestartFailed(f"no sentinel would fail {url.service} over; `SENTINEL CKQUORUM` says why")
            if wait_until(lambda: _has_been_promoted(url, old), _PAUSE_WRITES_MS / 1000):
                new = current_primary(url)
                with old.client() as client:
                    client.execute_command("REPLICAOF", new.host, new.port)
        waiting = console.progress(f"no replica has taken over from {old.address} yet")
        if not wait_until(lambda: _has_handed_over(url, old), _FAILOVER_SECONDS, CALL_POLL_SECONDS, waiting):
            raise RestartFailed(
                f"no replica has taken over from {old.address} within {_FAILOVER_SECONDS:g} s; "
                "it was not restarted, and the sentinels' log says why"
            )
    _write_down(old)
    console.say(
        f"{current_primary(url).address} has taken over from {old.address} after {time.monotonic() - began:.1f} s"
    )


def _somebody_is_in_step(url: StoreUrl, old: Server) -> bool:
    return any(is_in_step(replica.info(), old.facts()) for replica in replicas_of(url))


def _has_been_promoted(url: StoreUrl, old: Server) -> bool:
    new = current_primary(url)
    return new.address != old.address and new.info().get("role") == "master"


def _has_handed_over(url: StoreUrl, old: Server) -> bool:
    """Whether every sentinel knows, too: one that doesn't would send masters to the old primary when it is back."""
    said = set()
    for sentinel in url.sentinels():
        with contextlib.suppress(RedisError, OSError), sentinel:
            said.add(tuple(map(str, _command(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service))))
    return len(said) == 1 and _has_been_promoted(url, old) and old.info().get("role") == "slave"


def _write_down(server: Server) -> None:
    """Have a server's configuration file say whom it follows, or it would come back as a primary. One without a file
    does, until the sentinels notice; they send nobody there meanwhile."""
    with contextlib.suppress(RedisError, OSError), server.client() as client:
        client.execute_command("CONFIG", "REWRITE")


def _ask_sentinels(url: StoreUrl, *options: str) -> bool:
    """Whether a sentinel agreed to fail over."""
    for sentinel in url.sentinels():
        with contextlib.suppress(RedisError, OSError), sentinel:
            _command(sentinel, "SENTINEL", "FAILOVER", url.service, *options)
            return True
    return False


def _command(client: Any, *words: str) -> Any:
    return client.execute_command(*words)


def _unpause(server: Server) -> None:
    with contextlib.suppress(RedisError, OSError), server.client() as client:
        client.execute_command("CLIENT", "UNPAUSE")
