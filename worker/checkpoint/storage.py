"""What the checkpoint protocol needs of a storage; :mod:`local` and :mod:`remote` are the two there are.

Both raise OSError and nothing else: FileNotFoundError for what isn't there, any other OSError for a storage
that refuses or can't be reached.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from tenure.common.errors import CheckpointError
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


def advice_on(error: BaseException) -> str:
    """What to do about a storage's error; empty if there is nothing to say that the error doesn't."""
    if isinstance(error.__cause__, ImportError):
        return "install the storage's library on every worker; for s3:// that is pip install 'tenure[s3]'"
    if isinstance(error, PermissionError) or "NoCredentials" in type(error.__cause__).__name__:
        return "give this worker's user, or its credentials, the right to read, write, list and delete there"
    return ""


def check_library(url: str) -> None:
    """Raises CheckpointError if what the storage at ``url`` is reached with isn't there. Asks no storage."""
    if local_path(url) is not None:
        return
    import fsspec

    for part in url.split("::"):
        protocol = part.partition("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except ValueError as error:
            raise CheckpointError(
                "no storage is known by this name",
                field="url",
                given=f"{protocol}://",
                expected="give a directory, s3://bucket/path, or another URL of fsspec's",
            ) from error
        except ImportError as error:
            raise CheckpointError(
                "needs a library that is not installed",
                field="url",
                given=f"{protocol}://",
                expected=f"{error}; for s3:// that is pip install 'tenure[s3]'",
            ) from error


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
