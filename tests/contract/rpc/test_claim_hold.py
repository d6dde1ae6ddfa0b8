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
    master = own_master(heartbeat_seconds=1, lease_ttl_seconds=30, grace_seconds=10)
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
