"""A scene on the test's own store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from store_scene import Scene, open_scene
from store_server import StoreServer

from tenure.master.store import Store


@pytest.fixture
def scene(store: Store, store_server: StoreServer) -> Iterator[Scene]:
    """A search ``s`` that has no task yet."""
    scene = open_scene(store, store_server)
    yield scene
    scene.client.close()
