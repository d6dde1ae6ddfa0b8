"""A search that brings its own code: the package `curve` beside this file is shipped to the workers.

    tenure worker --accept-code
    python examples/shipped_code/search.py

Change something in `curve/` and run it again: the changed code is shipped, and every degree is fitted anew by it.
Change nothing, and the results that are there are found.
"""

from __future__ import annotations

from pathlib import Path

from tenure.client import Client

CURVE = Path(__file__).resolve().parent / "curve"

if __name__ == "__main__":
    with Client() as client:
        search = client.search("curve", architecture_format="json", evaluator="curve.fit:evaluate", code=CURVE)
        handles = search.submit_many({"architecture": {"degree": degree}} for degree in range(2, 13, 2))
        results = [handle.result() for handle in search.as_completed(handles)]
        best = max(results, key=lambda result: result.metrics["fitness"])
        print(f"best of {len(results)}: degree {best.metrics['degree']:.0f}, error {-best.metrics['fitness']:.6f}")
