"""Behind sentinels: who is the primary, and how a replica takes its place with everything that was written."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Self

from redis.exceptions import RedisError

from restarting.console import Console
from restarting.interruptions import undisturbed
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
            return _usable(url, sentinel)
    raise CannotRestart(f"{url.shown}: no sentinel answers")


def _usable(url: StoreUrl, sentinel: Any) -> list[Server]:
    rows = sentinel.sentinel_slaves(url.service)
    usable = [row for row in rows if not row["is_sdown"] and not row["is_odown"]]
    return [url.server((str(row["ip"]), int(row["port"]))) for row in usable]


def fail_over(url: StoreUrl, old: Server, console: Console, *, coordinated: bool = True) -> None:
    """Have a replica take over from ``old``, with all that was written; does nothing if one has already.

    Valkey 9 can do that itself (COORDINATED). Older sentinels promote a replica without asking the primary, which
    would lose what it has not got yet: so writes are held back until all have everything, and until the old primary
    follows the new one. That is told to it here: the sentinels' own words to it queue behind what is held back.

    Raises:
        RestartFailed: No replica has taken over, or writes could not be held back for as long as that took.
    """
    if _has_handed_over(url, old):
        return
    began = time.monotonic()
    with contextlib.ExitStack() as held:
        under_way = current_primary(url).address != old.address
        if not under_way and not (coordinated and _ask_sentinels(url, "COORDINATED")):
            _hand_over(url, old, held.enter_context(_WritesHeldBack(old)))
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


class _WritesHeldBack:
    """A primary that takes no writes, for as long as this is renewed.

    The primary lets them go by itself after a while, so that a script that dies leaves a store that works. Whatever
    it takes after that a failover would lose, so nobody may go on with one.
    """

    def __init__(self, primary: Server) -> None:
        self._primary = primary
        self._until: float | None = None

    def __enter__(self) -> Self:
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RedisError, OSError), self._primary.client() as client:
            client.execute_command("CLIENT", "UNPAUSE")

    def renew(self) -> None:
        """For a while from now on; raises RestartFailed if some may have been taken since the last time."""
        asked, trouble = time.monotonic(), ""
        try:
            with self._primary.client() as client:
                client.execute_command("CLIENT", "PAUSE", _PAUSE_WRITES_MS, "WRITE")
        except (RedisError, OSError) as error:
            trouble = f": {error}"
        has_lapsed = bool(trouble) if self._until is None else time.monotonic() >= self._until
        if has_lapsed:
            raise RestartFailed(
                f"writes to {self._primary.address} could not be held back until a replica has everything and has "
                f"taken over{trouble}; it was not restarted. Ask the sentinels who the primary is before you try again"
            )
        if not trouble:
            self._until = asked + _PAUSE_WRITES_MS / 1000


def _hand_over(url: StoreUrl, old: Server, writes: _WritesHeldBack) -> None:
    """Have a replica promoted that has everything, and the old primary follow it."""
    behind: list[str] = []

    def all_have_everything() -> bool:
        writes.renew()
        behind[:] = _behind(url, old)
        return not behind

    if not wait_until(all_have_everything, _CATCH_UP_SECONDS, CALL_POLL_SECONDS):
        raise RestartFailed(
            f"{' and '.join(behind)} is not in step with {old.address} after {_CATCH_UP_SECONDS:g} s, and the "
            "sentinels may choose any replica; it was not restarted: mend that, and try again"
        )
    heirs = _all_replicas(url)
    promoted: list[Server] = []

    def is_promoted() -> bool:
        writes.renew()
        promoted[:] = [heir for heir in heirs if heir.info().get("role") == "master"]
        return bool(promoted)

    def follows() -> bool:
        writes.renew()
        with contextlib.suppress(RedisError, OSError), old.client() as client:
            client.execute_command("REPLICAOF", promoted[0].host, promoted[0].port)
            return True
        return False

    # From here to REPLICAOF a script that ended would let writes go that the failover loses.
    with undisturbed():
        writes.renew()
        if not _ask_sentinels(url):
            raise RestartFailed(f"no sentinel would fail {url.service} over; `SENTINEL CKQUORUM` says why")
        if not wait_until(is_promoted, _FAILOVER_SECONDS, CALL_POLL_SECONDS):
            raise RestartFailed(
                f"the sentinels have promoted no replica within {_FAILOVER_SECONDS:g} s; {old.address} takes writes "
                "again and was not restarted. See in their log why, and that they have given up, before you try again"
            )
        if not wait_until(follows, _FAILOVER_SECONDS, CALL_POLL_SECONDS):
            raise RestartFailed(
                f"{promoted[0].address} was promoted, and {old.address} could not be told to follow it; "
                "it was not restarted, and the sentinels will tell it again"
            )


def _all_replicas(url: StoreUrl) -> list[Server]:
    """Those that any sentinel could promote."""
    found: dict[str, Server] = {}
    for sentinel in url.sentinels():
        with contextlib.suppress(RedisError, OSError), sentinel:
            for each in _usable(url, sentinel):
                found.setdefault(each.address, each)
    return list(found.values())


def _behind(url: StoreUrl, old: Server) -> list[str]:
    """The replicas that have not everything of ``old``, or that there is none, for people; nothing if all have."""
    looks = [(replica.address, replica.info()) for replica in _all_replicas(url)]
    primary = old.info()
    if primary.get("role") != "master" or not looks:
        return ["no replica"]
    return [address for address, facts in looks if not is_in_step(facts, primary)]


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
