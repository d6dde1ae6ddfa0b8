"""The ring that output is kept in and read from, against a plain list of all bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.common.output_ring import OutputRing


def test_reading_goes_on_where_it_was_and_skips_what_is_gone() -> None:
    ring = OutputRing(10)
    assert (ring.start, ring.end, ring.read(0, 100)) == (0, 0, (0, b""))
    ring.write(b"abc")
    assert ring.read(0, 2) == (0, b"ab")
    assert ring.read(2, 100) == (2, b"c")
    assert ring.read(3, 100) == (3, b"")
    # A place that its writer hasn't reached, of an earlier life.
    assert ring.read(9, 100) == (3, b"")
    for letter in b"defghijklmnopqrstuvwxyz":
        ring.write(bytes([letter]) * 5000)
    assert ring.end == 3 + 23 * 5000
    assert ring.start == ring.end - 5000
    assert ring.read(0, 3) == (ring.start, b"zzz")
    assert ring.last(4) == b"zzzz"


def test_what_comes_twice_is_taken_once_and_gaps_are_seen() -> None:
    ring = OutputRing(100)
    ring.write_at(0, b"0123")
    ring.write_at(2, b"2345")
    ring.write_at(0, b"01")
    assert ring.read(0, 100) == (0, b"012345")
    ring.write_at(8, b"89")
    assert ring.read(3, 100) == (3, b"345")
    assert ring.read(6, 100) == (8, b"89")
    assert ring.last(3) == b"589"


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=3000), max_size=60),
    st.integers(1, 9000),
    st.integers(1, 4000),
    st.lists(st.integers(0, 5), max_size=60),
)
def test_a_reader_gets_every_byte_that_he_is_not_told_is_left_out(
    writes: list[bytes], capacity: int, bite: int, reads: list[int]
) -> None:
    ring, everything = OutputRing(capacity), b""
    place = left_out = received = 0
    for write, times in zip(writes, [*reads, *[1] * len(writes)], strict=False):
        ring.write(write)
        everything += write
        assert ring.end == len(everything)
        assert ring.end - ring.start >= min(capacity, len(everything))
        assert ring.end - ring.start < capacity + 4096 + 3000
        for _ in range(times):
            first, data = ring.read(place, bite)
            assert first >= place
            assert len(data) <= bite
            assert data == everything[first : first + len(data)]
            left_out += first - place
            received += len(data)
            place = first + len(data)
    assert left_out + received == place
    assert ring.last(50) == everything[-50:]
