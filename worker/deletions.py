"""Deletes checkpoints that a master has said nobody needs any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from tenure.common.errors import CheckpointError
from tenure.worker.checkpoint.removal import delete_checkpoint

log = structlog.get_logger()


async def delete_checkpoints(urls: Sequence[str]) -> None:
    """One after the other; one that can't be deleted stays, and is logged."""
    for url in urls:
        try:
            await asyncio.to_thread(delete_checkpoint, url)
        except CheckpointError as error:
            log.warning("checkpoint.not_deleted", url=url, error=str(error))
