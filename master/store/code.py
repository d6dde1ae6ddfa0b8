"""Code that searches ship to their workers, by the digest of its archive; it lives in its search's shard."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from tenure.common.errors import InvalidCode, UnknownCode
from tenure.common.limits import CODE_BYTES_MAX, CODE_PIECE_BYTES_MAX
from tenure.master.store.codec import text
from tenure.master.store.keys import Keys
from tenure.master.store.pipeline import ScriptCalls

_FORGET_MAX = 100


@dataclass(frozen=True)
class CodeState:
    """How much of an archive has come; ``whole``: all of it, and it has the digest."""

    whole: bool
    received_bytes: int


class CodeStore:
    """Archives of all shards. Every method is safe to call again."""

    def __init__(self, pipeline: ScriptCalls, keys: Keys) -> None:
        self._pipeline = pipeline
        self._keys = keys

    async def state(self, search: str, digest: str) -> CodeState:
        """What is there of it. One that is whole is kept for a while from now."""
        return await self.put(search, digest, 0, 0, b"")

    async def put(self, search: str, digest: str, size_bytes: int, offset: int, piece: bytes) -> CodeState:
        """Take the next piece of an archive, and compare the digest once all of it has come. A piece that doesn't
        belong at the end changes nothing.

        Raises:
            InvalidCode: The archive has another digest, or is longer than was said; all of it is dropped.
            Overloaded: The store's memory is full.
        """
        shard = self._shard(search)
        reply = await self._pipeline.call("code_put", shard, digest, size_bytes, offset, piece)
        if reply == b"TOO_LONG":
            raise InvalidCode("is longer than its size", field="size_bytes", given=size_bytes)
        verdict, received = text(reply[0]), int(reply[1])
        if verdict == "WHOLE":
            return CodeState(True, received)
        if not piece or received < size_bytes:
            return CodeState(False, received)
        return await self._seal(shard, digest, received)

    async def read(self, search: str, digest: str, offset: int) -> tuple[int, bytes]:
        """(bytes of the whole archive, at most 1 MiB of it from ``offset`` on); raises UnknownCode."""
        found = await self._read(self._shard(search), digest, "code", offset)
        if found is None:
            raise unknown_code(digest)
        return found

    async def forget(self, shard: int, age_ms: int) -> int:
        """Delete archives that no task and no search has named, and nobody asked for, for so long; looks at 100."""
        return int(await self._pipeline.call("code_forget", self._keys.clocks[shard], age_ms, _FORGET_MAX))

    async def _seal(self, shard: str, digest: str, size_bytes: int) -> CodeState:
        hashed, offset = hashlib.sha256(), 0
        while offset < size_bytes and (found := await self._read(shard, digest, "code-part", offset)) is not None:
            await asyncio.to_thread(hashed.update, found[1])
            offset += len(found[1])
            if not found[1]:
                break
        good = hashed.hexdigest() == digest
        verdict = text(await self._pipeline.call("code_seal", shard, digest, offset, int(good)))
        if verdict == "WHOLE":
            return CodeState(True, size_bytes)
        if verdict == "CHANGED":
            # Somebody else uploads the same, and was faster or is further back: ask again.
            return CodeState(False, 0)
        raise InvalidCode(
            "what has come has another digest",
            field="digest",
            given=digest,
            expected=f"it is {hashed.hexdigest()}: send the archive again from its start",
        )

    async def _read(self, shard: str, digest: str, kind: str, offset: int) -> tuple[int, bytes] | None:
        reply = await self._pipeline.call("code_read", shard, digest, kind, offset, CODE_PIECE_BYTES_MAX)
        return None if reply is None else (int(reply[0]), bytes(reply[1]))

    def _shard(self, search: str) -> str:
        return self._keys.clocks[self._keys.shard_of_search(search)]


def unknown_code(digest: str) -> UnknownCode:
    """For a digest that no archive in the store has."""
    return UnknownCode(
        "no code of this digest is in the store",
        field="code",
        given=digest,
        expected=f"upload it (at most {CODE_BYTES_MAX >> 20} MiB), then do the same again",
    )
