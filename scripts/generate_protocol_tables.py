#!/usr/bin/env python3
"""Write the tables of services and messages in proto/README.md from the compiled descriptors.

Examples:
    scripts/generate_protocol_tables.py            # rewrite the tables
    scripts/generate_protocol_tables.py --check    # exit 1 and show the drift if they differ
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from generated_pages import ROOT, main, replace_section
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from tenure.proto import tenure_pb2, worker_pb2

README = ROOT / "proto" / "README.md"
# worker.proto has MorphML's messages first, then this line, then those that are Tenure's alone.
DIVIDER = "// ---- Tenure's own messages"
FIRST_EXTENSION_NUMBER = 100
SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
}


def morphml_names() -> set[str]:
    """The messages that stand above the divider."""
    text = (ROOT / "proto" / "worker.proto").read_text()
    above, divider, _ = text.partition(DIVIDER)
    assert divider, f"worker.proto has no line {DIVIDER!r}"
    return set(re.findall(r"^message (\w+)", above, re.MULTILINE))


def type_name(field: FieldDescriptor) -> str:
    """As it is written in the .proto file."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return f"map<string, {type_name(field.message_type.fields_by_name['value'])}>"
    named = field.message_type or field.enum_type
    name = named.name if named is not None else SCALARS[field.type]
    return f"repeated {name}" if field.is_repeated else name


def fields(entries: Iterable[FieldDescriptor]) -> str:
    """``name number`` of each; the type where it isn't string."""
    texts = []
    for field in entries:
        kind = type_name(field)
        texts.append(f"{field.name} {field.number}" + ("" if kind == "string" else f" {kind}"))
    return ", ".join(texts)


def kept_row(message: Descriptor) -> str:
    """A message of MorphML's: its fields, and beside them what Tenure adds."""
    own = [field for field in message.fields if field.number < FIRST_EXTENSION_NUMBER]
    added = [field for field in message.fields if field.number >= FIRST_EXTENSION_NUMBER]
    return f"| `{message.name}` | {fields(own)} | {fields(added)} |"


def enum_row(enum: EnumDescriptor) -> str:
    """An enum's values without their common prefix."""
    return f"| `{enum.name}` | {', '.join(f'{value.name} {value.number}' for value in enum.values)} |"


def rpc_row(service: ServiceDescriptor, method: MethodDescriptor) -> str:
    """One RPC."""
    request = f"{'stream ' if method.client_streaming else ''}{method.input_type.name}"
    response = f"{'stream ' if method.server_streaming else ''}{method.output_type.name}"
    return f"| `{service.name}` | `{method.name}` | {request} | {response} |"


def services() -> str:
    """All RPCs of both files."""
    rows = ["| service | RPC | request | response |", "| --- | --- | --- | --- |"]
    for module in (worker_pb2, tenure_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            rows += [rpc_row(service, method) for method in service.methods]
    return "\n".join(rows) + "\n"


def kept_messages() -> str:
    """MorphML's messages."""
    names = morphml_names()
    rows = ["| message | MorphML 1.0 | added by Tenure |", "| --- | --- | --- |"]
    rows += [
        kept_row(message) for name, message in worker_pb2.DESCRIPTOR.message_types_by_name.items() if name in names
    ]
    return "\n".join(rows) + "\n"


def own_messages() -> str:
    """Tenure's messages and enums in worker.proto."""
    names = morphml_names()
    rows = ["| message | fields |", "| --- | --- |"]
    for name, message in worker_pb2.DESCRIPTOR.message_types_by_name.items():
        if name not in names:
            rows.append(f"| `{name}` | {fields(message.fields)} |")
    rows += ["", "| enum | values |", "| --- | --- |"]
    rows += [enum_row(enum) for enum in worker_pb2.DESCRIPTOR.enum_types_by_name.values()]
    return "\n".join(rows) + "\n"


def page() -> str:
    """proto/README.md with its three generated sections as they should be."""
    text = README.read_text()
    text = replace_section(text, "services", services())
    text = replace_section(text, "morphml messages", kept_messages())
    return replace_section(text, "tenure messages", own_messages())


if __name__ == "__main__":
    raise SystemExit(main(__doc__, {README: page}))
