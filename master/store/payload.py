"""What a worker needs of a task, compressed; kept once for all tasks of equal content."""

from __future__ import annotations

import hashlib
import json
import zlib

from tenure.common.spec import Config, TaskSpec

# Where the evaluator and the code are: no config has an empty key, and masters that know nothing of it pass it on.
_PROGRAM_KEY = ""


def encode_payload(spec: TaskSpec) -> tuple[str, bytes]:
    """(digest, compressed content) of what a worker needs: equal content has an equal digest and is kept once."""
    config = spec.config
    program = {_PROGRAM_KEY: f"{spec.evaluator}@{spec.code}"} if spec.evaluator else {}
    text = json.dumps(
        [
            spec.architecture,
            config.num_epochs,
            config.batch_size,
            config.learning_rate,
            config.dataset,
            dict(sorted({**config.extra, **program}.items())),
        ],
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:32], zlib.compress(text, 6)


def is_whole(digest: str, blob: bytes) -> bool:
    """Whether this is the content that :func:`encode_payload` gave this digest."""
    try:
        return hashlib.sha256(zlib.decompress(blob)).hexdigest()[:32] == digest
    except zlib.error:
        return False


PAYLOAD_DAMAGED = (
    "what a worker needs of this task can't be read any more: a disk's damage, or somebody wrote to the store; submit "
    "the task again, which puts it back, then requeue it if it has ended"
)


class DamagedPayload(Exception):
    """What is there is no payload, or nothing is."""


def decode_payload(blob: bytes | None) -> tuple[str, Config, str, str]:
    """The inverse of :func:`encode_payload`: (architecture, config, evaluator, code).

    Raises:
        DamagedPayload: It can't be read.
    """
    if blob is None:
        raise DamagedPayload("the store has no payload of this task")
    try:
        architecture, epochs, batch, rate, dataset, extra = json.loads(
            zlib.decompress(blob).decode("utf-8", "surrogatepass")
        )
        evaluator, _, code = extra.pop(_PROGRAM_KEY, "").partition("@")
        return architecture, Config(epochs, batch, rate, dataset, extra), evaluator, code
    except (zlib.error, ValueError, TypeError, AttributeError) as error:
        raise DamagedPayload(f"the store's payload of this task is damaged: {error}") from error
