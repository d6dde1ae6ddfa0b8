"""What a master can be told, where each setting comes from, and what is refused.

A setting comes from the command line (passed to :func:`load_settings`), else from the environment
(``TENURE_MASTER_LISTEN``, …), else from the default here. Nothing is clamped: a value that can't be right is refused at
start, by name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tenure.common import limits, paths
from tenure.common.addresses import Address, parse_address
from tenure.common.errors import InvalidSetting

HTTP_PORT = 9151
CONSOLE_PORT = 9150
DAY_MS = 24 * 3600 * 1000
OFF = "off"
HOST_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")


class MasterSettings(BaseSettings):
    """Settings of one master process; immutable once made. Make them by :func:`load_settings`."""

    model_config = SettingsConfigDict(env_prefix="TENURE_MASTER_", extra="forbid", frozen=True, validate_default=True)

    listen: str = f"127.0.0.1:{limits.MASTER_PORT}"
    """Where workers and clients connect. Loopback by default: give 0.0.0.0:50051 to serve other machines, in a network
    that you trust."""

    http: str = f"127.0.0.1:{HTTP_PORT}"
    """Where /metrics, /healthz and /readyz are. Only the default is moved to the next free port when it is taken."""

    console: str = f"127.0.0.1:{CONSOLE_PORT}"
    """Where browsers find the console; ``off``: nowhere. Only the default is moved when it is taken, to 9160, 9170, ….
    Hazard: whoever reaches it may drain, pause and cancel, for there is no authentication yet."""

    console_names: str = Field("", max_length=4096)
    """Host names, separated by commas, by which browsers may call the console, besides addresses, ``localhost`` and the
    host of ``console``. Any other is refused: it may be somebody else's name for this machine."""

    store: str = "embedded"
    """``embedded``, or a ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://HOST:PORT,…/SERVICE`` or
    ``redis+cluster://HOST:PORT,…`` URL. Several masters may share a URL."""

    data_dir: Path = Field(default_factory=paths.master_data_dir)
    """The embedded store's directory; one master at a time."""

    durability: Literal["strict", "relaxed"] | None = None
    """``strict``: an acknowledged write is on disk. ``relaxed``: within about a second. None: strict if possible."""

    store_replicas: int = Field(0, ge=0, le=16)
    """How many replicas of the store must have a write before it is acknowledged. Hazard: with fewer replicas alive,
    nothing is acknowledged. Give 1 where a failover must lose nothing, and run at least two replicas."""

    key_prefix: str = Field("tenure", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")
    """First part of every key, so that several Tenures can share a server."""

    shards: int = Field(0, ge=0, le=256)
    """Hash tags that searches are spread over; fixed when a store is made. 0: 16 on a Redis Cluster, else 1, which is
    right: more only helps on a cluster."""

    store_memory_max_bytes: int = Field(0, ge=0)
    """maxmemory of the embedded store; 0 = no limit. Near it, submits are shed first."""

    lease_ttl_seconds: float = Field(30.0, ge=1, le=3600)
    """How long a silent worker keeps its tasks. Must be above twice ``heartbeat_seconds``. Hazard: too short, and a
    slow network costs live work its lease; too long, and a silent partition blocks its tasks for that long."""

    heartbeat_seconds: float = Field(10.0, ge=0.1, le=600)
    """How often workers renew."""

    grace_seconds: float = Field(2.0, ge=0, le=60)
    """What is left to a worker's leases once its stream is broken, to reconnect in. At most ``lease_ttl_seconds``."""

    tick_seconds: float = Field(0.5, ge=0.05, le=5)
    """How often the lease clock is advanced, leases are reaped and scheduled tasks promoted. A tick adds at most twice
    this to the clock."""

    retention_tasks: int = Field(1_000_000, ge=0)
    """Ended tasks kept for each search and end state; the oldest beyond it are forgotten."""

    retention_days: float = Field(90.0, gt=0, le=3650)
    """How long ended tasks are kept."""

    retry_base_seconds: float = Field(1.0, ge=0, le=3600)
    """Backoff after the first failure; doubles with each, with full jitter. At most ``retry_max_seconds``."""

    retry_max_seconds: float = Field(300.0, ge=0, le=86400)
    """The longest backoff."""

    compression: Literal["none", "gzip"] = "none"
    """Of messages to workers and clients."""

    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    traces: Literal["auto", "on", "off"] = "auto"
    """Of OpenTelemetry. ``auto``: if the environment names an OTLP endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)."""

    ready_file: Path | None = None
    """Written once the master serves: JSON of ``pid``, ``grpc``, ``http``, ``console`` (a URL, or
    empty), ``master_id``, ``store_pid``, ``store``."""

    @property
    def listen_address(self) -> Address:
        """``listen``, parsed."""
        return parse_address(self.listen, "listen")

    @property
    def http_address(self) -> Address:
        """``http``, parsed."""
        return parse_address(self.http, "http")

    @property
    def console_address(self) -> Address | None:
        """``console``, parsed; None when it is off."""
        return None if self.console == OFF else parse_address(self.console, "console")

    @property
    def console_name_list(self) -> list[str]:
        """``console_names``, one by one."""
        return [name.strip() for name in self.console_names.split(",") if name.strip()]

    @property
    def lease_ttl_ms(self) -> int:
        """``lease_ttl_seconds`` in ms."""
        return round(self.lease_ttl_seconds * 1000)

    @property
    def heartbeat_ms(self) -> int:
        """``heartbeat_seconds`` in ms."""
        return round(self.heartbeat_seconds * 1000)

    @property
    def grace_ms(self) -> int:
        """``grace_seconds`` in ms."""
        return round(self.grace_seconds * 1000)

    @property
    def retention_ms(self) -> int:
        """``retention_days`` in ms."""
        return round(self.retention_days * DAY_MS)

    def is_explicit(self, name: str) -> bool:
        """Whether somebody chose this setting, by argument or environment."""
        return name in self.model_fields_set

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        _ = (self.listen_address, self.http_address, self.console_address)
        for name in self.console_name_list:
            if not HOST_NAME.match(name):
                raise InvalidSetting(
                    "is no list of host names",
                    field="console_names",
                    given=name,
                    expected="such as tenure.example.org,search-1, without ports",
                )
        if self.lease_ttl_seconds < 2 * self.heartbeat_seconds:
            raise InvalidSetting(
                "is too short for the heartbeat",
                field="lease_ttl_seconds",
                given=self.lease_ttl_seconds,
                expected=f"at least twice heartbeat_seconds ({2 * self.heartbeat_seconds:g})",
            )
        if self.grace_seconds > self.lease_ttl_seconds:
            raise InvalidSetting(
                "is longer than a lease",
                field="grace_seconds",
                given=self.grace_seconds,
                expected=f"at most lease_ttl_seconds ({self.lease_ttl_seconds:g})",
            )
        if self.retry_base_seconds > self.retry_max_seconds:
            raise InvalidSetting(
                "is above the longest backoff",
                field="retry_base_seconds",
                given=self.retry_base_seconds,
                expected=f"at most retry_max_seconds ({self.retry_max_seconds:g})",
            )
        if self.store_replicas and self.store == "embedded":
            raise InvalidSetting(
                "needs a store with replicas",
                field="store_replicas",
                given=self.store_replicas,
                expected="0 with the embedded store",
            )
        return self


def load_settings(**given: Any) -> MasterSettings:
    """The settings from ``given``, the environment and the defaults, in this order.

    Args:
        given: Fields of :class:`MasterSettings`; None counts as not given.

    Raises:
        InvalidSetting: Names the field, its value, and what would be right.
    """
    try:
        return MasterSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        message = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise InvalidSetting(message[:1].lower() + message[1:], field=name, given=repr(first["input"])) from None
