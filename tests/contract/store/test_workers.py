"""The worker registry: the newer registration of an id wins; modes; who is forgotten when."""

from __future__ import annotations

import pytest
from store_scene import Scene

from tenure.common.errors import UnknownWorker
from tenure.master.store import Store


async def test_a_worker_is_found_as_it_registered(store: Store) -> None:
    assert await store.workers.register("w1", "i1", {"host": "hä", "slots": "4"}) == ("active", "")
    view = await store.workers.get("w1")
    assert view.fields["host"] == "hä"
    assert view.number("slots") == 4
    assert view.number("never said") == 0
    assert 0 <= view.seen_ms_ago < 60_000


async def test_heartbeats_bring_figures(store: Store) -> None:
    await store.workers.register("w1", "i1", {"slots": "4"})
    assert await store.workers.heartbeat("w1", "i1", {"cpu": "12.5"}) == ("OK", "active")
    assert (await store.workers.get("w1")).number("cpu") == 12.5


async def test_who_never_registered_is_told_so(store: Store) -> None:
    assert await store.workers.heartbeat("w1", "i1", {"cpu": "1"}) == ("UNKNOWN", "")
    assert await store.workers.find("w1") == []
    with pytest.raises(UnknownWorker, match=r"worker_id: .*given: w1.*RegisterWorker"):
        await store.workers.get("w1")
    with pytest.raises(UnknownWorker):
        await store.workers.set_mode("w1", "draining")


async def test_the_newer_registration_of_an_id_wins(store: Store) -> None:
    await store.workers.register("w1", "old", {"host": "a"})
    assert await store.workers.register("w1", "new", {"host": "b"}) == ("active", "old")
    assert await store.workers.heartbeat("w1", "old", {"host": "a"}) == ("SUPERSEDED", "")
    assert await store.workers.heartbeat("w1", "new", {}) == ("OK", "active")
    assert (await store.workers.get("w1")).fields["host"] == "b"


async def test_a_registration_replaces_what_the_one_before_said(store: Store) -> None:
    await store.workers.register("w1", "old", {"host": "a", "label": "gone"})
    await store.workers.heartbeat("w1", "old", {"gpu": "99"})
    await store.workers.register("w1", "new", {"host": "b"})
    fields = (await store.workers.get("w1")).fields
    assert fields["host"] == "b"
    assert "label" not in fields
    assert "gpu" not in fields


async def test_a_cordon_outlives_a_restart_a_drain_does_not(store: Store) -> None:
    for mode, after in (("cordoned", "cordoned"), ("draining", "active")):
        await store.workers.register("w1", "i1", {})
        await store.workers.set_mode("w1", mode)
        assert await store.workers.heartbeat("w1", "i1", {}) == ("OK", mode)
        assert (await store.workers.register("w1", "i1", {}))[0] == mode
        assert (await store.workers.register("w1", "i2", {}))[0] == after


async def test_goodbye_is_noted_and_taken_back_by_a_sign_of_life(store: Store) -> None:
    await store.workers.register("w1", "i1", {})
    await store.workers.leave("w1", "another instance")
    assert (await store.workers.get("w1")).fields["left"] == "0"
    await store.workers.leave("w1", "i1")
    assert (await store.workers.get("w1")).fields["left"] == "1"
    await store.workers.heartbeat("w1", "i1", {})
    assert (await store.workers.get("w1")).fields["left"] == "0"


async def test_a_legacy_worker_has_no_instance(store: Store) -> None:
    assert await store.workers.register("old", "", {}) == ("active", "")
    assert await store.workers.heartbeat("old", "", {}) == ("OK", "active")
    await store.workers.register("old", "i1", {})
    assert await store.workers.heartbeat("old", "", {}) == ("SUPERSEDED", "")


async def test_the_long_unseen_are_forgotten(scene: Scene) -> None:
    workers = scene.store.workers
    for name in ("a", "b"):
        await workers.register(name, "i", {})
    scene.client.zincrby(scene.store.keys.workers, -3_600_000, "a")
    assert [view.worker_id for view in await workers.find()] == ["a", "b"]
    assert await workers.forget(1_800_000) == 1
    assert [view.worker_id for view in await workers.find()] == ["b"]
    assert [name for name in scene.all_keys() if "worker:a" in name] == []


async def test_some_of_many(store: Store) -> None:
    for number in range(5):
        await store.workers.register(f"w{number}", "i", {})
    assert {view.worker_id for view in await store.workers.find("w1", "w3", "nobody")} == {"w1", "w3"}


async def test_nothing_about_leases_depends_on_it(scene: Scene) -> None:
    grant = await scene.lease("never registered")
    assert await scene.renew(grant, "never registered") == "OK"
