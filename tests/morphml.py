"""MorphML 1.0's protocol, without any of Tenure: a second copy of ``worker.proto`` and stubs for it.

Made from the field table below in protobuf's *default* pool, where MorphML's own generated stubs put theirs. So
a test that imports this module and :mod:`tenure.proto` has what a search program has that imports MorphML and
Tenure; and a peer built from it speaks MorphML's fields only. Needs nothing but protobuf and grpcio:
``tests/compat`` runs it on their oldest versions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "morphml.distributed"
FILE_NAME = "worker.proto"

# Message: field number type, …  A field without a type is a string.
MESSAGES_TABLE = """
RegisterRequest: worker_id 1, host 2, port 3 int32, num_gpus 4 int32, gpu_ids 5 repeated int32, \
metadata 6 map string
RegisterResponse: success 1 bool, message 2, master_id 3
HeartbeatRequest: worker_id 1, status 2, current_task_id 3, metrics 4 WorkerMetrics
HeartbeatResponse: acknowledged 1 bool, should_continue 2 bool
WorkerMetrics: cpu_usage 1 double, memory_usage 2 double, gpu_usage 3 double, gpu_memory 4 double, \
tasks_completed 5 int32, tasks_failed 6 int32
EvaluateRequest: task_id 1, architecture 2, config 3 EvaluationConfig
EvaluateResponse: task_id 1, success 2 bool, metrics 3 map double, error 4, duration 5 double
EvaluationConfig: num_epochs 1 int32, batch_size 2 int32, learning_rate 3 double, dataset 4, gpu_id 5 int32, \
extra 6 map string
TaskRequest: worker_id 1, max_tasks 2 int32
TaskResponse: has_task 1 bool, tasks 2 repeated EvaluateRequest
ResultRequest: task_id 1, worker_id 2, success 3 bool, metrics 4 map double, error 5, duration 6 double, \
architecture 7
ResultResponse: acknowledged 1 bool, message 2
StatusRequest: worker_id 1
StatusResponse: status 1, current_task_id 2, metrics 3 WorkerMetrics, uptime_seconds 4 int64
ShutdownRequest: worker_id 1, graceful 2 bool
ShutdownResponse: acknowledged 1 bool
CancelRequest: task_id 1
CancelResponse: success 1 bool, message 2
"""

SERVICES: dict[str, dict[str, tuple[str, str]]] = {
    "MasterService": {
        "RegisterWorker": ("RegisterRequest", "RegisterResponse"),
        "Heartbeat": ("HeartbeatRequest", "HeartbeatResponse"),
        "SubmitResult": ("ResultRequest", "ResultResponse"),
        "RequestTask": ("TaskRequest", "TaskResponse"),
    },
    "WorkerService": {
        "Evaluate": ("EvaluateRequest", "EvaluateResponse"),
        "GetStatus": ("StatusRequest", "StatusResponse"),
        "Shutdown": ("ShutdownRequest", "ShutdownResponse"),
        "CancelTask": ("CancelRequest", "CancelResponse"),
    },
}

_FieldProto = descriptor_pb2.FieldDescriptorProto
_SCALARS: dict[str, Any] = {
    "string": _FieldProto.TYPE_STRING,
    "int32": _FieldProto.TYPE_INT32,
    "int64": _FieldProto.TYPE_INT64,
    "double": _FieldProto.TYPE_DOUBLE,
    "bool": _FieldProto.TYPE_BOOL,
}


class Field(NamedTuple):
    """One field of the table. ``type`` names a scalar or a message; of a map its values (keys are strings)."""

    message: str
    name: str
    number: int
    type: str
    repeated: bool
    map: bool


def _parse_table() -> tuple[Field, ...]:
    fields = []
    for line in MESSAGES_TABLE.strip().splitlines():
        message, _, rest = line.partition(": ")
        for entry in rest.split(", "):
            match = re.fullmatch(r"(\w+) (\d+)(?: (repeated|map))?(?: (\w+))?", entry)
            assert match is not None, entry
            name, number, form, kind = match.groups()
            fields.append(Field(message, name, int(number), kind or "string", form == "repeated", form == "map"))
    return tuple(fields)


FIELDS = _parse_table()
MESSAGE_NAMES = tuple(dict.fromkeys(field.message for field in FIELDS))


def map_entry_name(field_name: str) -> str:
    """The nested type that protoc makes for a map field (``gpu_ids`` would be ``GpuIdsEntry``)."""
    return "".join(word.capitalize() for word in field_name.split("_")) + "Entry"


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """MorphML 1.0's ``worker.proto`` as protoc would describe it."""
    file = descriptor_pb2.FileDescriptorProto(name=FILE_NAME, package=PACKAGE, syntax="proto3")
    for name in MESSAGE_NAMES:
        message = file.message_type.add(name=name)
        for field in FIELDS:
            if field.message == name:
                _add_field(message, field)
    for service_name, methods in SERVICES.items():
        service = file.service.add(name=service_name)
        for method, (request, response) in methods.items():
            service.method.add(name=method, input_type=f".{PACKAGE}.{request}", output_type=f".{PACKAGE}.{response}")
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, field: Field) -> None:
    added = message.field.add(name=field.name, number=field.number)
    added.label = _FieldProto.LABEL_REPEATED if field.repeated or field.map else _FieldProto.LABEL_OPTIONAL
    if field.map:
        entry = message.nested_type.add(name=map_entry_name(field.name))
        entry.options.map_entry = True
        for number, (part, kind) in enumerate((("key", "string"), ("value", field.type)), start=1):
            entry.field.add(name=part, number=number, type=_SCALARS[kind], label=_FieldProto.LABEL_OPTIONAL)
        added.type = _FieldProto.TYPE_MESSAGE
        added.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
    elif field.type in _SCALARS:
        added.type = _SCALARS[field.type]
    else:
        added.type = _FieldProto.TYPE_MESSAGE
        added.type_name = f".{PACKAGE}.{field.type}"


def _load_messages() -> SimpleNamespace:
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file_descriptor().SerializeToString())
    return SimpleNamespace(
        **{
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
            for name in MESSAGE_NAMES
        }
    )


messages = _load_messages()
"""The message classes by name, as ``worker_pb2`` would have them: ``messages.TaskRequest(worker_id="w")``."""


def stub(channel: Any, service: str) -> SimpleNamespace:
    """The methods of ``MasterService`` or ``WorkerService`` on a channel (``grpc`` or ``grpc.aio``)."""
    return SimpleNamespace(
        **{
            method: channel.unary_unary(
                f"/{PACKAGE}.{service}/{method}",
                request_serializer=getattr(messages, request).SerializeToString,
                response_deserializer=getattr(messages, response).FromString,
            )
            for method, (request, response) in SERVICES[service].items()
        }
    )


def handler(service: str, implementations: Mapping[str, Callable[..., Any]]) -> grpc.GenericRpcHandler:
    """A server's handler: MorphML's side of ``service``, one function ``(request, context)`` a method."""
    return grpc.method_handlers_generic_handler(
        f"{PACKAGE}.{service}",
        {
            method: grpc.unary_unary_rpc_method_handler(
                implementation,
                request_deserializer=getattr(messages, SERVICES[service][method][0]).FromString,
                response_serializer=getattr(messages, SERVICES[service][method][1]).SerializeToString,
            )
            for method, implementation in implementations.items()
        },
    )
