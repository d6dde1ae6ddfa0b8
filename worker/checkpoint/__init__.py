"""Checkpoints: how the state of an evaluation lies on storage, and how it is written, verified and deleted.

The format and the order of every step are described in docs/training.md. In short: a checkpoint is a
directory with one state file and a ``manifest.json`` that names the file's size and SHA-256; it appears under
its final name whole or not at all; and it exists for Tenure only once the master has registered its URL and
the digest of its manifest.

Used by the executor (write, read) and by the supervisor (delete); nothing here imports torch unless a state
needs it, and nothing imports grpc.
"""

from tenure.worker.checkpoint.handle import CheckpointCounters, ExecutorCheckpoints, RegisteredCheckpoint
from tenure.worker.checkpoint.manifest import Manifest
from tenure.worker.checkpoint.reader import Loaded, load_newest, read_checkpoint, read_manifest
from tenure.worker.checkpoint.removal import delete_checkpoint, sweep_debris
from tenure.worker.checkpoint.writer import WrittenCheckpoint, write_checkpoint

__all__ = [
    "CheckpointCounters",
    "ExecutorCheckpoints",
    "Loaded",
    "Manifest",
    "RegisteredCheckpoint",
    "WrittenCheckpoint",
    "delete_checkpoint",
    "load_newest",
    "read_checkpoint",
    "read_manifest",
    "sweep_debris",
    "write_checkpoint",
]
