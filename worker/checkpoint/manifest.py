"""``manifest.json``: what a checkpoint consists of. Its SHA-256 is the digest that the master registers."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from tenure.common.errors import CheckpointError, CorruptCheckpoint

MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 64 * 1024
FORMAT = "tenure-checkpoint"
FORMAT_VERSION = 1

# The state file's name by encoding; also the only file names that a reader opens or a deletion removes.
STATE_FILES = {"torch": "state.pt", "json": "state.json"}
FILES = frozenset({MANIFEST, *STATE_FILES.values()})

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StateFile:
    """The one file that holds the state."""

    name: str
    encoding: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A checkpoint's description.

    Attributes:
        search: The search's name as it is, not made safe.
        task_id: Whose state it is.
        step: The training epoch or step that the state stands after.
        epoch: The lease epoch that wrote it.
        score: Higher is better; None counts as worst.
        created: UTC, ISO 8601; for people.
        tenure_version: Who wrote it.
        state: The state file.
    """

    search: str
    task_id: str
    step: int
    epoch: int
    score: float | None
    created: str
    tenure_version: str
    state: StateFile

    def encode(self) -> bytes:
        """The file's bytes."""
        fields = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(fields, indent=1, allow_nan=False).encode() + b"\n"


def digest_of(data: bytes) -> str:
    """What the master registers."""
    return hashlib.sha256(data).hexdigest()


def decode_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in ``data``; ``where`` names the file in errors.

    Raises:
        CorruptCheckpoint: Not a manifest, or a field is missing or of the wrong type.
        CheckpointError: A manifest of a format that this version doesn't know.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"is not JSON: {error}", field=where) from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise CorruptCheckpoint("is not a checkpoint's manifest", field=where)
    if fields.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            "unknown format version",
            field=f"{where}: format_version",
            given=fields.get("format_version"),
            expected=f"this Tenure reads {FORMAT_VERSION}; the writer was {fields.get('tenure_version')}",
        )
    state = _take(fields, "state", dict, where)
    encoding = _take(state, "encoding", str, where)
    name = _take(state, "name", str, where)
    if STATE_FILES.get(encoding) != name:
        raise CorruptCheckpoint("names an unknown state file", field=where, given=f"{name} ({encoding})")
    sha256 = _take(state, "sha256", str, where)
    if not _SHA256.fullmatch(sha256):
        raise CorruptCheckpoint("sha256 is no SHA-256", field=where, given=sha256)
    score = fields.get("score")
    return Manifest(
        search=_take(fields, "search", str, where),
        task_id=_take(fields, "task_id", str, where),
        step=_take(fields, "step", int, where),
        epoch=_take(fields, "epoch", int, where),
        score=None if score is None else float(_take(fields, "score", (int, float), where)),
        created=_take(fields, "created", str, where),
        tenure_version=_take(fields, "tenure_version", str, where),
        state=StateFile(name, encoding, _take(state, "size_bytes", int, where), sha256),
    )


def _take(fields: dict[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = fields.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CorruptCheckpoint(f"{key} is missing or of the wrong type", field=where, given=repr(value))
    return value
