"""Deletes checkpoints that the master no longer needs, and what crashed writers left behind."""

from __future__ import annotations

from collections.abc import Collection

from tenure.common.errors import CheckpointError
from tenure.worker.checkpoint.naming import split_checkpoint_url, task_url
from tenure.worker.checkpoint.storage import advice_on, open_task_directory


def delete_checkpoint(url: str) -> None:
    """Delete one checkpoint. Safe to repeat; nothing happens if it is gone.

    Only a directory with a checkpoint's name that holds nothing but a checkpoint's files is ever deleted.
    Whether a checkpoint may be deleted is the master's decision alone.

    Raises:
        CheckpointError: The URL is no checkpoint's, the directory holds something else, or the storage
            refused.
    """
    directory_url, name = split_checkpoint_url(url)
    try:
        open_task_directory(directory_url).remove(name)
    except OSError as error:
        raise CheckpointError(f"could not be deleted: {error}", field=url, expected=advice_on(error)) from error


def sweep_debris(
    base_url: str, search: str, task_id: str, *, before_epoch: int, registered: Collection[str]
) -> list[str]:
    """Delete what runs before lease epoch ``before_epoch`` left in the task's directory; returns the URLs.

    That is: what was never finished, and what was finished but never registered (its writer died in between).
    With a newer lease given out, nobody can register those any more, so they are no checkpoints and the
    master doesn't know of them. Called by the holder of the newer lease with the checkpoints that came with
    it.

    Args:
        base_url: As for :func:`write_checkpoint`.
        search: The search's name.
        task_id: The task's id.
        before_epoch: Epochs below it are swept.
        registered: URLs that stay whatever their epoch.

    Raises:
        CheckpointError: The storage refused.
    """
    directory_url = task_url(base_url, search, task_id)
    kept = {split_checkpoint_url(url)[1] for url in registered}
    swept = []
    try:
        directory = open_task_directory(directory_url)
        for name in directory.names():
            if name.epoch < before_epoch and name not in kept and directory.remove(name):
                swept.append(f"{directory_url}/{name}")
    except OSError as error:
        raise CheckpointError(f"could not be swept: {error}", field=directory_url, expected=advice_on(error)) from error
    return swept
