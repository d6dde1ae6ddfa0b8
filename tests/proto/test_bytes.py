"""What one peer writes the other reads: legacy bytes in ours, ours in a legacy peer, and back without loss."""

from __future__ import annotations

from typing import Any

import morphml
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure import proto

SCALAR_VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 2),
}


def fill(message: Message, data: st.DataObject, depth: int = 3) -> None:
    """Give every field of ``message`` a value; nested messages down to ``depth``."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name) if field.message_type else None
        if field.message_type and field.message_type.GetOptions().map_entry:
            values = SCALAR_VALUES[field.message_type.fields_by_name["value"].type]
            for key in ("", "a", "ü"):
                value[key] = data.draw(values)
        elif field.message_type and depth:
            # Repeated composites have add(); a singular one is filled in place.
            for nested in [value.add(), value.add()] if hasattr(value, "add") else [value]:
                fill(nested, data, depth - 1)
        elif not field.message_type:
            drawn = SCALAR_VALUES[field.type]
            if isinstance(getattr(message, field.name), str | int | float):
                setattr(message, field.name, data.draw(drawn))
            else:
                getattr(message, field.name).extend(data.draw(st.lists(drawn, min_size=1, max_size=3)))


def plain(value: Any) -> Any:
    """A field's value as Python's own types: messages of the two copies never compare equal."""
    if isinstance(value, Message):
        return {field.name: plain(getattr(value, field.name)) for field, _ in value.ListFields() if field.number < 100}
    if isinstance(value, str | int | float):
        return value
    return {key: plain(value[key]) for key in value} if hasattr(value, "items") else [plain(item) for item in value]


@pytest.mark.parametrize("name", morphml.MESSAGE_NAMES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_legacy_bytes_are_read_by_ours_whole(name: str, data: st.DataObject) -> None:
    legacy = getattr(morphml.messages, name)()
    fill(legacy, data)
    ours = getattr(proto, name).FromString(legacy.SerializeToString(deterministic=True))
    for field in legacy.DESCRIPTOR.fields:
        assert plain(getattr(ours, field.name)) == plain(getattr(legacy, field.name))
    assert ours.SerializeToString(deterministic=True) == legacy.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", morphml.MESSAGE_NAMES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_our_bytes_pass_through_a_legacy_peer_unharmed(name: str, data: st.DataObject) -> None:
    """The peer reads MorphML's fields and, sending the message on, keeps those that it doesn't know."""
    ours = getattr(proto, name)()
    fill(ours, data)
    legacy = getattr(morphml.messages, name).FromString(ours.SerializeToString())
    for field in legacy.DESCRIPTOR.fields:
        if field.message_type is None:
            assert getattr(legacy, field.name) == getattr(ours, field.name)
    assert getattr(proto, name).FromString(legacy.SerializeToString()) == ours


def test_an_absent_lease_token_is_how_a_legacy_peer_looks() -> None:
    result = morphml.messages.ResultRequest(task_id="t", worker_id="w", success=True, metrics={"fitness": 0.5})
    ours = proto.ResultRequest.FromString(result.SerializeToString())
    assert not ours.HasField("outcome")
    assert ours.outcome.lease_token == ""
    registered = proto.RegisterRequest.FromString(
        morphml.messages.RegisterRequest(worker_id="w", port=50052).SerializeToString()
    )
    assert (registered.dispatch, registered.instance_id) == (proto.Dispatch.DISPATCH_UNSPECIFIED, "")


def test_should_continue_is_false_unless_somebody_sets_it() -> None:
    """Why our master always sets it: a MorphML worker that reads false stops its heartbeats."""
    answer = proto.HeartbeatResponse(acknowledged=True)
    assert not morphml.messages.HeartbeatResponse.FromString(answer.SerializeToString()).should_continue
