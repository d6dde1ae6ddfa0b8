"""The store that stateful tests run against: a real server, one key prefix a test."""

from store_server import open_test_store, store, store_server

__all__ = ["open_test_store", "store", "store_server"]
