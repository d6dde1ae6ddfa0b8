"""Every key of the store, by name.

All keys of one shard carry one hash tag (``{0}``), the worker registry has its own (``{workers}``), and no script
touches two, so the same code runs on Redis Cluster. Scripts are given one key and derive the others from it
(docs/adr/0009); this table is what they derive.

======================================  =====  ==================================================================
key (after ``tenure:{shard}:``)         type   what
======================================  =====  ==================================================================
``clock``                               hash   lease clock ``now``, last tick ``wall``, ``pass:<priority>`` of fairness
``seq``                                 int    submission numbers
``task:<id>``                           hash   a task's metadata
``payload:<digest>``                    text   compressed architecture and config, shared by equal tasks
``payload-refs``                        hash   how many tasks share each payload
``outcome:<id>``                        text   JSON: the result, or the last failure
``attempts:<id>``                       list   JSON: one record a lease, the evidence
``checkpoints:<id>``                    list   JSON: registered checkpoints, newest first
``retired:<id>``                        list   URLs of checkpoints that were unregistered last; an hour after an end
``progress:<id>``                       text   JSON: the holder's last report, while LEASED
``search:<name>``                       hash   settings, status, counts by state (``n:<STATE>``), best result, cost
``searches``                            zset   names by creation time
``members:<search>``                    zset   all task ids by submission number
``keys:<search>``                       hash   idempotency key -> task id
``ready:<class>|<search>``              zset   QUEUED ids by (priority, submission number)
``classes:<search>``                    set    requirement classes with ready tasks
``class-requirements``                  hash   class -> requirements JSON
``class-tasks``                         hash   class -> how many tasks have it, whatever their state
``code:<digest>``                       text   an archive that searches ship to their workers, whole
``code-part:<digest>``                  text   what has come of one that is being uploaded; an hour after the last piece
``codes``                               zset   digests of whole archives by wall time of their last use
``code-tasks``                          hash   digest -> how many tasks name it, whatever their state
``fair:<class>``                        zset   searches to serve by (priority, pass)
``scheduled``                           zset   SCHEDULED ids by lease-clock time
``leases``                              zset   LEASED ids by expiry in lease-clock time: the only index of active work
``ended:<search>:<STATE>``              zset   ended ids by wall time
``events``                              stream transitions, trimmed
``counters``                            hash   expired leases, late successes, refused stale writes, …
``discarded``                           list   URLs of checkpoints to delete
``orphans``                             hash   origin -> JSON: what a worker told of a task that the store has lost
``orphans-at``                          zset   the same origins by wall time
``legacy-seen``                         zset   legacy workers by lease-clock time of their last heartbeat
======================================  =====  ==================================================================

In ``tenure:{workers}:``: ``all`` (zset, worker ids by last seen), ``worker:<id>`` (hash), ``events`` (stream).
Channels, which keep nothing, are ``channel:<name>`` there.
``tenure:{meta}:schema`` (hash): schema version and number of shards.
"""

from __future__ import annotations

import zlib

SCHEMA_VERSION = 1


class Keys:
    """Key names under one prefix and number of shards.

    Args:
        prefix: First part of every key, so that several Tenures can share a server.
        shards: How many hash tags the searches are spread over.
    """

    def __init__(self, prefix: str = "tenure", shards: int = 1) -> None:
        self.prefix = prefix
        self.shards = shards
        self.clocks = [f"{prefix}:{{{shard:x}}}:clock" for shard in range(shards)]
        self.workers = f"{prefix}:{{workers}}:all"
        self.worker_events = f"{prefix}:{{workers}}:events"
        self.schema = f"{prefix}:{{meta}}:schema"

    def channel(self, name: str) -> str:
        """Where masters publish something that isn't kept."""
        return f"{self.prefix}:{{workers}}:channel:{name}"

    def events(self, shard: int) -> str:
        """The event stream of a shard."""
        return f"{self.prefix}:{{{shard:x}}}:events"

    def shard_of_search(self, search: str) -> int:
        """Which shard a search's tasks live in: the same on every master and in every version."""
        return zlib.crc32(search.encode()) % self.shards

    def shard_of_task(self, task_id: str) -> int | None:
        """Which shard a task id names, or None if Tenure can't have made this id."""
        head, separator, tail = task_id.partition("-")
        if not separator or len(tail) != 26:
            return None
        try:
            shard = int(head, 16)
        except ValueError:
            return None
        return shard if shard < self.shards and head == f"{shard:x}" else None
