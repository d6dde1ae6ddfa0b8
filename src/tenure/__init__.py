"""Tenure: a fault-tolerant, persistent task broker for long-running machine-learning searches.

The code lives in the repository's top-level folders and is imported as ``tenure.master``, ``tenure.worker``,
``tenure.common``, ``tenure.proto`` and ``tenure.client``. This file must stay free of imports: the worker's
executor and the client both start from it, and neither should pay for what the other needs.
"""

__version__ = "0.1.0"
