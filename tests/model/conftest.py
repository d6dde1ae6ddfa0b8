"""The fixtures of a real store, for the replay."""

from __future__ import annotations

from store_server import open_test_store, store_server

__all__ = ["open_test_store", "store_server"]
