"""Compute time as the client has it, and as the command line says it."""

from __future__ import annotations

from tenure.client.broker_records import ComputeTime, SearchStatus, Stats
from tenure.client.cli.compute import compute_pairs
from tenure.master.rpc.messages import compute_message
from tenure.master.store.compute import Compute
from tenure.proto import tenure_pb2

FIELDS = {
    "useful_ms": "7200000",
    "saved_ms:checkpoint": "600000",
    "saved_ms:late": "900000",
    "wasted_ms:out_of_memory": "30000",
    "wasted_ms:stale": "0",
    "n:QUEUED": "3",
}


def test_what_the_store_counts_arrives() -> None:
    compute = Compute.from_fields(FIELDS)
    assert ComputeTime.from_message(compute_message(compute)) == ComputeTime(
        7_200_000, {"checkpoint": 600_000, "late": 900_000}, {"out_of_memory": 30_000, "stale": 0}
    )


def test_all_searches_together() -> None:
    some, more = Compute(1, {"late": 2}, {"loss": 3}), Compute(10, {"late": 20, "shared": 5}, {})
    assert Compute.total([some, more]) == Compute(11, {"late": 22, "shared": 5}, {"loss": 3})
    assert Compute.total([]) == Compute()


def test_masters_of_earlier_versions_say_nothing() -> None:
    assert Compute.from_fields({"n:QUEUED": "1"}) == Compute()
    assert SearchStatus.from_message(tenure_pb2.Search(name="s")).compute == ComputeTime()
    assert Stats.from_message(tenure_pb2.StatsResponse()).compute == ComputeTime()


def test_the_command_line_says_the_greatest_first_and_nothing_of_nothing() -> None:
    compute = ComputeTime.from_message(compute_message(Compute.from_fields(FIELDS)))
    assert compute_pairs(compute) == [
        ("compute useful", "2 h 0 m"),
        ("compute saved", "15 m 0 s late, 10 m 0 s checkpoint"),
        ("compute wasted", "30.0 s out of memory"),
    ]
    assert [value for _, value in compute_pairs(ComputeTime())] == ["", "", ""]
