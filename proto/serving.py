"""What every Tenure server offers beside its services, and the channel arguments both sides agree on.

The standard health service and reflection read descriptors from Tenure's own pool (see pool.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from tenure.common.addresses import Address
from tenure.common.errors import AddressInUse
from tenure.common.limits import MESSAGE_BYTES_MAX
from tenure.proto.pool import POOL

SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A second process on one port must fail, not share it.
    ("grpc.so_reuseport", 0),
    # Notice a peer whose host vanished; and let peers ping as often, calls or none.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)

CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Retries belong to one layer, and that is ours; and a reconnect must not wait for minutes.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Channels are made anew after a failure on purpose: they must not share a broken connection's backoff.
    ("grpc.use_local_subchannel_pool", 1),
)


def add_health_and_reflection(server: grpc.aio.Server, services: Sequence[str]) -> health.aio.HealthServicer:
    """Serve grpc.health.v1.Health and reflection for ``services`` (full names). Returns the health servicer."""
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        try:
            POOL.FindFileByName(file.name)
        except KeyError:
            POOL.AddSerializedFile(file.serialized_pb)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=POOL)
    return servicer


def bind(server: grpc.aio.Server, address: Address, field: str = "listen") -> Address:
    """Listen without TLS; returns the address with the port that the system chose for port 0.

    Raises:
        AddressInUse: Somebody listens there, or the host is not this machine's.
    """
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError:
        port = 0
    if port == 0:
        raise AddressInUse(
            "can't listen there: the port is in use, or the host is none of this machine's",
            field=field,
            given=str(address),
            expected=f"end the process that listens there, or choose another --{field} address",
        )
    return Address(address.host, port)
