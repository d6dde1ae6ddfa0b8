"""What a worker can be told, where each setting comes from, and what is refused.

A setting comes from the command line (passed to :func:`load_settings`), else from the environment
(``TENURE_WORKER_SLOTS``, …; the master's address is ``TENURE_MASTER`` for every Tenure program), else from the
default here. Nothing is clamped: a value that can't be right is refused at start, by name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tenure.common import ids, limits, paths
from tenure.common.addresses import Address, parse_address, parse_addresses
from tenure.common.errors import CheckpointError, InvalidInput, InvalidSetting
from tenure.worker.checkpoint.interval import OVERHEAD_DEFAULT
from tenure.worker.checkpoint.storage import check_library
from tenure.worker.preemption import NoticeSource, checked_url, parse_headers, parse_pattern
from tenure.worker.setting_texts import parse_memory, parse_slot_gpus, parse_xids

HTTP_PORT = 9152
_REFERENCE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
_DAY_SECONDS = 24 * 3600.0


class WorkerSettings(BaseSettings):
    """Settings of one worker process; immutable once made. Make them by :func:`load_settings`."""

    model_config = SettingsConfigDict(env_prefix="TENURE_WORKER_", extra="forbid", frozen=True, validate_default=True)

    master: str = f"127.0.0.1:{limits.MASTER_PORT}"
    """Addresses of masters, ``H:P[,H:P…]``. Any of them serves; the next one is tried when one is lost."""

    worker_id: str = ""
    """Empty: the host's name and a suffix that stays with the work directory, so that two workers never collide."""

    slots: int = Field(0, ge=0, le=limits.SLOTS_MAX)
    """How many tasks run at once, each in an executor of its own. 0: one for each share of the visible GPUs
    (``gpus_per_slot``), one without GPUs. More slots than shares: slots share GPUs."""

    gpus_per_slot: int = Field(1, ge=1, le=limits.SLOTS_MAX)
    """GPUs of each slot, dealt out in order. Tasks that require so many are given to this worker."""

    slot_gpus: str = ""
    """Instead, by name: ``0,1/2,3`` are two slots. Indices as in nvidia-smi, ``GPU-…`` and ``MIG-…`` UUIDs."""

    cpu_ranks_per_slot: int = Field(0, ge=0, le=64)
    """Without GPUs: for how many devices the CPU stands in each slot, for tasks that require GPUs. 0: for none."""

    xids_ignored: str = ""
    """XID errors (``74,109``) that cordon no slot, beside those that never do. Hazard: what runs on a faulty GPU fails,
    or worse, doesn't."""

    listen: str = f"127.0.0.1:{limits.WORKER_PORT}"
    """Where WorkerService listens. Only the default is moved to the next free port when it is taken."""

    advertise: str = ""
    """The ``H:P`` that a pushing master is told to call. Empty: ``listen``, with the host's name for a wildcard."""

    http: str = f"127.0.0.1:{HTTP_PORT}"
    """Where /metrics, /healthz and /readyz are. Only the default is moved when it is taken."""

    evaluator: str = "tenure.worker.torch_eval:evaluate"
    """``module:function``, imported in the executors."""

    accept_code: bool = False
    """Whether tasks may name their evaluator, and bring the code that it is in. Hazard: whoever can submit to the
    masters then runs anything as this worker's user, with all that it may read and reach."""

    python_path: str = ""
    """Directories (``a:b``) in front of the executors' ``PYTHONPATH``; their working directory comes last anyway."""

    work_dir: Path | None = None
    """Spool, logs and scratch space. One worker per directory. None: ``<data home>/workers/<worker id>``."""

    checkpoints: str = Field(default_factory=paths.checkpoints_url)
    """An fsspec URL that every worker of a search can reach, or resumes find nothing."""

    checkpoint_overhead: float = Field(OVERHEAD_DEFAULT, ge=0, le=1)
    """The largest share of the time of a training that checkpoints may cost which nobody has asked for. 0: none are
    written by themselves, only when a training stops or its task says so. Hazard: a killed run starts over then."""

    dispatch: Literal["pull", "push"] = "pull"
    """``pull``: one session stream to a Tenure master. ``push``: MorphML's protocol, the master calls Evaluate."""

    labels: str = ""
    """``name=value[,name=value…]`` that tasks may require."""

    drain_grace_seconds: float = Field(60.0, ge=0, le=_DAY_SECONDS)
    """From the first SIGTERM: how long evaluations may take to save and stop, and verdicts to arrive. Hazard: whoever
    sends the SIGTERM must wait longer than this before SIGKILL (Kubernetes waits 30 s by default)."""

    preemption_grace_seconds: float = Field(25.0, ge=0, le=_DAY_SECONDS)
    """The same from a preemption notice. Hazard: Azure and GCP leave 30 s, AWS two minutes, Slurm what it was told."""

    preemption_file: Path | None = None
    """A file whose appearance is a preemption notice."""

    preemption_url: str = ""
    """Asked again and again: an answer of 200 that matches ``preemption_match`` is a preemption notice."""

    preemption_headers: str = ""
    """``Name: value[,Name: value…]``, sent to ``preemption_url``."""

    preemption_match: str = ""
    """A regular expression, searched for in the answer. Empty: every answer of 200 is a notice."""

    preemption_token_url: str = ""
    """AWS's IMDSv2: asked (PUT) for the token that ``preemption_url`` wants."""

    preemption_poll_seconds: float = Field(5.0, ge=0.1, le=3600)
    """How often the file and the URL are looked at, give or take a fifth."""

    stop_grace_seconds: float = Field(5.0, ge=0, le=_DAY_SECONDS)
    """How long an evaluation may take to stop when it is cancelled, lost or over a limit, before it is killed."""

    start_timeout_seconds: float = Field(300.0, gt=0, le=_DAY_SECONDS)
    """How long an executor may take to import the evaluator."""

    tasks_per_executor: int = Field(0, ge=0)
    """Replace an executor after this many runs, against slow leaks. 0: never."""

    executor_leak_max: str = "10%"
    """Replace an executor that holds so much more host memory after a run than it did after its first ones: bytes
    (``2GiB``) or a share of the machine's memory. 0: never."""

    executor_memory_max: str = "0"
    """The most host memory that one executor may have: bytes (``8GiB``) or a share of the machine's (``25%``); above
    that a run is out of memory, not the machine. 0: no limit. Hazard: torch alone takes some 300 MB."""

    max_parameters: int = Field(0, ge=0)
    """The largest model the evaluator may build, in parameters. 0: no cap."""

    compression: Literal["none", "gzip"] = "none"
    """Of messages to the master."""

    rpc_timeout_seconds: float = Field(10.0, gt=0, le=3600)
    """Deadline of each unary call, and for a new session's welcome. Less where a lease has no such time left."""

    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    traces: Literal["auto", "on", "off"] = "auto"
    """Of OpenTelemetry. ``auto``: if the environment names an OTLP endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)."""

    ready_file: Path | None = None
    """Written once the worker serves: JSON with ``pid``, ``grpc``, ``http``, ``worker_id``."""

    @property
    def masters(self) -> list[Address]:
        """``master``, parsed."""
        return parse_addresses(self.master, "master")

    @property
    def listen_address(self) -> Address:
        """``listen``, parsed."""
        return parse_address(self.listen, "listen")

    @property
    def advertise_address(self) -> Address | None:
        """``advertise``, parsed."""
        return parse_address(self.advertise, "advertise") if self.advertise else None

    @property
    def http_address(self) -> Address:
        """``http``, parsed."""
        return parse_address(self.http, "http")

    @property
    def label_map(self) -> dict[str, str]:
        """``labels``, parsed."""
        return _parse_labels(self.labels)

    @property
    def slot_gpu_names(self) -> tuple[tuple[str, ...], ...]:
        """``slot_gpus``, parsed."""
        return parse_slot_gpus(self.slot_gpus)

    @property
    def ignored_xids(self) -> frozenset[int]:
        """``xids_ignored``, parsed."""
        return parse_xids(self.xids_ignored)

    @property
    def leak_max(self) -> tuple[int, float]:
        """``executor_leak_max`` as bytes and share of the machine's memory."""
        return parse_memory(self.executor_leak_max, "executor_leak_max")

    @property
    def memory_max(self) -> tuple[int, float]:
        """``executor_memory_max`` as bytes and share of the machine's memory."""
        return parse_memory(self.executor_memory_max, "executor_memory_max")

    @property
    def notices(self) -> NoticeSource:
        """Where preemption notices come from, parsed; raises InvalidSetting."""
        source = NoticeSource(
            self.preemption_file,
            checked_url(self.preemption_url, "preemption_url"),
            parse_headers(self.preemption_headers, "preemption_headers"),
            parse_pattern(self.preemption_match, "preemption_match"),
            checked_url(self.preemption_token_url, "preemption_token_url"),
            self.preemption_poll_seconds,
        )
        if source.file is not None and source.file.is_dir():
            raise InvalidSetting(
                "is a directory",
                field="preemption_file",
                given=str(source.file),
                expected="give the path of a file that appears when the machine is about to be taken away",
            )
        for name in ("preemption_headers", "preemption_match", "preemption_token_url"):
            if getattr(self, name) and not source.url:
                raise InvalidSetting(
                    "says how preemption_url is asked, and there is none",
                    field=name,
                    given=repr(getattr(self, name)),
                    expected="give preemption_url, too",
                )
        return source

    def is_explicit(self, name: str) -> bool:
        """Whether somebody chose this setting, by argument or environment."""
        return name in self.model_fields_set

    @field_validator("preemption_file", mode="before")
    @classmethod
    def _no_file(cls, value: Any) -> Any:
        # An empty variable means "not set"; as a path it would be the current directory.
        return value if value else None

    @field_validator("evaluator")
    @classmethod
    def _check_evaluator(cls, value: str) -> str:
        if not _REFERENCE.match(value):
            raise InvalidSetting(
                "is not a reference to a function",
                field="evaluator",
                given=repr(value),
                expected="give module:function, for example my_package.my_module:evaluate",
            )
        return value

    @field_validator("checkpoints")
    @classmethod
    def _check_checkpoints(cls, value: str) -> str:
        if not value or len(value.encode()) > limits.URL_BYTES_MAX // 2:
            raise InvalidSetting(
                "is no usable URL",
                field="checkpoints",
                given=repr(value),
                expected=f"give a path or an fsspec URL of at most {limits.URL_BYTES_MAX // 2} bytes",
            )
        try:
            check_library(value)
        except CheckpointError as error:
            raise InvalidSetting(
                error.message, field="checkpoints", given=repr(value), expected=error.expected
            ) from error
        return value

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        """What has a parser of its own is parsed once, for its error."""
        _ = (self.masters, self.listen_address, self.advertise_address, self.http_address, self.label_map, self.notices)
        _ = (self.slot_gpu_names, self.ignored_xids, self.leak_max, self.memory_max)
        if self.slot_gpus and self.is_explicit("gpus_per_slot"):
            raise InvalidSetting(
                "says what slot_gpus says, too",
                field="gpus_per_slot",
                given=str(self.gpus_per_slot),
                expected="give one of the two",
            )
        if self.worker_id:
            try:
                ids.check_id(self.worker_id, "worker_id")
            except InvalidInput as error:
                raise InvalidSetting(
                    error.message, field="worker_id", given=error.given, expected=error.expected
                ) from error
        return self


