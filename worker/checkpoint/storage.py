"""What the checkpoint protocol needs of a storage; :mod:`local` and :mod:`remote` are the two there are.

Both raise OSError and nothing else: FileNotFoundError for what isn't there, any other OSError for a storage
that refuses or can't be reached.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from tenure.worker.checkpoint.codec import Sink
from tenure.worker.checkpoint.naming import CheckpointName, local_path


class Writing(Protocol):
    """A checkpoint that is being written. Nothing of it counts before :meth:`commit` has returned."""

    def file(self, name: str) -> AbstractContextManager[Sink]:
        """A new file; it is on storage, whole, when the block ends without an error."""

    def commit(self) -> None:
        """Make the checkpoint appear under its final name, for good."""

    def abort(self) -> None:
        """Remove every trace, as far as the storage still allows it.

        Never raises OSError; safe after anything.
        """


class TaskDirectory(Protocol):
    """The directory of one task's checkpoints, which need not exist yet."""

    def begin(self, name: CheckpointName) -> Writing:
        """Start a checkpoint under a name that nobody has used."""

    def open(self, name: CheckpointName, file: str) -> BinaryIO:
        """A seekable stream on one file of a checkpoint."""

    def remove(self, name: CheckpointName) -> bool:
        """Delete a checkpoint, finished or not; whether there was anything of it.

        No reader sees a part of it: it stops being a checkpoint first. What is removed by half is finished by
        the next call.

        Raises:
            CheckpointError: It holds what Tenure never writes. Nothing was deleted.
        """

    def names(self) -> list[CheckpointName]:
        """Of what lies in the directory, finished or not."""


def open_task_directory(url: str) -> TaskDirectory:
    """The storage that ``url`` (see :func:`naming.task_url`) lies on.

    Raises:
        OSError: The storage's library is missing or refuses the URL.
    """
    path = local_path(url)
    if path is not None:
        from tenure.worker.checkpoint.local import LocalTaskDirectory

        return LocalTaskDirectory(path)
    from tenure.worker.checkpoint.remote import RemoteTaskDirectory

    return RemoteTaskDirectory(url)
