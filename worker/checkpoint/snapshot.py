"""A state as it was at one moment, so that the evaluation may change its own while the copy is being written."""

from __future__ import annotations

import copy
import ctypes
import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from tenure.worker.checkpoint.codec import Sink, choose_encoding

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Snapshot:
    """A state that may be kept in a checkpoint, and how it is encoded.

    Attributes:
        encoding: See :func:`codec.choose_encoding`.
        content: What torch will save, or the bytes themselves.
        storages: The memory that the copy was made in.
    """

    encoding: str
    content: Mapping[str, Any] | bytes
    storages: tuple[torch.UntypedStorage, ...] = ()

    def content_as_state(self) -> Mapping[str, Any]:
        """The state."""
        if not isinstance(self.content, bytes):
            return self.content
        state: dict[str, Any] = json.loads(self.content)
        return state

    def copied(self, spare: SpareMemory) -> Snapshot:
        """What its owner may go on changing, as it is now."""
        if isinstance(self.content, bytes):
            return self
        copier = _Copier(spare)
        content = copier.copy(dict(self.content))
        return Snapshot(self.encoding, content, copier.storages)

    def encode(self, sink: Sink) -> None:
        """Write it."""
        if isinstance(self.content, bytes):
            sink.write(self.content)
            return
        import torch

        torch.save(dict(self.content), cast(IO[bytes], sink))


def checked(state: Mapping[str, Any]) -> Snapshot:
    """``state`` itself, not a copy (in JSON there is nothing to copy): for a caller that waits until it is written.

    Raises:
        InvalidInput: It holds something that could not be read back.
    """
    encoding = choose_encoding(state)
    if encoding == "torch":
        return Snapshot(encoding, state)
    return Snapshot(encoding, json.dumps(dict(state), ensure_ascii=False).encode("utf-8", "surrogatepass"))


def copied(state: Mapping[str, Any], spare: SpareMemory | None = None) -> Snapshot:
    """A copy of ``state`` with every tensor on the CPU. Tensors that share memory share it in the copy, too.

    Args:
        state: See :func:`codec.choose_encoding`.
        spare: Memory of earlier copies, to be used again.

    Raises:
        InvalidInput: As :func:`checked`, before anything is copied.
    """
    return checked(state).copied(spare or SpareMemory())


class SpareMemory:
    """Memory of snapshots that are written, for the next ones.

    Fresh memory costs the kernel four times what the copying costs, and the training waits for both. Two threads may
    use it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._storages: defaultdict[int, list[torch.UntypedStorage]] = defaultdict(list)

    def give(self, snapshot: Snapshot) -> None:
        """Nobody reads ``snapshot`` any more. What was left of earlier ones is freed."""
        with self._guard:
            self._storages.clear()
            for storage in snapshot.storages:
                self._storages[storage.nbytes()].append(storage)

    def take(self, size_bytes: int) -> torch.UntypedStorage:
        """A storage of just this size, new if there is none."""
        with self._guard:
            fitting = self._storages.get(size_bytes)
            if fitting:
                return fitting.pop()
        return self.allocate(size_bytes)

    def allocate(self, size_bytes: int) -> torch.UntypedStorage:
        """New memory."""
        import torch

        return torch.UntypedStorage(size_bytes)  # type: ignore[no-untyped-call]


class _Copier:
    """Copies one state; as torch.save does, each storage once, however many tensors look at it."""

    def __init__(self, spare: SpareMemory) -> None:
        self._spare = spare
        self._copies: dict[int, torch.UntypedStorage] = {}

    @property
    def storages(self) -> tuple[torch.UntypedStorage, ...]:
        """What the copies lie in."""
        return tuple(self._copies.values())

    def copy(self, value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            return {key: self.copy(inner) for key, inner in value.items()}
        if kind is list:
            return [self.copy(inner) for inner in value]
        if kind is tuple:
            return tuple(self.copy(inner) for inner in value)
        if kind is OrderedDict:
            copied = OrderedDict((key, self.copy(inner)) for key, inner in value.items())
            # A state dict carries the versions of its modules there.
            copied.__dict__.update(copy.deepcopy(value.__dict__))
            return copied
        if hasattr(value, "untyped_storage"):
            return self._tensor(value)
        return value

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        import torch

        source = value.detach()
        if source.is_conj() or source.is_neg():
            copy = source.resolve_conj().resolve_neg().to("cpu", copy=True)
        else:
            copy = torch.empty(0, dtype=source.dtype).set_(
                self._storage(source.untyped_storage()), source.storage_offset(), source.size(), source.stride()
            )
        if type(value) is torch.nn.Parameter:
            return torch.nn.Parameter(copy, requires_grad=value.requires_grad)
        return copy.requires_grad_(value.requires_grad)

    def _storage(self, source: torch.UntypedStorage) -> torch.UntypedStorage:
        # It lives as long as the state that the caller holds, so its address stands for it.
        address = source._cdata
        if (known := self._copies.get(address)) is None:
            known = self._copies[address] = _copy_into(self._spare.take(source.nbytes()), source)
        return known


def _copy_into(target: torch.UntypedStorage, source: torch.UntypedStorage) -> torch.UntypedStorage:
    if source.device.type != "cpu":
        return target.copy_(source)
    # torch would share each copy out among its threads and wait for the last: for milliseconds, storage by storage,
    # where another process has the core that one of them needs. One core is nearly as fast as the memory.
    ctypes.memmove(target.data_ptr(), source.data_ptr(), source.nbytes())
    return target
