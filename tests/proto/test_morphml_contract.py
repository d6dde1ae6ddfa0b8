"""worker.proto keeps MorphML 1.0 whole: every field's number and type, every RPC; extensions stay from 100 on."""

from __future__ import annotations

import morphml
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tenure.proto import tenure_pb2, worker_pb2

MESSAGES: dict[str, Descriptor] = dict(worker_pb2.DESCRIPTOR.message_types_by_name)
SCALARS = {
    "string": FieldDescriptor.TYPE_STRING,
    "int32": FieldDescriptor.TYPE_INT32,
    "int64": FieldDescriptor.TYPE_INT64,
    "double": FieldDescriptor.TYPE_DOUBLE,
    "bool": FieldDescriptor.TYPE_BOOL,
}


def is_of_type(field: FieldDescriptor, type_name: str) -> bool:
    if type_name in SCALARS:
        return bool(field.type == SCALARS[type_name])
    return field.message_type is not None and field.message_type.full_name == f"{morphml.PACKAGE}.{type_name}"


def is_many(field: FieldDescriptor) -> bool:
    # FieldDescriptor.label is deprecated in protobuf 6 and is_repeated absent before: ask the default value.
    return field.default_value == [] if field.message_type is None else field.has_presence is False


@pytest.mark.parametrize("expected", morphml.FIELDS, ids=lambda field: f"{field.message}.{field.name}")
def test_every_field_keeps_its_number_and_type(expected: morphml.Field) -> None:
    field = MESSAGES[expected.message].fields_by_name[expected.name]
    assert field.number == expected.number
    assert field.has_presence == (expected.type not in SCALARS and not expected.repeated and not expected.map)
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    assert is_map == expected.map
    if expected.map:
        entry = field.message_type.fields_by_name
        assert (entry["key"].number, entry["value"].number) == (1, 2)
        assert is_of_type(entry["key"], "string")
        assert is_of_type(entry["value"], expected.type)
    else:
        assert is_of_type(field, expected.type)
        assert is_many(field) == expected.repeated


@pytest.mark.parametrize("message", morphml.MESSAGE_NAMES)
def test_extensions_of_morphml_messages_start_at_100(message: str) -> None:
    known = {field.name for field in morphml.FIELDS if field.message == message}
    added = {field.name: field.number for field in MESSAGES[message].fields if field.name not in known}
    assert {name: number for name, number in added.items() if number < 100} == {}


@pytest.mark.parametrize(
    ("service", "method"), [(name, method) for name, methods in morphml.SERVICES.items() for method in methods]
)
def test_every_rpc_keeps_its_path_and_messages(service: str, method: str) -> None:
    described = worker_pb2.DESCRIPTOR.services_by_name[service].methods_by_name[method]
    request, response = morphml.SERVICES[service][method]
    assert described.full_name == f"{morphml.PACKAGE}.{service}.{method}"
    assert (described.input_type.name, described.output_type.name) == (request, response)
    assert (described.client_streaming, described.server_streaming) == (False, False)


def test_the_rpcs_added_are_the_session_stream_and_shipped_code() -> None:
    rpcs = {
        (service.name, method.name)
        for service in worker_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    morphml_rpcs = {(name, method) for name, methods in morphml.SERVICES.items() for method in methods}
    assert rpcs - morphml_rpcs == {("MasterService", "Session"), ("MasterService", "GetCode")}
    session = worker_pb2.DESCRIPTOR.services_by_name["MasterService"].methods_by_name["Session"]
    assert (session.client_streaming, session.server_streaming) == (True, True)


def test_packages_and_file_names_are_the_published_ones() -> None:
    assert (worker_pb2.DESCRIPTOR.name, worker_pb2.DESCRIPTOR.package) == ("worker.proto", "morphml.distributed")
    assert (tenure_pb2.DESCRIPTOR.name, tenure_pb2.DESCRIPTOR.package) == ("tenure.proto", "tenure.v1")


@pytest.mark.parametrize("module", [worker_pb2, tenure_pb2], ids=["worker.proto", "tenure.proto"])
def test_every_enum_has_an_unspecified_zero(module: object) -> None:
    """proto3 reads an absent enum as 0, so 0 must not mean anything."""
    for enum in module.DESCRIPTOR.enum_types_by_name.values():  # type: ignore[attr-defined]
        assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")
