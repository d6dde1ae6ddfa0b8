"""A search program for tests: ``python traced_search.py MASTER '{"key": {"steps": "3"}, …}'`` submits a task for each
key, prints their ids as JSON, and ends when all have."""

from __future__ import annotations

import json
import sys

from cluster import ARCHITECTURE

from tenure.client import Client


def main() -> None:
    """See the module."""
    master, tasks = sys.argv[1], json.loads(sys.argv[2])
    with Client(master, timeout_seconds=60) as client:
        search = client.search("traced")
        handles = search.submit_many(
            {"architecture": ARCHITECTURE, "config": {"extra": extra}, "key": key} for key, extra in tasks.items()
        )
        sys.stdout.write(json.dumps({handle.key: handle.task_id for handle in handles}) + "\n")
        sys.stdout.flush()
        for _ in search.as_completed(handles, timeout=120):
            pass


if __name__ == "__main__":
    main()
