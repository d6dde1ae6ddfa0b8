"""The last of a stream of bytes, by where they stand in the whole: what tails of output are read from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

# What prints a byte at a time must not cost an object a byte.
_SMALL_BYTES_MAX = 4 * 1024


class OutputRing:
    """Keeps at most about ``bytes_max`` of what is written; the oldest gives way.

    A place is a number of bytes since the stream's beginning, the same for everybody who has a ring of one stream,
    however much of it each has missed. Writing and reading never block; nothing here does I/O.

    Attributes:
        end: The place behind the last byte.
    """

    def __init__(self, bytes_max: int) -> None:
        self.end = 0
        self._bytes_max = bytes_max
        # (place of its first byte, bytes), in order; between two of them some may be missing.
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._size = 0

    @property
    def start(self) -> int:
        """The place of the oldest byte that is kept; :attr:`end` if none is."""
        return self._pieces[0][0] if self._pieces else self.end

    def write(self, data: bytes) -> None:
        """Append what comes next."""
        self.write_at(self.end, data)

    def write_at(self, place: int, data: bytes) -> None:
        """Append what stands at ``place``: what is there already is skipped, what lies between is missing."""
        data = data[max(0, self.end - place) :]
        place = max(place, self.end)
        if not data:
            return
        last_place, last = self._pieces[-1] if self._pieces else (0, b"")
        if last and last_place + len(last) == place and len(last) + len(data) <= _SMALL_BYTES_MAX:
            self._pieces[-1] = (last_place, last + data)
        else:
            self._pieces.append((place, data))
        self._size += len(data)
        self.end = place + len(data)
        while len(self._pieces) > 1 and self._size - len(self._pieces[0][1]) >= self._bytes_max:
            self._size -= len(self._pieces.popleft()[1])

    def read(self, place: int, bytes_max: int) -> tuple[int, bytes]:
        """What stands at ``place`` or, if that isn't kept, the next that is.

        Returns:
            The place of its first byte, and at most ``bytes_max`` bytes without a gap; none at the end.
        """
        parts: list[bytes] = []
        first, size = max(place, self.start), 0
        for start, piece in self._from(first):
            if not parts:
                first = max(first, start)
            elif start != first + size:
                break
            part = piece[max(0, first + size - start) :][: bytes_max - size]
            parts.append(part)
            size += len(part)
            if size >= bytes_max:
                break
        return (first if parts else self.end), b"".join(parts)

    def last(self, bytes_max: int) -> bytes:
        """The last ``bytes_max`` bytes that are kept, gaps or not."""
        parts: list[bytes] = []
        size = 0
        for _, piece in reversed(self._pieces):
            parts.append(piece)
            size += len(piece)
            if size >= bytes_max:
                break
        return b"".join(reversed(parts))[-bytes_max:]

    def _from(self, place: int) -> Iterator[tuple[int, bytes]]:
        """The pieces that have something at ``place`` or behind it. A reader is near the end most of the time."""
        count = 0
        for start, _ in reversed(self._pieces):
            count += 1
            if start <= place:
                break
        for index in range(len(self._pieces) - count, len(self._pieces)):
            start, piece = self._pieces[index]
            if start + len(piece) > place:
                yield start, piece
