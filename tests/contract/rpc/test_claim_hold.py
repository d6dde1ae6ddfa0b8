"""Claims are held while workers say what they hold in a store that came back older than it was; not for ever."""

from __future__ import annotations

import asyncio
import itertools

from raw_peers import OpenBroker, OpenSession, RawSession, StartMaster

from tenure.proto import tenure_pb2, worker_pb2


async def test_hellos_that_show_newer_leases_again_and_again_hold_claims_once(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """A master that is too young to have seen a rollback believes the first such hello, for a heartbeat interval."""
    # The interval is long enough that a busy machine is still within it when silence is looked for.
    master = own_master(heartbeat_seconds=3, lease_ttl_seconds=30, grace_seconds=10)
    broker = open_broker(master.address)
    (shown,) = await broker.submit("shown")
    await broker.api.PauseSearch(tenure_pb2.SearchName(name="shown"))
    waiting = await open_session("waiting", at=master, want=1)
    epochs = itertools.count(5)

    async def show_a_newer_lease() -> None:
        epoch = next(epochs)
        renewal = worker_pb2.Renewal(task_id=shown, lease_token=f"{epoch:032x}", epoch=epoch)
        session = await RawSession.open(master.address, f"back-{epoch}", held=[renewal])
        assert session.renewed.renewed == 1
        await session.hang_up()

    await show_a_newer_lease()
    (ready,) = await broker.submit("ready")
    await waiting.expect_silence("tasks")
    heard = asyncio.create_task(waiting.hear_task())
    while not heard.done():
        await show_a_newer_lease()
        await asyncio.wait([heard], timeout=0.05)
    assert (await heard).task_id == ready
    (rolled_back,) = master.logged("store.rolled_back")
    assert "newer" in rolled_back["why"]
    assert "tenure_store_rollbacks_total 1.0" in master.get("/metrics")[1]


async def test_a_newer_lease_is_of_the_process_that_showed_it(
    own_master: StartMaster, open_broker: OpenBroker, open_session: OpenSession
) -> None:
    """Should that process not know the lease any more at its next hello, then it goes back and burns nothing."""
    master = own_master()
    broker = open_broker(master.address)
    (task_id,) = await broker.submit("shown")
    earlier = await open_session("earlier", at=master, want=1)
    task = await earlier.hear_task()
    await broker.api.PauseSearch(tenure_pb2.SearchName(name="shown"))
    assert (await earlier.end(task, worker_pb2.OUTCOME_RELEASE)).verdict == worker_pb2.VERDICT_OK
    newer = worker_pb2.Renewal(task_id=task_id, lease_token="a" * 32, epoch=5)
    shows = await open_session("later", at=master, instance_id="process", held=[newer])
    assert shows.renewed.renewed == 1
    await open_session("later", at=master, instance_id="process")
    found = await broker.task(task_id)
    assert (found.state, found.epoch, found.losses) == (tenure_pb2.QUEUED, 5, 0)
