"""The store: everything that must outlive a master, in Redis or Valkey. The only code that knows Redis.

:func:`open_store` is the way in; ``keys.py`` names what is kept, ``lua/`` holds one file for each transition.
"""

from tenure.master.store.store import Store, StoreOptions, open_store

__all__ = ["Store", "StoreOptions", "open_store"]