def load_settings(**given: Any) -> WorkerSettings:
    """The settings from ``given``, the environment and the defaults, in this order.

    Args:
        given: Fields of :class:`WorkerSettings`; None counts as not given.

    Raises:
        InvalidSetting: Names the field, its value, and what would be right.
    """
    if given.get("master") is None:
        # The one setting whose variable is that of every Tenure program, so without the prefix.
        given["master"] = os.environ.get("TENURE_MASTER")
    try:
        return WorkerSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise InvalidSetting(
            "unknown setting" if first["type"] == "extra_forbidden" else _uncapitalise(first["msg"]),
            field=name,
            given=repr(first["input"]),
            expected=_EXPECTED.get(name, ""),
        ) from None


_EXPECTED = {
    "accept_code": "true or false",
    "slots": f"an integer from 0 (one per GPU) to {limits.SLOTS_MAX}",
    "gpus_per_slot": f"an integer from 1 to {limits.SLOTS_MAX}",
    "cpu_ranks_per_slot": "an integer from 0 (the CPU stands for no GPU) to 64",
    "checkpoint_overhead": "a share from 0 (never by themselves) to 1, for example 0.01",
    "dispatch": "pull for a Tenure master, push for a MorphML master",
    "compression": "none or gzip",
    "drain_grace_seconds": "seconds, at least 0",
    "stop_grace_seconds": "seconds, at least 0",
    "preemption_grace_seconds": "seconds, at least 0",
    "preemption_poll_seconds": "seconds, from 0.1 to 3600",
    "tasks_per_executor": "an integer of at least 0 (never replace)",
    "max_parameters": "an integer of at least 0 (no cap)",
    "rpc_timeout_seconds": "seconds, above 0, at most 3600",
    "log_format": "auto, json or console",
    "log_level": "debug, info, warning or error",
    "traces": "auto, on or off",
}


def _parse_labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            raise InvalidSetting(
                "is not a list of labels",
                field="labels",
                given=repr(part),
                expected="give name=value[,name=value…], for example gpu=a100,zone=east",
            )
        if len(name.encode()) + len(value.encode()) > limits.LABEL_BYTES_MAX:
            raise InvalidSetting(
                "is too long", field="labels", given=part, expected=f"at most {limits.LABEL_BYTES_MAX} bytes a label"
            )
        labels[name] = value
    if len(labels) > limits.LABELS_MAX:
        raise InvalidSetting(
            f"has {len(labels)} labels", field="labels", expected=f"at most {limits.LABELS_MAX} are allowed"
        )
    return labels


def _uncapitalise(text: str) -> str:
    return text[:1].lower() + text[1:]
